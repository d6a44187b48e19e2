/*
 * Sums over the caches of all threads, without a lock: records are only ever added, and caches of a heap stay as long as its figures are held.
 * Each figure is one that was true.
 */
#include <string.h>

#include "thread/records.h"

static void
sum_cache(const struct cache *c, struct thread_sums *out)
{
    for (unsigned bin = 1; bin < BINS; bin++) {
        const struct cache_bin *b = &c->bins[bin];
        int count = cache_count_seen(b);
        out->cached[bin] += count > 0 ? (unsigned)count : 0;
        out->allocations[bin] += cache_allocations_seen(b);
    }
}

bool
thread_sum(uint32_t heap, struct thread_sums *out)
{
    bool steady = true;
    memset(out, 0, sizeof *out);
    for (const struct thread *t = records_first(); t != NULL; t = t->next) {
        const struct cache *c = cache_set_find(&t->set, heap);
        if (c == NULL)
            continue;
        if (atomic_load_explicit(&t->set.lock.state, memory_order_acquire) != 0)
            steady = false;
        sum_cache(c, out);
    }
    return steady;
}
