/* What malloc and free do when the cache alone does not serve. */
#include <errno.h>

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

static uint64_t
starved_so_far(const struct heap *h)
{
    return h != NULL ? atomic_load_explicit(&h->starved, memory_order_relaxed) : 0;
}

/* An allocation that a heap's limit refused: to be told when nobody is inside of the heap. */
struct refusal {
    bool refused;
    uint32_t heap;
};

/* `starved`: how often the heap was before: if no more often now, it was its limit that refused. */
static void *
failed(struct heap *h, uint64_t starved, struct refusal *refusal)
{
    if (atomic_load_explicit(&h->limit, memory_order_relaxed) != 0 && starved_so_far(h) == starved) {
        atomic_fetch_add_explicit(&h->refused, 1, memory_order_relaxed);
        *refusal = (struct refusal){ .refused = true, .heap = h->index };
    }
    errno = ENOMEM;
    return NULL;
}

/* No lock is held: who is told may allocate. Keeps errno. */
static void
refusal_tell(const struct refusal *refusal, size_t size)
{
    if (!refusal->refused || services.refused == NULL)
        return;
    int saved = errno;
    lock_check_none();
    services.refused(services.lender, refusal->heap, size);
    errno = saved;
}

/* There is no such heap, or no memory for the default one, which also stands in for those that ended. */
static void *
no_heap(size_t heap)
{
    bool stands_for = heap == ALCOVE_HEAP_DEFAULT || heap_of((uint32_t)heap) != NULL || heap_has_ended((uint32_t)heap);
    errno = stands_for ? ENOMEM : EINVAL;
    return NULL;
}

/* Somebody has a function of a module that was closed: it goes on to work, and counts for nobody. Meanwhile the number may just
 * become another heap's, or that one end. */
static struct heap *
heap_for(size_t index)
{
    if (index == ALCOVE_HEAP_DEFAULT)
        return heap_default();
    for (;;) {
        bool ended = heap_has_ended((uint32_t)index);
        struct heap *h = heap_of((uint32_t)index);
        if (h != NULL ? heap_is_ending(h) : ended)
            return heap_default();
        if (h != NULL || (!heap_has_ended((uint32_t)index) && heap_of((uint32_t)index) == NULL))
            return h;
    }
}

/* Without a cache: one block straight from the heap. With the thread's lock held. */
static void *
alloc_uncached(struct heap *h, unsigned bin, bool *zeroed)
{
    void *block = NULL;
    if (bin > SMALL_BINS)
        block = large_take(h, bin, bin_size(bin), PAGE_SIZE, zeroed);
    else if (slab_take(h, bin, &block, 1) == 0)
        block = NULL;
    if (block == NULL)
        return NULL;
    heap_count_uncached(h, bin);
    if (bin <= SMALL_BINS)
        heap_count_live(h, (int64_t)bin_size(bin));
    peak_check(h);
    return block;
}

/* Take blocks back from wherever the heap's lie free: caches of all threads if it has a limit, of this one if it has none, and
 * pages in slabs. Who calls it tries again afterwards, whatever was found: others may have given something back meanwhile, or have
 * taken it, and then what would fit by far is tried some times more. */
static void
reclaim(struct heap *h, struct thread *t)
{
    struct cache *own = t != NULL ? cache_set_find(&t->set, h->index) : NULL;
    if (own != NULL && !own->guarded) {
        lock_take(&t->set.lock);
        cache_collect(own, true);
        lock_drop(&t->set.lock);
    }
    thread_empty_caches(h);
    heap_trim(h);
}

#define TRIES_MOST 8

struct tries {
    unsigned count;
    uint64_t active; /* before the last one */
};

/* Is it worth another try? Where nothing has changed since the last it is not. */
static bool
try_again(struct tries *tries, const struct heap *h, size_t size)
{
    uint64_t limit = atomic_load_explicit(&h->limit, memory_order_relaxed), most = limit - limit / 4;
    uint64_t live = atomic_load_explicit(&h->live, memory_order_relaxed);
    uint64_t active = atomic_load_explicit(&h->active, memory_order_relaxed);
    bool again = tries->count == 0 ||
                 (tries->count < TRIES_MOST && active != tries->active && size < most && live < most - size);
    tries->count++;
    tries->active = active;
    return again;
}

/* Fill this thread's empty bin and take a block from it; without a cache, take one from the heap. */
static void *
refill(struct heap *h, struct thread *t, struct cache *c, unsigned bin, bool *zeroed)
{
    void *block;
    if (bin <= SMALL_BINS ? slab_forbidden(h, bin) : large_forbidden(h, bin, bin_size(bin), PAGE_SIZE))
        return NULL;
    lock_take(thread_lock(t)); /* while a batch is moved: a fork must not see half of it */
    if (c != NULL) {
        cache_enter(c);
        block = cache_refill(c, bin, zeroed);
        cache_leave(c);
    } else {
        block = alloc_uncached(h, bin, zeroed);
    }
    lock_drop(thread_lock(t));
    return block;
}

/* From a bin. errno stays as it was. */
static void *
alloc_bin(struct heap *h, unsigned bin, bool *zeroed)
{
    int saved = errno;
    struct thread *t = thread_get();
    struct cache *c = t != NULL ? cache_set_get(&t->set, h) : NULL;
    void *block = NULL;
    if (c != NULL) {
        struct cache_bin *b = &c->bins[bin];
        cache_enter(c);
        bool turn = cache_count_slow(c, bin);
        int32_t allocations = turn ? cache_turn(c, bin) : 0;
        if (turn)
            cache_turn_after(b, COUNTDOWN);
        block = cache_pop_inside(c, b);
        bool tick = cache_tick_is_due(c, allocations + (block == NULL ? REFILL_COUNTS : 0));
        if (block != NULL && turn)
            peak_allocated(c, bin, 0);
        cache_leave(c);
        if (tick) {
            thread_tick(t);
            c = cache_set_get(&t->set, h);
            if (c == NULL && block == NULL) /* its heap is ending: it is gone, with what it has counted, and this comes past it */
                heap_count_retired(h, bin, (uint64_t)-1);
        }
    } else {
        thread_tick(t);
    }
    if (block == NULL)
        block = refill(h, t, c, bin, zeroed);
    for (struct tries tries = { 0 }; block == NULL && try_again(&tries, h, bin_size(bin));) {
        reclaim(h, t);
        block = refill(h, t, c, bin, zeroed);
    }
    if (block == NULL && c != NULL) {
        cache_enter(c);
        cache_count_failed(&c->bins[bin]);
        cache_leave(c);
    }
    errno = saved;
    return block;
}

static void *
take_pages(struct heap *h, struct thread *t, size_t size, size_t alignment, bool *zeroed)
{
    if (large_forbidden(h, 0, size, alignment))
        return NULL;
    lock_take(thread_lock(t));
    void *block = large_take(h, 0, size, alignment, zeroed);
    if (block != NULL) {
        heap_count_uncached(h, 0);
        peak_check(h);
    }
    lock_drop(thread_lock(t));
    return block;
}

/* What has no bin. errno stays as it was. */
static void *
alloc_pages(struct heap *h, size_t size, size_t alignment, bool *zeroed)
{
    int saved = errno;
    struct thread *t = thread_get();
    thread_tick(t);
    void *block = take_pages(h, t, size, alignment, zeroed);
    for (struct tries tries = { 0 }; block == NULL && try_again(&tries, h, size);) {
        reclaim(h, t);
        block = take_pages(h, t, size, alignment, zeroed);
    }
    errno = saved;
    return block;
}

void *
alloc_slow(unsigned bin, size_t heap, bool *zeroed)
{
    *zeroed = false;
    struct visit visit = visit_begin((uint32_t)heap);
    struct heap *h = heap_for(heap);
    uint64_t starved = starved_so_far(h);
    struct refusal refusal = { .refused = false };
    void *block = h != NULL ? alloc_bin(h, bin, zeroed) : NULL;
    if (block == NULL && h != NULL && heap_is_ending(h)) { /* since just now */
        h = heap_default();
        starved = starved_so_far(h);
        block = h != NULL ? alloc_bin(h, bin, zeroed) : NULL;
    }
    if (block == NULL)
        block = h != NULL ? failed(h, starved, &refusal) : no_heap(heap);
    visit_end(visit);
    misuse_tell();
    refusal_tell(&refusal, bin_size(bin));
    return block;
}

void *
alloc_large(size_t size, size_t alignment, size_t heap, bool *zeroed)
{
    if (size > PTRDIFF_MAX || alignment >> (ALCOVE_LG_VADDR - 1) != 0) { /* no limit's doing */
        errno = ENOMEM;
        return NULL;
    }
    struct visit visit = visit_begin((uint32_t)heap);
    struct heap *h = heap_for(heap);
    uint64_t starved = starved_so_far(h);
    struct refusal refusal = { .refused = false };
    void *block = h != NULL ? alloc_pages(h, size, alignment, zeroed) : NULL;
    if (block == NULL && h != NULL && heap_is_ending(h)) { /* since just now */
        h = heap_default();
        starved = starved_so_far(h);
        block = h != NULL ? alloc_pages(h, size, alignment, zeroed) : NULL;
    }
    if (block == NULL)
        block = h != NULL ? failed(h, starved, &refusal) : no_heap(heap);
    visit_end(visit);
    misuse_tell();
    refusal_tell(&refusal, size);
    return block;
}

/* The heap that gives a block in place of one of this heap's: one that is ending gives none. NULL: no memory for the default one. */
static struct heap *
heap_instead(struct heap *h)
{
    return heap_is_ending(h) ? heap_default() : h;
}

void *
alloc_try(size_t size, struct heap *owner)
{
    struct heap *h = heap_instead(owner);
    bool zeroed;
    if (h == NULL)
        return NULL;
    return size <= CACHED_MAX ? alloc_bin(h, bin_of_size(size), &zeroed) : alloc_pages(h, size, PAGE_SIZE, &zeroed);
}

/* A block to grow on, of what a cache keeps: its spare, at its turn too. NULL: there is none. */
static struct run *
pop_spare(struct cache *c, size_t size)
{
    unsigned bin = c != NULL && !c->guarded ? c->spare : 0;
    if (bin == 0 || size > bin_size(bin) || !spare_may_be_lent())
        return NULL;
    struct cache_bin *b = &c->bins[bin];
    void *block = cache_pop_inside(c, b);
    struct run *r = block != NULL ? large_cached(c->heap, bin, block) : NULL;
    if (r != NULL) {
        if (cache_count_slow(c, bin))
            cache_turn_after(b, COUNTDOWN);
        peak_allocated(c, bin, 0);
        spare_lend(c, r, size);
    } else {
        c->spare = 0; /* the cache was collected meanwhile */
    }
    return r;
}

/* A block with room, of the same. */
static struct run *
pop_growing(struct cache *c, size_t size, size_t room)
{
    if (c == NULL || room > CACHED_MAX)
        return NULL;
    unsigned bin = bin_of_size(room);
    struct cache_bin *b = &c->bins[bin];
    struct run *r = NULL;
    cache_enter(c);
    void *block = cache_pop_inside(c, b);
    if (block != NULL) {
        r = large_cached(c->heap, bin, block);
        if (r != NULL)
            large_make_room(c->heap, r, size);
        peak_allocated(c, bin, 0);
    }
    cache_leave(c);
    return r;
}

void *
alloc_growing(size_t size, size_t room, struct heap *owner)
{
    int saved = errno;
    struct heap *h = heap_instead(owner);
    if (h == NULL)
        return NULL;
    struct thread *t = thread_get();
    struct cache *c = t != NULL ? cache_set_get(&t->set, h) : NULL;
    if (c != NULL && cache_tick_is_due(c, 1)) {
        thread_tick(t);
        c = cache_set_get(&t->set, h); /* if its heap is ending it is gone now */
    }
    lock_take(thread_lock(t));
    struct run *r = pop_spare(c, size);
    bool may_have_room = r == NULL && large_may_have_room(h);
    if (may_have_room)
        r = pop_growing(c, size, room);
    if (may_have_room && r == NULL) {
        r = large_take_growing(h, size, room);
        peak_check(h);
    }
    if (r != NULL && !run_is_lent(r)) /* else the cache has counted it */
        heap_count_uncached(h, r->bin);
    lock_drop(thread_lock(t));
    errno = saved;
    return r != NULL ? (void *)r->base : NULL;
}

/* Give a block back past the cache. False: another thread has just given it, and the run may be anything. */
static bool
free_uncached(struct heap *h, struct thread *t, struct run *r, void *block)
{
    bool small = r->kind == RUN_SLAB, found = true;
    unsigned bin = r->bin;
    lock_take(thread_lock(t));
    if (!small)
        found = large_give(h, r, block);
    else if (bin == 0 || bin > SMALL_BINS)
        found = false;
    else if (slab_give(h, bin, &block, 1) == 1)
        heap_count_live(h, -(int64_t)bin_size(bin));
    lock_drop(thread_lock(t));
    return found;
}

static bool
is_cached(struct cache *c, unsigned bin, const void *block)
{
    cache_enter(c);
    bool cached = cache_has(&c->bins[bin], block);
    cache_leave(c);
    return cached;
}

/* By who is inside. `larger`: as a block of its bin it is larger than what was live. */
static bool
push_inside(struct cache *c, unsigned bin, void *block, bool larger)
{
    bool pushed = cache_push_inside(c, &c->bins[bin], block);
    if (pushed && larger)
        peak_freed(c, bin);
    return pushed;
}

/* Push a block into a bin that may be full. */
static bool
push_slow(struct thread *t, struct cache *c, unsigned bin, void *block, bool larger)
{
    cache_enter(c);
    bool pushed = push_inside(c, bin, block, larger);
    cache_leave(c);
    if (pushed)
        return true;
    lock_take(&t->set.lock);
    cache_enter(c);
    pushed = push_inside(c, bin, block, larger); /* it may have been emptied meanwhile */
    if (!pushed)
        pushed = cache_make_room(c, bin) && push_inside(c, bin, block, larger);
    cache_leave(c);
    lock_drop(&t->set.lock);
    return pushed;
}

static const char *
name_of_heap(uint32_t heap)
{
    const struct heap *h = heap_of(heap);
    return h != NULL ? h->name : "";
}

/* Is this the start of a block that can be freed? Says what is wrong if not. */
static bool
check_block(const struct run *r, const void *block)
{
    const void *start = r->kind == RUN_SLAB ? slab_block(r, block) : (void *)r->base;
    if (start != block) {
        message_misuse("free of %p, which is not the start of a block (of heap '%s'; the nearest is %p)", block,
                       name_of_heap(r->heap), start);
        return false;
    }
    if (r->kind == RUN_SLAB && slab_block_is_free(r, block)) {
        message_misuse("double free of %p, a block of %zu bytes of heap '%s'", block, bin_size(r->bin),
                       name_of_heap(r->heap));
        return false;
    }
    return true;
}

/* A release of what is not ours. */
static void
free_foreign(void *block, uint32_t caller)
{
    if (pool_holds(block))
        message_misuse("double free of %p, whose pages are free already", block);
    else if (caller != ALCOVE_HEAP_NONE && services.module_free != NULL)
        services.module_free(services.lender, caller, block);
    else if (caller != ALCOVE_HEAP_NONE && services.foreign_free != NULL)
        services.foreign_free(services.lender, block);
    else
        message_misuse("free of %p, which is not a block of this allocator; give it to the one that made it",
                       block);
}

static inline bool
may_be_live(const struct run *r, const void *block)
{
    if (r->kind != RUN_SLAB)
        return run_is_block(r, block);
    int i = slab_index(r, bin_size(r->bin), block);
    return i >= 0 && !run_bit(r, (unsigned)i);
}

/* What the hot path does, where it finds a closed cache, and more: here there is time to look whether it is a block that is out. */
static inline bool
push_guarded(void *block, uint32_t caller)
{
    uint64_t word = pagemap_get_hot(block);
    uint32_t heap = word_heap(word);
    if (ALCOVE_DEBUG || (caller != ALCOVE_HEAP_NONE && caller != heap))
        return false;
    struct run *r = word_run(word); /* NULL: it is nobody's, which seems to be of heap 0 */
    struct cache *c = r != NULL ? thread_guarded(heap) : NULL;
    if (c == NULL || !may_be_live(r, block))
        return false;
    return cache_push_guarded(c, cache_bin_of(c, word), block);
}

/* A block that grew is freed: it gets a bin, if it may. *spare: is it to be the thread's spare? */
static bool
end_growing(struct heap *h, struct thread *t, struct run *r, bool *spare)
{
    struct cache *c = cache_set_find(&t->set, h->index);
    size_t bytes = spare_bytes(c, r);
    if (c != NULL && (c->lent == r || bytes != 0))
        c->lent = NULL; /* it has come back, or is not waited for any more */
    r->outgrown = false;
    lock_take(thread_lock(t));
    if (run_is_lent(r))
        run_rebin(r, r->bin);
    bool ended = large_end_room(h, r, bytes);
    lock_drop(thread_lock(t));
    *spare = ended && bytes != 0;
    return ended;
}

/* A block that was lent comes back, as it was. False: it is not for this cache, or there is more to do. */
static bool
push_lent(void *block, uint32_t caller)
{
    uint64_t word = pagemap_get_hot(block);
    struct run *r = word_run(word);
    uint32_t heap = word_heap(word);
    if (ALCOVE_DEBUG || r == NULL || !run_is_block(r, block) || !run_is_lent(r) || (caller != ALCOVE_HEAP_NONE && caller != heap))
        return false;
    struct cache *c = cache_of(heap);
    if (c == NULL || c->lent != r || c->bins[r->bin].top == c->bins[r->bin].end || !spare_stays(c, r))
        return false;
    run_rebin(r, r->bin);
    c->lent = NULL;
    c->spare = r->bin;
    cache_push_inside(c, &c->bins[r->bin], block);
    return true;
}

static void
release(void *block, uint32_t caller)
{
    struct run *r = pool_find(block);
    uint32_t owner = r != NULL ? r->heap : ALCOVE_HEAP_NONE;
    if (caller != ALCOVE_HEAP_NONE && owner != caller && services.crossed != NULL)
        services.crossed(services.lender, caller, owner, block, r != NULL ? block_usable(block) : 0);
    struct thread *t = r != NULL ? thread_get() : NULL;
    if (r != NULL) {
        thread_tick(t);
        r = pool_find(block); /* freed before, and the tick gave its pages back */
    }
    if (r == NULL) {
        free_foreign(block, caller);
        return;
    }
    if (!check_block(r, block))
        return;
    struct visit visit = visit_begin(owner = r->heap);
    struct heap *h = heap_of(owner); /* NULL: another thread frees the block too, and has given its pages back meanwhile */
    bool found = h != NULL, spare = false;
    bool grew = found && t != NULL && (r->bin == 0 || run_is_lent(r)) && end_growing(h, t, r, &spare);
    unsigned bin = r->bin;
    struct cache *c = found && t != NULL && bin != 0 ? cache_set_get(&t->set, h) : NULL;
    if (c != NULL && is_cached(c, bin, block))
        misuse_note("double free", "a block", block, bin_size(bin), h->name);
    else if (found && (c == NULL || !push_slow(t, c, bin, block, grew)))
        found = free_uncached(h, t, r, block);
    else if (spare)
        c->spare = (uint8_t)bin;
    visit_end(visit);
    if (!found)
        message_misuse("double free of %p, which another thread has just freed", block);
}

void
free_slow(void *block, uint32_t caller)
{
    if (push_lent(block, caller) || push_guarded(block, caller) || block == NULL)
        return;
    int saved = errno;
    release(block, caller);
    misuse_tell();
    errno = saved;
}

bool
block_is_cached(const struct run *r, const void *block)
{
    if (r->bin == 0)
        return false;
    struct cache *c = cache_of(r->heap);
    if (likely(c != NULL) && likely(!cache_is_closed(c)))
        return cache_has(&c->bins[r->bin], block);
    struct thread *t = tls_get();
    c = t != NULL ? cache_set_find(&t->set, r->heap) : NULL;
    return c != NULL && is_cached(c, r->bin, block);
}

size_t
block_usable(const void *block)
{
    const struct run *r = pool_find(block);
    if (r == NULL)
        return 0;
    if (r->kind == RUN_SLAB) {
        int i = slab_index(r, bin_size(r->bin), block);
        return i >= 0 && !run_bit(r, (unsigned)i) ? bin_size(r->bin) : 0;
    }
    return run_is_block(r, block) && !block_is_cached(r, block) ? r->usable : 0;
}
