/*
 * What the loader lends to the allocator, because it stays and the allocator may go: a slot in
 * static TLS, the callback at a thread's end, the page map, and the process' own functions.
 */
#include "keeper/routes.h"

#include "pages/pagemap.h"
#include "ground/static_tls.h"

#include <dlfcn.h>
#include <errno.h>
#include <unistd.h>

/* Lent to one allocator at a time, which leaves it null in every thread when it detaches. Not
 * static: the assembler text below names it. */
__thread void *alcove_loader_tls_slot __attribute__((visibility("hidden"), used));

/* In .bss and untouched until an allocator writes it: address space, not memory. */
struct pagemap loader_pagemap;

static pthread_key_t key; /* value: generation of the allocator that the thread has a record of, or ENDED */

/* The thread has given its record back. Destructors of other keys that run later, or again, may
 * allocate: they do without a record, whose end nobody would notice. */
#define ENDED ((void *)UINTPTR_MAX)

/* The slot's offset from the thread pointer if it is the same in every thread, else 0. */
static intptr_t
tls_offset(void)
{
    intptr_t descriptor;
    TLS_DESCRIPTOR(alcove_loader_tls_slot, descriptor);
    return static_tls_offset(descriptor, &alcove_loader_tls_slot);
}

static void
thread_ended(void *generation)
{
    pthread_setspecific(key, ENDED); /* libc has cleared it, and calls this once more */
    if (generation == ENDED)
        return;
    pthread_rwlock_rdlock(&loader.lifetime);
    const struct alcove_table *table = atomic_load(&loader_table);
    if (table != NULL && (uintptr_t)generation == atomic_load(&loader.generation))
        table->thread_exit();
    pthread_rwlock_unlock(&loader.lifetime);
}

static int
thread_started(void)
{
    if (pthread_getspecific(key) == ENDED)
        return ESRCH;
    return pthread_setspecific(key, (void *)atomic_load(&loader.generation));
}

static pthread_mutex_t start_lock = PTHREAD_MUTEX_INITIALIZER; /* of what is done before the first load */

/* The child has one thread, which holds no lock and is in the middle of no call. Locks are not taken
 * before the fork: the allocator's fork handler runs first and holds its own, which are taken after
 * ours elsewhere. But the dynamic linker's is waited for. */
static void
child_started(void)
{
    start_lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    loader.lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    loader.lifetime = (pthread_rwlock_t)PTHREAD_RWLOCK_INITIALIZER;
    loader.users = 0;
    loader.passing = 0;
    loader.draining = false;
    for (struct module *module = loader.modules; module != NULL; module = module->next)
        module->users = 0;
    walks_fork_child();
    guards_forked();
}

/* The key's destructor and the guards are our text: it must never be unmapped. Fails when we are
 * part of the program, which stays anyway. */
static void
stay_mapped(void)
{
    Dl_info self;
    if (dladdr((void *)&loader_pagemap, &self) != 0 && self.dli_fname != NULL)
        dlopen(self.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE);
    dlerror();
}

/* The handler is registered before start_lock is taken, so that a child finds that free. */
static int
watch_forks(void)
{
    static atomic_bool watched;
    if (atomic_exchange(&watched, true))
        return ALCOVE_OK;
    int error = pthread_atfork(walks_fork_prepare, walks_fork_parent, child_started);
    if (error == 0)
        return ALCOVE_OK;
    atomic_store(&watched, false);
    return fail_errno(ALCOVE_ESYSTEM, error, "cannot register a fork handler");
}

/* With start_lock held. What has been done is not done again; what failed is, at the next load. */
static int
start(void)
{
    static bool have_key, started;
    if (started)
        return ALCOVE_OK;
    if (!have_key) {
        int error = pthread_key_create(&key, thread_ended);
        if (error != 0)
            return fail_errno(ALCOVE_ESYSTEM, error, "no thread key is free, and the loader needs one to learn that a thread ends. "
                              "Delete one (pthread_key_delete) and load again");
        have_key = true;
        stay_mapped();
    }
    int code = routes_start();
    started = code == ALCOVE_OK;
    return code;
}

int
services_start(void)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    if (page > PAGE_SIZE)
        return fail(ALCOVE_ESYSTEM, "alcove is configured for pages of %zu KiB, this system has %zu KiB. Configure it with "
                                    "--with-lg-page=%d", PAGE_SIZE >> 10, page >> 10, __builtin_ctzl(page));
    int code = watch_forks();
    if (code != ALCOVE_OK)
        return code;
    pthread_mutex_lock(&start_lock);
    code = start();
    pthread_mutex_unlock(&start_lock);
    return code;
}

void
services_fill(struct alcove_services *services)
{
    *services = (struct alcove_services){
        .abi_version = ALCOVE_ABI_VERSION,
        .size = sizeof *services,
        .lg_page = ALCOVE_LG_PAGE,
        .lg_vaddr = ALCOVE_LG_VADDR,
        .tls_offset = tls_offset(),
        .thread_started = thread_started,
        .pagemap = &loader_pagemap,
        .libc_free = (void (*)(void *))route_original[ALCOVE_ENTRY_free],
        .libc_realloc = (void *(*)(void *, size_t))route_original[ALCOVE_ENTRY_realloc],
        .libc_usable_size = (size_t(*)(void *))route_original[ALCOVE_ENTRY_malloc_usable_size],
        .crossed = crossing_by_module,
        .heap_gone = crossings_end,
    };
}
