/* The page map: the half that writes. `tables` guards which leaves there are. */
#include "pages/pagemap.h"

#include <errno.h>

#include "ground/lock.h"
#include "os/os.h"

static struct lock tables = LOCK_INITIAL(LOCK_PAGEMAP);

/* It begins a page, so that it parts other variables in two, and no page more is touched. */
struct pagemap pagemap __attribute__((aligned(4096)));

/* Of an address that is odd and in no machine's address space, and so are those that follow, for longer than a leaf is. */
#define NOWHERE ((size_t)0x7080000000000000)
struct pagemap_first pagemap_first = { NOWHERE, NULL };

/* Whoever sees the granule sees the leaf. */
static void
first_set(size_t granule, pagemap_word *leaf)
{
    __atomic_store_n(&pagemap_first.granule, NOWHERE, __ATOMIC_RELEASE);
    pagemap_first.leaf = leaf;
    __atomic_store_n(&pagemap_first.granule, granule, __ATOMIC_RELEASE);
}

static pagemap_word *
leaf_of(uintptr_t address)
{
    return atomic_load_explicit(&pagemap.root[address >> PAGEMAP_ROOT_SHIFT], memory_order_relaxed);
}

static size_t
leaf_index(uintptr_t address)
{
    return (address >> PAGE_LG) & (PAGEMAP_LEAF_COUNT - 1);
}

/* With the lock held. */
static pagemap_word *
leaf_make(size_t i)
{
    pagemap_word *leaf = atomic_load_explicit(&pagemap.root[i], memory_order_relaxed);
    if (leaf == NULL) {
        leaf = os_map(PAGEMAP_LEAF_BYTES, PAGE_SIZE);
        if (leaf == NULL)
            return NULL;
        os_huge_pages(leaf, PAGEMAP_LEAF_BYTES, false); /* a word would make all of it resident */
        atomic_store_explicit(&pagemap.root[i], leaf, memory_order_release);
        atomic_fetch_add_explicit(&pagemap.leaves, 1, memory_order_relaxed);
    }
    if (pagemap_first.granule == NOWHERE)
        first_set(pagemap_granule(i << PAGEMAP_ROOT_SHIFT), leaf);
    return leaf;
}

int
pagemap_reserve(uintptr_t base, size_t pages)
{
    uintptr_t last = base + (pages << PAGE_LG) - 1;
    if (last >> PAGEMAP_ROOT_SHIFT >= PAGEMAP_ROOT_COUNT)
        return ENOMEM; /* the system gave an address beyond --with-lg-vaddr */
    bool all = pagemap_first.granule != NOWHERE;
    for (uintptr_t i = base >> PAGEMAP_ROOT_SHIFT; all && i <= last >> PAGEMAP_ROOT_SHIFT; i++)
        all = atomic_load_explicit(&pagemap.root[i], memory_order_acquire) != NULL;
    if (all)
        return 0;
    pagemap_lock_take();
    all = true;
    for (uintptr_t i = base >> PAGEMAP_ROOT_SHIFT; all && i <= last >> PAGEMAP_ROOT_SHIFT; i++)
        all = leaf_make(i) != NULL;
    pagemap_lock_drop();
    return all ? 0 : ENOMEM;
}

size_t
pagemap_bytes(void)
{
    return atomic_load_explicit(&pagemap.leaves, memory_order_relaxed) * PAGEMAP_LEAF_BYTES;
}

void
pagemap_set(uintptr_t base, size_t pages, uint64_t word)
{
    while (pages > 0) {
        size_t first = leaf_index(base), n = PAGEMAP_LEAF_COUNT - first;
        if (n > pages)
            n = pages;
        pagemap_word *leaf = leaf_of(base);
#pragma GCC unroll 8
        for (size_t i = first; i < first + n; i++)
            atomic_store_explicit(&leaf[i], word, memory_order_release);
        base += n << PAGE_LG;
        pages -= n;
    }
}

void
pagemap_purge(uintptr_t base, size_t pages)
{
    while (pages > 0) {
        size_t first = leaf_index(base), n = PAGEMAP_LEAF_COUNT - first;
        if (n > pages)
            n = pages;
        pagemap_word *leaf = leaf_of(base); /* a giant has not all */
        uintptr_t from = ((uintptr_t)(leaf + first) + PAGE_MASK) & ~PAGE_MASK, to = (uintptr_t)(leaf + first + n) & ~PAGE_MASK;
        if (leaf != NULL && from < to)
            os_purge((void *)from, to - from);
        base += n << PAGE_LG;
        pages -= n;
    }
}

void
pagemap_release(void)
{
    first_set(NOWHERE, NULL);
    for (size_t i = 0; i < PAGEMAP_ROOT_COUNT; i++) {
        pagemap_word *leaf = atomic_load_explicit(&pagemap.root[i], memory_order_relaxed);
        if (leaf == NULL)
            continue;
        atomic_store_explicit(&pagemap.root[i], NULL, memory_order_relaxed);
        atomic_fetch_sub_explicit(&pagemap.leaves, 1, memory_order_relaxed);
        os_give_up(leaf, PAGEMAP_LEAF_BYTES);
    }
}

void pagemap_lock_take(void) { lock_take(&tables); }
void pagemap_lock_drop(void) { lock_drop(&tables); }

bool pagemap_fork_holds(void) { return lock_is_mine(&tables); }
void pagemap_fork_prepare(void) { lock_take(&tables); }
void pagemap_fork_done(void) { lock_drop(&tables); }
void pagemap_fork_child(void) { lock_init(&tables, LOCK_PAGEMAP); }
