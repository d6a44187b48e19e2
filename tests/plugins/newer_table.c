/*
 * An allocator of a later release: its table is longer, its options have a member more, its figures one in the room, and it
 * knows one more entry. What is behind its face is today's.
 */
#include "newer_table.h"

#include <alcove/alcove.h>
#include <stdlib.h>

static uint64_t colour;

static uint64_t
last_colour(void)
{
    return colour;
}

static int
heap_create(const struct alcove_heap_options *options, uint32_t *heap)
{
    if (options == NULL)
        return alcove_heap_create(NULL, heap);
    struct alcove_heap_options known = *options;
    if (options->size >= sizeof(struct newer_heap_options)) {
        colour = ((const struct newer_heap_options *)options)->colour;
        known.size = sizeof known;
    }
    return alcove_heap_create(&known, heap);
}

static int
heap_stats(uint32_t heap, struct alcove_heap_stats *out)
{
    int error = alcove_heap_stats(heap, out);
    out->size += sizeof out->room[0];
    out->room[0] = NEWER_FIGURE;
    return error;
}

static void *
entry(enum alcove_entry which)
{
    return (unsigned)which == ALCOVE_ENTRY_COUNT ? (void *)(uintptr_t)abort : alcove_table.entry(which);
}

extern struct newer_table newer_table;
struct newer_table newer_table;

__attribute__((constructor)) static void
begin(void)
{
    newer_table.today = alcove_table;
    newer_table.today.size = sizeof newer_table;
    newer_table.today.heap_create = heap_create;
    newer_table.today.heap_stats = heap_stats;
    newer_table.today.entry = entry;
    newer_table.last_colour = last_colour;
}
