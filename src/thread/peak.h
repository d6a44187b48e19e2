/*
 * The peak of a heap: the most that was live, within a batch a thread, where a batch is 16 KiB or one block, for larger ones. A
 * thread that keeps blocks of many size classes may hide more: as a rule a few 10 KiB, and no more than it keeps;
 * but not where a peak was reset.
 *
 * The hot path counts nothing, so what is live is not known, but what is out of the heap is, and for each bin of a cache how
 * many of its blocks were there when it was looked at last: these are known to be cached. heap->live is the difference.
 * Whoever sets what is known changes heap->live by as much, so that it may be any thread, at any time, without a lock.
 * It is too low by blocks that were popped since, too high by those that were pushed.
 *
 * A bin is looked at by its thread when blocks move between it and the heap, and when the slow path has a turn. Between
 * two looks no more than UNSEEN_BYTES are popped from it unless so much may be live without a new peak; that is
 * what its countdown is set by; where less may be live than when others set theirs, these are recalled. Pushes are not
 * counted: when more than the peak seems to be live, all caches of the heap are looked at before that is believed.
 */
#ifndef THREAD_PEAK_H
#define THREAD_PEAK_H

#include "thread/cache.h"

/* A block of a bin was allocated past the hot path, by this cache's thread. `taken`: blocks that were taken from a slab for
 * that; large ones count by themselves. */
void peak_allocated(struct cache *c, unsigned bin, unsigned taken);

/* Blocks were freed into a bin past the hot path, or given back from it, which is counted already. */
void peak_freed(struct cache *c, unsigned bin);

/* It is time to look. `bin`: what was counted was of that one; 0: of none, or of many. */
void peak_is_due(struct heap *h, unsigned bin);

/* More was counted as live: is it time? */
static inline void
peak_check(struct heap *h)
{
    if (unlikely(heap_peak_is_due(h)))
        peak_is_due(h, 0);
}

/* Look at all bins of a cache, by its thread. */
void peak_look_at(struct cache *c);

/* Find out what is live in a heap, and whether it is a new peak. Any thread may, if the heap stays meanwhile: it takes no lock. */
void peak_look(struct heap *h);

/* In a forked child, where threads that are not there may have been in the midst of counting, and what is live is counted anew: of what
 * is out, a cache is known to have so much. */
void peak_fork_child(struct cache *c);

/* The peak, of which somebody has seen so much. */
uint64_t peak_at_least(struct heap *h, uint64_t bytes);

/* The peak is what is live now. */
void peak_reset(struct heap *h);

#endif
