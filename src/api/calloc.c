/* calloc. */
#include <errno.h>
#include <string.h>

#include "alcove/alcove.h"
#include "api/internal.h"
#include "pages/pool.h"

/* What was used before and is huge goes back to the system, which clears what is touched: much of it may never be. */
static void *
clear(void *block, size_t bytes)
{
    struct run *r = bytes > LARGE_MAX ? pool_find(block) : NULL;
    if (r != NULL && pages_purge(heap_of(r->heap)->pool, r->base, r->pages))
        return block;
    return memset(block, 0, bytes);
}

static __attribute__((noinline, cold)) void *
calloc_slow(size_t bytes, size_t heap)
{
    bool zeroed = false;
    void *block = bytes <= CACHED_MAX ? alloc_slow(bin_of_size(bytes), heap, &zeroed)
                                      : alloc_large(bytes, PAGE_SIZE, heap, &zeroed);
    return block == NULL || zeroed ? block : clear(block, bytes);
}

static __attribute__((noinline, cold)) void *
calloc_overflow(void)
{
    errno = ENOMEM;
    return NULL;
}

static inline __attribute__((always_inline)) void *
allocate_zeroed(size_t bytes, size_t heap)
{
    struct cache *c = cache_of(heap);
    if (unlikely(c == NULL || bytes > CACHED_MAX))
        return calloc_slow(bytes, heap);
    void *block = cache_pop(&c->bins[bin_of_size(bytes)]);
    if (unlikely(block == NULL))
        return calloc_slow(bytes, heap);
    return memset(block, 0, bytes);
}

void *
entry_calloc(size_t count, size_t size, size_t heap)
{
    size_t bytes;
    if (unlikely(__builtin_mul_overflow(count, size, &bytes)))
        return calloc_overflow();
    return allocate_zeroed(bytes, heap);
}

API_HOT void *
ALCOVE_PUBLIC(calloc)(size_t count, size_t size)
{
    size_t bytes;
    if (unlikely(__builtin_mul_overflow(count, size, &bytes)))
        return calloc_overflow();
    return allocate_zeroed(bytes, ALCOVE_HEAP_DEFAULT);
}
