/*
 * A heap: slabs, large blocks, statistics and a limit of its own. Heap 0 is the default; each
 * routed module has one. A heap's blocks come and go in batches, through the caches of threads
 * (thread/cache.h); nothing here is on the hot path.
 *
 * Glossary
 *   out     a block that is allocated, or kept in a thread's cache: not in a slab's bitmap
 *   live    a block that is allocated and not freed: out, and in no thread's cache
 *   touched a page of a slab that blocks were handed out of, since the slab was made or the page trimmed
 *   active  bytes charged: touched pages, large blocks, and metadata that is out of proportion to
 *           them (heap/large.h). What the limit is compared with
 */
#ifndef HEAP_HEAP_H
#define HEAP_HEAP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "alcove/table.h"
#include "ground/sizeclass.h"
#include "pages/pool.h"
#include "ground/lock.h"

#define HEAP_NAME_MAX 64
#define HEAP_LIMIT_MIN ((uint64_t)64 << 10) /* a page for each of a few size classes */

/* Slabs of one size class. */
struct heap_bin {
    struct lock lock;
    uint32_t slabs;
    uint32_t given;      /* blocks came back since heap_trim() was here, or it left some pages */
    struct run *partial; /* with free blocks in touched pages; the one that has been waiting longest is used first */
    struct run *last;    /* of those */
    struct run *fresh;   /* whose free blocks all need pages that are not touched */
    struct run *full;    /* without free blocks */
    uint64_t out;        /* blocks; as all counters it is read without the lock: counter_add() */
    _Atomic uint64_t uncached; /* allocations that went past the thread caches, ever */
} __attribute__((aligned(64)));

struct heap {
    struct heap_bin bins[1 + SMALL_BINS]; /* by bin; bins[0] is unused */

    struct pool *pool;                    /* where its pages come from */

    struct lock large_lock;
    struct run *large;                    /* large and huge blocks, cached ones too */
    uint64_t large_out[1 + LARGE_BINS];   /* blocks; the last: without a bin */
    _Atomic uint64_t large_uncached[1 + LARGE_BINS]; /* allocations past the thread caches, ever */
    _Atomic uint64_t nobin_out_bytes;
    _Atomic uint64_t gone_bytes; /* all bytes ever allocated, less those of bins' blocks at that time, less nobin_out_bytes */

    /* What keeps it: each of its runs, each cache, and its creator until it is to end. */
    _Atomic uint32_t holds;
    _Atomic bool ending;                  /* nobody allocates from it any more */
    struct heap *next_done;               /* or next of those that are being destroyed, */
    uint32_t destroyer;                   /* by this thread (lock_self) */
    struct heap *next_forked;             /* of those whose locks are held across a fork */
    _Atomic size_t given;                 /* pages that it made dirty in the pool and did not take back */

    _Atomic uint64_t active, limit, refused;
    _Atomic uint64_t room;       /* pages that its large blocks have to grow into, and do not use; huge ones left out */
    _Atomic uint64_t starved;    /* how often the system gave no pages for a block */
    _Atomic bool guarded; /* it has or had a limit: what threads keep free of it may be taken from them (thread/cache_set.h) */
    _Atomic uint64_t live;       /* bytes, as far as is known of the caches: thread/peak.h */
    _Atomic uint64_t peak;       /* the most that was live, */
    _Atomic uint64_t peak_due;   /* and how much is to be live before somebody looks whether it was more */
    _Atomic int64_t leave;       /* bytes of a bin that any cache may let become live without a look */
    _Atomic bool peak_was_reset;
    atomic_flag peak_looked_for; /* by some thread, now */
    _Atomic uint32_t caches;     /* that were made and not retired */
    _Atomic uint32_t lookers;    /* threads that look at other threads' caches: none goes meanwhile; and HEAP_CLOSING */
    _Atomic uint32_t emptiers;   /* threads that look at others' guarded caches, to empty them: none of these goes meanwhile */
    uint32_t index;
    const void *seal; /* while it has one, nobody can end or destroy it */
    char name[HEAP_NAME_MAX];
};

/* The heap of a number below ALCOVE_HEAP_MAX; NULL if there is none. */
struct heap *heap_of(uint32_t index);

/* The default heap, made when first asked for. NULL: no memory. */
struct heap *heap_default(void);

/* As table->heap_create() and so on; the options are all of this version's. */
int heap_create(const struct alcove_heap_options *options, uint32_t *index);
int heap_limit_set(uint32_t index, uint64_t limit);
int heap_unseal(uint32_t index, const void *seal);

/* Let a heap end: from now on it gives no block, and its creator does not keep it; when nothing does it is done. For who is inside.
 * EPERM: it is sealed. EINVAL: no such heap, heap 0, or it is ending or going to be destroyed already. */
int heap_end(uint32_t index, struct heap **heap);
/* How many heaps were told to end so far. */
uint32_t heap_endings(void);
/* Was the number a heap's that ended? Until it is another's, whoever still has a function of it gets blocks of the default heap. */
bool heap_has_ended(uint32_t index);

/* It is kept by nothing: nobody finds it by number any more. */
void heap_is_done(struct heap *h);
/* Forget for good the heaps that are done and that nobody is inside of. While figures are read, none is forgotten. */
void heaps_forget_done(bool (*somebody_is_inside)(uint32_t index));

#define HEAP_CLOSING ((uint32_t)1 << 31) /* it is going to be destroyed */

/* Let nobody look at a heap's caches any more, and wait for those who do: its caches are going to be dropped, and then it is to be
 * destroyed, by the caller. No lock may be held. Errors as heap_end()'s. */
int heap_close(uint32_t index, struct heap **heap);
/* Destroy it, when no thread has a cache of it any more. */
void heap_destroy(struct heap *h);

/* Begin and end to look at other threads' caches of a heap: none goes meanwhile. Who looks waits for nobody. False: nobody may any
 * more; then there is nothing to end. */
bool heap_look_begin(struct heap *h);
void heap_look_end(struct heap *h);

/* The same for the heap of a number, if there is one, by who is inside of it (thread/ending.h). NULL: there is none, or nobody may. */
struct heap *heap_look_at(uint32_t index);

/* For who has just hidden a cache: may somebody have found it before? */
static inline bool
heap_is_looked_at(const struct heap *h)
{
    return (atomic_load(&h->lookers) & ~HEAP_CLOSING) != 0;
}

/* A heap that stays, with its caches, until figures_let_go(), for who reads figures. NULL: there is none, and nothing to let go.
 * Who holds it waits for nobody, and of those who allocate nobody waits for it. */
struct heap *figures_hold(uint32_t index);
void figures_let_go(struct heap *h);

/* How many there are. */
uint32_t heap_count(void);

/* Pages of a new run that are not charged yet, from `charged` bytes on, may be resident from an earlier use. They are purged where there is
 * a limit, to which what is resident is held, and of huge blocks, of which they may be very many. False: the system refuses. */
bool heap_clear_uncharged(struct heap *h, const struct run *run, size_t charged);

/* Give runs of its back to the pool, and at once to the system if it is ending. */
void heap_give_pages(struct heap *h, struct run *runs);

/* Purge as many pages as it gave to the pool before it was told to end: they are not to stay when it goes. */
void heap_purge_given(struct heap *h);

/* Count what is charged in and out of the heap. False: the limit forbids it. */
bool heap_charge(struct heap *h, size_t bytes);
/* The same of what is resident already, whatever the limit is. */
void heap_charge_resident(struct heap *h, size_t bytes);
/* Would the limit allow so many more, as things are now? Nothing is counted. */
bool heap_allows(const struct heap *h, size_t bytes);
/* Is so much of the limit used that no page should be touched before it is needed? */
bool heap_is_near_limit(const struct heap *h);
void heap_discharge(struct heap *h, size_t bytes);

/* A counter that only one thread at a time changes, since a lock guards that, while others may read it. */
static inline void
counter_add(uint64_t *counter, uint64_t n)
{
    __atomic_store_n(counter, *counter + n, __ATOMIC_RELAXED);
}

static inline uint64_t
counter_read(const uint64_t *counter)
{
    return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

/* So many bytes more are live, or less. Returns how many are. */
static inline uint64_t
heap_count_live(struct heap *h, int64_t bytes)
{
    return atomic_fetch_add_explicit(&h->live, (uint64_t)bytes, memory_order_relaxed) + (uint64_t)bytes;
}

/* Is it time to look how much is live really? */
static inline bool
heap_peak_is_due(const struct heap *h)
{
    /* Threads that free may have counted before one that allocated has: then it seems to be less than nothing. */
    return (int64_t)atomic_load_explicit(&h->live, memory_order_relaxed) >
           (int64_t)atomic_load_explicit(&h->peak_due, memory_order_relaxed);
}

/* A run was taken from the pool or resized: by `taken` the pool has fewer dirty pages now, which are not the heap's to purge any more,
 * or others in their place; or it has more. Whoever destroys it purges as many as it gave. */
static inline void
heap_count_taken(struct heap *h, const struct run *r)
{
    int64_t taken = r->taken;
    size_t given = atomic_load_explicit(&h->given, memory_order_relaxed), left;
    if (taken == 0)
        return;
    do
        left = (int64_t)given > taken ? given - (size_t)taken : 0;
    while (!atomic_compare_exchange_weak_explicit(&h->given, &given, left, memory_order_relaxed, memory_order_relaxed));
}

/* Pages for a block were not to be had from the system; the limit allows them. */
static inline void
heap_count_starved(struct heap *h)
{
    atomic_fetch_add_explicit(&h->starved, 1, memory_order_relaxed);
}

/* Count an allocation that went past the thread caches. */
void heap_count_uncached(struct heap *h, unsigned bin);

/* Take over the allocations that a cache counted, which is going. */
void heap_count_retired(struct heap *h, unsigned bin, uint64_t allocations);

/* Drop every heap and forget it. */
void heap_release_all(void);
/* Forget every heap, and leave what it has. */
void heap_leave_all(void);

/* Keep a heap. False: it is done. */
static inline bool
heap_hold(struct heap *h)
{
    uint32_t holds = atomic_load_explicit(&h->holds, memory_order_relaxed);
    while (holds != 0)
        if (atomic_compare_exchange_weak_explicit(&h->holds, &holds, holds + 1, memory_order_relaxed, memory_order_relaxed))
            return true;
    return false;
}

/* Keep it no longer. Then nothing of it may be touched, but by who is inside (thread/ending.h). */
static inline void
heap_let_go(struct heap *h)
{
    if (unlikely(atomic_fetch_sub_explicit(&h->holds, 1, memory_order_acq_rel) == 1))
        heap_is_done(h);
}

static inline bool
heap_is_ending(const struct heap *h)
{
    return unlikely(atomic_load_explicit(&h->ending, memory_order_relaxed));
}

bool heap_fork_holds(void); /* does this thread, in the middle of something? */
void heap_fork_prepare(void);
void heap_fork_prepare_insides(void);
void heap_fork_done(void);
void heap_fork_child(void); /* all that is out seems to be live then: peak_fork_child() */

#endif
