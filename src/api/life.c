/*
 * The allocator's life: loading, attaching to a loader, leaving service, and the end of the process. Nothing here
 * is guarded by a lock: who loads or unloads sees to it that nobody else is inside.
 */
#include "api/life.h"

#include <errno.h>
#include <string.h>

#include "api/origin.h"
#include "ground/message.h"
#include "ground/misuse.h"
#include "ground/services.h"
#include "conf/conf.h"
#include "os/os.h"
#include "pages/base.h"
#include "pages/pool.h"
#include "stats/stats.h"
#include "thread/fork.h"
#include "thread/record.h"

struct alcove_services services;

_Static_assert(offsetof(struct alcove_services, tls_offset) == ALCOVE_SERVICES_FIRST, "the first version of the services stays");

int
life_attach(const struct alcove_services *lent)
{
    if (lent == NULL || lent->abi_version != ALCOVE_ABI_VERSION || lent->size < ALCOVE_SERVICES_FIRST || lent->size % 8 != 0)
        return EINVAL;
    struct alcove_services known = { 0 };
    memcpy(&known, lent, lent->size < sizeof known ? lent->size : sizeof known);
    if (heap_count() != 0)
        return EBUSY;
    struct alcove_services before = services;
    services = known;
    if (services.forks != 0 && fork_is_here()) {
        services = before;
        return EAGAIN;
    }
    if (services.tls_offset != 0 && services.thread_started != NULL)
        tls_lend(services.tls_offset);
    return 0;
}

static bool detached;

#define LAST_TRIES 8

/* Nobody comes back for what the system refuses to take now. */
static void
give_up_the_last(void)
{
    for (unsigned i = 0; i < LAST_TRIES && os_refused_bytes() != 0; i++)
        os_give_up_refused();
}

int
life_detach(void)
{
    detached = true;
    thread_release_all(false);
    heap_release_all();
    pool_release();
    base_release();
    give_up_the_last();
    return 0;
}

int
life_detach_leaving(void)
{
    detached = true;
    do
        thread_release_all(true);
    while (misuse_tell()); /* who took the message may have allocated */
    heap_leave_all();
    pool_leave();
    base_release();
    give_up_the_last();
    return 0;
}

/* dlclose, and nobody has detached us. */
static void
unload(void)
{
    struct alcove_info info;
    stats_info(&info);
    /* There libc is a copy, whose atexit functions exit() does not call: only dlclose and the end of the process know of us,
     * and look alike. */
    if (origin_is_namespace() && (info.live_blocks != 0 || thread_others_live()))
        return;
    if (info.live_blocks == 0) {
        life_detach();
        return;
    }
    if (conf.verbose)
        message("unloaded with %llu live block%s of %llu bytes, which stay mapped for ever; free them before dlclose",
                (unsigned long long)info.live_blocks, info.live_blocks == 1 ? "" : "s", (unsigned long long)info.live_bytes);
    life_detach_leaving();
}

/*
 * dlclose or the end of the process? At dlclose libc calls a library's destructors, then its atexit functions.
 * When the process ends it is the other way round. Then other threads may be in the middle of a call, and
 * destructors of others may still free: nothing is done. But what is there from the start of the process has its
 * constructors run before the program tells libc of the end of all libraries, so that there the order is as at dlclose.
 * It cannot be closed, and is never taken out of service.
 *
 * The constructor comes before those of C++ objects, if we are linked into a library that has such: their
 * destructors, which are atexit functions too, then run before ours.
 *
 * What atexit() calls, by name: an atexit that somebody interposes may not know our library from the program.
 */
extern int __cxa_atexit(void (*function)(void *), void *argument, void *library);
extern HIDDEN void *__dso_handle;
static bool closing, stays;

static void __attribute__((destructor))
destruct(void)
{
    closing = true;
}

static void
at_exit(void *unused)
{
    (void)unused;
    if (closing && !stays)
        fork_ignore();
    if (closing && !stays && !detached && services.abi_version == 0)
        unload();
}

/* Runs when the library is loaded, before any call. */
static void __attribute__((constructor(101)))
load(void)
{
    __cxa_atexit(at_exit, NULL, &__dso_handle);
    stays = origin_is_start();
    tls_init();
    conf_read();
    pool_init(conf.dirty_decay_ms);
    if (stays || !origin_has_loader())
        fork_watch();
}

