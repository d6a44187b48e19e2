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
    for (struct record_head *head = record_from(records_first()); head != NULL; head = record_from(head->next)) {
        const struct cache_set *set = &head->record->set;
        const struct cache *c = cache_set_find(set, heap);
        if (c == NULL) {
            steady = steady && !cache_set_hides(set, heap);
            continue;
        }
        steady = steady && atomic_load_explicit(&c->moving, memory_order_acquire) == 0;
        sum_cache(c, out);
    }
    /* A cache that was not found any more has not been counted by its heap before this is over. */
    return steady && !atomic_load_explicit(&records.retiring, memory_order_acquire);
}
