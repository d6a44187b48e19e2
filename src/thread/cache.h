/*
 * The cache of one thread for one heap: for each size class a stack of free blocks. Only its
 * thread pushes and pops, without a lock. A stack that runs empty is refilled from the heap by
 * the batch, one that runs full gives half of itself back. It grows then, if blocks that were freed have been
 * allocated again since: a thread that only allocates, or only frees what others allocated, gains
 * nothing by keeping many.
 *
 * The stack's array has a null pointer below its bottom, so that popping from an empty one needs no
 * other test; and every pop counts down, which counts allocations and gives the slow path a turn
 * now and then.
 *
 * The lock of the cache's set is held by whoever destroys a cache, and by its thread while it moves
 * blocks between a cache and the heap: a fork, which takes it, then finds none half moved.
 */
#ifndef THREAD_CACHE_H
#define THREAD_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "heap/heap.h"
#include "ground/sizeclass.h"
#include "thread/arrays.h"

struct cache_bin {
    void **top;        /* where the next block is pushed */
    void **end;        /* full when top is here */
    int32_t countdown; /* pops until the slow path has a turn; less CACHE_RECALLED if another thread wants it to have one now */
    uint16_t capacity; /* blocks; 0: no array yet */
    uint16_t mark;     /* low bits of the allocations at the last collection */
    uint64_t due;      /* how many allocations there will have been when countdown is 0 */
};

#define COUNTDOWN 511 /* allocations from one bin between two turns of the slow path, if nobody wants them otherwise */
#define CACHE_RECALLED ((int32_t)1 << 30)

struct cache {
    /* The first thing, so that bins lie at 8 modulo 32: processors take a load for dependent on a
     * store if the low 12 bits of their addresses agree, and page map words of slabs are
     * read at multiples of 32 while bins are written. Without this a malloc of some sizes takes twice as long. */
    struct heap *heap;
    struct cache_bin bins[BINS]; /* bins[0] is always full and empty: what cannot be cached */
    struct cache *next;          /* of its set */
    struct arrays *arrays;       /* of its set, where its bins' arrays come from; NULL: base */
    /* Low bits of the allocations at which a bin will run empty if nothing is freed, and at which
     * it last ran full: tell a bin whose blocks are used again from one that only gives or only takes. */
    uint16_t empty_at[BINS], full_at[BINS];
    bool guarded;
    _Atomic uint32_t moving; /* blocks go between it and the heap just now, which one of the two may count and the other not */
    uint32_t held; /* if guarded: free blocks in it, or more while some are being given back. Read by others without the lock */
    struct lock *guard; /* if guarded: of its set, whoever is inside has it */
    uint64_t has_array[(BINS + 63) / 64]; /* bins, as bits; others may read it */
    /* For thread/peak.c: blocks that are known to be cached, and so are not counted as live; anybody may set that. By how many
     * bytes more is live by this cache than when all its bins were looked at, and how many may be popped from one since. */
    _Atomic uint16_t known[BINS];
    int64_t grown, unseen;
    /* api/spare.h: the block that it lent, how many others that grew were freed meanwhile, and after how many it has another; how many
     * times in a row one was too large; the bin of the one that it may lend, or 0. */
    struct run *lent;
    uint32_t waited, patience, too_large;
    uint8_t spare;
    uint8_t grew, spared; /* the bin by which it grew last; events since all bins were looked at */
    /* Allocations to the next work of the slow path, and low bits of those at a bin's last turn. */
    int32_t to_tick;
    uint16_t turn_at[BINS];
    uint16_t recalled_at[BINS]; /* what a bin's countdown was when it was recalled */
};

_Static_assert(sizeof(struct cache_bin) == 1 << WORD_BIN_SHIFT, "a page map word has a bin's place in a cache");

/* The bin that a page map word names. */
static inline struct cache_bin *
cache_bin_of(struct cache *c, uint64_t word)
{
    return (struct cache_bin *)((char *)c->bins + (word & WORD_BIN_MASK));
}

/* The same bin, as an address in one register. malloc and free read back at once what the other has just stored: some processors
 * (Golden Cove) pass that on in no time, but where an access adds two registers it takes five cycles. */
static inline __attribute__((always_inline)) struct cache_bin *
cache_bin_in_register(struct cache_bin *bin)
{
#if defined __x86_64__
    __asm__("" : "+r"(bin)); /* the compiler is not to know of what it is the sum */
#endif
    return bin;
}

#if SANITIZED
#define CACHE_COMPARED 1 /* what lies before an array may be another thread's array */
#else
#define CACHE_COMPARED 2
#endif

/* A fork may find the user of a cache between any two stores, and a child sees the first of them without the second: the
 * compiler is to leave them in the order in which they are written. (The processor does: a fork waits for what it has begun.) */
#define CACHE_FORK_ORDER() __atomic_signal_fence(__ATOMIC_SEQ_CST)

/* Push a block; false: the bin is full, or one of the two on its top looks like this block. The second below an empty bin is what
 * lies before the array, which is never the first thing in its mapping, and is compared only. */
static inline __attribute__((always_inline)) bool
cache_push(struct cache_bin *bin, void *block)
{
    bin = cache_bin_in_register(bin);
    void **top = bin->top;
    if (unlikely(top == bin->end) || unlikely(top[-1] == block) || unlikely(top[-CACHE_COMPARED] == block))
        return false;
    *top = block;
    CACHE_FORK_ORDER();
    bin->top = top + 1;
    return true;
}

/* Pop a block; NULL: take the slow path. */
static inline void *
cache_pop(struct cache_bin *bin)
{
    bin = cache_bin_in_register(bin);
    void **top = bin->top, *block = top[-1];
    if (unlikely(block == NULL) || unlikely(--bin->countdown < 0))
        return NULL;
    bin->top = top - 1;
    return block;
}

static inline bool
countdown_is_recalled(int32_t countdown)
{
    return countdown < -CACHE_RECALLED / 2;
}

/* How many pops a countdown leaves, or left before it was recalled. */
static inline int32_t
countdown_left(int32_t countdown)
{
    return countdown_is_recalled(countdown) ? countdown + CACHE_RECALLED : countdown;
}

static inline uint64_t
cache_allocations(const struct cache_bin *bin)
{
    return bin->due - (uint64_t)(int64_t)countdown_left(bin->countdown);
}

/* Blocks in a bin. */
static inline unsigned
cache_count(const struct cache_bin *b)
{
    return b->capacity - (unsigned)(b->end - b->top);
}

#define CACHE_SHORT 15 /* blocks: no bin of large ones has more */
#define CACHE_LOOK 8   /* of those in a longer one */

/* Was a block freed into this bin before? A debug build looks at all that is there, and so do others in a short bin; in a longer
 * one at those that were freed last. */
static inline bool
cache_has(const struct cache_bin *b, const void *block)
{
    unsigned count = cache_count(b);
    if (!ALCOVE_DEBUG && b->capacity > CACHE_SHORT && count >= CACHE_LOOK) {
#pragma GCC unroll 8
        for (int i = 1; i <= CACHE_LOOK; i++)
            if (b->top[-i] == block)
                return true;
        return false;
    }
    for (void **at = b->top, **last = at - count; at != last;)
        if (*--at == block)
            return true;
    return false;
}

/* cache_count() for other threads. -1: the array is becoming another just now. */
static inline __attribute__((no_sanitize("thread"))) int
cache_count_seen(const struct cache_bin *b)
{
    int64_t room = __atomic_load_n(&b->end, __ATOMIC_ACQUIRE) - __atomic_load_n(&b->top, __ATOMIC_ACQUIRE);
    int64_t capacity = __atomic_load_n(&b->capacity, __ATOMIC_RELAXED);
    return room >= 0 && room <= capacity ? (int)(capacity - room) : -1;
}

/* cache_allocations() for other threads: they may look while a turn is being set, of which a countdown below 0 tells. */
uint64_t cache_allocations_seen(const struct cache_bin *bin);

/* Let the slow path have its next turn after `allocations` more: any number, at any time, by the cache's thread. */
static inline void
cache_turn_after(struct cache_bin *bin, int32_t allocations)
{
    uint64_t due = cache_allocations(bin) + (uint64_t)allocations;
    __atomic_store_n(&bin->countdown, -1, __ATOMIC_RELAXED);
    __atomic_store_n(&bin->due, due, __ATOMIC_RELEASE); /* who sees it sees the countdown below 0 too */
    __atomic_store_n(&bin->countdown, allocations, __ATOMIC_RELEASE);
}

/* Let a bin of any thread's cache have a turn at its next allocation, if it has leave for more than so many. Its user counts down
 * without a lock, and may undo it just now: then it is a turn that comes later. By one thread at a time. */
void cache_recall(struct cache *c, unsigned bin, int32_t most);

/* One was allocated past cache_pop(), which may have counted it: is a turn due? */
static inline bool
cache_count_slow(struct cache *c, unsigned bin)
{
    struct cache_bin *b = &c->bins[bin];
    int32_t left = countdown_left(b->countdown);
    bool recalled = left != b->countdown, counted = recalled ? left < c->recalled_at[bin] : left < 0;
    b->countdown = counted ? left : left - 1;
    return recalled || b->countdown < 0;
}

#define REFILL_COUNTS 32 /* moving a batch takes longer than so many allocations from a bin */

/* There were so many allocations more. Is it time for what is done at every COUNTDOWN of them? */
static inline bool
cache_tick_is_due(struct cache *c, int32_t allocations)
{
    c->to_tick -= allocations;
    if (c->to_tick > 0)
        return false;
    c->to_tick = COUNTDOWN + 1;
    return true;
}

/* Take a block at a bin's turn, if that is not for more than counting; then it counts as a turn. NULL: it is for more. */
static inline void *
cache_pop_at_turn(struct cache *c, unsigned bin)
{
    struct cache_bin *b = &c->bins[bin];
    void *block = b->top[-1];
    uint16_t now = (uint16_t)cache_allocations(b), allocations = (uint16_t)(now - c->turn_at[bin]);
    if (block == NULL || c->to_tick <= allocations)
        return NULL;
    c->to_tick -= allocations;
    c->turn_at[bin] = now;
    b->top--;
    return block;
}

/* How many there were since a bin's last turn, which is now. */
static inline uint16_t
cache_turn(struct cache *c, unsigned bin)
{
    uint16_t now = (uint16_t)cache_allocations(&c->bins[bin]), before = c->turn_at[bin];
    c->turn_at[bin] = now;
    return (uint16_t)(now - before);
}

/* It failed. */
static inline void
cache_count_failed(struct cache_bin *bin)
{
    __atomic_store_n(&bin->due, bin->due - 1, __ATOMIC_RELAXED);
}

/* Enter and leave a cache that may be guarded: only the one who is inside changes it. */
static inline void
cache_enter(struct cache *c)
{
    if (c->guarded)
        lock_take(c->guard);
}

static inline void
cache_leave(struct cache *c)
{
    if (c->guarded)
        lock_drop(c->guard);
}

static inline void
cache_held_add(struct cache *c, uint32_t blocks)
{
    __atomic_store_n(&c->held, c->held + blocks, __ATOMIC_RELAXED);
}

/* Push and pop in any cache, by who is inside, what is known not to be there; nothing is counted down. */
static inline bool
cache_push_inside(struct cache *c, struct cache_bin *bin, void *block)
{
    void **top = bin->top;
    if (top == bin->end)
        return false;
    *top = block;
    CACHE_FORK_ORDER();
    bin->top = top + 1;
    if (c->guarded)
        cache_held_add(c, 1);
    return true;
}

static inline void *
cache_pop_inside(struct cache *c, struct cache_bin *bin)
{
    void *block = bin->top[-1];
    if (block == NULL)
        return NULL;
    bin->top--;
    if (c->guarded)
        cache_held_add(c, (uint32_t)-1);
    return block;
}

/* Push and pop in a guarded cache, from outside of it. */
static inline bool
cache_push_guarded(struct cache *c, struct cache_bin *bin, void *block)
{
    lock_take(c->guard);
    bool pushed = !cache_has(bin, block) && cache_push(bin, block);
    if (pushed)
        cache_held_add(c, 1);
    lock_drop(c->guard);
    return pushed;
}

/* A turn that is due is left to the slow path, with the counting: meanwhile whoever empties the cache may have set another. */
static inline void *
cache_pop_guarded(struct cache *c, struct cache_bin *bin)
{
    lock_take(c->guard);
    void *block = bin->countdown > 0 ? cache_pop(bin) : NULL;
    if (block != NULL)
        cache_held_add(c, (uint32_t)-1);
    lock_drop(c->guard);
    return block;
}

void cache_init(struct cache *c, struct heap *h, struct arrays *arrays);

/* Give back what it holds, and let its heap take over what it has counted. */
void cache_retire(struct cache *c);

/* Make a cache a guarded one, by this lock. */
void cache_guard(struct cache *c, struct lock *guard);

/* Free the arrays; their blocks are forgotten. */
void cache_fini(struct cache *c);

/* Fill an empty bin and take one block from it. *zeroed is set to true if that reads as zero.
 * NULL: no memory, or the limit. */
void *cache_refill(struct cache *c, unsigned bin, bool *zeroed);

/* Make room in a bin that is full. False: nothing can be kept in it. */
bool cache_make_room(struct cache *c, unsigned bin);

/* Give back what was not used since the last call; all of it if `all`. What stays is looked through for what was freed twice. */
void cache_collect(struct cache *c, bool all);

/* Give back all blocks. */
void cache_empty(struct cache *c);

#endif
