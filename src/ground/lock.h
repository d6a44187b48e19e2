/*
 * The lock: one word, a futex behind it. Order in which locks may be taken, first to last; a
 * debug build checks it at every lock_take().
 *
 * Between two takes of one lock there is always a release by the same thread, except for a fork,
 * where the child re-initialises (thread/fork.c).
 */
#ifndef GROUND_LOCK_H
#define GROUND_LOCK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "ground/attributes.h"
#include "config.h"
#include "ground/lock_counts.h"
#include "ground/static_tls.h"

enum lock_rank {
    LOCK_INIT = 1, /* first use, attach, detach */
    LOCK_FIGURES,  /* that heaps whose figures are read stay */
    LOCK_HEAPS,    /* which heap numbers are taken */
    LOCK_THREADS,  /* the list of thread records */
    LOCK_RECORD,   /* a cache set, or what a thread has in its place */
    LOCK_CACHE,    /* one thread's caches of guarded heaps */
    LOCK_LARGE,    /* a heap's large blocks */
    LOCK_BIN,      /* one size class of a heap */
    LOCK_WALK,     /* who purges all pools, one after the other */
    LOCK_POOLS,    /* which pools there are */
    LOCK_POOL,     /* a pool's free runs and chunks */
    LOCK_PAGEMAP,  /* tables of the page map, giants */
    LOCK_BASE,     /* memory for the allocator's own records */
    LOCK_RANKS
};

struct lock {
    _Atomic uint32_t state; /* 0: free; else who holds it, and LOCK_WAITED if somebody waits */
    uint32_t rank;
};

#define LOCK_WAITED 1u

#define LOCK_INITIAL(r) { 0, (r) }

/* Who holds all locks for its fork; 0: nobody. Fork handlers of others run meanwhile and may call the allocator: that thread
 * takes and drops nothing then. */
extern HIDDEN _Atomic uint32_t lock_forker;

void lock_wait(struct lock *l);
void lock_wake(struct lock *l);

#if ALCOVE_DEBUG
extern struct lock_counts ALCOVE_PUBLIC(lock_counts);
extern HIDDEN __thread bool lock_forking; /* this thread takes all locks, for its fork */
void lock_check_take(const struct lock *l);
void lock_check_drop(const struct lock *l);
void lock_check_none(void); /* the calling thread holds none, or all, for its fork */
void lock_count_wait(void);
#else
#define lock_check_take(l) ((void)0)
#define lock_check_drop(l) ((void)0)
#define lock_check_none() ((void)0)
#define lock_count_wait() ((void)0)
#endif

static inline void
lock_init(struct lock *l, enum lock_rank rank)
{
    atomic_store_explicit(&l->state, 0, memory_order_relaxed);
    l->rank = rank;
}

/* The same for one that lies in memory that reads as zero, which is not touched then. */
static inline void
lock_init_zeroed(struct lock *l, enum lock_rank rank)
{
#if ALCOVE_DEBUG
    l->rank = rank;
#else
    (void)l, (void)rank;
#endif
}

/* The calling thread, told from all others: thread pointers are more than 1 KiB and less than 1 TiB
 * from each other. Neither 0 nor LOCK_WAITED is in it. */
static inline uint32_t
lock_self(void)
{
    return (uint32_t)((uintptr_t)thread_pointer() >> 10) << 2 | 2;
}

static inline bool
lock_forks(void)
{
    uint32_t forker = atomic_load_explicit(&lock_forker, memory_order_relaxed);
    return __builtin_expect(forker != 0, 0) && forker == lock_self();
}

/* Does the calling thread hold it? A signal handler may ask. */
static inline bool
lock_is_mine(const struct lock *l)
{
    return (atomic_load_explicit(&l->state, memory_order_relaxed) & ~LOCK_WAITED) == lock_self();
}

static inline void
lock_take(struct lock *l)
{
    uint32_t free_state = 0;
    lock_check_take(l);
    if (__builtin_expect(!atomic_compare_exchange_strong_explicit(
            &l->state, &free_state, lock_self(), memory_order_acquire, memory_order_relaxed), 0))
        lock_wait(l);
}

static inline bool
lock_try(struct lock *l)
{
    uint32_t free_state = 0;
    if (!atomic_compare_exchange_strong_explicit(&l->state, &free_state, lock_self(),
                                                 memory_order_acquire, memory_order_relaxed))
        return false;
    lock_check_take(l);
    return true;
}

static inline void
lock_drop(struct lock *l)
{
    lock_check_drop(l);
    if (__builtin_expect(lock_forks(), 0))
        return;
    if (__builtin_expect(atomic_exchange_explicit(&l->state, 0, memory_order_release) & LOCK_WAITED, 0))
        lock_wake(l);
}

#endif
