/* Fork handlers: every lock is held across the fork, taken in the order of the ranks. */
#include "thread/fork.h"

#include <pthread.h>

#include "heap/heap.h"
#include "pages/base.h"
#include "pages/pool.h"
#include "thread/record.h"

#if ALCOVE_DEBUG
extern __thread _Bool lock_forking;
#define set_forking(on) (lock_forking = (on))
#else
#define set_forking(on) ((void)0)
#endif

static void
prepare(void)
{
    set_forking(1);
    heap_fork_prepare();
    thread_fork_prepare();
    heap_fork_prepare_insides();
    pool_fork_prepare();
    base_fork_prepare();
}

static void
parent(void)
{
    base_fork_done();
    pool_fork_done();
    thread_fork_done();
    heap_fork_done();
    set_forking(0);
}

static void
child(void)
{
    base_fork_child();
    pool_fork_child();
    thread_fork_child();
    heap_fork_child();
    set_forking(0);
}

void
fork_init(void)
{
    pthread_atfork(prepare, parent, child);
}
