/*
 * Heaps of one test: made, and destroyed with what is left in them.
 */
#ifndef TESTS_HEAPS_H
#define TESTS_HEAPS_H

#include "module.h"

static uint32_t
heap_new(uint64_t limit)
{
    struct alcove_heap_options options = { .limit = limit, .name = "tested" };
    uint32_t heap = ALCOVE_HEAP_NONE;
    assert_int_equal(table->heap_create(&options, &heap), 0);
    assert_in_range(heap, 1, ALCOVE_HEAP_MAX - 1);
    return heap;
}

static void
heap_end(uint32_t heap)
{
    assert_int_equal(table->heap_destroy(heap), 0);
}

/* A new heap that has the number of one that is gone. Numbers that were given up longest ago come first. */
static UNUSED uint32_t
heap_new_of_number(uint32_t number)
{
    uint32_t heap = heap_new(0);
    for (uint32_t i = 0; heap != number && i < ALCOVE_HEAP_MAX; i++) {
        heap_end(heap);
        heap = heap_new(0);
    }
    assert_int_equal(heap, number);
    return heap;
}

static UNUSED struct alcove_owner
owner_of(const void *address)
{
    struct alcove_owner owner;
    assert_int_equal(table->owner(address, &owner), 1);
    return owner;
}

#endif
