/* The limit of a heap: kept, counted when it refuses, felt by no other heap, raised and removed. */
#include "config.h"
#include "heaps.h"

#include <pthread.h>

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

/* The last byte of the limit can be had, and not one more. */
static void
test_block_of_exactly_the_limit_is_allowed(void **unused)
{
    (void)unused;
    static const size_t sizes[] = { 64 << 10, 256 << 10, 1 << 20, 2 << 20, 4 << 20, 16 << 20 };
    for (int i = 0; i < 6; i++) {
        uint32_t heap = heap_new(sizes[i]);
        void *block = table->heap_malloc(heap, sizes[i]);
        assert_non_null(block);
        assert_int_equal(stats_of(heap).active_bytes, sizes[i]);
        assert_null(table->heap_malloc(heap, 1));
        table->free(block);
        block = table->heap_malloc(heap, sizes[i]);
        assert_non_null(block);
        table->free(block);
        assert_null(table->heap_malloc(heap, sizes[i] + 1));
        heap_end(heap);
        heap = heap_new(sizes[i] * 2 - 1);
        assert_null(table->heap_malloc(heap, sizes[i] * 2));
        assert_non_null(block = table->heap_malloc(heap, sizes[i]));
        assert_null(table->heap_malloc(heap, sizes[i]));
        table->free(block);
        heap_end(heap);
    }
}

/* The thread's own cache holds nearly all of the limit: it gives that back, for any kind of block. */
static void
test_what_is_cached_gives_way_to_what_is_asked_for(void **unused)
{
    (void)unused;
    static const size_t kept[] = { 16, 4000, 100000, 300000 }, asked[] = { 100, 30000, 600000, 900000, 1000000 };
    static void *blocks[70000];
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 5; j++) {
            uint32_t heap = heap_new(1 << 20);
            unsigned n = 0;
            while ((blocks[n] = table->heap_malloc(heap, kept[i])) != NULL)
                n++;
            while (n > 0)
                table->free(blocks[--n]);
            blocks[0] = table->heap_malloc(heap, asked[j]);
            assert_non_null(blocks[0]);
            assert_int_equal(stats_of(heap).limit_refused, 1);
            table->free(blocks[0]);
            heap_end(heap);
        }
}

/* A thread that sleeps, with free blocks of all kinds in its caches. */
static pthread_barrier_t asleep;
static void *of_sleeper;

static void *
fill_caches_and_sleep(void *heap)
{
    void *blocks[8];
    for (size_t size = 16; size <= 1 << 20; size += size / 8) {
        unsigned n = 0;
        while (n < 8 && n * size < 128 << 10 && (blocks[n] = table->heap_malloc((uint32_t)(uintptr_t)heap, size)) != NULL)
            n++;
        while (n > 0)
            table->free(blocks[--n]);
    }
    of_sleeper = table->heap_malloc((uint32_t)(uintptr_t)heap, 50);
    pthread_barrier_wait(&asleep);
    pthread_barrier_wait(&asleep);
    /* It works on with an empty cache. */
    table->free(of_sleeper);
    table->free(table->heap_malloc((uint32_t)(uintptr_t)heap, 60));
    return NULL;
}

static void
test_cache_of_a_sleeping_thread_gives_way(void **unused)
{
    (void)unused;
    for (int kind = 0; kind < 4; kind++) {
        uint32_t heap = heap_new(8 << 20);
        pthread_t sleeper;
        if (kind == 3) /* none while its caches are made: they are guarded from the first limit on, for good */
            assert_int_equal(table->heap_limit(heap, 0), 0);
        pthread_barrier_init(&asleep, NULL, 2);
        assert_int_equal(pthread_create(&sleeper, NULL, fill_caches_and_sleep, (void *)(uintptr_t)heap), 0);
        pthread_barrier_wait(&asleep);
        assert_true(stats_of(heap).cached_bytes > 1 << 20);
        assert_int_equal(table->heap_limit(heap, 8 << 20), 0);
        uint64_t refused = stats_of(heap).limit_refused;
        void *block = kind == 0   ? table->heap_malloc(heap, 7 << 20)
                      : kind == 1 ? table->heap_calloc(heap, 1, 7 << 20)
                      : kind == 2 ? table->heap_realloc(heap, table->heap_malloc(heap, 100), 7 << 20)
                                  : table->heap_aligned_alloc(heap, 1 << 16, 7 << 20);
        assert_non_null(block);
        assert_int_equal(stats_of(heap).limit_refused, refused);
        table->free(block);
        for (size_t live = 0; live < 7 << 20; live += 1024)
            assert_non_null(table->heap_malloc(heap, 1024));
        pthread_barrier_wait(&asleep);
        pthread_join(sleeper, NULL);
        heap_end(heap);
    }
}

/* A heap that gets its first limit when threads have caches of it: each is guarded when its thread has its next turn. */
static void
test_first_limit_is_kept_by_caches_made_before(void **unused)
{
    (void)unused;
    static void *blocks[20000];
    uint32_t heap = heap_new(0);
    for (int i = 0; i < 20000; i++)
        assert_non_null(blocks[i] = table->heap_malloc(heap, 200));
    for (int i = 0; i < 20000; i++)
        table->free(blocks[i]);
    assert_int_equal(table->heap_limit(heap, 1 << 20), 0);
    void *block = table->heap_malloc(heap, 1 << 20);
    assert_non_null(block);
    assert_int_equal(stats_of(heap).active_bytes, 1 << 20);
    table->free(block);
    unsigned n = 0;
    while (n < 20000 && (blocks[n] = table->heap_malloc(heap, 200)) != NULL)
        n++;
    assert_true(n * 200 > 900 << 10);
    assert_true(stats_of(heap).active_bytes <= 1 << 20);
    heap_end(heap);
}

static void
test_default_heap_can_have_a_limit(void **unused)
{
    (void)unused;
    static void *blocks[20000];
    unsigned n = 0;
    void *before = table->malloc(64);
    fill(before, 64, 1);
    table->free(table->malloc(64));
    uint64_t limit = stats_of(0).active_bytes + (1 << 20);
    assert_int_equal(table->heap_limit(0, limit), 0);
    while (n < 20000 && (blocks[n] = table->malloc(64)) != NULL) {
        assert_ptr_not_equal(blocks[n], before);
        n++;
    }
    assert_in_range(n, (900 << 10) / 64, 19999);
    assert_true(stats_of(0).active_bytes <= limit);
    while (n > 0)
        table->free(blocks[--n]);
    assert_non_null(blocks[0] = table->malloc(1 << 20));
    table->free(blocks[0]);
    assert_int_equal(table->heap_limit(0, 0), 0);
    assert_non_null(blocks[0] = table->malloc(9 << 20));
    table->free(blocks[0]);
    assert_true(filled(before, 64, 1));
    table->free(before);
}

/* Free blocks beside live ones: pages without a live one are had by others. */
static void
test_free_pages_between_live_blocks_give_way(void **unused)
{
    (void)unused;
    if (ALCOVE_LG_PAGE > 12)
        SKIP_BECAUSE("the figures are for pages of 4 KiB");
    enum { MOST = 20000 };
    static unsigned char *blocks[MOST];
    uint32_t heap = heap_new(1 << 20);
    unsigned n = 0;
    while (n < MOST && (blocks[n] = table->heap_malloc(heap, 64)) != NULL) {
        fill(blocks[n], 64, n);
        n++;
    }
    for (unsigned i = 0; i < n; i++)
        if (i % 1024 != 0)
            table->free(blocks[i]);
    void *large = table->heap_malloc(heap, 700000), *small = table->heap_malloc(heap, 3000);
    assert_non_null(large);
    assert_non_null(small);
    memset(large, 1, 700000);
    for (unsigned i = 0; i < n; i += 1024)
        assert_true(filled(blocks[i], 64, i));
    assert_int_equal(stats_of(heap).limit_refused, 1);
    heap_end(heap);
}

static void
test_realloc_to_less_never_fails(void **unused)
{
    (void)unused;
    static const size_t sizes[] = { 100, 4096, 30000, 100000, 1 << 20, 3 << 20 };
    for (int i = 0; i < 6; i++)
        for (size_t less = 1; less < sizes[i]; less = less * 3 + 1) {
            uint32_t heap = heap_new(sizes[i] < 1 << 20 ? 1 << 20 : sizes[i]);
            unsigned char *block = table->heap_malloc(heap, sizes[i]);
            fill(block, sizes[i], 1);
            for (size_t other = sizes[i]; other > 0; other /= 2)
                while (table->heap_malloc(heap, other) != NULL)
                    ;
            struct alcove_heap_stats before = stats_of(heap);
            errno = 4711;
            unsigned char *now = table->heap_realloc(heap, block, less);
            assert_non_null(now);
            assert_int_equal(errno, 4711);
            for (size_t at = 0; at < less; at++)
                assert_int_equal(now[at], (unsigned char)(37 + sizes[i]));
            assert_int_equal(stats_of(heap).limit_refused, before.limit_refused);
            assert_int_equal(stats_of(heap).live_blocks, before.live_blocks);
            assert_true(stats_of(heap).live_bytes <= before.live_bytes);
            heap_end(heap);
        }
}

/* A huge block that was all of the limit becomes a small one, and the rest of it is free. */
static void
test_realloc_to_less_gives_pages_back_at_the_limit(void **unused)
{
    (void)unused;
    static const size_t sizes[] = { 1 << 20, 8 << 20 };
    for (int i = 0; i < 2; i++) {
        uint32_t heap = heap_new(sizes[i]);
        void *block = table->heap_malloc(heap, sizes[i]);
        assert_non_null(block);
        assert_non_null(block = table->heap_realloc(heap, block, 100));
        assert_int_equal(table->malloc_usable_size(block), 112);
        assert_non_null(table->heap_malloc(heap, sizes[i] / 4 * 3));
        heap_end(heap);
    }
}

/* A block that has room beyond what is charged: freed, it is no more than was charged, nor when it is had again. */
static void
test_room_of_a_freed_block_does_not_exceed_the_limit(void **unused)
{
    (void)unused;
    for (uint64_t limit = 256 << 10; limit <= 1 << 20; limit += 16 << 10) {
        uint32_t heap = heap_new(limit);
        void *block = table->heap_malloc(heap, 40000);
        for (size_t size = 40000; size < limit; size += size / 3) {
            void *grown = table->heap_realloc(heap, block, size);
            if (grown == NULL)
                break;
            block = grown;
            assert_true(stats_of(heap).active_bytes <= limit);
        }
        size_t usable = table->malloc_usable_size(block);
        table->free(block);
        assert_true(stats_of(heap).active_bytes <= limit);
        for (size_t size = usable; size < usable * 2; size += usable / 8) {
            block = table->heap_malloc(heap, size);
            assert_true(stats_of(heap).active_bytes <= limit);
            table->free(block);
        }
        heap_end(heap);
    }
}

/* A page of a block that must lie far from others brings a page of the page map with it. */
static void
test_what_far_apart_blocks_cost_is_charged(void **unused)
{
    (void)unused;
    if (ALCOVE_LG_PAGE > 12)
        SKIP_BECAUSE("the figures are for pages of 4 KiB");
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const size_t far = page / 8 * page;
    uint32_t heap = heap_new(4 << 20);
    unsigned n = 0;
    void *last = NULL, *block;
    while (n < 1024 && (block = table->heap_aligned_alloc(heap, far, 1)) != NULL) {
        last = block;
        n++;
    }
    assert_in_range(n, 100, (4 << 20) / (2 * page));
    uint64_t active = stats_of(heap).active_bytes;
    table->free(last);
    assert_int_equal(active - stats_of(heap).active_bytes, 2 * page + 128);
    assert_non_null(table->heap_aligned_alloc(heap, far, 1));
    assert_int_equal(stats_of(heap).active_bytes, active);
    heap_end(heap);
    /* Also when the block becomes another kind. */
    heap = heap_new(0);
    assert_non_null(block = table->heap_aligned_alloc(heap, far, 40000));
    assert_non_null(block = table->realloc(block, 9 << 20));
    table->free(block);
    table->purge();
    assert_int_equal(stats_of(heap).active_bytes, 0);
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
        cmocka_unit_test(test_block_of_exactly_the_limit_is_allowed),
        cmocka_unit_test(test_what_is_cached_gives_way_to_what_is_asked_for),
        cmocka_unit_test(test_cache_of_a_sleeping_thread_gives_way),
        cmocka_unit_test(test_first_limit_is_kept_by_caches_made_before),
        cmocka_unit_test(test_default_heap_can_have_a_limit),
        cmocka_unit_test(test_free_pages_between_live_blocks_give_way),
        cmocka_unit_test(test_realloc_to_less_never_fails),
        cmocka_unit_test(test_realloc_to_less_gives_pages_back_at_the_limit),
        cmocka_unit_test(test_room_of_a_freed_block_does_not_exceed_the_limit),
        cmocka_unit_test(test_what_far_apart_blocks_cost_is_charged),
        cmocka_unit_test(test_impossible_size_is_not_counted_as_refused_by_the_limit),
        cmocka_unit_test(test_no_message_came),
    };
    return cmocka_run_group_tests(tests, group_open, NULL);
}
