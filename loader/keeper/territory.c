/*
 * The half of the territory map that writes. Leaves are added by whoever is first; a unit is written by the allocator that has it. The
 * list of what was left is only ever added to, under the loader's lock; readers need none.
 */
#include "keeper/territory.h"

#include <errno.h>
#include <sys/mman.h>

_Static_assert(ALCOVE_TERRITORY == (size_t)1 << TERRITORY_LG_UNIT, "the unit of alcove/table.h");

#define LEAF_UNITS ((size_t)1 << TERRITORY_LG_LEAF)

_Atomic(_Atomic uint8_t *) territory_root[(size_t)1 << TERRITORY_LG_ROOT]; /* untouched, hence not resident */

/* What was left, in blocks of memory of their own: it may happen when there is no other. */
struct left {
    uintptr_t base;
    size_t bytes;
};
#define LEFT_BYTES ((size_t)64 << 10)
#define LEFT_COUNT ((LEFT_BYTES - 2 * sizeof(void *)) / sizeof(struct left))

static struct left_list {
    struct left_list *next;
    _Atomic size_t count;
    struct left ranges[];
} *_Atomic left_lists;

/* There was no memory to say what was left: units that were are taken as a whole for what stays. */
static atomic_bool left_unknown;

static void *
memory_map(size_t bytes)
{
    int saved = errno;
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    errno = saved;
    return p != MAP_FAILED ? p : NULL;
}

static bool
leaf_have(_Atomic(_Atomic uint8_t *) *root)
{
    if (atomic_load_explicit(root, memory_order_acquire) != NULL)
        return true;
    _Atomic uint8_t *leaf = memory_map(LEAF_UNITS), *none = NULL;
    if (leaf == NULL)
        return false;
    if (!atomic_compare_exchange_strong(root, &none, leaf))
        munmap((void *)leaf, LEAF_UNITS); /* another thread was first */
    return true;
}

int
territory_reserve(uintptr_t base, size_t bytes)
{
    size_t last = (base + bytes - 1) >> TERRITORY_LG_UNIT >> TERRITORY_LG_LEAF;
    for (size_t i = base >> TERRITORY_LG_UNIT >> TERRITORY_LG_LEAF; i <= last; i++)
        if (i >> TERRITORY_LG_ROOT != 0 || !leaf_have(&territory_root[i]))
            return ENOMEM;
    return 0;
}

/* Only what changes is written to: of large mappings most was never entered. */
static void
units_set(uintptr_t base, size_t bytes, uint8_t number)
{
    size_t unit = base >> TERRITORY_LG_UNIT, end = (base + bytes + ALCOVE_TERRITORY - 1) >> TERRITORY_LG_UNIT;
    while (unit < end) {
        size_t next = ((unit >> TERRITORY_LG_LEAF) + 1) << TERRITORY_LG_LEAF;
        _Atomic uint8_t *leaf = atomic_load_explicit(&territory_root[unit >> TERRITORY_LG_LEAF], memory_order_acquire);
        for (; leaf != NULL && unit < end && unit < next; unit++) {
            _Atomic uint8_t *at = &leaf[unit & (LEAF_UNITS - 1)];
            if (atomic_load_explicit(at, memory_order_relaxed) != number)
                atomic_store_explicit(at, number, memory_order_release);
        }
        unit = unit < next ? next : unit;
    }
}

void
territory_enter(unsigned number, uintptr_t base, size_t bytes)
{
    units_set(base, bytes, (uint8_t)number);
}

void
territory_leave(uintptr_t base, size_t bytes)
{
    units_set(base, bytes, 0);
}

static bool
left_add(uintptr_t base, size_t bytes)
{
    struct left_list *list = atomic_load_explicit(&left_lists, memory_order_relaxed);
    size_t count = list != NULL ? atomic_load_explicit(&list->count, memory_order_relaxed) : 0;
    if (list == NULL || count == LEFT_COUNT) {
        struct left_list *more = memory_map(LEFT_BYTES);
        if (more == NULL)
            return false;
        more->next = list;
        atomic_store_explicit(&left_lists, more, memory_order_release);
        list = more;
        count = 0;
    }
    list->ranges[count] = (struct left){base, bytes};
    atomic_store_explicit(&list->count, count + 1, memory_order_release);
    return true;
}

void
territory_abandon(uintptr_t base, size_t bytes)
{
    if (!left_add(base, bytes))
        atomic_store(&left_unknown, true);
    units_set(base, bytes, TERRITORY_LEFT);
}

static const struct left *
left_find(const void *address)
{
    for (const struct left_list *list = atomic_load_explicit(&left_lists, memory_order_acquire); list != NULL; list = list->next) {
        size_t count = atomic_load_explicit(&list->count, memory_order_acquire);
        for (size_t i = 0; i < count; i++)
            if ((uintptr_t)address - list->ranges[i].base < list->ranges[i].bytes)
                return &list->ranges[i];
    }
    return NULL;
}

bool
territory_was_left(const void *address)
{
    return atomic_load(&left_unknown) || left_find(address) != NULL;
}

size_t
territory_left_room(const void *address)
{
    const struct left *left = left_find(address);
    uintptr_t end = left != NULL ? left->base + left->bytes : ((uintptr_t)address | 0xfff) + 1;
    return end - (uintptr_t)address;
}

bool
territory_has_left(void)
{
    return atomic_load(&left_unknown) || atomic_load(&left_lists) != NULL;
}
