/* The page map: the half that writes. Every function is called under the pool's lock. */
#include "pages/pagemap.h"

#include <errno.h>

#include "os/os.h"

/* Untouched, hence not resident, when a loader lends one. It begins a page, so that it parts other variables in two, and no
 * page more is touched. */
static struct pagemap own __attribute__((aligned(4096)));
struct pagemap *pagemap = &own;

/* A page number so high that no distance from it is as small as a leaf is long. */
#define NOWHERE ((size_t)1 << 63)
struct pagemap_first pagemap_first = { NOWHERE, 0 };

void
pagemap_lend(struct pagemap *map)
{
    pagemap = map;
}

/* Whoever sees the page sees the leaf. */
static void
first_set(size_t page, pagemap_entry *leaf)
{
    __atomic_store_n(&pagemap_first.page, NOWHERE, __ATOMIC_RELEASE);
    pagemap_first.entries = (uintptr_t)leaf - page * sizeof *leaf;
    __atomic_store_n(&pagemap_first.page, page, __ATOMIC_RELEASE);
}

static pagemap_entry *
leaf_of(uintptr_t address)
{
    return atomic_load_explicit(&pagemap->root[address >> PAGEMAP_ROOT_SHIFT], memory_order_relaxed);
}

static size_t
leaf_index(uintptr_t address)
{
    return (address >> PAGE_LG) & (PAGEMAP_LEAF_COUNT - 1);
}

int
pagemap_reserve(uintptr_t base, size_t pages)
{
    uintptr_t last = base + (pages << PAGE_LG) - 1;
    for (uintptr_t i = base >> PAGEMAP_ROOT_SHIFT; i <= last >> PAGEMAP_ROOT_SHIFT; i++) {
        if (i >= PAGEMAP_ROOT_COUNT)
            return ENOMEM; /* the system gave an address beyond --with-lg-vaddr */
        pagemap_entry *leaf = atomic_load_explicit(&pagemap->root[i], memory_order_relaxed);
        if (leaf == NULL) {
            leaf = os_map(PAGEMAP_LEAF_BYTES, PAGE_SIZE);
            if (leaf == NULL)
                return ENOMEM;
            atomic_store_explicit(&pagemap->root[i], leaf, memory_order_release);
        }
        if (pagemap_first.page == NOWHERE)
            first_set(i << PAGEMAP_LG_LEAF, leaf);
    }
    return 0;
}

void
pagemap_set(uintptr_t base, size_t pages, uint64_t entry)
{
    while (pages > 0) {
        size_t first = leaf_index(base), n = PAGEMAP_LEAF_COUNT - first;
        if (n > pages)
            n = pages;
        pagemap_entry *leaf = leaf_of(base);
#pragma GCC unroll 8
        for (size_t i = first; i < first + n; i++)
            atomic_store_explicit(&leaf[i], entry, memory_order_release);
        base += n << PAGE_LG;
        pages -= n;
    }
}

void
pagemap_release(void)
{
    first_set(NOWHERE, NULL);
    for (size_t i = 0; i < PAGEMAP_ROOT_COUNT; i++) {
        pagemap_entry *leaf = atomic_load_explicit(&pagemap->root[i], memory_order_relaxed);
        if (leaf == NULL)
            continue;
        if (pagemap != &own) {
            if (atomic_load_explicit(&pagemap->left, memory_order_relaxed) == 0)
                os_purge(leaf, PAGEMAP_LEAF_BYTES);
            continue;
        }
        atomic_store_explicit(&pagemap->root[i], NULL, memory_order_relaxed);
        os_unmap(leaf, PAGEMAP_LEAF_BYTES);
    }
}
