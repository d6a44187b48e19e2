/* Aligned allocation: aligned_alloc, posix_memalign, and the older memalign, valloc, pvalloc. */
#include <errno.h>

#include "alcove/alcove.h"
#include "api/hot.h"

static bool
is_power_of_two(size_t n)
{
    return n != 0 && (n & (n - 1)) == 0;
}

static __attribute__((noinline, cold)) void *
alloc_aligned_beyond(size_t size, size_t alignment, size_t heap)
{
    bool zeroed;
    if (!is_power_of_two(alignment)) {
        errno = EINVAL;
        return NULL;
    }
    size += size == 0;
    if (alignment > PAGE_SIZE || size > CACHED_MAX)
        return alloc_large(size, alignment < PAGE_SIZE ? PAGE_SIZE : alignment, heap, &zeroed);
    return entry_malloc(size_for_aligned(size, alignment), heap);
}

/* Any size goes with any alignment that is a power of two. The two tests refuse 0 for each as well. */
static inline __attribute__((always_inline)) void *
alloc_aligned(size_t size, size_t alignment, size_t heap)
{
    size_t mask = alignment - 1, last = (size - 1) | mask; /* of the size rounded up */
    if (unlikely(mask > PAGE_MASK || last >= CACHED_MAX || (alignment & mask) != 0))
        return alloc_aligned_beyond(size, alignment, heap);
    return take(bin_of_last(last) * sizeof(struct cache_bin), heap);
}

/* C17 lets any size go with any alignment that is supported; every power of two is. */
void *
entry_aligned_alloc(size_t alignment, size_t size, size_t heap)
{
    return alloc_aligned(size, alignment, heap);
}

/* The next power of two, as glibc's memalign takes what is none. Nothing is as large as what is more than half of all addresses. */
static size_t
power_of_two(size_t alignment)
{
    if (alignment > SIZE_MAX / 2 + 1)
        return alignment;
    size_t power = 1;
    while (power < alignment)
        power *= 2;
    return power;
}

void *
entry_memalign(size_t alignment, size_t size, size_t heap)
{
    return alloc_aligned(size, likely(is_power_of_two(alignment)) ? alignment : power_of_two(alignment), heap);
}

/* POSIX: the result is an error number, and errno is not said to be set. */
int
entry_posix_memalign(void **out, size_t alignment, size_t size, size_t heap)
{
    if (unlikely(!is_power_of_two(alignment) || alignment % sizeof(void *) != 0))
        return EINVAL;
    int saved = errno;
    void *block = alloc_aligned(size, alignment, heap);
    errno = saved;
    if (block == NULL)
        return ENOMEM;
    *out = block;
    return 0;
}

void *
entry_valloc(size_t size, size_t heap)
{
    return alloc_aligned(size, PAGE_SIZE, heap);
}

void *
entry_pvalloc(size_t size, size_t heap)
{
    if (size > SIZE_MAX - PAGE_MASK) {
        errno = ENOMEM;
        return NULL;
    }
    size = (size + PAGE_MASK) & ~PAGE_MASK;
    return alloc_aligned(size != 0 ? size : PAGE_SIZE, PAGE_SIZE, heap);
}

API void *
ALCOVE_PUBLIC(aligned_alloc)(size_t alignment, size_t size)
{
    return alloc_aligned(size, alignment, ALCOVE_HEAP_DEFAULT);
}

API void *
ALCOVE_PUBLIC(memalign)(size_t alignment, size_t size)
{
    return alloc_aligned(size, alignment, ALCOVE_HEAP_DEFAULT);
}

API int
ALCOVE_PUBLIC(posix_memalign)(void **out, size_t alignment, size_t size)
{
    return entry_posix_memalign(out, alignment, size, ALCOVE_HEAP_DEFAULT);
}

API void *
ALCOVE_PUBLIC(valloc)(size_t size)
{
    return entry_valloc(size, ALCOVE_HEAP_DEFAULT);
}

API void *
ALCOVE_PUBLIC(pvalloc)(size_t size)
{
    return entry_pvalloc(size, ALCOVE_HEAP_DEFAULT);
}
