/* The slow half of the lock: spin a little, then sleep in the kernel. */
#include "thread/lock.h"

#include <stdlib.h>

#include "api/message.h"
#include "os/os.h"

#define LOCK_SPINS 100 /* a critical section here is shorter than two system calls */

void
lock_wait(struct lock *l)
{
    for (int i = 0; i < LOCK_SPINS; i++) {
        uint32_t free_state = 0;
        if (atomic_load_explicit(&l->state, memory_order_relaxed) == 0 &&
            atomic_compare_exchange_weak_explicit(&l->state, &free_state, 1, memory_order_acquire,
                                                  memory_order_relaxed))
            return;
        os_cpu_pause();
    }
    while (atomic_exchange_explicit(&l->state, 2, memory_order_acquire) != 0)
        os_futex_wait(&l->state, 2);
}

void
lock_wake(struct lock *l)
{
    os_futex_wake(&l->state);
}

#if ALCOVE_DEBUG
/* Ranks held by this thread, a bit each. Two locks of one rank are never held together, but by
 * fork's handlers, which take every lock of a rank in the order of the heaps. */
static __thread uint32_t ranks_held;
__thread bool lock_forking;

void
lock_check_take(const struct lock *l)
{
    if (lock_forking)
        return;
    if (l->rank == 0 || l->rank >= LOCK_RANKS || (ranks_held >> l->rank) != 0) {
        message("lock of rank %u taken while ranks %#x are held", l->rank, ranks_held);
        abort();
    }
    ranks_held |= 1u << l->rank;
}

void
lock_check_drop(const struct lock *l)
{
    if (!lock_forking)
        ranks_held &= ~(1u << l->rank);
}
#endif
