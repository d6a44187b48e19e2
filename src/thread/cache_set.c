/* Cache sets. The set's lock guards what is here. */
#include "thread/cache_set.h"

#include "pages/base.h"
#include "thread/peak.h"

static _Atomic(struct cache *) closed; /* of all sets and heaps */

static struct cache *
closed_get(void)
{
    struct cache *c = atomic_load_explicit(&closed, memory_order_acquire), *other = NULL;
    if (c != NULL)
        return c;
    c = base_alloc(sizeof *c);
    if (c == NULL)
        return NULL;
    cache_init(c, NULL, NULL);
    if (atomic_compare_exchange_strong_explicit(&closed, &other, c, memory_order_acq_rel, memory_order_acquire))
        return c;
    base_free(c, sizeof *c);
    return other;
}

void
cache_sets_forget(void)
{
    atomic_store_explicit(&closed, NULL, memory_order_relaxed);
}

void
cache_set_init(struct cache_set *s, struct heap *heap0, _Atomic(struct cache *) *by_heap, void *memory, size_t size)
{
    arrays_init(&s->arrays, memory, size);
    cache_init(&s->first, heap0, &s->arrays);
    lock_init(&s->lock, LOCK_RECORD);
    lock_init(&s->guard, LOCK_CACHE);
    s->made = NULL;
    s->endings = heap_endings();
    s->guarded = NULL;
    __atomic_store_n(&s->by_heap, by_heap, __ATOMIC_RELEASE);
    atomic_store_explicit(&by_heap[ALCOVE_HEAP_DEFAULT], &s->first, memory_order_release);
}

/* A cache keeps its heap. NULL: no memory, or the heap is ending. With the lock held. */
static struct cache *
cache_new(struct cache_set *s, struct heap *h)
{
    if (heap_is_ending(h) || !heap_hold(h))
        return NULL;
    struct cache *c = base_alloc(sizeof *c);
    if (c != NULL)
        cache_init(c, h, &s->arrays);
    else
        heap_let_go(h);
    return c;
}

/* One that its user finds, on the hot path too. NULL: as cache_new(). */
static struct cache *
make(struct cache_set *s, struct heap *h)
{
    lock_take(&s->lock);
    struct cache *c = cache_new(s, h);
    if (c != NULL) {
        c->next = s->made;
        s->made = c;
        atomic_store_explicit(&s->by_heap[h->index], c, memory_order_release);
    }
    lock_drop(&s->lock);
    return c;
}

/* The hot path does not ask for the first one by heap: that is closed itself, and another takes its blocks over. Others may be
 * looking at it, so it is hidden before, as one that is retired. False: somebody does, and it stays open. With the lock held. */
static bool
move_first(struct cache_set *s, struct heap *h, struct cache *to, struct cache *in_front)
{
    peak_look_at(&s->first); /* who does not find it then counts right without it */
    atomic_store(&s->by_heap[h->index], in_front);
    if (heap_is_looked_at(h)) {
        atomic_store(&s->by_heap[h->index], &s->first);
        return false;
    }
    *to = s->first;
    cache_init(&s->first, NULL, &s->arrays);
    return true;
}

/* A guarded cache for a heap, with what `open` has, if there is one. NULL: no memory, the heap is ending, or others look at
 * `open`, which serves its user as well until the next time; nothing is changed. With the lock held. */
static struct cache *
make_guarded(struct cache_set *s, struct heap *h, struct cache *open)
{
    struct cache *c = open, *in_front = closed_get();
    if (s->guarded == NULL) {
        _Atomic(struct cache *) *array = base_alloc_pages(CACHE_SET_TABLE_BYTES);
        __atomic_store_n(&s->guarded, array, __ATOMIC_RELEASE);
    }
    if (in_front == NULL || s->guarded == NULL)
        return NULL;
    bool moves = open == &s->first;
    if (moves)
        c = heap_is_looked_at(h) ? NULL : base_alloc(sizeof *c);
    else if (open == NULL)
        c = cache_new(s, h);
    if (c == NULL)
        return NULL;
    if (moves && !move_first(s, h, c, in_front)) {
        base_free(c, sizeof *c);
        return NULL;
    }
    if (c != open) {
        c->next = s->made;
        s->made = c;
    }
    cache_guard(c, &s->guard);
    atomic_store_explicit(&s->guarded[h->index], c, memory_order_release);
    atomic_store_explicit(&s->by_heap[h->index], in_front, memory_order_release);
    return c;
}

struct cache *
cache_set_find(const struct cache_set *s, uint32_t heap)
{
    _Atomic(struct cache *) *by_heap = __atomic_load_n(&s->by_heap, __ATOMIC_ACQUIRE);
    struct cache *c = by_heap != NULL ? atomic_load(&by_heap[heap]) : NULL; /* after a looker has said that it is one */
    return c == NULL || !cache_is_closed(c) ? c : atomic_load(&s->guarded[heap]);
}

struct cache *
cache_set_get(struct cache_set *s, struct heap *h)
{
    struct cache *c = cache_set_find(s, h->index), *guarded;
    if (atomic_load_explicit(&h->guarded, memory_order_relaxed) && (c == NULL || !c->guarded)) {
        lock_take(&s->lock);
        guarded = make_guarded(s, h, c);
        lock_drop(&s->lock);
        return guarded != NULL ? guarded : c;
    }
    return c != NULL ? c : make(s, h);
}

void
cache_set_drop(struct cache_set *s, uint32_t heap)
{
    if (cache_set_find(s, heap) == NULL)
        return;
    lock_take(&s->lock);
    struct cache *c = cache_set_find(s, heap);
    atomic_store_explicit(&s->by_heap[heap], NULL, memory_order_relaxed);
    if (c->guarded)
        atomic_store_explicit(&s->guarded[heap], NULL, memory_order_relaxed);
    struct cache **link = &s->made;
    while (*link != c)
        link = &(*link)->next;
    *link = c->next;
    cache_fini(c);
    base_free(c, sizeof *c);
    lock_drop(&s->lock);
}

/* Its guarded cache of a heap, for one of the heap's emptiers; NULL: none. */
static const struct cache *
guarded_seen(const struct cache_set *s, uint32_t heap)
{
    _Atomic(struct cache *) *array = __atomic_load_n(&s->guarded, __ATOMIC_ACQUIRE);
    return array != NULL ? atomic_load(&array[heap]) : NULL; /* after an emptier has said that it is one */
}

void
cache_set_empty(struct cache_set *s, uint32_t heap)
{
    const struct cache *seen = guarded_seen(s, heap);
    if (seen == NULL || __atomic_load_n(&seen->held, __ATOMIC_RELAXED) == 0)
        return;
    lock_take(&s->lock);
    struct cache *c = cache_set_guarded(s, heap);
    if (c != NULL) {
        cache_enter(c);
        cache_empty(c);
        cache_leave(c);
    }
    lock_drop(&s->lock);
}

static void
collect(struct cache *c, bool all)
{
    cache_enter(c);
    cache_collect(c, all);
    cache_leave(c);
}

/* Retire one of its caches, with its lock held. False: it stays, as its heap has lookers or emptiers. Who becomes one afterwards
 * finds it no more. */
static bool
retire(struct cache_set *s, struct cache *c)
{
    struct heap *h = c->heap;
    struct cache *hot = atomic_exchange(&s->by_heap[h->index], NULL);
    if (c->guarded)
        atomic_store(&s->guarded[h->index], NULL);
    if (heap_is_looked_at(h) || atomic_load(&h->emptiers) != 0) {
        if (c->guarded)
            atomic_store(&s->guarded[h->index], c);
        atomic_store(&s->by_heap[h->index], hot);
        return false;
    }
    cache_enter(c);
    cache_retire(c);
    cache_leave(c);
    return true;
}

/* The same with all but the first, which has its memory in the set; if `ending`, only with those of heaps that are. False: some of
 * them stay. */
static bool
retire_made(struct cache_set *s, bool ending)
{
    bool all = true;
    for (struct cache **link = &s->made; *link != NULL;) {
        struct cache *c = *link;
        struct heap *h = c->heap;
        bool leave_out = ending && !heap_is_ending(h);
        if (leave_out || !retire(s, c)) {
            all = all && leave_out;
            link = &c->next;
            continue;
        }
        *link = c->next;
        base_free(c, sizeof *c);
        if (h->index != ALCOVE_HEAP_DEFAULT) /* which no cache keeps: it never ends */
            heap_let_go(h);
    }
    return all;
}

bool
cache_set_retire(struct cache_set *s)
{
    lock_take(&s->lock);
    bool all = retire_made(s, false) && (cache_is_closed(&s->first) || retire(s, &s->first));
    lock_drop(&s->lock);
    return all;
}

void
cache_set_retire_ending(struct cache_set *s)
{
    uint32_t endings = heap_endings();
    if (s->endings == endings)
        return;
    lock_take(&s->lock);
    s->endings = retire_made(s, true) ? endings : endings - 1; /* then some other time */
    lock_drop(&s->lock);
}

void
cache_set_collect(struct cache_set *s, bool all)
{
    lock_take(&s->lock);
    if (!cache_is_closed(&s->first))
        collect(&s->first, all);
    for (struct cache *c = s->made; c != NULL; c = c->next)
        collect(c, all);
    if (all)
        arrays_purge(&s->arrays);
    lock_drop(&s->lock);
}

/* Across a fork the locks are held: whoever is inside of a cache is done. */

bool
cache_set_fork_holds(const struct cache_set *s)
{
    return lock_is_mine(&s->lock) || lock_is_mine(&s->guard);
}

void
cache_set_fork_prepare(struct cache_set *s)
{
    lock_take(&s->lock);
    lock_take(&s->guard);
}

void
cache_set_fork_done(struct cache_set *s)
{
    lock_drop(&s->guard);
    lock_drop(&s->lock);
}

void
cache_set_fork_child(struct cache_set *s)
{
    if (!cache_is_closed(&s->first))
        peak_fork_child(&s->first);
    for (struct cache *c = s->made; c != NULL; c = c->next)
        peak_fork_child(c);
    lock_init(&s->guard, LOCK_CACHE);
    lock_init(&s->lock, LOCK_RECORD);
}
