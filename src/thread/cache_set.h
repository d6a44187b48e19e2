/*
 * A cache set: caches for any number of heaps, one of each heap, that one user at a time allocates from and frees
 * to. A thread's record has one.
 *
 * Its user reads it without a lock. The set's lock is held by whoever adds, drops or collects a cache, and by the
 * user while blocks move between a cache and its heap, or past the cache.
 *
 * What a set keeps free of a heap with a limit must not stand in the way of others, though its user sleep. Caches of such heaps
 * are *guarded*: others may enter and empty them. Where the hot path looks for one, by heap, it finds a closed cache, which gives
 * nothing and takes nothing and is never written to. So it goes to the slow functions, and these find the real one in `guarded`,
 * and enter it under the guard, which is one lock for all such caches of a set, taken after the set's. Whether a thread holds
 * one can so be asked, in a signal handler too, without a look at caches that others may be giving up.
 */
#ifndef THREAD_CACHE_SET_H
#define THREAD_CACHE_SET_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "ground/lock.h"
#include "thread/cache.h"

#define CACHE_SET_HEAPS ALCOVE_HEAP_MAX

struct cache_set {
    struct cache first; /* of heap 0; first, so that finding it from the set is adding nothing */
    struct lock lock;
    struct lock guard;  /* of its guarded caches */
    struct cache *made; /* all but the first */
    uint32_t endings;   /* heap_endings() when caches of ending heaps were last looked for */
    _Atomic(struct cache *) *guarded; /* by heap; NULL: it never had one. Pages of its own */
    _Atomic(struct cache *) *by_heap; /* CACHE_SET_HEAPS of them, of which most are never touched: whose set it is has them */
    struct arrays arrays;
};

#define CACHE_SET_TABLE_BYTES (CACHE_SET_HEAPS * sizeof(_Atomic(struct cache *))) /* that a heap's cache is found in */

/* A set with a cache of heap 0. What `by_heap` points to reads as zero. Its bins' arrays lie in `memory`, as far as they fit.
 * Others may look for caches in it before, while it reads as zero, and meanwhile. */
void cache_set_init(struct cache_set *s, struct heap *heap0, _Atomic(struct cache *) *by_heap, void *memory, size_t size);

/* Is it the closed cache of a heap whose caches are guarded? */
static inline bool
cache_is_closed(const struct cache *c)
{
    return c->heap == NULL;
}

/* The guarded one that stands behind it. */
static inline struct cache *
cache_set_guarded(const struct cache_set *s, uint32_t heap)
{
    return atomic_load_explicit(&s->guarded[heap], memory_order_relaxed);
}

/* Its cache for a heap, closed ones left out; NULL if none. For its user, or one of the heap's lookers. */
struct cache *cache_set_find(const struct cache_set *s, uint32_t heap);

/* Is there one that cannot be found, as it is being moved? */
static inline bool
cache_set_hides(const struct cache_set *s, uint32_t heap)
{
    _Atomic(struct cache *) *by_heap = __atomic_load_n(&s->by_heap, __ATOMIC_ACQUIRE);
    return by_heap != NULL && atomic_load_explicit(&by_heap[heap], memory_order_acquire) != NULL;
}

/* Its cache for a heap, made if there is none. For its user, who enters it. NULL: no memory. */
struct cache *cache_set_get(struct cache_set *s, struct heap *h);

/* Drop its cache of a heap that is closed and going to be destroyed, if it has one: blocks in it are forgotten. */
void cache_set_drop(struct cache_set *s, uint32_t heap);

/* Retire all its caches, so that nobody finds any, and it can be made anew. False: somebody looks at one just now, and some stay.
 * For where it has no user. */
bool cache_set_retire(struct cache_set *s);

/* Retire its caches of heaps that are ending. For its user, or where it has none. */
void cache_set_retire_ending(struct cache_set *s);

/* Empty its cache of a heap if that is guarded. For anyone who is one of the heap's emptiers. */
void cache_set_empty(struct cache_set *s, uint32_t heap);

/* Forget what sets share, with all sets. */
void cache_sets_forget(void);

bool cache_set_fork_holds(const struct cache_set *s);
void cache_set_fork_prepare(struct cache_set *s);
void cache_set_fork_done(struct cache_set *s);
void cache_set_fork_child(struct cache_set *s);

/* Give back what was not used since the last call; all of it if `all`. */
void cache_set_collect(struct cache_set *s, bool all);

#endif
