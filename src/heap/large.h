/*
 * Large blocks: a run of pages each. A block that realloc expects to grow on may have *room*: more pages than
 * its usable size. Only the usable size counts, for the limit too, but if the room was used before it is resident as long as
 * the block lives, whether that grows on or not: no block gets room while those of its heap have much already, and a huge one's is purged. A block with
 * room has no bin, so that its free comes by here. One that is lent (api/spare.h) has pages that its user did not ask for too, but may
 * use them all, and is charged for them.
 *
 * A heap is charged a block's usable size, and its metadata where that is out of proportion: a block that was to begin at a
 * multiple of 16 pages or more may be a page only, and has what the page map says of as many pages to itself, at most a page of
 * it. That is charged then, and its record. Elsewhere a block's metadata is a 32nd of it at the most, as a slab's is.
 *
 * Whoever takes, gives or resizes blocks holds a lock that a fork waits for (thread_lock), since a heap, its pool and what it is
 * charged change in turn.
 */
#ifndef HEAP_LARGE_H
#define HEAP_LARGE_H

#include "heap/heap.h"

/* A block of at least `size` bytes. bin: the class it belongs to, 0 for none (size is then
 * rounded to one). *zeroed: its pages read as zero. NULL: no memory, or the heap's limit. */
void *large_take(struct heap *h, unsigned bin, size_t size, size_t alignment, bool *zeroed);

/* Would large_take() give none because of the limit, as things are now? Takes no lock, as slab_forbidden(). */
bool large_forbidden(const struct heap *h, unsigned bin, size_t size, size_t alignment);

/* One of `size` bytes that will grow on, with pages for `room`. It has a bin only if there is no room beyond what it may use. */
struct run *large_take_growing(struct heap *h, size_t size, size_t room);

/* The run of a block of a bin that a thread's cache keeps. NULL, and noted as a misuse: it is the start of no such block, or of none
 * any more. */
struct run *large_cached(const struct heap *h, unsigned bin, const void *block);

/* Give back the block that a run is. False: it is that no more, for another thread has just given it. */
bool large_give(struct heap *h, struct run *run, const void *block);
/* Give back one that a cache keeps. False, and noted as a misuse: it is none any more. */
bool large_give_cached(struct heap *h, unsigned bin, const void *block);

/* Change its size, with pages for `room` bytes (at least size), where it is or by moving its pages; nothing is
 * copied. Returns where it is; NULL: not done, and it is as it was. */
void *large_resize(struct heap *h, struct run *run, size_t size, size_t room);

/* What a block of `size` bytes that will grow on may use, and is charged for: a quarter more. */
static inline size_t
large_usable_of_growing(size_t size)
{
    return (size + size / 4 + PAGE_MASK) & ~PAGE_MASK;
}

/* Make what a block of a bin, not allocated yet, has beyond `size` and a little more its room. False: that is nothing, and it
 * has its bin still. */
bool large_make_room(struct heap *h, struct run *run, size_t size);

/* Have the blocks of a heap so little room that one more may get some? */
#define ROOM_LEAST ((size_t)1 << 20)
#define ROOM_SHARE 64 /* of what is charged */

static inline bool
large_may_have_room(const struct heap *h)
{
    return atomic_load_explicit(&h->room, memory_order_relaxed) << PAGE_LG <=
           ROOM_LEAST + atomic_load_explicit(&h->active, memory_order_relaxed) / ROOM_SHARE;
}

/* Has a block, which is to grow, so much room? */
static inline bool
large_has_room(const struct run *run, size_t size)
{
    return run->bin == 0 && size <= run->pages << PAGE_LG;
}

/* Grow into the room, which it has. False: the limit forbids it. */
bool large_use_room(struct heap *h, struct run *run, size_t size);

/* Give a block that grew and is going to be cached a bin: what it has beyond `bytes`, and beyond the least that one with room begins
 * with, is given back, and other room made part of it. The next that grows begins with that, where it can grow on. False: it has no
 * bin, or the limit forbids it. */
bool large_end_room(struct heap *h, struct run *run, size_t bytes);

/* Place of a large bin (0: none) in the heap's counters. */
static inline unsigned
large_counter(unsigned bin)
{
    return bin == 0 ? LARGE_BINS : bin - SMALL_BINS - 1;
}

#endif
