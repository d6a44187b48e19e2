/* Size classes: the tables, and the questions that are asked rarely. */
#include "ground/sizeclass.h"

_Static_assert(LG_STEPS == 3, "the tables below have eight classes to a doubling");

/* Eight classes from index `first` on, each `width` indices wide. Class k has bin + step(k, width). */
#define GROUP_OF(step, first, width, bin)                                      \
    [(first) ... (first) + (width) - 1] = (bin) + step(0, width),              \
    [(first) + (width) ... (first) + 2 * (width) - 1] = (bin) + step(1, width), \
    [(first) + 2 * (width) ... (first) + 3 * (width) - 1] = (bin) + step(2, width), \
    [(first) + 3 * (width) ... (first) + 4 * (width) - 1] = (bin) + step(3, width), \
    [(first) + 4 * (width) ... (first) + 5 * (width) - 1] = (bin) + step(4, width), \
    [(first) + 5 * (width) ... (first) + 6 * (width) - 1] = (bin) + step(5, width), \
    [(first) + 6 * (width) ... (first) + 7 * (width) - 1] = (bin) + step(6, width), \
    [(first) + 7 * (width) ... (first) + 8 * (width) - 1] = (bin) + step(7, width)

#define EACH(k, width) (k)
#define GROUP(first, width, bin) GROUP_OF(EACH, first, width, bin)

/* Large classes `width` times 4 KiB apart: the next one from k on that is whole pages. */
#define WHOLE_PAGES(k, width) \
    ((PAGE_SIZE >> 12) <= (width) ? (k) : ((k) | ((PAGE_SIZE >> 12) / (width) - 1)) & (STEPS - 1))
#define LARGE_GROUP(first, width, bin) GROUP_OF(WHOLE_PAGES, first, width, bin)

const uint8_t bin_by_16[TINY_MAX / 16 + 1] = {
    [0] = 1, GROUP(1, 1, 1), GROUP(9, 1, 9), GROUP(17, 2, 17), GROUP(33, 4, 25),
};

const uint8_t bin_by_128[SMALL_MAX / 128 + 1] = {
    GROUP(9, 1, 33), GROUP(17, 2, 41), GROUP(33, 4, 49), GROUP(65, 8, 57), GROUP(129, 16, 65),
};

const uint8_t bin_by_4096[CACHED_MAX / 4096 + 1] = {
    LARGE_GROUP(9, 1, 73), LARGE_GROUP(17, 2, 81), LARGE_GROUP(33, 4, 89), LARGE_GROUP(65, 8, 97),
    LARGE_GROUP(129, 16, 105),
};

size_t
size_round_huge(size_t size)
{
    if (size > PTRDIFF_MAX)
        return 0;
    if (size <= PAGE_SIZE)
        return PAGE_SIZE;
    unsigned lg = 63 - (unsigned)__builtin_clzl(size - 1);
    size_t step = (size_t)1 << (lg - LG_STEPS);
    if (step < PAGE_SIZE)
        step = PAGE_SIZE;
    size_t rounded = (size + step - 1) & ~(step - 1);
    return rounded > PTRDIFF_MAX ? 0 : rounded;
}

#define SLAB_BYTES ((size_t)64 << 10) /* what a slab aims at; bench/README.md compares */
#define SLAB_MIN_BLOCKS 4

_Static_assert(SLAB_MIN_BLOCKS * SMALL_MAX <= 32 * PAGE_SIZE && SLAB_BYTES <= 32 * PAGE_SIZE,
               "a slab's pages have a bit each in its record");

unsigned
bin_slab_pages(unsigned bin)
{
    size_t size = bin_size(bin);
    size_t most = SLAB_MAX_BLOCKS * size < SLAB_BYTES ? SLAB_MAX_BLOCKS * size : SLAB_BYTES;
    if (most < SLAB_MIN_BLOCKS * size)
        most = SLAB_MIN_BLOCKS * size;
    unsigned last = (unsigned)((most + PAGE_SIZE - 1) >> PAGE_LG), best = last;
    size_t best_waste = PAGE_SIZE; /* wasted bytes per page, scaled */
    for (unsigned pages = last; pages > 0 && pages > last / 2; pages--) {
        size_t bytes = (size_t)pages << PAGE_LG;
        size_t blocks = bytes / size < SLAB_MAX_BLOCKS ? bytes / size : SLAB_MAX_BLOCKS;
        if (blocks < SLAB_MIN_BLOCKS)
            break;
        size_t waste = (bytes - blocks * size) / pages;
        if (waste < best_waste) {
            best_waste = waste;
            best = pages;
        }
        if (waste <= PAGE_SIZE / 128)
            break;
    }
    return best;
}
