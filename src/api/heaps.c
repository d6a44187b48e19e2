/* Heaps by their public names. */
#include "alcove/alcove.h"

#include <errno.h>

#include "api/internal.h"
#include "ground/misuse.h"
#include "ground/versions.h"
#include "heap/slab.h"
#include "pages/pool.h"
#include "stats/stats.h"
#include "thread/ending.h"
#include "thread/fork.h"

static void *
no_such_heap(void)
{
    errno = EINVAL;
    return NULL;
}

API int
ALCOVE_PUBLIC(heap_create)(const struct alcove_heap_options *options, uint32_t *heap)
{
    static const struct alcove_heap_options defaults;
    struct alcove_heap_options known;
    if (options == NULL)
        options = &defaults;
    if (!options_read(&known, sizeof known, options, options->size, ALCOVE_HEAP_OPTIONS_FIRST))
        return EINVAL;
    fork_first_use();
    return heap_create(&known, heap);
}

API int
ALCOVE_PUBLIC(heap_destroy)(uint32_t heap)
{
    struct heap *h;
    int error = heap_close(heap, &h);
    if (error != 0)
        return error;
    thread_drop_heap(heap);
    heap_destroy(h);
    return 0;
}

API int
ALCOVE_PUBLIC(heap_end)(uint32_t heap)
{
    return thread_end_heap(heap);
}

API int
ALCOVE_PUBLIC(heap_unseal)(uint32_t heap, const void *seal)
{
    return heap_unseal(heap, seal);
}

API int
ALCOVE_PUBLIC(heap_limit)(uint32_t heap, uint64_t limit)
{
    return heap_limit_set(heap, limit);
}

API int
ALCOVE_PUBLIC(heap_stats)(uint32_t heap, struct alcove_heap_stats *out)
{
    return stats_heap(heap, out);
}

API int
ALCOVE_PUBLIC(heap_bins)(uint32_t heap, struct alcove_bin_stats *bins, uint32_t stride, uint32_t *count)
{
    return stats_bins(heap, bins, stride, count);
}

API int
ALCOVE_PUBLIC(heap_peak_reset)(uint32_t heap)
{
    return stats_peak_reset(heap);
}

API void *
ALCOVE_PUBLIC(heap_malloc)(uint32_t heap, size_t size)
{
    return likely(heap < ALCOVE_HEAP_MAX) ? entry_malloc(size, heap) : no_such_heap();
}

API void *
ALCOVE_PUBLIC(heap_calloc)(uint32_t heap, size_t count, size_t size)
{
    return likely(heap < ALCOVE_HEAP_MAX) ? entry_calloc(count, size, heap) : no_such_heap();
}

API void *
ALCOVE_PUBLIC(heap_aligned_alloc)(uint32_t heap, size_t alignment, size_t size)
{
    return likely(heap < ALCOVE_HEAP_MAX) ? entry_aligned_alloc(alignment, size, heap) : no_such_heap();
}

API int
ALCOVE_PUBLIC(owner)(const void *address, struct alcove_owner *out)
{
    struct run *r = pool_find(address);
    *out = (struct alcove_owner){ .size = FIGURES_SIZE(struct alcove_owner), .heap = ALCOVE_HEAP_NONE };
    if (r == NULL)
        return 0;
    out->heap = r->heap;
    out->block = r->kind == RUN_SLAB ? slab_block(r, address) : (void *)r->base;
    if (out->block != NULL) {
        out->usable = r->kind == RUN_SLAB ? bin_size(r->bin) : r->usable;
        out->live = r->kind != RUN_SLAB || !slab_block_is_free(r, out->block);
    }
    return 1;
}

API void
ALCOVE_PUBLIC(tick)(void)
{
    thread_tick(tls_get());
}

/* Of a heap that neither ends nor is destroyed meanwhile. */
static void
clear_untouched(uint32_t heap)
{
    struct visit visit = visit_begin(heap);
    struct heap *h = heap_look_at(heap);
    if (h != NULL) {
        heap_clear_untouched(h, false);
        heap_look_end(h);
    }
    visit_end(visit);
}

API void
ALCOVE_PUBLIC(purge)(void)
{
    fork_first_use();
    thread_forget_heaps();
    thread_purge();
    for (uint32_t i = 0; i < ALCOVE_HEAP_MAX; i++)
        if (heap_of(i) != NULL)
            clear_untouched(i);
    pool_purge();
    misuse_tell();
}
