/* Cache sets. The set's lock guards what is here. */
#include "thread/cache_set.h"

#include "pages/base.h"

void
cache_set_init(struct cache_set *s, struct heap *heap0, _Atomic(struct cache *) *by_heap, void *memory, size_t size)
{
    arrays_init(&s->arrays, memory, size);
    cache_init(&s->first, heap0, &s->arrays);
    lock_init(&s->lock, LOCK_RECORD);
    s->made = NULL;
    s->endings = heap_endings();
    s->by_heap = by_heap;
    atomic_store_explicit(&by_heap[ALCOVE_HEAP_DEFAULT], &s->first, memory_order_relaxed);
}

struct cache *
cache_set_get(struct cache_set *s, struct heap *h)
{
    struct cache *c = atomic_load_explicit(&s->by_heap[h->index], memory_order_relaxed);
    if (c != NULL)
        return c;
    if (heap_is_ending(h) || !heap_hold(h))
        return NULL;
    c = base_alloc(sizeof *c);
    if (c == NULL) {
        heap_let_go(h);
        return NULL;
    }
    cache_init(c, h, &s->arrays);
    lock_take(&s->lock);
    c->next = s->made;
    s->made = c;
    atomic_store_explicit(&s->by_heap[h->index], c, memory_order_release);
    lock_drop(&s->lock);
    return c;
}

void
cache_set_drop(struct cache_set *s, uint32_t heap)
{
    if (atomic_load_explicit(&s->by_heap[heap], memory_order_acquire) == NULL)
        return;
    lock_take(&s->lock);
    struct cache *c = atomic_load_explicit(&s->by_heap[heap], memory_order_relaxed);
    atomic_store_explicit(&s->by_heap[heap], NULL, memory_order_relaxed);
    struct cache **link = &s->made;
    while (*link != c)
        link = &(*link)->next;
    *link = c->next;
    cache_fini(c);
    lock_drop(&s->lock);
    base_free(c, sizeof *c);
}

void
cache_set_retire_ending(struct cache_set *s)
{
    uint32_t endings = heap_endings();
    if (s->endings == endings)
        return;
    s->endings = endings;
    lock_take(&s->lock);
    for (struct cache **link = &s->made; *link != NULL;) {
        struct cache *c = *link;
        struct heap *h = c->heap;
        if (!heap_is_ending(h)) {
            link = &c->next;
            continue;
        }
        *link = c->next;
        atomic_store_explicit(&s->by_heap[h->index], NULL, memory_order_relaxed);
        cache_retire(c);
        base_free(c, sizeof *c);
        heap_let_go(h);
    }
    lock_drop(&s->lock);
}

void
cache_set_collect(struct cache_set *s, bool all)
{
    lock_take(&s->lock);
    cache_collect(&s->first, all);
    for (struct cache *c = s->made; c != NULL; c = c->next)
        cache_collect(c, all);
    if (all)
        arrays_purge(&s->arrays);
    lock_drop(&s->lock);
}
