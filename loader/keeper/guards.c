/*
 * The guards: what a release leads to in every object that is no module. A guard asks the page map
 * whose the block is; a foreign one is passed on to the function that would have been called, with
 * nothing left on the stack, and an allocator's own goes home, counted as a crossing.
 *
 * No locks and no state: they are safe wherever the guarded function is, and they outlive the
 * allocator. When none is loaded the page map is empty and every block is foreign.
 */
#include "keeper/routes.h"

#include "pages/pool.h"

#include <errno.h>

/* Kept out of the guards, which then need no stack frame. Reached by a jump, so that the return
 * address is the caller's. */
#define SLOW __attribute__((noinline, cold))

#define ORIGINAL(name, type) ((type)route_original[ALCOVE_ENTRY_##name])

typedef void (*free_function)(void *);
typedef void *(*realloc_function)(void *, size_t);
typedef void *(*reallocarray_function)(void *, size_t, size_t);
typedef size_t (*usable_size_function)(void *);

static inline const struct alcove_table *
table_now(void)
{
    return atomic_load_explicit(&loader_table, memory_order_acquire);
}

/* Is the block in pages of the allocator's? A block freed before may lie inside of a free run, where
 * pages have no word; but the first page of a chunk always has one. */
static inline bool
is_owned(const void *block)
{
    _Static_assert(PAGEMAP_LEAF_COUNT % CHUNK_PAGES == 0, "a leaf speaks of whole chunks");
    uintptr_t address = (uintptr_t)block;
    size_t i = address >> PAGEMAP_ROOT_SHIFT;
    pagemap_word *leaf =
        i < PAGEMAP_ROOT_COUNT ? atomic_load_explicit(&loader_pagemap.root[i], memory_order_acquire) : NULL;
    if (__builtin_expect(leaf == NULL, 1))
        return false;
    size_t page = (address >> PAGE_LG) & (PAGEMAP_LEAF_COUNT - 1);
    uint64_t first = atomic_load_explicit(&leaf[page & ~(CHUNK_PAGES - 1)], memory_order_relaxed);
    return atomic_load_explicit(&leaf[page], memory_order_relaxed) != 0 || (first != 0 && first != WORD_LEFT);
}

/* Was it left behind by an allocator that is gone? Then its release is nobody's business. */
static bool
was_left(const void *block)
{
    return pagemap_get(&loader_pagemap, block) == WORD_LEFT;
}

static void
release_count(const void *block, const void *caller)
{
    crossing_outside((uint32_t)(pagemap_get(&loader_pagemap, block) >> WORD_HEAP_SHIFT), block, caller);
}

SLOW static void
owned_free(void *block, const void *caller)
{
    if (was_left(block))
        return;
    release_count(block, caller);
    table_now()->free(block);
}

void
guard_free(void *block)
{
    if (__builtin_expect(is_owned(block), 0))
        owned_free(block, __builtin_return_address(0));
    else
        ORIGINAL(free, free_function)(block);
}

/* A block that grows stays with its owner: that is no crossing, so getline may grow a module's buffer.
 * To size 0 it is a release. */
SLOW static void *
owned_realloc(void *block, size_t size, const void *caller)
{
    if (was_left(block)) {
        errno = EINVAL;
        return NULL;
    }
    if (size == 0)
        release_count(block, caller);
    return table_now()->realloc(block, size);
}

void *
guard_realloc(void *block, size_t size)
{
    if (__builtin_expect(is_owned(block), 0))
        return owned_realloc(block, size, __builtin_return_address(0));
    return ORIGINAL(realloc, realloc_function)(block, size);
}

SLOW static void *
owned_reallocarray(void *block, size_t count, size_t size, const void *caller)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes)) {
        errno = ENOMEM;
        return NULL;
    }
    if (was_left(block)) {
        errno = EINVAL;
        return NULL;
    }
    if (bytes == 0)
        release_count(block, caller);
    return table_now()->realloc(block, bytes);
}

void *
guard_reallocarray(void *block, size_t count, size_t size)
{
    if (__builtin_expect(is_owned(block), 0))
        return owned_reallocarray(block, count, size, __builtin_return_address(0));
    return ORIGINAL(reallocarray, reallocarray_function)(block, count, size);
}

SLOW static size_t
owned_usable_size(void *block)
{
    return was_left(block) ? 0 : table_now()->malloc_usable_size(block);
}

size_t
guard_usable_size(void *block)
{
    if (__builtin_expect(is_owned(block), 0))
        return owned_usable_size(block);
    return ORIGINAL(malloc_usable_size, usable_size_function)(block);
}
