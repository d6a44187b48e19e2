/* realloc and reallocarray. A block stays with its heap, and where it is if it can. */
#include <errno.h>
#include <string.h>

#include "alcove/alcove.h"
#include "api/internal.h"
#include "api/spare.h"
#include "ground/message.h"
#include "ground/misuse.h"
#include "ground/services.h"
#include "heap/large.h"
#include "heap/slab.h"
#include "pages/pool.h"
#include "thread/ending.h"
#include "thread/peak.h"

/* Move a block's contents to another, if that was to be had. */
static void *
move(void *block, size_t used, size_t size, void *to)
{
    if (to == NULL)
        return NULL;
    memcpy(to, block, used < size ? used : size);
    ALCOVE_PUBLIC(free)(block);
    return to;
}

/* A block that grows to its double at the most will grow again: it gets pages of its own, with room for that, while its heap's blocks
 * have not much of it (large_may_have_room). It need not be copied then to grow on. */
#define CREEP_MIN ((size_t)6 << 10)
/* If this thread's spare is at hand (api/spare.h) it may be smaller: more small ones double once than grow by less. */
#define LEND_MIN ((size_t)512)
#define LEND_DOUBLED_MIN ((size_t)2 << 10)

static bool
is_creeping(size_t used, size_t size)
{
    return size >= CREEP_MIN && size > used && size - used <= used && size < PTRDIFF_MAX / 2;
}

static size_t
room_for(size_t size)
{
    return size * 2 > SMALL_MAX ? size * 2 : SMALL_MAX + 1;
}

/* Is this a live block of a slab, as far as the slab knows? */
static inline bool
is_small_block(const struct run *r, size_t used, const void *block)
{
    int i = slab_index(r, used, block);
    return likely(i >= 0) && likely(!run_bit(r, (unsigned)i));
}

/* May a small block stay as it is: large enough, and not much too large? */
static inline bool
small_stays(size_t used, size_t size)
{
    return size <= used && ((size + QUANTUM - 1) & ~(QUANTUM - 1)) > used - used / 4;
}

/* May a large one, if it is live? */
static inline bool
large_stays(const struct run *r, const void *block, size_t size)
{
    return run_is_block(r, block) && size <= r->usable && large_usable_of_growing(size) >= r->usable;
}

/* May one that is lent, however much larger it is? */
static inline bool
lent_stays(struct run *r, const void *block, size_t size)
{
    if (!run_is_lent(r) || !run_is_block(r, block) || size > r->usable || size < r->asked - r->asked / 4)
        return false;
    if (size > r->asked)
        r->asked = size;
    return true;
}

/* A block and the one that it moves to are one block: the peak must not see both, so the first is not counted from before the other
 * is taken until it is freed, and its heap stays meanwhile. Of small ones it does not matter. */
static inline struct visit
moving_begin(struct heap *h, size_t used)
{
    if (used < CREEP_MIN)
        return (struct visit){ .heap = ALCOVE_HEAP_DEFAULT };
    struct visit visit = visit_begin(h->index);
    heap_count_live(h, -(int64_t)used);
    return visit;
}

static inline void
moving_end(struct visit visit, struct heap *h, size_t used)
{
    if (used < CREEP_MIN)
        return;
    heap_count_live(h, (int64_t)used);
    visit_end(visit);
}

/* Move a block to pages with room, if it is expected to grow on and the room is to be had. */
static void *
move_growing(struct heap *h, void *block, size_t used, size_t size)
{
    struct visit visit = moving_begin(h, used);
    void *to = is_creeping(used, size) ? alloc_growing(size, room_for(size), h) : NULL;
    if (to == NULL)
        to = entry_malloc(size, h->index);
    to = move(block, used, size, to);
    moving_end(visit, h, used);
    return to;
}

static inline bool
use_room(struct heap *h, struct run *r, size_t size)
{
    if (!large_has_room(r, size))
        return false;
    struct lock *lock = thread_lock(tls_get());
    lock_take(lock);
    bool used = large_use_room(h, r, size);
    if (used)
        peak_check(h);
    lock_drop(lock);
    return used;
}

static void *
resize_pages(struct heap *h, struct run *r, size_t size, size_t room)
{
    struct lock *lock = thread_lock(tls_get());
    lock_take(lock);
    void *to = large_resize(h, r, size, room);
    if (to != NULL)
        peak_check(h);
    lock_drop(lock);
    return to;
}

/* Move a block to a smaller one. If none is to be had it stays, and as little of it as pages can be taken from. */
static void *
move_to_less(struct heap *h, struct run *r, void *block, size_t used, size_t size)
{
    struct visit visit = moving_begin(h, used);
    void *to = alloc_try(size, h);
    if (to == NULL && r->kind != RUN_SLAB) {
        size_t least = (r->kind == RUN_HUGE ? LARGE_MAX : SMALL_MAX) + 1;
        if (used > least && size < least && resize_pages(h, r, least, least) != NULL)
            to = alloc_try(size, h);
    }
    to = move(block, size, size, to);
    moving_end(visit, h, used);
    return to != NULL ? to : block;
}

static void *
resize_large(struct run *r, void *block, size_t size)
{
    size_t used = r->usable;
    struct heap *h = heap_of(r->heap);
    void *to = NULL;
    if (size > used && use_room(h, r, size))
        return block;
    if (is_creeping(used, size) && large_may_have_room(h)) {
        bool outgrew_room = r->kind == RUN_LARGE && r->word_bin == 0;
        size_t room = room_for(size) + (outgrew_room ? size : 0);
        to = resize_pages(h, r, size, size <= LARGE_MAX && room > LARGE_MAX ? LARGE_MAX : room);
    }
    if (to == NULL)
        to = resize_pages(h, r, size, size);
    if (to != NULL)
        return to;
    if (size < used)
        return move_to_less(h, r, block, used, size);
    r->outgrown = true;
    to = move_growing(h, block, used, size);
    if (to == NULL)
        r->outgrown = false;
    return to;
}

/* Resize a block that is ours. `size` is not 0. */
static void *
resize(struct run *r, void *block, size_t size)
{
    if (r->kind == RUN_SLAB) {
        size_t used = bin_size(r->bin);
        if (is_small_block(r, used, block) && likely(!block_is_cached(r, block)))
            return size <= used ? move_to_less(heap_of(r->heap), r, block, used, size)
                                : move_growing(heap_of(r->heap), block, used, size);
    } else if (likely(run_is_block(r, block)) && likely(!block_is_cached(r, block))) {
        return resize_large(r, block, size);
    }
    message_misuse("realloc of %p, which is not the start of a live block (of heap '%s')", block,
                   heap_of(r->heap)->name);
    errno = EINVAL;
    return NULL;
}

static __attribute__((noinline)) void *
reallocate_slow(void *block, size_t size, uint32_t heap, uint32_t caller)
{
    if (block == NULL)
        return entry_malloc(size, heap);
    struct run *r = pool_find(block);
    uint32_t owner = r != NULL ? r->heap : ALCOVE_HEAP_NONE;
    /* To resize a block is no crossing, for getline and asprintf's friends do it; to release it is. */
    if (size == 0 && caller != ALCOVE_HEAP_NONE && owner != caller && services.crossed != NULL)
        services.crossed(services.lender, caller, owner, block, entry_malloc_usable_size(block, caller));
    if (unlikely(r == NULL)) {
        bool foreign = caller != ALCOVE_HEAP_NONE && !pool_holds(block);
        if (foreign && services.module_realloc != NULL)
            return services.module_realloc(services.lender, caller, block, size);
        if (foreign && services.foreign_realloc != NULL)
            return services.foreign_realloc(services.lender, block, size);
        message_misuse("realloc of %p, which is not a live block of this allocator", block);
        errno = EINVAL;
        return NULL;
    }
    if (size == 0) {
        ALCOVE_PUBLIC(free)(block);
        if (caller == ALCOVE_HEAP_NONE)
            errno = EINVAL; /* POSIX.1-2024; the block is freed all the same. A module is to find what libc does */
        return NULL;
    }
    void *to = resize(r, block, size);
    misuse_tell();
    return to;
}

/* This thread's spare for a small block that grows, if that is at hand. */
static inline void *
take_spare(struct cache *c, size_t size, size_t used)
{
    struct cache_bin *b = &c->bins[c->spare];
    void *to = b->top[-1];
    if (to == NULL || b->countdown <= 0 || !spare_may_be_lent()) /* at its turn it is counted, past here */
        return NULL;
    if (size - used >= used / 2 && (size - used > used || size < LEND_DOUBLED_MIN))
        return NULL;
    struct run *r = large_cached(c->heap, c->spare, to);
    if (unlikely(r == NULL)) { /* it will be found again when the cache is collected */
        c->spare = 0;
        return NULL;
    }
    b->top--;
    b->countdown--;
    spare_lend(c, r, size);
    return to;
}

/* Move a live small block by what this thread's cache of its heap has at hand; most that grow are small. */
static __attribute__((noinline, hot)) void *
move_small(void *block, size_t size, uint32_t heap, uint32_t caller, uint64_t word, size_t used)
{
    struct cache *c = cache_of(word_heap(word));
    if (ALCOVE_DEBUG || unlikely(c == NULL)) /* a debug build looks at every block */
        return reallocate_slow(block, size, heap, caller);
    struct cache_bin *from = cache_bin_of(c, word);
    if (unlikely(from->top == from->end) || unlikely(cache_has(from, block)))
        return reallocate_slow(block, size, heap, caller);
    void *to = size >= LEND_MIN && size > used && c->spare != 0 ? take_spare(c, size, used) : NULL;
    if (to == NULL) {
        struct cache_bin *bin = &c->bins[bin_of_size(size)];
        to = bin->top[-1];
        if (unlikely(to == NULL) || unlikely(bin->countdown <= 0)) /* it is not to be counted here, and there again */
            return reallocate_slow(block, size, heap, caller);
        bin->top--;
        bin->countdown--;
    }
    memcpy(to, block, used < size ? used : size);
    *from->top = block;
    CACHE_FORK_ORDER();
    from->top++;
    return to;
}

/* A large block that a cache may hold, or that may grow into its room. */
static __attribute__((noinline, hot)) void *
reallocate_large(struct run *r, void *block, size_t size, uint32_t heap, uint32_t caller)
{
    if (large_stays(r, block, size) && !block_is_cached(r, block))
        return block;
    if (run_is_block(r, block) && size > r->usable && use_room(heap_of(r->heap), r, size))
        return block;
    return reallocate_slow(block, size, heap, caller);
}

/* heap: where a new block comes from. caller: the module that calls; ALCOVE_HEAP_NONE: called by
 * our own name, so that the block must be ours. All that does more than return is a jump, so that a block that stays needs no
 * frame. */
static inline __attribute__((always_inline)) void *
reallocate(void *block, size_t size, uint32_t heap, uint32_t caller)
{
    uint64_t word = pagemap_get_hot(block);
    struct run *r = word_run(word);
    if (unlikely(r == NULL) || unlikely(caller != ALCOVE_HEAP_NONE && r->heap != caller))
        return reallocate_slow(block, size, heap, caller);
    if (r->kind == RUN_SLAB) {
        size_t used = bin_size(r->bin);
        if (!is_small_block(r, used, block))
            return reallocate_slow(block, size, heap, caller);
        if (small_stays(used, size))
            return block;
        if (used < CREEP_MIN && size < CREEP_MIN && size != 0)
            return move_small(block, size, heap, caller, word, used);
        return reallocate_slow(block, size, heap, caller);
    }
    if (large_stays(r, block, size) && likely(r->word_bin == 0)) { /* no cache has it */
        r->asked = size;
        return block;
    }
    if (lent_stays(r, block, size))
        return block;
    return reallocate_large(r, block, size, heap, caller);
}

void *
entry_realloc(void *block, size_t size, size_t heap)
{
    return reallocate(block, size, (uint32_t)heap, (uint32_t)heap);
}

void *
entry_reallocarray(void *block, size_t count, size_t size, size_t heap)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes)) {
        errno = ENOMEM;
        return NULL;
    }
    return reallocate(block, bytes, (uint32_t)heap, (uint32_t)heap);
}

API_HOT void *
ALCOVE_PUBLIC(realloc)(void *block, size_t size)
{
    return reallocate(block, size, ALCOVE_HEAP_DEFAULT, ALCOVE_HEAP_NONE);
}

API void *
ALCOVE_PUBLIC(reallocarray)(void *block, size_t count, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes)) {
        errno = ENOMEM;
        return NULL;
    }
    return reallocate(block, bytes, ALCOVE_HEAP_DEFAULT, ALCOVE_HEAP_NONE);
}

API void *
ALCOVE_PUBLIC(heap_realloc)(uint32_t heap, void *block, size_t size)
{
    if (unlikely(heap >= ALCOVE_HEAP_MAX)) {
        errno = EINVAL;
        return NULL;
    }
    return reallocate(block, size, heap, ALCOVE_HEAP_NONE);
}
