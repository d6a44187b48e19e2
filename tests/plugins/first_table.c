/*
 * An allocator of the first table of the ABI version, and one that does not know strndup. What is behind its face is today's.
 */
#include "first_table.h"

#include <alcove/alcove.h>
#include <errno.h>
#include <string.h>

static int
attach(const struct first_services *lent)
{
    struct alcove_services known = {0};
    if (lent->abi_version != FIRST_ABI_VERSION || lent->size < 16)
        return EINVAL;
    memcpy(&known, lent, lent->size < sizeof *lent ? lent->size : sizeof *lent);
    known.size = sizeof known;
    return alcove_table.attach(&known);
}

static int
detach(void)
{
    return alcove_table.detach();
}

static int
detach_leaving(void)
{
    return alcove_table.detach_leaving();
}

static void
thread_exit(void)
{
    alcove_table.thread_exit();
}

static void
info(struct first_info *out)
{
    alcove_table.info((struct alcove_info *)out);
}

/* It understands what it knew then, and nothing else. */
static int
heap_create(const struct first_heap_options *options, uint32_t *heap)
{
    if (options == NULL)
        return alcove_heap_create(NULL, heap);
    struct alcove_heap_options known = {.size = sizeof known, .flags = options->flags, .limit = options->limit,
                                        .name = options->name, .seal = options->seal};
    for (size_t i = sizeof *options; i < options->size; i++)
        if (((const char *)options)[i] != 0)
            return EINVAL;
    return alcove_heap_create(&known, heap);
}

static int
heap_stats(uint32_t heap, struct first_heap_stats *out)
{
    return alcove_heap_stats(heap, (struct alcove_heap_stats *)out);
}

static void *
entry(int which)
{
    return which == FIRST_ENTRY_STRNDUP || which >= FIRST_ENTRIES ? NULL : alcove_table.entry((enum alcove_entry)which);
}

static int
heap_bins(uint32_t heap, struct first_bin_stats *bins, uint32_t stride, uint32_t *count)
{
    return alcove_heap_bins(heap, (struct alcove_bin_stats *)bins, stride, count);
}

static uint32_t
heap_of(const void *block)
{
    return alcove_table.heap_of(block);
}

static int
owner(const void *address, struct first_owner *out)
{
    return alcove_owner(address, (struct alcove_owner *)out);
}

extern const struct first_table first_table;
const struct first_table first_table = {
    .abi_version = FIRST_ABI_VERSION,
    .size = sizeof(struct first_table),
    .attach = attach,
    .detach = detach,
    .thread_exit = thread_exit,
    .info = info,
    .malloc = alcove_malloc,
    .calloc = alcove_calloc,
    .realloc = alcove_realloc,
    .free = alcove_free,
    .aligned_alloc = alcove_aligned_alloc,
    .posix_memalign = alcove_posix_memalign,
    .malloc_usable_size = alcove_malloc_usable_size,
    .heap_create = heap_create,
    .heap_destroy = alcove_heap_destroy,
    .heap_limit = alcove_heap_limit,
    .heap_stats = heap_stats,
    .heap_malloc = alcove_heap_malloc,
    .heap_calloc = alcove_heap_calloc,
    .heap_aligned_alloc = alcove_heap_aligned_alloc,
    .heap_realloc = alcove_heap_realloc,
    .entry = entry,
    .owner = owner,
    .purge = alcove_purge,
    .detach_leaving = detach_leaving,
    .heap_end = alcove_heap_end,
    .tick = alcove_tick,
    .heap_bins = heap_bins,
    .heap_peak_reset = alcove_heap_peak_reset,
    .heap_unseal = alcove_heap_unseal,
    .heap_of = heap_of,
};
