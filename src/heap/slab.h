/*
 * Slabs: runs cut into blocks of one size class. Which of them are free is a bitmap in the run's record. A heap is charged
 * for a slab's pages one by one, when blocks are first taken out of them. Whoever takes blocks or gives them counts what is live.
 */
#ifndef HEAP_SLAB_H
#define HEAP_SLAB_H

#include "heap/heap.h"

/* Take up to `want` blocks of a small bin, ascending addresses to be popped first: the last of
 * them at out[0]. Fewer if the limit is near: then no page is touched but for the first block. Returns how many; 0: no
 * memory, or the heap's limit is reached. */
unsigned slab_take(struct heap *h, unsigned bin, void **out, unsigned want);

/* Give blocks of one bin back. One that cannot be given now is noted as a misuse and left alone. Returns how many were given. */
unsigned slab_give(struct heap *h, unsigned bin, void **blocks, unsigned count);

/* Look through blocks of one bin that a cache keeps, and take out of the array what slab_give() would not take. Returns how many
 * are left in it. */
unsigned slab_sift(struct heap *h, unsigned bin, void **blocks, unsigned count);

/* Would slab_take() give nothing because of the limit, as things are now? Takes no lock: who fails again and again is in
 * nobody's way. */
bool slab_forbidden(const struct heap *h, unsigned bin);

/* Purge and discharge touched pages in which no block is out. */
void heap_trim(struct heap *h);

/* Purge pages that no block was handed out of yet, and that may be resident from an earlier use. `charge`: what the system refuses to
 * purge is charged, for the heap has a limit now. */
void heap_clear_untouched(struct heap *h, bool charge);

/* Start of the block that holds an address; NULL: it is in the slab's unused tail. */
void *slab_block(const struct run *slab, const void *address);

/* Index of the block that starts at an address, -1 if none does. size: of the slab's blocks. */
static inline int
slab_index(const struct run *slab, size_t size, const void *block)
{
    uint64_t offset = (uintptr_t)block - slab->base;
    uint64_t i = (offset * slab->inverse) >> 32;
    return i * size == offset && i < slab->blocks ? (int)i : -1;
}

/* Is the block at this address free in its slab's bitmap? */
bool slab_block_is_free(const struct run *slab, const void *block);

#endif
