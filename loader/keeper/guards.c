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
#include <string.h>

/* Kept out of the guards, which then need no stack frame. Reached by a jump, so that the return
 * address is the caller's. */
#define SLOW __attribute__((noinline, cold))

#define ORIGINAL(name, type, variant) ((type)routes.original[ALCOVE_ENTRY_##name][variant])

/* Other names of free have up to two arguments more: what they are is passed on. */
typedef void (*free_function)(void *, uintptr_t, uintptr_t);
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

/* `caller`: where the releasing code goes on. NULL: a module's, which has told (crossing_by_module). */
static void
release_count(const struct owned *owned, const void *block, const void *caller)
{
    if (caller != NULL)
        crossing_outside(owned->allocator, owned->table->heap_of(block), block, caller);
}

SLOW static void
owned_free(void *block, uintptr_t second, uintptr_t third, unsigned variant, const void *caller)
{
    struct owned owned = owner_of(block);
    if (owned.owner == OWNER_FOREIGN) {
        ORIGINAL(free, free_function, variant)(block, second, third);
    } else if (owned.owner == OWNER_ALLOCATOR) {
        release_count(&owned, block, caller);
        owned.table->free(block);
    }
}

/* How large it is went with its allocator; no more than what is mapped there. It stays, and its contents go on in a new block of libc's. */
static void *
left_move(const void *block, void *to, size_t size)
{
    size_t room = territory_left_room(block);
    return to != NULL ? memcpy(to, block, size < room ? size : room) : NULL;
}

/* A block that grows stays with its owner: that is no crossing, so getline may grow a module's buffer.
 * To size 0 it is a release, which leaves errno alone. */
SLOW static void *
owned_realloc(void *block, size_t size, unsigned variant, const void *caller)
{
    struct owned owned = owner_of(block);
    switch (owned.owner) {
    case OWNER_FOREIGN:
        return ORIGINAL(realloc, realloc_function, variant)(block, size);
    case OWNER_LEFT:
        return size != 0 ? left_move(block, ORIGINAL(realloc, realloc_function, variant)(NULL, size), size) : NULL;
    default:
        if (size != 0)
            return owned.table->realloc(block, size);
        release_count(&owned, block, caller);
        owned.table->free(block);
        return NULL;
    }
}

SLOW static void *
owned_reallocarray(void *block, size_t count, size_t size, unsigned variant, const void *caller)
{
    size_t bytes;
    enum owner owner = owner_of(block).owner;
    if (owner == OWNER_FOREIGN)
        return ORIGINAL(reallocarray, reallocarray_function, variant)(block, count, size);
    if (__builtin_mul_overflow(count, size, &bytes)) {
        errno = ENOMEM;
        return NULL;
    }
    if (owner == OWNER_LEFT && bytes != 0)
        return left_move(block, ORIGINAL(reallocarray, reallocarray_function, variant)(NULL, count, size), bytes);
    return owned_realloc(block, bytes, 0, caller);
}

SLOW static size_t
owned_usable_size(void *block, unsigned variant)
{
    struct owned owned = owner_of(block);
    if (owned.owner == OWNER_FOREIGN)
        return ORIGINAL(malloc_usable_size, usable_size_function, variant)(block);
    return owned.owner == OWNER_LEFT ? 0 : owned.table->malloc_usable_size(block);
}

#define IS_OURS(block) __builtin_expect(territory_of(block) != 0, 0)

/* A guard for each variant: it goes on to that one's original. libc releases its own in threads that begin and end. */
#define GUARD_FREE(variant)                                                                          \
    UNSEEN_BY_TSAN static void guard_free_##variant(void *block, uintptr_t second, uintptr_t third)  \
    {                                                                                                \
        if (IS_OURS(block))                                                                          \
            owned_free(block, second, third, variant, __builtin_return_address(0));                  \
        else                                                                                         \
            ORIGINAL(free, free_function, variant)(block, second, third);                            \
    }
#define GUARD_OTHERS(variant)                                                                        \
    UNSEEN_BY_TSAN static void *guard_realloc_##variant(void *block, size_t size)                    \
    {                                                                                                \
        if (IS_OURS(block))                                                                          \
            return owned_realloc(block, size, variant, __builtin_return_address(0));                 \
        return ORIGINAL(realloc, realloc_function, variant)(block, size);                            \
    }                                                                                                \
    UNSEEN_BY_TSAN static void *guard_reallocarray_##variant(void *block, size_t count, size_t size) \
    {                                                                                                \
        if (IS_OURS(block))                                                                          \
            return owned_reallocarray(block, count, size, variant, __builtin_return_address(0));     \
        return ORIGINAL(reallocarray, reallocarray_function, variant)(block, count, size);           \
    }                                                                                                \
    UNSEEN_BY_TSAN static size_t guard_usable_size_##variant(void *block)                            \
    {                                                                                                \
        if (IS_OURS(block))                                                                          \
            return owned_usable_size(block, variant);                                                \
        return ORIGINAL(malloc_usable_size, usable_size_function, variant)(block);                   \
    }

EACH_DISPATCHED(GUARD_FREE)
EACH_UNDISPATCHED(GUARD_FREE)
EACH_DISPATCHED(GUARD_OTHERS)

void *
guard_of(unsigned which, unsigned variant)
{
#define FREE(variant) HIDDEN_AS(guard_free_##variant),
#define REALLOC(variant) HIDDEN_AS(guard_realloc_##variant),
#define REALLOCARRAY(variant) HIDDEN_AS(guard_reallocarray_##variant),
#define USABLE_SIZE(variant) HIDDEN_AS(guard_usable_size_##variant),
    static char *const frees[VARIANTS] = {EACH_DISPATCHED(FREE) EACH_UNDISPATCHED(FREE)};
    static char *const reallocs[DISPATCHED] = {EACH_DISPATCHED(REALLOC)};
    static char *const reallocarrays[DISPATCHED] = {EACH_DISPATCHED(REALLOCARRAY)};
    static char *const usable_sizes[DISPATCHED] = {EACH_DISPATCHED(USABLE_SIZE)};
    if (which == ALCOVE_ENTRY_free)
        return variant < VARIANTS ? HIDDEN_FUNCTION(frees[variant]) : NULL;
    if (variant >= DISPATCHED)
        return NULL;
    switch (which) {
    case ALCOVE_ENTRY_realloc: return HIDDEN_FUNCTION(reallocs[variant]);
    case ALCOVE_ENTRY_reallocarray: return HIDDEN_FUNCTION(reallocarrays[variant]);
    case ALCOVE_ENTRY_malloc_usable_size: return HIDDEN_FUNCTION(usable_sizes[variant]);
    case ROUTE_dlsym:
    case ROUTE_dlvsym: return lookup_guard_of(which, variant);
    default: return NULL;
    }
}

/* Is it in territory of the very allocator that says it is not its own? Then nobody else is to be asked again. */
static bool
is_lenders(const struct allocator *lender, const void *block)
{
    return territory_of(block) == lender->number;
}

/* The variant of a name that the module with this heap would have called, if it imports that and the function has not gone. -1: it does not. */
static int
variant_wanted(const struct allocator *lender, uint32_t heap, unsigned which)
{
    int variant = crossings_variant_of(lender, heap, which);
    return variant >= 0 && routes.original[which][variant] != NULL ? variant : -1;
}

static unsigned
variant_for(const struct allocator *lender, uint32_t heap, unsigned which)
{
    int variant = variant_wanted(lender, heap, which);
    return variant >= 0 ? (unsigned)variant : 0;
}

void
module_free(void *lender, uint32_t heap, void *block)
{
    unsigned variant = variant_for(lender, heap, ALCOVE_ENTRY_free);
    if (is_lenders(lender, block))
        ORIGINAL(free, free_function, variant)(block, 0, 0);
    else
        owned_free(block, 0, 0, variant, NULL);
}

/* A module that has no realloc has called reallocarray, whose function knows a realloc to go on to. */
void *
module_realloc(void *lender, uint32_t heap, void *block, size_t size)
{
    int variant = variant_wanted(lender, heap, ALCOVE_ENTRY_realloc);
    int of_array = variant < 0 ? variant_wanted(lender, heap, ALCOVE_ENTRY_reallocarray) : -1;
    unsigned chosen = variant >= 0 ? (unsigned)variant : 0;
    if (of_array >= 0)
        return is_lenders(lender, block) ? ORIGINAL(reallocarray, reallocarray_function, of_array)(block, 1, size)
                                         : owned_reallocarray(block, 1, size, (unsigned)of_array, NULL);
    return is_lenders(lender, block) ? ORIGINAL(realloc, realloc_function, chosen)(block, size) : owned_realloc(block, size, chosen, NULL);
}

size_t
module_usable_size(void *lender, uint32_t heap, void *block)
{
    unsigned variant = variant_for(lender, heap, ALCOVE_ENTRY_malloc_usable_size);
    return is_lenders(lender, block) ? ORIGINAL(malloc_usable_size, usable_size_function, variant)(block)
                                     : owned_usable_size(block, variant);
}

/* For an allocator of an earlier release, which does not say for whom. */
void
foreign_free(void *lender, void *block)
{
    module_free(lender, ALCOVE_HEAP_NONE, block);
}

void *
foreign_realloc(void *lender, void *block, size_t size)
{
    return module_realloc(lender, ALCOVE_HEAP_NONE, block, size);
}

size_t
foreign_usable_size(void *lender, void *block)
{
    return module_usable_size(lender, ALCOVE_HEAP_NONE, block);
}
