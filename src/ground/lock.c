/* The slow half of the lock: spin a little, then sleep in the kernel. */
#include "ground/lock.h"

#include <stdlib.h>

#include "ground/message.h"
#include "ground/system.h"

#define LOCK_SPINS 100 /* a critical section here is shorter than two system calls */

/* Take it if it is free; `seen` is set to its state. */
static bool
take_free(struct lock *l, uint32_t *seen, uint32_t state)
{
    *seen = atomic_load_explicit(&l->state, memory_order_relaxed);
    return *seen == 0 &&
           atomic_compare_exchange_weak_explicit(&l->state, seen, state, memory_order_acquire, memory_order_relaxed);
}

_Atomic uint32_t lock_forker;

void
lock_wait(struct lock *l)
{
    uint32_t self = lock_self(), seen;
    if (lock_forks())
        return;
    lock_count_wait();
    for (int i = 0; i < LOCK_SPINS; i++) {
        if (take_free(l, &seen, self))
            return;
        system_cpu_pause();
    }
    /* Who has slept does not know whether others still do. */
    while (!take_free(l, &seen, self | LOCK_WAITED))
        if ((seen & LOCK_WAITED) != 0 ||
            (seen != 0 && atomic_compare_exchange_weak_explicit(&l->state, &seen, seen | LOCK_WAITED,
                                                                memory_order_relaxed, memory_order_relaxed)))
            system_futex_wait(&l->state, seen | LOCK_WAITED);
}

void
lock_wake(struct lock *l)
{
    system_futex_wake(&l->state);
}

#if ALCOVE_DEBUG
/* Ranks held by this thread, a bit each. Two locks of one rank are never held together, but by
 * fork's handlers, which take every lock of a rank in the order of the heaps. */
static __thread uint32_t ranks_held;
__thread bool lock_forking;

API struct lock_counts ALCOVE_PUBLIC(lock_counts);

void
lock_count_wait(void)
{
    atomic_fetch_add_explicit(&ALCOVE_PUBLIC(lock_counts).waits, 1, memory_order_relaxed);
}

void
lock_check_take(const struct lock *l)
{
    atomic_fetch_add_explicit(&ALCOVE_PUBLIC(lock_counts).takes, 1, memory_order_relaxed);
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

void
lock_check_none(void)
{
    if (ranks_held == 0)
        return;
    message("a misuse is told while ranks %#x are held", ranks_held);
    abort();
}
#endif
