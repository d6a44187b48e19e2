/* malloc and free: the hot path. Every slow turn is a jump to another function, so that these need no frame. */
#include "alcove/alcove.h"
#include "api/hot.h"
#include "thread/peak.h"

/* Place of the bin in a cache, by the size in units of 16 bytes. */
#define P1(bin) ((bin) * sizeof(struct cache_bin))
#define P2(bin) P1(bin), P1(bin)
#define P4(bin) P2(bin), P2(bin)
#define EIGHT(P, bin) \
    P(bin), P((bin) + 1), P((bin) + 2), P((bin) + 3), P((bin) + 4), P((bin) + 5), P((bin) + 6), P((bin) + 7)
const uint16_t place_by_16[TINY_MAX / 16 + 1] = {
    P1(1), EIGHT(P1, 1), EIGHT(P1, 9), EIGHT(P2, 17), EIGHT(P4, 25),
};

static __attribute__((noinline)) void *
alloc_past_cache(unsigned bin, size_t heap)
{
    bool zeroed;
    struct cache *c = thread_guarded(heap);
    if (c != NULL) {
        void *block = cache_pop_guarded(c, &c->bins[bin]);
        if (block != NULL)
            return block;
    }
    return alloc_slow(bin, heap, &zeroed);
}

/* Where blocks are large most turns are for nothing but to count what is live. The cache keeps its heap, so nobody need know that this
 * thread is inside. NULL: there is more to do. */
static inline void *
pop_at_turn(struct cache *c, unsigned bin)
{
    if (cache_is_closed(c) || heap_is_ending(c->heap) || atomic_load_explicit(&c->heap->guarded, memory_order_relaxed))
        return NULL;
    void *block = cache_pop_at_turn(c, bin);
    if (block != NULL)
        peak_allocated(c, bin, 0);
    return block;
}

void *
malloc_slow(size_t place, size_t heap)
{
    unsigned bin = (unsigned)(place / sizeof(struct cache_bin));
    struct cache *c = cache_of(heap);
    void *block = c != NULL ? pop_at_turn(c, bin) : NULL;
    return block != NULL ? block : alloc_past_cache(bin, heap);
}

void *
malloc_beyond(size_t size, size_t heap)
{
    bool zeroed;
    return alloc_large(size, PAGE_SIZE, heap, &zeroed);
}

static __attribute__((noinline)) void *
malloc_default_big(size_t size)
{
    return take_big(size, ALCOVE_HEAP_DEFAULT);
}

static __attribute__((noinline)) void *
malloc_heap_big(size_t size, size_t heap)
{
    return take_big(size, heap);
}

API_HOT void *
ALCOVE_PUBLIC(malloc)(size_t size)
{
    if (likely(size <= TINY_MAX))
        return take_tiny(size, ALCOVE_HEAP_DEFAULT);
    return malloc_default_big(size);
}

__attribute__((hot, aligned(64))) void *
entry_malloc(size_t size, size_t heap)
{
    if (likely(size <= TINY_MAX))
        return take_tiny(size, heap);
    return malloc_heap_big(size, heap);
}

/* A debug build goes the slow way, which looks at every block. */
#define VALIDATE ALCOVE_DEBUG

/* A foreign address, or one where no block begins, has the word 0, whose bin 0 takes nothing. */
static inline __attribute__((always_inline)) bool
put(void *block, uint64_t word, size_t heap)
{
    struct cache *c = cache_of(heap);
    return !VALIDATE && likely(c != NULL) && likely(cache_push(cache_bin_of(c, word), block));
}

static __attribute__((noinline)) void
free_elsewhere(void *block, uint64_t word)
{
    if (!put(block, word, word_heap(word)))
        free_slow(block, ALCOVE_HEAP_NONE);
}

API_HOT void
ALCOVE_PUBLIC(free)(void *block)
{
    uint64_t word = pagemap_get_hot(block);
    if (unlikely(word_heap(word) != ALCOVE_HEAP_DEFAULT))
        free_elsewhere(block, word);
    else if (!put(block, word, ALCOVE_HEAP_DEFAULT))
        free_slow(block, ALCOVE_HEAP_NONE);
}

__attribute__((hot, aligned(64))) void
entry_free(void *block, size_t heap)
{
    uint64_t word = pagemap_get_hot(block);
    if (unlikely(word_heap(word) != heap) || !put(block, word, heap))
        free_slow(block, (uint32_t)heap);
}
