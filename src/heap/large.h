/* Large blocks: a run of pages each. */
#ifndef HEAP_LARGE_H
#define HEAP_LARGE_H

#include "heap/heap.h"

/* A block of at least `size` bytes. bin: the class it belongs to, 0 for none (size is then
 * rounded to one). *zeroed: its pages read as zero. NULL: no memory, or the heap's limit. */
void *large_take(struct heap *h, unsigned bin, size_t size, size_t alignment, bool *zeroed);

/* Give it back. */
void large_give(struct heap *h, struct run *run);

/* Change its size, where it is or by moving its pages; nothing is copied. Returns where it is; NULL: not
 * done, and it is as it was. */
void *large_resize(struct heap *h, struct run *run, size_t size);

/* Drop all large blocks of a heap that is being destroyed. */
void large_drop_all(struct heap *h);

/* Place of a large bin (0: none) in the heap's counters. */
static inline unsigned
large_counter(unsigned bin)
{
    return bin == 0 ? LARGE_BINS : bin - SMALL_BINS - 1;
}

#endif
