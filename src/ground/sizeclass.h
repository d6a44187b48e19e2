/*
 * Size classes. From 16 bytes in steps of 16 up to 128, then eight to a doubling, so that a block
 * is at most an eighth larger than asked for (jemalloc has four and a quarter; bench/README.md has what
 * the difference is worth).
 *
 * Glossary
 *   bin     a size class by number, as caches, heaps and page map words know it. Bins 1 to
 *           SMALL_BINS are cut from slabs, the next LARGE_BINS are runs of pages that thread caches
 *           keep. Bin 0 holds nothing: what is larger, or has room to grow, has no bin
 *   small   up to SMALL_MAX bytes
 *   large   up to LARGE_MAX bytes: a run of pages of its own, in a chunk
 *   huge    more: chunks of its own
 */
#ifndef GROUND_SIZECLASS_H
#define GROUND_SIZECLASS_H

#include <stddef.h>
#include <stdint.h>

#include "ground/attributes.h"
#include "ground/page.h"

#define QUANTUM ((size_t)16)
#define LG_STEPS 3 /* 2^3 classes to a doubling */
#define STEPS (1u << LG_STEPS)
#define LG_LINEAR_MAX (4 + LG_STEPS) /* classes are 16 apart up to 128 */

/* Of any class; a bit each in a run's record. A page of the smallest blocks is the least. */
#define SLAB_MAX_BLOCKS (PAGE_SIZE / QUANTUM > 512 ? PAGE_SIZE / QUANTUM : 512)

#define LG_SMALL_MAX 15
#define LG_CACHED_MAX 20
#define LG_LARGE_MAX 21

#define SMALL_MAX ((size_t)1 << LG_SMALL_MAX)
#define CACHED_MAX ((size_t)1 << LG_CACHED_MAX)
#define LARGE_MAX ((size_t)1 << LG_LARGE_MAX)

#define SMALL_BINS (STEPS + STEPS * (LG_SMALL_MAX - LG_LINEAR_MAX))
#define LARGE_BINS (STEPS * (LG_CACHED_MAX - LG_SMALL_MAX))
#define BINS (1 + SMALL_BINS + LARGE_BINS)

_Static_assert(BINS <= 128, "a page map word has 7 bits for the bin");

/* Bins by size: in units of 16 bytes up to 1 KiB, of 128 up to SMALL_MAX, of 4,096 up to CACHED_MAX. Of
 * the large ones those that are no whole pages are never used: the next larger one is. */
#define TINY_MAX ((size_t)1024)
extern HIDDEN const uint8_t bin_by_16[TINY_MAX / 16 + 1];
extern HIDDEN const uint8_t bin_by_128[SMALL_MAX / 128 + 1];
extern HIDDEN const uint8_t bin_by_4096[CACHED_MAX / 4096 + 1];

/* The smallest bin that holds `size`, up to CACHED_MAX. */
static inline unsigned
bin_of_size(size_t size)
{
    if (__builtin_expect(size <= TINY_MAX, 1))
        return bin_by_16[(size + 15) >> 4];
    if (__builtin_expect(size <= SMALL_MAX, 1))
        return bin_by_128[(size + 127) >> 7];
    return bin_by_4096[(size + 4095) >> 12];
}

/* The same, computed without a branch from the offset of the last byte: for where the tables' three ways are taken at random. */
static inline unsigned
bin_of_last(size_t last)
{
    if (PAGE_LG > 12 && last >= SMALL_MAX)
        last |= PAGE_MASK;
    unsigned lg = 63u ^ (unsigned)__builtin_clzl(last | (size_t)1 << LG_LINEAR_MAX);
    return 1 + ((lg - LG_LINEAR_MAX) << LG_STEPS) + (unsigned)(last >> (lg - LG_STEPS));
}

/* Bytes of a block of a bin from 1 on. */
static inline size_t
bin_size(unsigned bin)
{
    unsigned i = bin - 1;
    if (i < STEPS)
        return (size_t)(i + 1) << 4;
    unsigned group = i >> LG_STEPS, step = i & (STEPS - 1);
    return (size_t)(STEPS + step + 1) << (group + 3);
}

/* A size above CACHED_MAX, rounded up to its class, at least to whole pages. 0: too large for any address. */
size_t size_round_huge(size_t size);

/* What to ask for to get a block that is aligned to `alignment`, a power of two up to a page:
 * slabs start on a page, so a block is aligned if its class is a multiple. Between two powers of
 * two classes are a fixed power of two apart: if that is the alignment or more, every class there
 * is a multiple; if it is less, a multiple of the alignment is itself a class. */
static inline size_t
size_for_aligned(size_t size, size_t alignment)
{
    size += size == 0;
    return (size + alignment - 1) & ~(alignment - 1);
}

/* Pages of a slab of a small bin: few, yet wasting little at the end. */
unsigned bin_slab_pages(unsigned bin);

#endif
