/* calloc. */
#include <errno.h>
#include <string.h>

#include "alcove/alcove.h"
#include "api/internal.h"
#include "pages/pool.h"

/* The system clears what is touched of what it gets back, which costs more than to clear it here, if it all is: from here on much
 * may never be. */
#define PURGE_MIN ((size_t)32 << 20)

static bool
is_zero(const uint64_t *page)
{
    uint64_t any = 0;
    for (size_t i = 0; i < PAGE_SIZE / sizeof *page && any == 0; i += 8)
        any = page[i] | page[i + 1] | page[i + 2] | page[i + 3] | page[i + 4] | page[i + 5] | page[i + 6] | page[i + 7];
    return any == 0;
}

/* Clear a huge block that was used before. What it had of it may be little: pages that were never written to are not to become
 * resident. */
static void *
clear_huge(void *block, size_t bytes)
{
    struct run *r = bytes >= PURGE_MIN ? pool_find(block) : NULL;
    if (r != NULL && pages_purge(heap_of(r->heap)->pool, r->base, r->pages))
        return block;
    char *at = block, *end = at + bytes;
    for (; (size_t)(end - at) >= PAGE_SIZE; at += PAGE_SIZE)
        if (!is_zero((const uint64_t *)(void *)at))
            memset(at, 0, PAGE_SIZE);
    memset(at, 0, (size_t)(end - at));
    return block;
}

static __attribute__((noinline, cold)) void *
calloc_slow(size_t bytes, size_t heap)
{
    bool zeroed = false;
    void *block = bytes <= CACHED_MAX ? alloc_slow(bin_of_size(bytes), heap, &zeroed)
                                      : alloc_large(bytes, PAGE_SIZE, heap, &zeroed);
    if (block == NULL || zeroed)
        return block;
    return bytes > LARGE_MAX ? clear_huge(block, bytes) : memset(block, 0, bytes);
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
