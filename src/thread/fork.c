/* Fork handlers: every lock is held across the fork, taken in the order of the ranks, and before them libc's of its streams. */
#include "thread/fork.h"

#include <pthread.h>
#include <stdatomic.h>

#include "heap/heap.h"
#include "pages/base.h"
#include "pages/pool.h"
#include "ground/lock.h"
#include "ground/misuse.h"
#include "ground/services.h"
#include "thread/record.h"

#if ALCOVE_DEBUG
#define set_forking(on) (lock_forking = (on))
#else
#define set_forking(on) ((void)0)
#endif

/*
 * glibc's fork takes the lock of its list of streams after all handlers. Who holds that may wait for one stream (fflush(NULL)), and who
 * holds the stream for a lock of ours (getline, whose buffer grows). So we take it first, as often as glibc does: it is recursive. The
 * names are glibc's, of all its versions; weak, for elsewhere there are none, and each namespace of dlmopen has its own.
 */
extern void _IO_list_lock(void) __attribute__((weak));
extern void _IO_list_unlock(void) __attribute__((weak));
extern void _IO_list_resetlock(void) __attribute__((weak));
extern char __libc_single_threaded __attribute__((weak));

static bool streams_held;

/* One thread waits for nobody, and may be within fflush(NULL): in its child glibc leaves that lock as it is, too. */
static void
streams_take(void)
{
    bool alone = &__libc_single_threaded != NULL && __libc_single_threaded;
    if (alone || _IO_list_lock == NULL || _IO_list_unlock == NULL || _IO_list_resetlock == NULL)
        return;
    _IO_list_lock();
    streams_held = true;
}

static void
streams_drop(void)
{
    if (!streams_held)
        return;
    streams_held = false;
    _IO_list_unlock();
}

/* In the child glibc has made it free already; not where it knew of one thread only, which some versions tell nobody. */
static void
streams_reset(void)
{
    if (!streams_held)
        return;
    streams_held = false;
    _IO_list_resetlock();
}

static bool lender_took; /* what is held: the lender's call of ours, not our own handler */
static unsigned forks_within; /* by signal handlers that have interrupted the lock_forker */

/* A signal handler that has interrupted this thread while it holds locks may fork, if the child only
 * execs. Such a fork waits for nothing: others may be waiting for what this thread holds. */
static bool
interrupted(void)
{
    return heap_fork_holds() || thread_fork_holds() || pool_fork_holds() || base_fork_holds();
}

static void
prepare(bool lender)
{
    if (interrupted()) {
        if (lock_forks() && lender_took == lender)
            forks_within++;
        return;
    }
    streams_take();
    set_forking(1);
    heap_fork_prepare();
    thread_fork_prepare();
    heap_fork_prepare_insides();
    pool_fork_prepare();
    base_fork_prepare();
    lender_took = lender;
    lock_forker = lock_self();
}

/* Is it the fork that took the locks which is over? */
static bool
fork_ends(bool lender)
{
    if (!lock_forks() || lender_took != lender)
        return false;
    if (forks_within != 0) {
        forks_within--;
        return false;
    }
    lock_forker = 0;
    return true;
}

static void
parent(bool lender)
{
    if (!fork_ends(lender))
        return;
    base_fork_done();
    pool_fork_done();
    thread_fork_done();
    heap_fork_done();
    set_forking(0);
    streams_drop();
}

static void
child(bool lender)
{
    if (!fork_ends(lender))
        return;
    base_fork_child();
    pool_fork_child();
    heap_fork_child();
    thread_fork_child();
    misuse_fork_child();
    set_forking(0);
    streams_reset();
}

void fork_prepare(void) { prepare(true); }
void fork_parent(void) { parent(true); }
void fork_child(void) { child(true); }

/*
 * Our own handlers, registered when we are loaded and thus called after those that come later, which may take locks that others hold while they
 * allocate. A lender has been there for longer, and calls us instead; with it they do nothing. But where a loader is in the process, it
 * is likely to attach before we are used, and until the first use there are none: another thread may close us in the middle of a fork, and
 * glibc from 2.36 on may then be about to call one that is not mapped any more.
 *
 * libc drops a library's handlers when that is finalised. Ours are of one that does not exist, so that they can be dropped before.
 */

atomic_bool fork_is_watched;
static _Atomic unsigned own_forks; /* that are between our handlers, which must not go meanwhile */

static void
own_prepare(void)
{
    atomic_fetch_add(&own_forks, 1); /* and then look for a lender; life_attach() the other way round */
    if (__atomic_load_n(&services.forks, __ATOMIC_SEQ_CST) == 0)
        prepare(false);
}

static void
own_parent(void)
{
    parent(false);
    unsigned forks = atomic_load(&own_forks);
    while (forks != 0 && !atomic_compare_exchange_weak(&own_forks, &forks, forks - 1))
        ;
}

static void
own_child(void)
{
    child(false);
    atomic_store(&own_forks, 0); /* others' are not here */
}

extern int __register_atfork(void (*)(void), void (*)(void), void (*)(void), void *library) __attribute__((weak));
extern void __cxa_finalize(void *library) __attribute__((weak));
static char nobody;

static bool
can_drop(void)
{
    return __register_atfork != NULL && __cxa_finalize != NULL;
}

/* Two threads may both find that nobody watches, and register: their handlers nest, as those of a signal handler's fork. */
void
fork_watch(void)
{
    static _Atomic uint32_t watcher; /* registers just now, for which libc may allocate from us */
    uint32_t none = 0;
    if (services.forks != 0 || atomic_load(&watcher) == lock_self())
        return;
    atomic_compare_exchange_strong(&watcher, &none, lock_self());
    int error = can_drop() ? __register_atfork(own_prepare, own_parent, own_child, &nobody) : pthread_atfork(own_prepare, own_parent, own_child);
    if (none == 0)
        atomic_store(&watcher, 0);
    if (error == 0) /* else the next one tries again */
        atomic_store(&fork_is_watched, true);
}

bool
fork_is_here(void)
{
    atomic_thread_fence(memory_order_seq_cst);
    return atomic_load(&own_forks) != 0;
}

void
fork_ignore(void)
{
    if (atomic_load(&fork_is_watched) && can_drop())
        __cxa_finalize(&nobody);
}
