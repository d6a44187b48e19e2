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

#endif
