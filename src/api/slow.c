/* What malloc and free do when the cache alone does not serve. */
#include <errno.h>

#include "api/internal.h"
#include "ground/message.h"
#include "ground/services.h"
#include "heap/large.h"
#include "heap/slab.h"
#include "pages/pool.h"
#include "thread/ending.h"

static void *
failed(struct heap *h)
{
    if (h != NULL && atomic_load_explicit(&h->limit, memory_order_relaxed) != 0)
        atomic_fetch_add_explicit(&h->refused, 1, memory_order_relaxed);
    errno = ENOMEM;
    return NULL;
}

/* There is no such heap, or no memory for the default one. */
static void *
no_heap(size_t heap)
{
    errno = heap == ALCOVE_HEAP_DEFAULT ? ENOMEM : EINVAL;
    return NULL;
}

static struct heap *
heap_for(size_t index)
{
    struct heap *h = index == ALCOVE_HEAP_DEFAULT ? heap_default() : heap_of((uint32_t)index);
    /* Somebody has a function of a module that was closed: it goes on to work, and counts for nobody. */
    return (h != NULL ? heap_is_ending(h) : heap_has_ended((uint32_t)index)) ? heap_default() : h;
}

/* Without a cache: one block straight from the heap. */
static void *
alloc_uncached(struct heap *h, unsigned bin, bool *zeroed)
{
    void *block = NULL;
    if (bin > SMALL_BINS)
        block = large_take(h, bin, bin_size(bin), PAGE_SIZE, zeroed);
    else if (slab_take(h, bin, &block, 1) == 0)
        block = NULL;
    if (block != NULL)
        heap_count_uncached(h, bin, bin_size(bin));
    return block;
}

/* From a bin. errno stays as it was. */
static void *
alloc_bin(struct heap *h, unsigned bin, bool *zeroed)
{
    int saved = errno;
    struct thread *t = thread_get();
    struct cache *c = t != NULL ? cache_set_get(&t->set, h) : NULL;
    if (c == NULL)
        return alloc_uncached(h, bin, zeroed);
    struct cache_bin *b = &c->bins[bin];
    if (cache_count_slow(b)) {
        cache_turn_after(b, COUNTDOWN);
        thread_tick(t);
        c = cache_set_get(&t->set, h); /* if its heap is ending it is gone now */
        if (c == NULL)
            return alloc_uncached(h, bin, zeroed);
        b = &c->bins[bin];
    }
    void *block = b->top[-1];
    if (block != NULL) {
        b->top--;
    } else {
        lock_take(&t->set.lock); /* while a batch is moved: a fork must not see half of it */
        block = cache_refill(c, bin, zeroed);
        if (block == NULL) {
            /* The heap's limit may be reached only because this thread keeps free blocks, or slabs have pages without any other. */
            cache_collect(c, true);
            heap_trim(h);
            block = cache_refill(c, bin, zeroed);
        }
        lock_drop(&t->set.lock);
    }
    if (block == NULL)
        cache_count_failed(b);
    errno = saved;
    return block;
}

/* What has no bin. errno stays as it was. */
static void *
alloc_pages(struct heap *h, size_t size, size_t alignment, bool *zeroed)
{
    int saved = errno;
    struct thread *t = thread_get();
    if (t != NULL)
        thread_tick(t);
    void *block = large_take(h, 0, size, alignment, zeroed);
    if (block == NULL) {
        struct cache *c = t != NULL ? cache_set_get(&t->set, h) : NULL;
        if (c != NULL) {
            lock_take(&t->set.lock);
            cache_collect(c, true);
            lock_drop(&t->set.lock);
        }
        heap_trim(h);
        block = large_take(h, 0, size, alignment, zeroed);
    }
    if (block != NULL)
        heap_count_uncached(h, 0, block_usable(block));
    errno = saved;
    return block;
}

void *
alloc_slow(unsigned bin, size_t heap, bool *zeroed)
{
    *zeroed = false;
    struct visit visit = visit_begin((uint32_t)heap);
    struct heap *h = heap_for(heap);
    void *block = h != NULL ? alloc_bin(h, bin, zeroed) : NULL;
    if (block == NULL && h != NULL && heap_is_ending(h)) /* since just now */
        block = alloc_bin(h = heap_default(), bin, zeroed);
    if (block == NULL)
        block = h != NULL ? failed(h) : no_heap(heap);
    visit_end(visit);
    return block;
}

void *
alloc_large(size_t size, size_t alignment, size_t heap, bool *zeroed)
{
    if (size > PTRDIFF_MAX || alignment >> (ALCOVE_LG_VADDR - 1) != 0)
        return failed(NULL); /* no limit's doing */
    struct visit visit = visit_begin((uint32_t)heap);
    struct heap *h = heap_for(heap);
    void *block = h != NULL ? alloc_pages(h, size, alignment, zeroed) : NULL;
    if (block == NULL && h != NULL && heap_is_ending(h)) /* since just now */
        block = alloc_pages(h = heap_default(), size, alignment, zeroed);
    if (block == NULL)
        block = h != NULL ? failed(h) : no_heap(heap);
    visit_end(visit);
    return block;
}

void *
alloc_try(size_t size, struct heap *h)
{
    bool zeroed;
    return size <= CACHED_MAX ? alloc_bin(h, bin_of_size(size), &zeroed) : alloc_pages(h, size, PAGE_SIZE, &zeroed);
}

/* Give a block back past the cache. */
static void
free_uncached(struct heap *h, struct run *r, void *block)
{
    if (r->kind == RUN_SLAB)
        slab_give(h, r->bin, &block, 1);
    else
        large_give(h, r);
}

/* Push a block into a bin that may be full. */
static bool
push_slow(struct thread *t, struct cache *c, unsigned bin, void *block)
{
    if (cache_push(&c->bins[bin], block))
        return true;
    lock_take(&t->set.lock);
    bool room = cache_make_room(c, bin);
    lock_drop(&t->set.lock);
    return room && cache_push(&c->bins[bin], block);
}

/* Is this the start of a block that can be freed? Says what is wrong if not. */
static bool
check_block(const struct run *r, const void *block)
{
    const void *start = r->kind == RUN_SLAB ? slab_block(r, block) : (void *)r->base;
    if (start != block) {
        message_misuse("free of %p, which is not the start of a block (of heap '%s'; the nearest is %p)", block,
                       heap_of(r->heap)->name, start);
        return false;
    }
    if (r->kind == RUN_SLAB && slab_block_is_free(r, block)) {
        message_misuse("double free of %p, a block of %zu bytes of heap '%s'", block, bin_size(r->bin),
                       heap_of(r->heap)->name);
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
    else if (caller != ALCOVE_HEAP_NONE && services.libc_free != NULL)
        services.libc_free(block);
    else
        message_misuse("free of %p, which is not a block of this allocator; give it to the one that made it",
                       block);
}

void
free_slow(void *block, uint32_t caller)
{
    if (block == NULL || pool_was_left(block))
        return;
    int saved = errno;
    struct run *r = pool_find(block);
    uint32_t owner = r != NULL ? r->heap : ALCOVE_HEAP_NONE;
    if (caller != ALCOVE_HEAP_NONE && owner != caller && services.crossed != NULL)
        services.crossed(caller, owner, block, r != NULL ? block_usable(block) : 0);
    struct thread *t = r != NULL ? thread_get() : NULL;
    if (t != NULL) {
        thread_tick(t);
        r = pool_find(block); /* freed before, and the tick gave its pages back */
    }
    if (r == NULL) {
        free_foreign(block, caller);
        errno = saved;
        return;
    }
    if (!check_block(r, block)) {
        errno = saved;
        return;
    }
    struct visit visit = visit_begin(r->heap);
    struct heap *h = heap_of(r->heap);
    if (t != NULL && r->bin == 0)
        large_end_room(h, r);
    struct cache *c = t != NULL && r->bin != 0 ? cache_set_get(&t->set, h) : NULL;
    if (c != NULL && cache_has(&c->bins[r->bin], block))
        message_misuse("double free of %p, a block of %zu bytes of heap '%s'", block, bin_size(r->bin), h->name);
    else if (c == NULL || !push_slow(t, c, r->bin, block))
        free_uncached(h, r, block);
    visit_end(visit);
    errno = saved;
}

size_t
block_usable(const void *block)
{
    const struct run *r = pool_find(block);
    if (r == NULL)
        return 0;
    if (r->kind == RUN_SLAB)
        return slab_block(r, block) == block ? bin_size(r->bin) : 0;
    return r->base == (uintptr_t)block ? r->usable : 0;
}
