/*
 * Figures. Nothing is counted on the hot path but the pops that a cache counts down; blocks are
 * counted where a batch of them leaves or enters a heap. What is live is what is out of the heap less
 * what caches hold. Readers hold one lock, of the figures, and nobody who allocates waits for that.
 */
#include "stats/stats.h"

#include <errno.h>
#include <string.h>

#include "config.h"
#include "heap/heap.h"
#include "heap/large.h"
#include "pages/base.h"
#include "pages/pool.h"
#include "thread/peak.h"
#include "thread/record.h"
#include "thread/tls.h"

/* Blocks out of the heap and uncached allocations, by bin; those without a bin at index 0. */
struct heap_counts {
    uint64_t out[BINS], uncached[BINS];
    uint64_t nobin_out_bytes, nobin_total_bytes;
};

static void
count_heap(struct heap *h, struct heap_counts *n)
{
    for (unsigned bin = 0; bin < BINS; bin++) {
        bool small = bin != 0 && bin <= SMALL_BINS;
        n->out[bin] = counter_read(small ? &h->bins[bin].out : &h->large_out[large_counter(bin)]);
        n->uncached[bin] = atomic_load_explicit(small ? &h->bins[bin].uncached : &h->large_uncached[large_counter(bin)],
                                                memory_order_relaxed);
    }
    n->nobin_out_bytes = atomic_load_explicit(&h->nobin_out_bytes, memory_order_relaxed);
    n->nobin_total_bytes = n->nobin_out_bytes + atomic_load_explicit(&h->gone_bytes, memory_order_relaxed);
}

#define COUNT_TRIES 100

/* Count what is out of a heap and what of that is cached. Threads that collect their caches move blocks back between
 * the two counts, even if none uses the heap: count again then. One that is stopped in the middle of that is not waited for. */
static void
count_all(struct heap *h, struct heap_counts *n, struct thread_sums *caches)
{
    bool steady = thread_sum(h->index, caches);
    for (int i = 0; i < COUNT_TRIES; i++) {
        struct thread_sums before = *caches;
        bool was_steady = steady;
        count_heap(h, n);
        steady = thread_sum(h->index, caches);
        if (was_steady && steady && memcmp(&before, caches, sizeof before) == 0)
            return;
    }
}

static void
sum_up(struct heap *h, struct alcove_heap_stats *out)
{
    struct thread_sums caches;
    struct heap_counts n;
    count_all(h, &n, &caches);
    memset(out, 0, sizeof *out);
    out->live_blocks = n.out[0];
    out->live_bytes = n.nobin_out_bytes;
    out->total_allocs = n.uncached[0];
    out->total_bytes = n.nobin_total_bytes;
    for (unsigned bin = 1; bin < BINS; bin++) {
        /* Read at different moments, caches may seem to hold more than is out. */
        uint64_t cached = caches.cached[bin] < n.out[bin] ? caches.cached[bin] : n.out[bin];
        uint64_t live = n.out[bin] - cached, allocs = caches.allocations[bin] + n.uncached[bin];
        out->live_blocks += live;
        out->live_bytes += live * bin_size(bin);
        out->cached_bytes += cached * bin_size(bin);
        out->total_allocs += allocs;
        out->total_bytes += allocs * bin_size(bin);
    }
    out->total_frees = out->total_allocs > out->live_blocks ? out->total_allocs - out->live_blocks : 0;
    out->active_bytes = atomic_load_explicit(&h->active, memory_order_relaxed);
    out->peak_bytes = atomic_load_explicit(&h->peak, memory_order_relaxed);
    out->limit = atomic_load_explicit(&h->limit, memory_order_relaxed);
    out->limit_refused = atomic_load_explicit(&h->refused, memory_order_relaxed);
}

int
stats_heap(uint32_t heap, struct alcove_heap_stats *out)
{
    struct heap *h = out != NULL ? figures_hold(heap) : NULL;
    if (h == NULL)
        return EINVAL;
    peak_look(h);
    sum_up(h, out);
    figures_let_go(h);
    return 0;
}

int
stats_peak_reset(uint32_t heap)
{
    struct heap *h = figures_hold(heap);
    if (h == NULL)
        return EINVAL;
    peak_reset(h);
    figures_let_go(h);
    return 0;
}

void
stats_info(struct alcove_info *out)
{
    memset(out, 0, sizeof *out);
    out->tls = tls_offset != TLS_DYNAMIC ? "static" : "dynamic";
    out->version = ALCOVE_VERSION;
    out->prefix = ALCOVE_PREFIX;
    out->metadata_bytes = base_bytes() + pagemap_bytes();
    struct pool_figures pages;
    pool_figures_get(&pages);
    out->mapped_bytes = pages.mapped + out->metadata_bytes;
    out->dirty_bytes = pages.dirty;
    out->heaps = heap_count() + (heap_of(ALCOVE_HEAP_DEFAULT) == NULL); /* it is there, only not made yet */
    out->threads = thread_count();
    uint32_t seen = 0;
    for (uint32_t i = 0; i < ALCOVE_HEAP_MAX && seen < out->heaps; i++) {
        struct alcove_heap_stats heap;
        if (stats_heap(i, &heap) != 0)
            continue;
        seen++;
        out->live_blocks += heap.live_blocks;
        out->live_bytes += heap.live_bytes;
        out->active_bytes += heap.active_bytes;
    }
}
