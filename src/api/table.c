/* The table by which a loader reaches the allocator. */
#include "alcove/alcove.h"

#include "api/internal.h"
#include "api/life.h"
#include "pages/pool.h"
#include "stats/stats.h"
#include "thread/fork.h"

/* Whoever was built with an earlier table or struct finds everything where it was. */
#define STAYS(type, member, offset) _Static_assert(offsetof(type, member) == (offset), #member " stays where it is")
#define SIZE_STAYS(type, bytes) _Static_assert(sizeof(type) == (bytes), #type " never becomes longer")

_Static_assert(sizeof(struct alcove_table) >= ALCOVE_TABLE_FIRST, "the first table stays");
STAYS(struct alcove_heap_options, seal, ALCOVE_HEAP_OPTIONS_FIRST);
SIZE_STAYS(struct alcove_heap_stats, 256);
SIZE_STAYS(struct alcove_info, 256);
SIZE_STAYS(struct alcove_owner, 64);

static void *
entry(enum alcove_entry which)
{
    static void *const entries[ALCOVE_ENTRY_COUNT] = {
#define ENTRY(name) (void *)entry_##name,
        ALCOVE_ENTRIES(ENTRY)
#undef ENTRY
    };
    return (unsigned)which < ALCOVE_ENTRY_COUNT ? entries[which] : NULL;
}

static uint32_t
heap_of_block(const void *block)
{
    const struct run *r = pool_find(block);
    return r != NULL ? r->heap : ALCOVE_HEAP_NONE;
}

static void
info(struct alcove_info *out)
{
    fork_first_use();
    stats_info(out);
}

API const struct alcove_table ALCOVE_PUBLIC(table) = {
    .abi_version = ALCOVE_ABI_VERSION,
    .size = sizeof(struct alcove_table),
    .attach = life_attach,
    .detach = life_detach,
    .thread_exit = thread_exit,
    .info = info,
    .malloc = ALCOVE_PUBLIC(malloc),
    .calloc = ALCOVE_PUBLIC(calloc),
    .realloc = ALCOVE_PUBLIC(realloc),
    .free = ALCOVE_PUBLIC(free),
    .aligned_alloc = ALCOVE_PUBLIC(aligned_alloc),
    .posix_memalign = ALCOVE_PUBLIC(posix_memalign),
    .malloc_usable_size = ALCOVE_PUBLIC(malloc_usable_size),
    .heap_create = ALCOVE_PUBLIC(heap_create),
    .heap_destroy = ALCOVE_PUBLIC(heap_destroy),
    .heap_limit = ALCOVE_PUBLIC(heap_limit),
    .heap_stats = ALCOVE_PUBLIC(heap_stats),
    .heap_malloc = ALCOVE_PUBLIC(heap_malloc),
    .heap_calloc = ALCOVE_PUBLIC(heap_calloc),
    .heap_aligned_alloc = ALCOVE_PUBLIC(heap_aligned_alloc),
    .heap_realloc = ALCOVE_PUBLIC(heap_realloc),
    .entry = entry,
    .owner = ALCOVE_PUBLIC(owner),
    .purge = ALCOVE_PUBLIC(purge),
    .detach_leaving = life_detach_leaving,
    .heap_end = ALCOVE_PUBLIC(heap_end),
    .tick = ALCOVE_PUBLIC(tick),
    .heap_bins = ALCOVE_PUBLIC(heap_bins),
    .heap_peak_reset = ALCOVE_PUBLIC(heap_peak_reset),
    .heap_unseal = ALCOVE_PUBLIC(heap_unseal),
    .heap_of = heap_of_block,
    .fork_prepare = fork_prepare,
    .fork_parent = fork_parent,
    .fork_child = fork_child,
};
