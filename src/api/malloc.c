/* malloc and free: the hot path. Every slow turn is a jump to another function, so that these need no frame. */
#include "alcove/alcove.h"
#include "api/internal.h"
#include "pages/pagemap.h"

/* Place of the bin in a cache, by the size in units of 16 bytes. */
#define P1(bin) ((bin) * sizeof(struct cache_bin))
#define P2(bin) P1(bin), P1(bin)
#define P4(bin) P2(bin), P2(bin)
#define EIGHT(P, bin) \
    P(bin), P((bin) + 1), P((bin) + 2), P((bin) + 3), P((bin) + 4), P((bin) + 5), P((bin) + 6), P((bin) + 7)
static const uint16_t place_by_16[TINY_MAX / 16 + 1] = {
    P1(1), EIGHT(P1, 1), EIGHT(P1, 9), EIGHT(P2, 17), EIGHT(P4, 25),
};

static void *malloc_slow(size_t place, uint32_t heap) __attribute__((noinline, cold));

static void *
malloc_slow(size_t place, uint32_t heap)
{
    bool zeroed;
    return alloc_slow((unsigned)(place / sizeof(struct cache_bin)), heap, &zeroed);
}

static void *malloc_beyond(size_t size, uint32_t heap) __attribute__((noinline, cold));

static void *
malloc_beyond(size_t size, uint32_t heap)
{
    bool zeroed;
    return alloc_large(size, PAGE_SIZE, heap, &zeroed);
}

/* Pop from a bin, given by its place in a cache, of this thread's cache for a heap. */
static inline __attribute__((always_inline)) void *
take(size_t place, uint32_t heap)
{
    intptr_t offset = tls_offset;
    if (unlikely(offset == 0))
        return malloc_slow(place, heap);
    struct thread *t = tls_static(offset);
    if (unlikely(t == NULL))
        return malloc_slow(place, heap);
    struct cache *c = &t->first;
    if (heap != ALCOVE_HEAP_DEFAULT) {
        c = atomic_load_explicit(&t->caches[heap], memory_order_relaxed);
        if (unlikely(c == NULL))
            return malloc_slow(place, heap);
    }
    void *block = cache_pop((struct cache_bin *)((char *)c->bins + place));
    if (unlikely(block == NULL))
        return malloc_slow(place, heap);
    return block;
}

/* Sizes above TINY_MAX, out of the way of the others. */
static __attribute__((noinline)) void *
malloc_default_big(size_t size)
{
    if (unlikely(size > CACHED_MAX))
        return malloc_beyond(size, ALCOVE_HEAP_DEFAULT);
    return take(bin_of_size_computed(size) * sizeof(struct cache_bin), ALCOVE_HEAP_DEFAULT);
}

static __attribute__((noinline)) void *
malloc_heap_big(size_t size, uint32_t heap)
{
    if (unlikely(size > CACHED_MAX))
        return malloc_beyond(size, heap);
    return take(bin_of_size_computed(size) * sizeof(struct cache_bin), heap);
}

API_HOT void *
ALCOVE_PUBLIC(malloc)(size_t size)
{
    if (likely(size <= TINY_MAX))
        return take(place_by_16[(size + 15) >> 4], ALCOVE_HEAP_DEFAULT);
    return malloc_default_big(size);
}

__attribute__((hot, aligned(64))) void *
entry_malloc(size_t size, uint32_t heap)
{
    if (likely(size <= TINY_MAX))
        return take(place_by_16[(size + 15) >> 4], heap);
    return malloc_heap_big(size, heap);
}

/* Push a block into this thread's cache for its owner. False: the slow path has to. A foreign
 * address has the entry 0, whose bin 0 takes nothing. */
static inline __attribute__((always_inline)) bool
give(void *block, uint64_t entry)
{
    intptr_t offset = tls_offset;
    if (unlikely(offset == 0))
        return false;
    struct thread *t = tls_static(offset);
    if (unlikely(t == NULL))
        return false;
    struct cache *c = &t->first;
    if (entry_heap(entry) != ALCOVE_HEAP_DEFAULT) {
        c = atomic_load_explicit(&t->caches[entry_heap(entry)], memory_order_relaxed);
        if (unlikely(c == NULL))
            return false;
    }
    return likely(cache_push(&c->bins[entry_bin(entry)], block));
}

API_HOT void
ALCOVE_PUBLIC(free)(void *block)
{
    if (likely(give(block, pagemap_get(pagemap, block))))
        return;
    free_slow(block, ALCOVE_HEAP_NONE);
}

__attribute__((hot, aligned(64))) void
entry_free(void *block, uint32_t heap)
{
    uint64_t entry = pagemap_get(pagemap, block);
    if (likely(entry_heap(entry) == heap) && likely(give(block, entry)))
        return;
    free_slow(block, heap);
}
