/* The allocator's life, and the table by which a loader reaches it. */
#include <dlfcn.h>
#include <errno.h>
#include <stddef.h>

#include "alcove/alcove.h"
#include "api/internal.h"
#include "ground/message.h"
#include "ground/services.h"
#include "conf/conf.h"
#include "os/os.h"
#include "pages/base.h"
#include "pages/pool.h"
#include "stats/stats.h"
#include "thread/fork.h"

struct alcove_services services;

/* Code of the thunks: for each entry ALCOVE_HEAP_MAX of them, one behind the other. */
extern HIDDEN const char thunks_begin[], thunks_end[];
#define THUNKS(name) extern const char thunks_##name[] __attribute__((visibility("hidden")));
ALCOVE_ENTRIES(THUNKS)
#define THUNK_BYTES 16 /* as in thunks.S */

static void *
entry(enum alcove_entry which, uint32_t heap)
{
    static const char *const thunks[ALCOVE_ENTRY_COUNT] = {
#define THUNKS_OF(name) thunks_##name,
        ALCOVE_ENTRIES(THUNKS_OF)
    };
    if ((unsigned)which >= ALCOVE_ENTRY_COUNT || heap_of(heap) == NULL)
        return NULL;
    return (void *)(uintptr_t)(thunks[which] + heap * THUNK_BYTES);
}

static int
attach(const struct alcove_services *lent)
{
    if (lent == NULL || lent->abi_version != ALCOVE_ABI_VERSION || lent->size != sizeof *lent ||
        (lent->pagemap != NULL && (lent->lg_page != ALCOVE_LG_PAGE || lent->lg_vaddr != ALCOVE_LG_VADDR)))
        return EINVAL;
    if (heap_count() != 0)
        return EBUSY;
    services = *lent;
    if (services.tls_offset != 0 && services.thread_started != NULL)
        tls_lend(services.tls_offset);
    if (services.pagemap != NULL)
        pagemap_lend(services.pagemap);
    return 0;
}

static bool detached;

static int
detach(void)
{
    detached = true;
    thread_release_all(false);
    heap_release_all();
    pool_release();
    base_release();
    return 0;
}

static int
detach_leaving(void)
{
    detached = true;
    thread_release_all(true);
    heap_leave_all();
    pool_leave();
    base_release();
    return 0;
}

/* In a dlmopen namespace libc is a copy, whose atexit functions exit() does not call: only dlclose and
 * the end of the process know of us, and look alike. */
static bool
ends_look_alike(void)
{
#ifdef LM_ID_BASE
    Dl_info self;
    void *map;
    Lmid_t namespace;
    return dladdr1((void *)&services, &self, &map, RTLD_DL_LINKMAP) != 0 &&
           dlinfo(map, RTLD_DI_LMID, &namespace) == 0 && namespace != LM_ID_BASE;
#else
    return false;
#endif
}

/* dlclose, and nobody has detached us. */
static void
unload(void)
{
    struct alcove_info info;
    stats_info(&info);
    if (ends_look_alike() && (info.live_blocks != 0 || thread_others_live()))
        return;
    if (info.live_blocks == 0) {
        detach();
        return;
    }
    if (conf.verbose)
        message("unloaded with %llu live block%s of %llu bytes, which stay mapped for ever; free them before dlclose",
                (unsigned long long)info.live_blocks, info.live_blocks == 1 ? "" : "s", (unsigned long long)info.live_bytes);
    detach_leaving();
}

/*
 * dlclose or the end of the process? At dlclose libc calls a library's destructors, then its atexit functions.
 * When the process ends it is the other way round. Then other threads may be in the middle of a call, and
 * destructors of others may still free: nothing is done.
 *
 * The constructor comes before those of C++ objects, if we are linked into a library that has such: their
 * destructors, which are atexit functions too, then run before ours.
 *
 * What atexit() calls, by name: an atexit that somebody interposes may not know our library from the program.
 */
extern int __cxa_atexit(void (*function)(void *), void *argument, void *library);
extern HIDDEN void *__dso_handle;
static bool closing;

static void __attribute__((destructor))
destruct(void)
{
    closing = true;
}

static void
at_exit(void *unused)
{
    (void)unused;
    if (closing && !detached && services.abi_version == 0)
        unload();
}

/* Runs when the library is loaded, before any call. */
static void __attribute__((constructor(101)))
load(void)
{
    __cxa_atexit(at_exit, NULL, &__dso_handle);
    tls_init();
    conf_read();
    pool_init(conf.dirty_decay_ms);
    fork_init();
    /* The system maps what lies near a page that is touched, and so most thunks near this code. */
    os_forget(thunks_begin, thunks_end);
}

API const struct alcove_table ALCOVE_PUBLIC(table) = {
    .abi_version = ALCOVE_ABI_VERSION,
    .size = sizeof(struct alcove_table),
    .attach = attach,
    .detach = detach,
    .thread_exit = thread_exit,
    .info = stats_info,
    .malloc = ALCOVE_PUBLIC(malloc),
    .calloc = ALCOVE_PUBLIC(calloc),
    .realloc = ALCOVE_PUBLIC(realloc),
    .free = ALCOVE_PUBLIC(free),
    .aligned_alloc = ALCOVE_PUBLIC(aligned_alloc),
    .posix_memalign = ALCOVE_PUBLIC(posix_memalign),
    .malloc_usable_size = ALCOVE_PUBLIC(malloc_usable_size),
    .heap_create = ALCOVE_PUBLIC(heap_create),
    .heap_destroy = ALCOVE_PUBLIC(heap_destroy),
    .heap_limit = ALCOVE_PUBLIC(heap_limit),
    .heap_stats = ALCOVE_PUBLIC(heap_stats),
    .heap_malloc = ALCOVE_PUBLIC(heap_malloc),
    .heap_calloc = ALCOVE_PUBLIC(heap_calloc),
    .heap_aligned_alloc = ALCOVE_PUBLIC(heap_aligned_alloc),
    .heap_realloc = ALCOVE_PUBLIC(heap_realloc),
    .entry = entry,
    .owner = ALCOVE_PUBLIC(owner),
    .purge = ALCOVE_PUBLIC(purge),
    .detach_leaving = detach_leaving,
    .heap_end = ALCOVE_PUBLIC(heap_end),
    .tick = ALCOVE_PUBLIC(tick),
};
