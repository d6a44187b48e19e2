/*
 * Figures. Nothing is counted on the hot path but the pops that a cache counts down; blocks are
 * counted where a batch of them leaves or enters a heap. What is live is what is out of the heap less
 * what caches hold. Readers hold one lock, of the figures, and nobody who allocates waits for that.
 */
#include "stats/stats.h"

#include <errno.h>
#include <string.h>

#include "config.h"
#include "ground/versions.h"
#include "heap/heap.h"
#include "heap/large.h"
#include "os/os.h"
#include "pages/base.h"
#include "pages/pool.h"
#include "thread/peak.h"
#include "thread/record.h"
#include "thread/tls.h"

/* Blocks out of the heap, and allocations that went past the caches, by bin; those without a bin at index 0. */
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

/* What caches hold, as one number that another distribution hardly has: a copy to compare with would need more
 * stack than a thread with a small one has. */
static uint64_t
sums_digest(const struct thread_sums *sums)
{
    uint64_t digest = 0;
    for (unsigned bin = 0; bin < BINS; bin++)
        digest = (digest ^ sums->cached[bin] ^ sums->allocations[bin] << 32) * 0x9e3779b97f4a7c15u;
    return digest;
}

#define COUNT_TRIES 5000
#define COUNT_TRIES_GUARDED 50
#define BUSY_TRIES 20

/* Count what is out of a heap and what of that is cached. Threads that collect their caches move blocks back between
 * the two counts, even if none uses the heap: count again then. One that is stopped in the middle of that is not waited for; nor
 * are, for long, threads that at a limit empty each other's caches all the time. */
static void
count_all(struct heap *h, struct heap_counts *n, struct thread_sums *caches)
{
    bool steady = thread_sum(h->index, caches);
    uint64_t before, now = sums_digest(caches);
    int tries = atomic_load_explicit(&h->guarded, memory_order_relaxed) ? COUNT_TRIES_GUARDED : COUNT_TRIES;
    for (int busy = 0, i = 0; i < tries && busy < BUSY_TRIES; i++) {
        bool was_steady = steady;
        before = now;
        count_heap(h, n);
        steady = thread_sum(h->index, caches);
        now = sums_digest(caches);
        if (was_steady && steady && now == before)
            return;
        busy += was_steady && steady; /* somebody allocates or frees meanwhile */
    }
}

/* Figures of one bin, or of what has none, from what was counted. */
static struct alcove_bin_stats
bin_figures(unsigned bin, const struct heap_counts *n, const struct thread_sums *caches)
{
    if (bin == 0)
        return (struct alcove_bin_stats){ .live_blocks = n->out[0], .live_bytes = n->nobin_out_bytes,
                                          .total_allocs = n->uncached[0], .total_bytes = n->nobin_total_bytes };
    /* Read at different moments, caches may seem to hold more than is out. */
    uint64_t cached = caches->cached[bin] < n->out[bin] ? caches->cached[bin] : n->out[bin];
    struct alcove_bin_stats b = { .block_size = bin_size(bin), .live_blocks = n->out[bin] - cached, .cached_blocks = cached,
                                  .total_allocs = caches->allocations[bin] + n->uncached[bin] };
    b.live_bytes = b.live_blocks * b.block_size;
    b.total_bytes = b.total_allocs * b.block_size;
    return b;
}

static void
sum_up(struct heap *h, struct alcove_heap_stats *out)
{
    struct thread_sums caches;
    struct heap_counts n;
    count_all(h, &n, &caches);
    memset(out, 0, sizeof *out);
    out->size = FIGURES_SIZE(struct alcove_heap_stats);
    for (unsigned bin = 0; bin < BINS; bin++) {
        struct alcove_bin_stats b = bin_figures(bin, &n, &caches);
        out->live_blocks += b.live_blocks;
        out->live_bytes += b.live_bytes;
        out->cached_bytes += b.cached_blocks * b.block_size;
        out->total_allocs += b.total_allocs;
        out->total_bytes += b.total_bytes;
    }
    out->total_frees = out->total_allocs > out->live_blocks ? out->total_allocs - out->live_blocks : 0;
    out->active_bytes = atomic_load_explicit(&h->active, memory_order_relaxed);
    out->peak_bytes = peak_at_least(h, out->live_bytes); /* of a block that is just moving both are out */
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

static uint64_t
bin_slabs(const struct heap *h, unsigned bin)
{
    if (bin == 0 || bin > SMALL_BINS)
        return 0;
    return __atomic_load_n(&h->bins[bin].slabs, __ATOMIC_RELAXED);
}

/* All bins by size, and last what has none. */
static void
list_bins(struct heap *h, char *out, size_t stride, uint32_t room)
{
    struct thread_sums caches;
    struct heap_counts n;
    count_all(h, &n, &caches);
    for (uint32_t i = 0; i < room; i++) {
        unsigned bin = (i + 1) % BINS;
        struct alcove_bin_stats b = bin_figures(bin, &n, &caches);
        b.slabs = bin_slabs(h, bin);
        memset(out + i * stride, 0, stride);
        memcpy(out + i * stride, &b, stride < sizeof b ? stride : sizeof b);
    }
}

int
stats_bins(uint32_t heap, struct alcove_bin_stats *bins, uint32_t stride, uint32_t *count)
{
    if (count == NULL || (bins == NULL && *count != 0) || stride == 0 || stride % 8 != 0)
        return EINVAL;
    struct heap *h = figures_hold(heap);
    if (h == NULL)
        return EINVAL;
    list_bins(h, (char *)bins, stride, *count < BINS ? *count : BINS);
    *count = BINS;
    figures_let_go(h);
    return 0;
}

void
stats_info(struct alcove_info *out)
{
    memset(out, 0, sizeof *out);
    out->size = FIGURES_SIZE(struct alcove_info);
    out->tls = tls_offset != TLS_DYNAMIC ? "static" : "dynamic";
    out->version = ALCOVE_VERSION;
    out->prefix = ALCOVE_PREFIX;
    out->metadata_bytes = base_bytes() + pagemap_bytes();
    struct pool_figures pages;
    pool_figures_get(&pages);
    out->mapped_bytes = pages.mapped + out->metadata_bytes + os_refused_bytes();
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
