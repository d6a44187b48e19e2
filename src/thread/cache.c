/* Thread caches: the slow half. Only the thread that owns the cache is here, or whoever holds its set's lock. */
#include "thread/cache.h"

#include <string.h>

#include "ground/misuse.h"
#include "ground/system.h"
#include "heap/large.h"
#include "heap/slab.h"
#include "thread/peak.h"

/* What a bin may keep at most; bench/README.md compares. */
#define SMALL_KEEP_BYTES ((size_t)128 << 10)
#define SMALL_KEEP_LEAST 7
#define LARGE_KEEP_BYTES ((size_t)512 << 10)
#define LARGE_KEEP_LEAST 1
#define KEEP_MOST 1023
/* Up to here a bin grows whenever it runs empty or full: a batch should be worth taking a lock. */
#define BATCH_BYTES ((size_t)16 << 10)
#define BATCH_LEAST 7
#define BATCH_MOST 63

/* Every bin without an array points behind the null pointer here. */
static void *no_blocks[2];

static void
bin_clear(struct cache_bin *b)
{
    /* In this order, for cache_count_seen(): it then does not hold what fitted. */
    b->capacity = 0;
    __atomic_store_n(&b->top, &no_blocks[1], __ATOMIC_RELEASE);
    __atomic_store_n(&b->end, &no_blocks[1], __ATOMIC_RELEASE);
}

void
cache_init(struct cache *c, struct heap *h, struct arrays *arrays)
{
    memset(c, 0, sizeof *c);
    for (unsigned bin = 0; bin < BINS; bin++) {
        bin_clear(&c->bins[bin]);
        cache_turn_after(&c->bins[bin], COUNTDOWN);
    }
    c->to_tick = COUNTDOWN + 1;
    c->heap = h;
    if (h != NULL) /* else it is a closed one */
        atomic_fetch_add_explicit(&h->caches, 1, memory_order_relaxed);
    c->arrays = arrays;
}

/* A thread may be stopped within the few instructions that set a turn; its count is then wrong by a period at most. */
#define SEEN_TRIES 1000

/* Reads what another thread writes without a lock. */
__attribute__((no_sanitize("thread"))) uint64_t
cache_allocations_seen(const struct cache_bin *b)
{
    for (int i = 0;; i++) {
        int32_t before = countdown_left(__atomic_load_n(&b->countdown, __ATOMIC_ACQUIRE));
        uint64_t due = __atomic_load_n(&b->due, __ATOMIC_ACQUIRE);
        int32_t after = countdown_left(__atomic_load_n(&b->countdown, __ATOMIC_RELAXED));
        if (i == SEEN_TRIES || (after >= 0 && after <= before))
            return due - (uint64_t)(int64_t)after;
        system_cpu_pause();
    }
}

/* Writes what another thread counts down without a lock. */
__attribute__((no_sanitize("thread"))) void
cache_recall(struct cache *c, unsigned bin, int32_t most)
{
    int32_t *countdown = &c->bins[bin].countdown, left = __atomic_load_n(countdown, __ATOMIC_RELAXED);
    while (left > most) {
        __atomic_store_n(&c->recalled_at[bin], (uint16_t)left, __ATOMIC_RELAXED);
        if (__atomic_compare_exchange_n(countdown, &left, left - CACHE_RECALLED, false, __ATOMIC_RELEASE, __ATOMIC_RELAXED))
            return;
    }
}

/* Arrays have room for a power of two of pointers, the first of them the null pointer. */
static size_t
array_bytes(unsigned capacity)
{
    return (capacity + 1) * sizeof(void *);
}

static void
array_give(struct cache *c, struct cache_bin *b)
{
    if (b->end[-1] != NULL) /* else its page may never have been touched */
        b->end[-1] = NULL;  /* cache_push() may look there from the next array */
    arrays_give(c->arrays, b->end - b->capacity - 1, array_bytes(b->capacity));
}

static unsigned
capacity_most(unsigned bin)
{
    bool small = bin <= SMALL_BINS;
    size_t keep = (small ? SMALL_KEEP_BYTES : LARGE_KEEP_BYTES) / bin_size(bin);
    size_t least = small ? SMALL_KEEP_LEAST : LARGE_KEEP_LEAST;
    if (keep < least)
        keep = least;
    unsigned capacity = 1;
    while (capacity < keep && capacity < KEEP_MOST)
        capacity = capacity * 2 + 1;
    return capacity;
}

static bool
batch_is_short(const struct cache_bin *b, unsigned bin)
{
    return b->capacity < BATCH_LEAST || (b->capacity < BATCH_MOST && b->capacity * bin_size(bin) < BATCH_BYTES);
}

/* Let a bin hold twice as much, its present blocks included, if it is worth it: its blocks are
 * used again, or batches are short. False: it may not, or no memory. */
static bool
bin_grow(struct cache *c, unsigned bin, bool used_again)
{
    struct cache_bin *b = &c->bins[bin];
    unsigned most = capacity_most(bin), count = cache_count(b);
    if (b->capacity >= most || !(used_again || batch_is_short(b, bin)))
        return false;
    unsigned capacity = b->capacity == 0 ? 7 : b->capacity * 2 + 1;
    if (capacity > most)
        capacity = most;
    void **array = arrays_take(c->arrays, array_bytes(capacity));
    if (array == NULL)
        return false;
    array[0] = NULL;
    if (b->capacity != 0) {
        void **old = b->end - b->capacity - 1;
        memcpy(array + 1, old + 1, count * sizeof *array);
        array_give(c, b);
    }
    b->top = array + 1 + count;
    b->end = array + 1 + capacity;
    b->capacity = (uint16_t)capacity;
    counter_add(&c->has_array[bin / 64], ~c->has_array[bin / 64] & (uint64_t)1 << (bin % 64));
    return true;
}

static void
bin_drop_array(struct cache *c, unsigned bin)
{
    struct cache_bin *b = &c->bins[bin];
    if (b->capacity == 0)
        return;
    array_give(c, b);
    bin_clear(b);
    counter_add(&c->has_array[bin / 64], -((uint64_t)1 << (bin % 64)));
}

void
cache_fini(struct cache *c)
{
    for (unsigned bin = 1; bin < BINS; bin++)
        bin_drop_array(c, bin);
}

/* Take out of an array of large blocks what cannot be free. How many stay. */
static unsigned
large_sift(struct cache *c, unsigned bin, void **blocks, unsigned count)
{
    unsigned kept = 0;
    for (unsigned i = 0; i < count; i++) {
        unsigned same = 0;
        while (same < kept && blocks[same] != blocks[i])
            same++;
        if (same < kept)
            misuse_note("double free", "a block", blocks[i], bin_size(bin), c->heap->name);
        else if (large_cached(c->heap, bin, blocks[i]) != NULL)
            blocks[kept++] = blocks[i];
    }
    return kept;
}

/* Look through a bin for what was freed twice, or is no block's start. */
static void
bin_sift(struct cache *c, unsigned bin)
{
    struct cache_bin *b = &c->bins[bin];
    void **bottom = b->end - b->capacity;
    unsigned count = cache_count(b);
    unsigned kept = bin <= SMALL_BINS ? slab_sift(c->heap, bin, bottom, count) : large_sift(c, bin, bottom, count);
    if (likely(kept == count))
        return;
    b->top = bottom + kept;
    if (c->guarded)
        cache_held_add(c, kept - count);
    peak_freed(c, bin);
}

/* For who counts what there is (thread/sums.c): he sees it, or nothing of what is done between the two. By one thread at a time. */
static void
moving_begin(struct cache *c)
{
    atomic_store_explicit(&c->moving, atomic_load_explicit(&c->moving, memory_order_relaxed) + 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
}

static void
moving_end(struct cache *c)
{
    atomic_store_explicit(&c->moving, atomic_load_explicit(&c->moving, memory_order_relaxed) - 1, memory_order_release);
}

/* Give the `count` blocks that were pushed first back to the heap. */
static void
bin_flush(struct cache *c, unsigned bin, unsigned count)
{
    struct cache_bin *b = &c->bins[bin];
    void **bottom = b->end - b->capacity;
    unsigned left = cache_count(b) - count, given = 0;
    moving_begin(c);
    if (bin <= SMALL_BINS) {
        given = slab_give(c->heap, bin, bottom, count);
        /* Before another thread sees that they have gone from here, and takes them for live. */
        heap_count_live(c->heap, -(int64_t)(given * bin_size(bin)));
    } else {
        for (unsigned i = 0; i < count; i++)
            given += large_give_cached(c->heap, bin, bottom[i]);
    }
    memmove(bottom, bottom + count, left * sizeof *bottom);
    b->top = bottom + left;
    moving_end(c);
    if (c->guarded)
        cache_held_add(c, -count);
    if (unlikely(given != count)) /* the other half may be in what stays */
        bin_sift(c, bin);
    peak_freed(c, bin);
}

void
cache_retire(struct cache *c)
{
    for (unsigned bin = 1; bin < BINS; bin++) {
        struct cache_bin *b = &c->bins[bin];
        if (b->capacity != 0)
            bin_flush(c, bin, cache_count(b));
        else if (atomic_load_explicit(&c->known[bin], memory_order_relaxed) != 0) /* by who looked while it became empty */
            peak_freed(c, bin);
        if (cache_allocations(b) != 0)
            heap_count_retired(c->heap, bin, cache_allocations(b));
    }
    cache_fini(c);
    atomic_fetch_sub_explicit(&c->heap->caches, 1, memory_order_relaxed);
}

void *
cache_refill(struct cache *c, unsigned bin, bool *zeroed)
{
    struct cache_bin *b = &c->bins[bin];
    if (bin > SMALL_BINS) {
        void *block = large_take(c->heap, bin, bin_size(bin), PAGE_SIZE, zeroed);
        if (block != NULL)
            peak_allocated(c, bin, 0);
        return block;
    }
    uint16_t now = (uint16_t)cache_allocations(b);
    bin_grow(c, bin, now != c->empty_at[bin]);
    if (b->capacity == 0) {
        void *block;
        if (slab_take(c->heap, bin, &block, 1) == 0)
            return NULL;
        peak_allocated(c, bin, 1);
        return block;
    }
    moving_begin(c);
    unsigned got = slab_take(c->heap, bin, b->top, (b->capacity + 1) / 2);
    b->top += got != 0 ? got - 1 : 0;
    moving_end(c);
    c->empty_at[bin] = (uint16_t)(now + got);
    if (got == 0)
        return NULL;
    if (c->guarded)
        cache_held_add(c, got - 1);
    void *block = *b->top;
    peak_allocated(c, bin, got);
    return block;
}

bool
cache_make_room(struct cache *c, unsigned bin)
{
    struct cache_bin *b = &c->bins[bin];
    uint16_t now = (uint16_t)cache_allocations(b);
    bool used_again = now != c->full_at[bin];
    c->full_at[bin] = now;
    if (bin_grow(c, bin, used_again))
        return true;
    if (b->capacity == 0)
        return false;
    bin_flush(c, bin, (b->capacity + 1) / 2);
    return true;
}

void
cache_collect(struct cache *c, bool all)
{
    moving_begin(c);
    for (unsigned bin = 1; bin < BINS; bin++) {
        struct cache_bin *b = &c->bins[bin];
        uint16_t mark = (uint16_t)cache_allocations(b);
        if (b->capacity != 0 && (all || mark == b->mark)) {
            bin_flush(c, bin, cache_count(b));
            bin_drop_array(c, bin);
        } else if (b->capacity != 0) {
            bin_sift(c, bin);
        }
        b->mark = mark;
    }
    moving_end(c);
}

void
cache_empty(struct cache *c)
{
    for (unsigned bin = 1; bin < BINS; bin++) {
        unsigned count = cache_count(&c->bins[bin]);
        if (count != 0)
            bin_flush(c, bin, count);
    }
}

void
cache_guard(struct cache *c, struct lock *guard)
{
    uint32_t held = 0;
    for (unsigned bin = 1; bin < BINS; bin++) {
        struct cache_bin *b = &c->bins[bin];
        held += cache_count(b);
        /* As cache_pop_guarded() would have left it: what cache_pop() has counted the slow path still counts. */
        if (countdown_is_recalled(b->countdown))
            b->countdown = c->recalled_at[bin];
        else if (b->countdown < 0)
            b->countdown = 0;
    }
    c->held = held;
    c->guard = guard;
    c->guarded = true;
}
