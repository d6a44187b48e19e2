/* calloc. */
#include <errno.h>
#include <string.h>

#include "alcove/alcove.h"
#include "api/internal.h"

static inline __attribute__((always_inline)) void *
allocate_zeroed(size_t count, size_t size, uint32_t heap)
{
    size_t bytes;
    if (unlikely(__builtin_mul_overflow(count, size, &bytes))) {
        errno = ENOMEM;
        return NULL;
    }
    bool zeroed = false;
    void *block = NULL;
    if (likely(bytes <= CACHED_MAX)) {
        unsigned bin = bin_of_size(bytes);
        struct thread *t = tls_get();
        struct cache *c = likely(t != NULL) ? atomic_load_explicit(&t->caches[heap], memory_order_relaxed) : NULL;
        if (likely(c != NULL))
            block = cache_pop(&c->bins[bin]);
        if (unlikely(block == NULL))
            block = alloc_slow(bin, heap, &zeroed);
    } else {
        block = alloc_large(bytes, PAGE_SIZE, heap, &zeroed);
    }
    return unlikely(block == NULL) || zeroed ? block : memset(block, 0, bytes);
}

void *
entry_calloc(size_t count, size_t size, uint32_t heap)
{
    return allocate_zeroed(count, size, heap);
}

API_HOT void *
ALCOVE_PUBLIC(calloc)(size_t count, size_t size)
{
    return allocate_zeroed(count, size, ALCOVE_HEAP_DEFAULT);
}
