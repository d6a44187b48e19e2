/*
 * The page map: for any address, is it ours, and whose. A table of two levels, indexed by page
 * number. It never touches the address asked about, and an address that was never ours costs one
 * or two loads.
 *
 * Glossary
 *   word    what is known of one page, in 64 bits; 0: not ours. See WORD_ below
 *   leaf    the words of 2^PAGEMAP_LG_LEAF neighbouring pages, mapped when first needed
 *   root    a leaf's address for each part of the address space
 *
 * A word is written under the lock of the pool whose page it is, or by who has the block that begins there; tables are made
 * under a lock of the map's own. Both are read by anyone without a lock.
 */
#ifndef PAGES_PAGEMAP_H
#define PAGES_PAGEMAP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "alcove/table.h"
#include "ground/attributes.h"
#include "config.h"
#include "ground/page.h"

#define PAGEMAP_LG_LEAF 18 /* with 4 KiB pages a leaf speaks of 1 GiB and takes 2 MiB of address space */
#define PAGEMAP_LG_ROOT (ALCOVE_LG_VADDR - PAGE_LG - PAGEMAP_LG_LEAF)
#define PAGEMAP_ROOT_COUNT ((size_t)1 << PAGEMAP_LG_ROOT)
#define PAGEMAP_LEAF_COUNT ((size_t)1 << PAGEMAP_LG_LEAF)
#define PAGEMAP_LEAF_BYTES (PAGEMAP_LEAF_COUNT * sizeof(uint64_t))
#define PAGEMAP_ROOT_SHIFT (PAGE_LG + PAGEMAP_LG_LEAF)

typedef _Atomic uint64_t pagemap_word;

extern HIDDEN struct pagemap {
    _Atomic(pagemap_word *) root[PAGEMAP_ROOT_COUNT];
    _Atomic uint32_t leaves; /* how many there are */
} pagemap;

/* A word: heap number in the top 16 bits; in the middle the address of the run's record, which is a multiple
 * of 128; in bits 5 to 11 the bin of the thread cache, so that one mask gives the bin's place in a cache. The
 * record's bits from there are kept in the lowest 5. Bin 0 is the one no block is cached in: pages of free runs
 * and of blocks too large to cache have it, and so has the word 0. */
#define WORD_HEAP_SHIFT 48
#define WORD_BIN_SHIFT 5
#define WORD_BIN_MASK ((uint64_t)127 << WORD_BIN_SHIFT)
#define WORD_LOW_MASK ((uint64_t)31)
#define WORD_LOW_SHIFT 7 /* up, to where they belong in the record's address */
#define WORD_RUN_MASK (((uint64_t)1 << WORD_HEAP_SHIFT) - 1 - (WORD_BIN_MASK | WORD_LOW_MASK))

/* The word of an address; 0 if there is none. Safe for any address. */
static inline uint64_t
pagemap_get(const void *address)
{
    uintptr_t a = (uintptr_t)address;
    size_t i = a >> PAGEMAP_ROOT_SHIFT;
    if (__builtin_expect(i >= PAGEMAP_ROOT_COUNT, 0))
        return 0;
    pagemap_word *leaf = atomic_load_explicit(&pagemap.root[i], memory_order_acquire);
    if (__builtin_expect(leaf == NULL, 0))
        return 0;
    return atomic_load_explicit(&leaf[(a >> PAGE_LG) & (PAGEMAP_LEAF_COUNT - 1)],
                                memory_order_relaxed);
}

/* Blocks begin at multiples of 16. An address in such units, and what is not a multiple is far away from all that are. */
#define GRANULE_LG 4
#define GRANULE_PAGE_LG (PAGE_LG - GRANULE_LG)

static inline size_t
pagemap_granule(uintptr_t address)
{
    return address >> GRANULE_LG | address << (64 - GRANULE_LG);
}

/* The leaf that was made first. Most programs never need another, so the hot path looks here before it asks
 * the root. Before there is one, `granule` is of no address. */
extern HIDDEN struct pagemap_first {
    size_t granule;     /* the first that the leaf speaks of; written after `leaf` */
    pagemap_word *leaf;
} pagemap_first;

/* How far a granule is from the leaf's first. Reads that before `leaf`. x86 does so by itself, and then the
 * load can be part of the subtraction, which it cannot as an atomic one: 5 % of a pair of malloc and free. */
static inline size_t
pagemap_first_distance(size_t granule)
{
#if defined __x86_64__ && !SANITIZED
    size_t distance = granule - pagemap_first.granule;
    __asm__ volatile("" : "+r"(distance) : : "memory");
    return distance;
#else
    return granule - __atomic_load_n(&pagemap_first.granule, __ATOMIC_ACQUIRE);
#endif
}

/* pagemap_get, for the hot path, and for addresses where a block may begin: of others the word is 0. */
static inline uint64_t
pagemap_get_hot(const void *address)
{
    size_t distance = pagemap_first_distance(pagemap_granule((uintptr_t)address));
    if (__builtin_expect(distance < PAGEMAP_LEAF_COUNT << GRANULE_PAGE_LG, 1))
        return atomic_load_explicit(&pagemap_first.leaf[distance >> GRANULE_PAGE_LG], memory_order_relaxed);
    return ((uintptr_t)address & (((size_t)1 << GRANULE_LG) - 1)) == 0 ? pagemap_get(address) : 0;
}

/* Make sure that the tables for a range exist. 0 or ENOMEM. */
int pagemap_reserve(uintptr_t base, size_t pages);

/* Bytes of address space that tables take. */
size_t pagemap_bytes(void);

/* Set the words of neighbouring pages whose tables exist. */
void pagemap_set(uintptr_t base, size_t pages, uint64_t word);

/* Give back what words took that are 0 again, of addresses that are about to be unmapped. */
void pagemap_purge(uintptr_t base, size_t pages);

/* Give the map up: unmap its tables. */
void pagemap_release(void);

/* The lock of tables and giants, for pages/ only. */
void pagemap_lock_take(void);
void pagemap_lock_drop(void);

bool pagemap_fork_holds(void); /* does this thread, in the middle of something? */
void pagemap_fork_prepare(void);
void pagemap_fork_done(void);
void pagemap_fork_child(void);

#endif
