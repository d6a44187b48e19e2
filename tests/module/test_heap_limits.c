/* The limit of a heap: kept, counted when it refuses, felt by no other heap, raised and removed. */
#include "heaps.h"

static void
test_impossible_limit_is_refused(void **unused)
{
    (void)unused;
    uint32_t heap = 4711;
    assert_int_equal(table->heap_create(&(struct alcove_heap_options){ .limit = 1 }, &heap), EINVAL);
    assert_int_equal(table->heap_create(&(struct alcove_heap_options){ .limit = UINT64_MAX }, &heap), EINVAL);
    heap = heap_new(1 << 20);
    assert_int_equal(table->heap_limit(heap, 1), EINVAL);
    assert_int_equal(table->heap_limit(heap, UINT64_MAX), EINVAL);
    assert_int_equal(stats_of(heap).limit, 1 << 20);
    heap_end(heap);
}

static void
test_limit_is_kept_and_refusals_are_counted(void **unused)
{
    (void)unused;
    static const size_t sizes[] = { 16, 100, 3000, 40000, 300000, 1100000, 3000000 };
    const uint64_t limit = 5 << 20;
    for (int i = 0; i < 7; i++) {
        uint32_t heap = heap_new(limit);
        uint64_t n = 0;
        errno = 0;
        while (table->heap_malloc(heap, sizes[i]) != NULL) {
            n++;
            assert_true(stats_of(heap).active_bytes <= limit);
        }
        assert_int_equal(errno, ENOMEM);
        struct alcove_heap_stats s = stats_of(heap);
        assert_int_equal(s.live_blocks, n);
        assert_int_equal(s.limit, limit);
        assert_int_equal(s.limit_refused, 1);
        assert_int_equal(s.total_allocs, n);
        assert_true(s.live_bytes > limit / 2);
        heap_end(heap);
    }
}

/* A block that grows gets room to grow on, unless only that is too much for the limit. */
static void
test_room_that_the_limit_forbids_is_no_refusal(void **unused)
{
    (void)unused;
    unsigned grown = 0;
    for (uint64_t limit = 64 << 10; limit <= 1 << 20; limit += 4 << 10) {
        uint32_t heap = heap_new(limit);
        void *block = table->heap_malloc(heap, 20000), *kept = table->heap_malloc(heap, 24000);
        void *fits = table->heap_malloc(heap, 24000);
        if (block != NULL && kept != NULL && fits != NULL) {
            table->free(fits);
            assert_non_null(table->heap_realloc(heap, block, 24000));
            assert_int_equal(stats_of(heap).limit_refused, 0);
            grown++;
        }
        assert_int_equal(table->heap_destroy(heap), 0);
    }
    assert_true(grown > 100);
}

static void
test_other_heaps_do_not_feel_a_limit(void **unused)
{
    (void)unused;
    uint32_t limited = heap_new(64 << 10), free_heap = heap_new(0);
    while (table->heap_malloc(limited, 100) != NULL)
        ;
    assert_non_null(table->heap_malloc(free_heap, 10 << 20));
    assert_non_null(table->heap_malloc(free_heap, 100));
    void *block = table->malloc(100);
    assert_non_null(block);
    table->free(block);
    heap_end(limited);
    heap_end(free_heap);
}

static void
test_what_was_freed_can_be_allocated_again_under_the_limit(void **unused)
{
    (void)unused;
    uint32_t heap = heap_new(1 << 20);
    static void *blocks[70000];
    for (int round = 0; round < 5; round++) {
        /* Another size each time: the thread's cache must give back what it holds of the last. */
        size_t size = (size_t)100 << round;
        unsigned n = 0;
        while ((blocks[n] = table->heap_malloc(heap, size)) != NULL)
            n++;
        assert_true(n * size > 700 << 10);
        while (n > 0)
            table->free(blocks[--n]);
    }
    heap_end(heap);
}

static void
test_realloc_beyond_the_limit_leaves_the_block(void **unused)
{
    (void)unused;
    static const size_t sizes[] = { 100, 40000, 1500000, 3000000 };
    for (int i = 0; i < 4; i++) {
        uint32_t heap = heap_new(4 << 20);
        void *block = table->heap_malloc(heap, sizes[i]);
        fill(block, sizes[i], 1);
        errno = 0;
        assert_null(table->realloc(block, 5 << 20));
        assert_int_equal(errno, ENOMEM);
        assert_true(filled(block, sizes[i], 1));
        assert_int_equal(stats_of(heap).live_blocks, 1);
        assert_int_equal(stats_of(heap).limit_refused, 1);
        heap_end(heap);
    }
}

static void
test_limit_can_be_raised_and_removed(void **unused)
{
    (void)unused;
    uint32_t heap = heap_new(1 << 20);
    assert_null(table->heap_malloc(heap, 3 << 20));
    assert_int_equal(table->heap_limit(heap, 8 << 20), 0);
    assert_non_null(table->heap_malloc(heap, 3 << 20));
    assert_null(table->heap_malloc(heap, 6 << 20));
    assert_int_equal(table->heap_limit(heap, 0), 0);
    assert_non_null(table->heap_malloc(heap, 6 << 20));
    assert_int_equal(stats_of(heap).limit, 0);
    heap_end(heap);
}

/* A size that no heap could hold is not the limit's doing. */
static void
test_impossible_size_is_not_counted_as_refused_by_the_limit(void **unused)
{
    (void)unused;
    volatile size_t size = (size_t)PTRDIFF_MAX + 1;
    uint32_t heap = heap_new(1 << 20);
    assert_null(table->heap_malloc(heap, size));
    assert_int_equal(stats_of(heap).limit_refused, 0);
    heap_end(heap);
}

static void
test_no_message_came(void **unused)
{
    (void)unused;
    assert_string_equal(messages, "");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_impossible_limit_is_refused),
        cmocka_unit_test(test_limit_is_kept_and_refusals_are_counted),
        cmocka_unit_test(test_room_that_the_limit_forbids_is_no_refusal),
        cmocka_unit_test(test_other_heaps_do_not_feel_a_limit),
        cmocka_unit_test(test_what_was_freed_can_be_allocated_again_under_the_limit),
        cmocka_unit_test(test_realloc_beyond_the_limit_leaves_the_block),
        cmocka_unit_test(test_limit_can_be_raised_and_removed),
        cmocka_unit_test(test_impossible_size_is_not_counted_as_refused_by_the_limit),
        cmocka_unit_test(test_no_message_came),
    };
    return cmocka_run_group_tests(tests, group_open, NULL);
}
