/* The hot path of an allocation, for the functions that begin with one. */
#ifndef API_HOT_H
#define API_HOT_H

#include "api/internal.h"

/* Past the hot path, with the arguments it has in registers. */
void *malloc_slow(size_t place, size_t heap) __attribute__((cold));
void *malloc_beyond(size_t size, size_t heap) __attribute__((cold));

/* Place of the bin in a cache, by the size in units of 16 bytes. */
extern HIDDEN const uint16_t place_by_16[TINY_MAX / 16 + 1];

/* Pop from a bin, given by its place in a cache, of this thread's cache for a heap. */
static inline __attribute__((always_inline)) void *
take(size_t place, size_t heap)
{
    struct cache *c = cache_of(heap);
    if (unlikely(c == NULL))
        return malloc_slow(place, heap);
    void *block = cache_pop((struct cache_bin *)((char *)c->bins + place));
    if (unlikely(block == NULL))
        return malloc_slow(place, heap);
    return block;
}

/* Sizes up to TINY_MAX. */
static inline __attribute__((always_inline)) void *
take_tiny(size_t size, size_t heap)
{
    return take(place_by_16[(size + 15) >> 4], heap);
}

/* Sizes above. */
static inline __attribute__((always_inline)) void *
take_big(size_t size, size_t heap)
{
    if (likely(size <= SMALL_MAX))
        return take(bin_by_128[(size + 127) >> 7] * sizeof(struct cache_bin), heap);
    if (unlikely(size > CACHED_MAX))
        return malloc_beyond(size, heap);
    return take(bin_by_4096[(size + 4095) >> 12] * sizeof(struct cache_bin), heap);
}

#endif
