/*
 * The process' forks: what is waited for and held before one, and what a child has.
 *
 * Prepare handlers are called from the last registered one to the first. Others' may take locks under which their threads allocate, or
 * open streams, and the allocator's locks and that of libc's streams must come after those. So we register as early as we can, when we are
 * loaded ourselves, and call the allocators' handlers, which would come first.
 *
 * loader.lifetime is read from prepare to parent: no allocator comes or goes meanwhile. Other locks of the loader's are not taken: whoever
 * has one may wait for another handler's. The child has one thread, which holds no lock and is in the middle of no call.
 *
 * A client has no use for handlers, and its library may be closed by another thread while they are called: glibc from 2.36 on does not have
 * dlclose wait for that. So who finds a keeper when it is loaded registers none, and who found none then waits in its destructor.
 */
#include "events.h"
#include "keeper/dispatch.h"
#include "keeper/meeting.h"

#include <time.h>

#define LEAVE_WAITS 20000 /* times 100 us; a handler waits for less */

static atomic_uint handling; /* threads that are in a handler */

/* The thread has interrupted itself, by a signal, where it takes an allocator into service or out of it: its child may only exec. */
static bool
changing_itself(void)
{
    return holder_is_self(&loader.changer);
}

/* Earlier allocators have handlers of their own only. */
#define CALL_EACH(handler)                                                                  \
    for (unsigned number = 0; number < ALLOCATORS_MAX; number++) {                          \
        const struct alcove_table *table = atomic_load(&loader_tables[number]);             \
        if (table != NULL && table->handler != NULL)                                        \
            table->handler();                                                               \
    }

static void
prepare(void)
{
    atomic_fetch_add(&handling, 1);
    linker_fork_prepare();
    if (!changing_itself()) {
        pthread_rwlock_rdlock(&loader.lifetime);
        CALL_EACH(fork_prepare)
    }
    atomic_fetch_sub(&handling, 1);
}

static void
parent(void)
{
    atomic_fetch_add(&handling, 1);
    if (!changing_itself()) {
        CALL_EACH(fork_parent)
        pthread_rwlock_unlock(&loader.lifetime);
    }
    linker_fork_parent();
    atomic_fetch_sub(&handling, 1);
}

static void
child(void)
{
    atomic_store(&handling, 0); /* others', which are not here */
    if (!changing_itself())
        CALL_EACH(fork_child)
    services_fork_child();
    loader.lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    loader.holder.held = loader.starter.held = false;
    events_forked();
    loader.lifetime = (pthread_rwlock_t)PTHREAD_RWLOCK_INITIALIZER;
    for EACH_ALLOCATOR(allocator)
        allocator->users = 0;
    loader.passing = 0;
    loader.draining = false;
    for (struct module *module = loader.modules; module != NULL; module = module->next)
        module->users = 0;
    linker_fork_child();
    openings_fork_child();
    guards_forked();
}

int
forks_watch(void)
{
    static atomic_bool watched;
    if (atomic_exchange(&watched, true))
        return ALCOVE_OK;
    int error = pthread_atfork(prepare, parent, child);
    if (error == 0)
        return ALCOVE_OK;
    atomic_store(&watched, false);
    return fail_errno(ALCOVE_ESYSTEM, error, "cannot register a fork handler");
}

/* If it fails, the first load tries again, and tells. While we walk, the host is in its dlopen: a fork need not wait for that. */
static void __attribute__((constructor))
watch_early(void)
{
    if (!keeper_is_found())
        forks_watch();
}

/* After other destructors of our library, and just before libc forgets our handlers. */
static void __attribute__((destructor(101)))
leave(void)
{
    for (unsigned waits = 0; atomic_load(&handling) != 0 && waits < LEAVE_WAITS; waits++)
        nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
}
