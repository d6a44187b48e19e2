/* Sums over the caches of all threads. */
#include <string.h>

#include "thread/records.h"

/* Reads what other threads write without a lock: each figure is one that was true. */
__attribute__((no_sanitize("thread"))) static void
sum_cache(const struct cache *c, struct thread_sums *out)
{
    for (unsigned bin = 1; bin < BINS; bin++) {
        const struct cache_bin *b = &c->bins[bin];
        uint64_t capacity = __atomic_load_n(&b->capacity, __ATOMIC_RELAXED);
        uint64_t room = (uint64_t)(__atomic_load_n(&b->end, __ATOMIC_RELAXED) -
                                   __atomic_load_n(&b->top, __ATOMIC_RELAXED));
        if (room <= capacity)
            out->cached[bin] += capacity - room;
        out->allocations[bin] += cache_allocations_seen(b);
    }
}

void
thread_sum(uint32_t heap, struct thread_sums *out)
{
    memset(out, 0, sizeof *out);
    lock_take(&records.lock);
    for (struct thread *t = records.all; t != NULL; t = t->next) {
        lock_take(&t->set.lock);
        const struct cache *c = cache_set_find(&t->set, heap);
        if (c != NULL)
            sum_cache(c, out);
        lock_drop(&t->set.lock);
    }
    lock_drop(&records.lock);
}
