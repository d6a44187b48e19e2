/*
 * A run: neighbouring pages with one use. Its record lies outside of them. Runs are cut from chunks, which begin at a multiple
 * of their size. A chunk that is free as a whole is a span, or part of one, and a huge run is cut from a span.
 */
#ifndef PAGES_RUN_H
#define PAGES_RUN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ground/sizeclass.h"
#include "pages/pagemap.h"

#define CHUNK_LG 22
#define CHUNK_SIZE ((size_t)1 << CHUNK_LG)
#define CHUNK_MASK (CHUNK_SIZE - 1)
#define CHUNK_PAGES (CHUNK_SIZE >> PAGE_LG)

enum run_kind {
    RUN_CLEAN,   /* free; reads as zero, never touched or purged */
    RUN_DIRTY,   /* free; was used, may still be resident */
    SPAN_CLEAN,  /* the same for a span: free chunks beside each other */
    SPAN_DIRTY,
    RUN_PURGING, /* free, run or span; on its way from dirty to clean */
    RUN_GIVEN,   /* being freed together with others */
    RUN_ABSORBED,/* was one of those; another's record speaks for its pages now */
    RUN_INSIDE,  /* no run: what the page map says of the chunks between the ends of a free span */
    RUN_SLAB,    /* cut into blocks of one size class */
    RUN_LARGE,   /* one block, in a chunk */
    RUN_HUGE     /* one block that has chunks of its own */
};

struct free_runs;

struct run {
    uintptr_t base;    /* first byte */
    size_t pages;
    struct run *next, *prev; /* in the list of its kind: a pool's free runs of one size, a heap's slabs */
    uint8_t kind;      /* enum run_kind */
    uint8_t bin;       /* slab and large: size class; 0: none */
    uint16_t heap;     /* slab, large, huge: its owner */
    uint16_t blocks;   /* slab: how many it has */
    uint16_t free;     /* slab: how many of them are neither allocated nor cached */
    union {
        uint32_t inverse; /* slab: 2^32 / block size, rounded up; to divide an offset */
        int32_t taken; /* just taken or resized: by so many dirty pages its pool has fewer now */
    };
    uint8_t zeroed : 1; /* the pages read as zero when it was handed out */
    uint8_t hooked : 1; /* its memory came from a pool's hooks, and is not the system's */
    uint8_t stale : 1; /* slab: pages that are not touched may be resident, from an earlier use */
    uint8_t outgrown : 1; /* large, huge: its user goes on with a larger one, and frees it */
    uint8_t word_bin;  /* the bin that its page map words name: its own, or 0 while it is lent, so that its free is looked at */
    uint16_t listed;   /* whose list it is in: run_is_listed() */
    union {
        struct {       /* dirty, and clean spans: from the one that became so first to the last */
            struct run *younger, *older;
        };
        struct {       /* large, huge */
            size_t usable; /* bytes of the block; its pages may have room for more (heap/large.h) */
            size_t metadata; /* bytes that its heap is charged for besides */
        };
        struct {       /* slab */
            uint32_t charged; /* a bit for each page, 1: touched, for blocks of it were handed out, and its heap is charged for it */
            uint16_t ready;   /* how many of the free blocks lie in such pages alone */
        };
    };
    union {
        /* slab: a bit for each block, 1 free. The last members of a record of 128 bytes, more only with larger pages. */
        uint64_t bits[SLAB_MAX_BLOCKS / 64];
        struct {
            struct run *next_giant; /* span, huge: in the list of those that are found by it (pages/giants.h) */
            union {
                struct {                     /* span */
                    struct free_runs *owner; /* whose it is */
                    size_t touched;          /* pages that may be resident */
                };
                uint32_t purger;             /* being purged: whose hand it is in, lock_self() */
                struct {                     /* huge */
                    size_t rest;             /* pages behind it, in its last chunk, that were used before and may be resident */
                    struct run *younger_rest, *older_rest; /* in the pool's list, if it has such */
                    size_t asked;            /* large too, where it is lent: what its user asked for, before it asked for less */
                };
            };
        };
    };
} __attribute__((aligned(128))); /* page map words keep its address in multiples of that */

_Static_assert(sizeof(struct run) == 128 || PAGE_LG > 12, "a record is two cache lines");

/* Bits of a slab are written under its class's lock, and read without, where a block is looked at that
 * should be live: its bit then was written before it was handed out. */
static inline int
run_bit(const struct run *run, unsigned i)
{
    return (int)(__atomic_load_n(&run->bits[i / 64], __ATOMIC_RELAXED) >> (i % 64) & 1);
}

static inline void
run_bits_put(struct run *run, unsigned word, uint64_t bits)
{
    __atomic_store_n(&run->bits[word], bits, __ATOMIC_RELAXED);
}

static inline size_t
chunks_of(size_t pages)
{
    return (pages + CHUNK_PAGES - 1) / CHUNK_PAGES;
}

/* A heap's runs are in lists of its, those with slabs by their class. Whoever frees a block that another thread is just freeing
 * too finds, with the list's lock held, that its run is in no list any more, whatever has become of the record. */
#define LISTED_SLAB ((uint16_t)1 << 15)

static inline uint16_t
listed_in(uint32_t heap, bool slab)
{
    return (uint16_t)((heap + 1) | (slab ? LISTED_SLAB : 0));
}

static inline bool
run_is_listed(const struct run *run, uint16_t list)
{
    return __atomic_load_n(&run->listed, __ATOMIC_ACQUIRE) == list;
}

/* 0: in none. */
static inline void
run_set_listed(struct run *run, uint16_t list)
{
    __atomic_store_n(&run->listed, list, __ATOMIC_RELEASE);
}

/* Is it one block, which begins at this address? */
static inline bool
run_is_block(const struct run *run, const void *address)
{
    return run->kind > RUN_SLAB && run->base == (uintptr_t)address;
}

/* Is it lent to a block that grows (api/spare.h)? */
static inline bool
run_is_lent(const struct run *run)
{
    return run->bin != run->word_bin;
}

static inline struct run *
word_run(uint64_t word)
{
    return (struct run *)(uintptr_t)((word & WORD_RUN_MASK) | (word & WORD_LOW_MASK) << WORD_LOW_SHIFT);
}

static inline uint32_t
word_heap(uint64_t word)
{
    return (uint32_t)(word >> WORD_HEAP_SHIFT);
}

static inline unsigned
word_bin(uint64_t word)
{
    return (unsigned)((word & WORD_BIN_MASK) >> WORD_BIN_SHIFT);
}

static inline uint64_t
word_make(const struct run *run)
{
    uintptr_t record = (uintptr_t)run;
    return (uint64_t)run->heap << WORD_HEAP_SHIFT | (record & WORD_RUN_MASK) |
           (record >> WORD_LOW_SHIFT & WORD_LOW_MASK) | (uint64_t)run->word_bin << WORD_BIN_SHIFT;
}

static inline void
run_list_push(struct run **list, struct run *run)
{
    run->prev = NULL;
    run->next = *list;
    if (run->next != NULL)
        run->next->prev = run;
    *list = run;
}

static inline void
run_list_remove(struct run **list, struct run *run)
{
    if (run->prev != NULL)
        run->prev->next = run->next;
    else
        *list = run->next;
    if (run->next != NULL)
        run->next->prev = run->prev;
}

#endif
