/*
 * The guards: what a release leads to in every object that is no module. A guard asks the territory map
 * whose the block is; a foreign one is passed on to the function that would have been called, with
 * nothing left on the stack, and an allocator's own goes home, counted as a crossing.
 *
 * No locks and no state: they are safe wherever the guarded function is, and they outlive the
 * allocators. When none is loaded every block is foreign.
 */
#include "keeper/routes.h"
#include "keeper/territory.h"

#include <errno.h>

/* Kept out of the guards, which then need no stack frame. Reached by a jump, so that the return
 * address is the caller's. */
#define SLOW __attribute__((noinline, cold))

#define ORIGINAL(name, type) ((type)route_original[ALCOVE_ENTRY_##name])

typedef void (*free_function)(void *);
typedef void *(*realloc_function)(void *, size_t);
typedef void *(*reallocarray_function)(void *, size_t, size_t);
typedef size_t (*usable_size_function)(void *);

/* Whose it is. */
enum owner {
    OWNER_FOREIGN,   /* nobody's that we know */
    OWNER_LEFT,      /* left behind by an allocator that is gone: its release is nobody's business */
    OWNER_ALLOCATOR
};

struct owned {
    enum owner owner;
    struct allocator *allocator;
    const struct alcove_table *table;
};

static struct owned
owner_of(const void *block)
{
    unsigned number = territory_of(block);
    if (number == TERRITORY_LEFT)
        return (struct owned){.owner = territory_was_left(block) ? OWNER_LEFT : OWNER_FOREIGN};
    const struct alcove_table *table =
        number < ALLOCATORS_MAX ? atomic_load_explicit(&loader_tables[number], memory_order_acquire) : NULL;
    if (table == NULL)
        return (struct owned){.owner = OWNER_FOREIGN};
    return (struct owned){.owner = OWNER_ALLOCATOR, .allocator = &loader.allocators[number], .table = table};
}

static void
release_count(const struct owned *owned, const void *block, const void *caller)
{
    crossing_outside(owned->allocator, owned->table->heap_of(block), block, caller);
}

SLOW static void
owned_free(void *block, const void *caller)
{
    struct owned owned = owner_of(block);
    if (owned.owner == OWNER_FOREIGN) {
        ORIGINAL(free, free_function)(block);
    } else if (owned.owner == OWNER_ALLOCATOR) {
        release_count(&owned, block, caller);
        owned.table->free(block);
    }
}

void
guard_free(void *block)
{
    if (__builtin_expect(territory_of(block) != 0, 0))
        owned_free(block, __builtin_return_address(0));
    else
        ORIGINAL(free, free_function)(block);
}

/* A block that grows stays with its owner: that is no crossing, so getline may grow a module's buffer.
 * To size 0 it is a release. */
SLOW static void *
owned_realloc(void *block, size_t size, const void *caller)
{
    struct owned owned = owner_of(block);
    switch (owned.owner) {
    case OWNER_FOREIGN:
        return ORIGINAL(realloc, realloc_function)(block, size);
    case OWNER_LEFT:
        errno = EINVAL; /* how large it is went with its allocator */
        return NULL;
    default:
        if (size == 0)
            release_count(&owned, block, caller);
        return owned.table->realloc(block, size);
    }
}

void *
guard_realloc(void *block, size_t size)
{
    if (__builtin_expect(territory_of(block) != 0, 0))
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
    return owned_realloc(block, bytes, caller);
}

void *
guard_reallocarray(void *block, size_t count, size_t size)
{
    if (__builtin_expect(territory_of(block) != 0, 0))
        return owned_reallocarray(block, count, size, __builtin_return_address(0));
    return ORIGINAL(reallocarray, reallocarray_function)(block, count, size);
}

SLOW static size_t
owned_usable_size(void *block)
{
    struct owned owned = owner_of(block);
    if (owned.owner == OWNER_FOREIGN)
        return ORIGINAL(malloc_usable_size, usable_size_function)(block);
    return owned.owner == OWNER_LEFT ? 0 : owned.table->malloc_usable_size(block);
}

size_t
guard_usable_size(void *block)
{
    if (__builtin_expect(territory_of(block) != 0, 0))
        return owned_usable_size(block);
    return ORIGINAL(malloc_usable_size, usable_size_function)(block);
}

/* Is it in territory of the very allocator that says it is not its own? Then nobody else's guard is to be asked again. */
static bool
is_lenders(const struct allocator *lender, const void *block)
{
    return territory_of(block) == lender->number;
}

void
foreign_free(void *lender, void *block)
{
    if (!is_lenders(lender, block))
        guard_free(block);
    else
        ORIGINAL(free, free_function)(block);
}

void *
foreign_realloc(void *lender, void *block, size_t size)
{
    return is_lenders(lender, block) ? ORIGINAL(realloc, realloc_function)(block, size) : guard_realloc(block, size);
}

size_t
foreign_usable_size(void *lender, void *block)
{
    return is_lenders(lender, block) ? ORIGINAL(malloc_usable_size, usable_size_function)(block) : guard_usable_size(block);
}
