/*
 * The spare: what a block that grew leaves behind is lent to the next that grows. That one stays where it is, the figures say what it
 * may use, and little stays with blocks that do not grow as far.
 */
#include "config.h"
#include "heaps.h"

#include <pthread.h>

#define KIB ((size_t)1 << 10)
#define GROWN ((size_t)300000)
#define LENT_FROM (8 * KIB) /* whatever the build: it is large enough to get pages of its own. What is much smaller fills caches */
#define PAGE ((size_t)1 << ALCOVE_LG_PAGE)
#define KEPT_MOST (1280 * KIB + 16 * PAGE) /* a spare, and what one is cut from or grew by where there was no room */
#define LIKE_ITS_SIZE(size) ((size) * 2 + 128 * KIB)

/* Others have no spares. */
static const uint32_t heap = ALCOVE_HEAP_DEFAULT;

static int
start(void **unused)
{
    (void)unused;
    table->purge();
    return 0;
}

static int
stop(void **unused)
{
    (void)unused;
    table->purge();
    return 0;
}

#define spare_test(function) cmocka_unit_test_setup_teardown(function, start, stop)

static unsigned char
byte_of(size_t at)
{
    return (unsigned char)(at * 7 + at / 4096);
}

/* Make a block grow by half from one size to another, and look what it holds at each step. */
static unsigned char *
grow(unsigned char *block, size_t from, size_t to)
{
    size_t had = block != NULL ? from : 0;
    for (size_t size = from;; size = size + size / 2 < to ? size + size / 2 : to) {
        unsigned char *grown = table->heap_realloc(heap, block, size);
        assert_non_null(grown);
        for (size_t at = 0; at < had; at++)
            assert_int_equal(grown[at], byte_of(at));
        for (size_t at = had; at < size; at++)
            grown[at] = byte_of(at);
        assert_true(table->malloc_usable_size(grown) >= size);
        block = grown;
        had = size;
        if (size >= to)
            return block;
    }
}

/* The same by doubling, as a vector of Rust's grows. */
static unsigned char *
grow_double(unsigned char *block, size_t from, size_t to)
{
    for (size_t size = from; size <= to; size *= 2) {
        assert_non_null(block = table->heap_realloc(heap, block, size));
        for (size_t at = 0; at < size / 2 && size > from; at++)
            assert_int_equal(block[at], byte_of(at));
        for (size_t at = 0; at < size; at++)
            block[at] = byte_of(at);
    }
    return block;
}

static void
assert_live(const void *block)
{
    assert_int_equal(stats_of(heap).live_bytes, block != NULL ? table->malloc_usable_size((void *)block) : 0);
    assert_int_equal(stats_of(heap).live_blocks, block != NULL);
}

static void
test_next_that_grows_stays_where_it_is(void **unused)
{
    (void)unused;
    unsigned char *first = grow(NULL, LENT_FROM / 2, GROWN);
    table->free(first);
    for (int i = 0; i < 2000; i++) {
        unsigned char *block = grow(NULL, LENT_FROM / 2, LENT_FROM);
        assert_live(block);
        assert_ptr_equal(grow(block, LENT_FROM, GROWN), block);
        assert_live(block);
        table->free(block);
        assert_live(NULL);
        i += i < 20 || i > 480 ? 0 : 19; /* turns of the slow path are among them */
    }
    assert_true(stats_of(heap).active_bytes < LIKE_ITS_SIZE(GROWN));
    table->purge();
    assert_int_equal(stats_of(heap).active_bytes, 0);
}

static void
test_next_that_doubles_stays_where_it_is(void **unused)
{
    (void)unused;
    table->free(grow_double(NULL, LENT_FROM / 2, 256 * KIB));
    for (int i = 0; i < 200; i++) {
        unsigned char *block = grow_double(NULL, LENT_FROM / 2, LENT_FROM);
        assert_ptr_equal(grow_double(block, 2 * LENT_FROM, 256 * KIB), block);
        assert_live(block);
        table->free(block);
        assert_live(NULL);
    }
}

/* Blocks that grew once and stay, in pages that were used before: what they do not use of them is little. */
static void
hold_blocks_that_grew(unsigned numerator, unsigned denominator)
{
    enum { BLOCKS = 3000, CHUNKS = 160 };
    static void *chunks[CHUNKS], *kept[BLOCKS];
    uint32_t other = heap_new(0);
    size_t before = process_figure("/proc/self/smaps_rollup", "Rss");
    for (int i = 0; i < CHUNKS; i++)
        memset(chunks[i] = table->malloc(1 << 20), 1, 1 << 20);
    for (int i = 0; i < CHUNKS; i++)
        table->free(chunks[i]);
    for (int i = 0; i < BLOCKS; i++)
        for (size_t size = 6 * KIB; size < 20 * KIB; size = size * numerator / denominator)
            assert_non_null(kept[i] = table->heap_realloc(other, kept[i], size));
    table->purge();
    uint64_t active = stats_of(other).active_bytes;
    size_t now = process_figure("/proc/self/smaps_rollup", "Rss");
    if (now > before + active + active / 8 + (4 << 20))
        fail_msg("%zu KiB are resident for %zu", (now - before) >> 10, (size_t)active >> 10);
    for (int i = 0; i < BLOCKS; i++) {
        table->free(kept[i]);
        kept[i] = NULL;
    }
    heap_end(other);
}

static void
test_blocks_that_grew_and_stay_hold_little(void **unused)
{
    (void)unused;
    if (emulated())
        SKIP_BECAUSE("what is resident is the emulator's");
    hold_blocks_that_grew(5, 4);
    hold_blocks_that_grew(2, 1);
}

/* Huge ones that grew and stay. */
static void
test_huge_blocks_that_grew_and_stay_hold_little(void **unused)
{
    (void)unused;
    enum { BLOCKS = 8, MIB = 1 << 20 };
    static unsigned char *kept[BLOCKS];
    if (emulated())
        SKIP_BECAUSE("what is resident is the emulator's");
    uint32_t other = heap_new(0);
    size_t before = process_figure("/proc/self/smaps_rollup", "Rss"), size;
    void *dirty = table->malloc(400 * MIB);
    memset(dirty, 1, 400 * MIB);
    table->free(dirty);
    for (int i = 0; i < BLOCKS; i++) {
        for (size = 100 * KIB; size < 20 * MIB; size += size / 2)
            assert_non_null(kept[i] = table->heap_realloc(other, kept[i], size));
        memset(kept[i], 1, size * 2 / 3);
    }
    table->purge();
    uint64_t active = stats_of(other).active_bytes;
    size_t now = process_figure("/proc/self/smaps_rollup", "Rss");
    if (now > before + active + active / 8 + 4 * MIB)
        fail_msg("%zu KiB are resident for %zu", (now - before) >> 10, (size_t)active >> 10);
    for (int i = 0; i < BLOCKS; i++) {
        table->free(kept[i]);
        kept[i] = NULL;
    }
    heap_end(other);
}

/* What they held is there again for others when they go. */
static void
test_room_is_counted_until_it_goes(void **unused)
{
    (void)unused;
    enum { BLOCKS = 300 };
    static void *kept[BLOCKS];
    uint32_t other = heap_new(0);
    for (int round = 0; round < 5; round++) {
        for (int i = 0; i < BLOCKS; i++)
            for (size_t size = 6 * KIB; size < 20 * KIB; size = size * 5 / 4)
                assert_non_null(kept[i] = table->heap_realloc(other, kept[i], size));
        for (int i = 0; i < BLOCKS; i++) {
            table->free(kept[i]);
            kept[i] = NULL;
        }
        table->purge();
        void *block = table->heap_realloc(other, table->heap_malloc(other, 100 * KIB), 110 * KIB);
        for (size_t size = 112 * KIB; size <= 190 * KIB; size += 2 * KIB) { /* it has room, so it stays */
            void *to = table->heap_realloc(other, block, size);
            assert_ptr_equal(to, block);
        }
        table->free(block);
        assert_int_equal(stats_of(other).live_bytes, 0);
    }
    heap_end(other);
}

static void
test_larger_than_the_spare(void **unused)
{
    (void)unused;
    for (size_t most = 100 * KIB; most <= 9 << 20; most += most / 2) {
        for (int i = 0; i < 2; i++) {
            unsigned char *block = grow(NULL, LENT_FROM / 2, most);
            assert_live(block);
            table->free(block);
            assert_live(NULL);
            if (stats_of(heap).active_bytes > KEPT_MOST)
                fail_msg("%llu bytes are kept of %zu", (unsigned long long)stats_of(heap).active_bytes, most);
        }
        table->purge();
    }
}

/* A spare that proves too large again and again is given back in part. */
static void
test_spare_becomes_smaller(void **unused)
{
    (void)unused;
    table->free(grow(NULL, LENT_FROM / 2, GROWN));
    uint64_t active = stats_of(heap).active_bytes;
    for (int i = 0; i < 10; i++)
        table->free(grow(NULL, LENT_FROM / 2, LENT_FROM));
    assert_live(NULL);
    assert_true(stats_of(heap).active_bytes < active - GROWN / 2);
}

static void
test_lent_block_shrinks(void **unused)
{
    (void)unused;
    static const size_t to[] = { 10, 1000, 20000, 40000, 150000 };
    for (unsigned i = 0; i < sizeof to / sizeof *to; i++) {
        table->free(grow(NULL, LENT_FROM / 2, GROWN));
        unsigned char *block = grow(NULL, LENT_FROM / 2, GROWN);
        assert_non_null(block = table->realloc(block, to[i]));
        for (size_t at = 0; at < to[i]; at++)
            assert_int_equal(block[at], byte_of(at));
        if (table->malloc_usable_size(block) > to[i] * 5 / 4 + PAGE)
            fail_msg("a block of %zu bytes may use %zu", to[i], table->malloc_usable_size(block));
        assert_live(block);
        table->free(grow(block, to[i], GROWN));
        assert_live(NULL);
    }
}

/* Blocks that stay small, between such that grow and go: of the pages of those they hold little. */
static void
test_what_stays_small_holds_little(void **unused)
{
    (void)unused;
    enum { BLOCKS = 1000, LENT_MOST = 8 };
    unsigned char *kept[BLOCKS];
    size_t usable = 0;
    for (int i = 0; i < BLOCKS; i++) {
        table->free(grow(NULL, LENT_FROM / 2, GROWN));
        kept[i] = grow(NULL, LENT_FROM / 2, LENT_FROM);
        usable += table->malloc_usable_size(kept[i]);
    }
    size_t each = LENT_FROM * 5 / 4 + PAGE;
    if (usable > BLOCKS * each + LENT_MOST * LIKE_ITS_SIZE(GROWN))
        fail_msg("%d blocks of %zu bytes may use %zu", BLOCKS, (size_t)LENT_FROM, usable);
    assert_int_equal(stats_of(heap).live_bytes, usable);
    for (int i = 0; i < BLOCKS; i++)
        table->free(kept[i]);
    assert_live(NULL);
    table->purge();
    assert_int_equal(stats_of(heap).active_bytes, 0);
}

static void *
free_it(void *block)
{
    table->free(block);
    return NULL;
}

static void
test_lent_block_is_freed_by_another_thread(void **unused)
{
    (void)unused;
    for (int i = 0; i < 20; i++) {
        pthread_t thread;
        table->free(grow(NULL, LENT_FROM / 2, GROWN));
        unsigned char *block = grow(NULL, LENT_FROM / 2, i % 2 != 0 ? GROWN : LENT_FROM);
        assert_int_equal(pthread_create(&thread, NULL, free_it, block), 0);
        assert_int_equal(pthread_join(thread, NULL), 0);
        assert_live(NULL);
    }
}

/* A module's figures are read: what stays small is to look small. */
static void
test_other_heaps_lend_nothing(void **unused)
{
    (void)unused;
    uint32_t other = heap_new(0);
    for (int i = 0; i < 10; i++) {
        void *block = NULL;
        for (size_t size = 400; size < GROWN; size += size * 2 / 5)
            assert_non_null(block = table->heap_realloc(other, block, size));
        table->free(block);
        block = NULL;
        for (size_t size = 400; size < 1000; size += size * 2 / 5)
            assert_non_null(block = table->heap_realloc(other, block, size));
        assert_true(table->malloc_usable_size(block) < 2000);
    }
    assert_true(stats_of(other).live_bytes < 20000);
    heap_end(other);
}

/* Also of the smallest that are lent anything, and however many threads come and go. */
static void *
keep_what_stays_small(void *unused)
{
    (void)unused;
    void *block = NULL;
    for (int i = 0; i < 3; i++) {
        for (size_t size = 400; size < GROWN; size += size * 2 / 5)
            assert_non_null(block = table->heap_realloc(heap, block, size));
        table->free(block);
        block = NULL;
    }
    for (size_t size = 400; size < 1000; size += size * 2 / 5)
        assert_non_null(block = table->heap_realloc(heap, block, size));
    return block;
}

static void
test_few_are_lent_by_all_threads(void **unused)
{
    (void)unused;
    enum { THREADS = 60, LENT_MOST = 8 };
    void *kept[THREADS];
    size_t usable = 0;
    for (int i = 0; i < THREADS; i++) {
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, keep_what_stays_small, NULL), 0);
        assert_int_equal(pthread_join(thread, &kept[i]), 0);
        table->purge(); /* its caches go */
        usable += table->malloc_usable_size(kept[i]);
    }
    if (usable > THREADS * 2000 + LENT_MOST * LIKE_ITS_SIZE(GROWN))
        fail_msg("%d blocks of less than 1,000 bytes may use %zu", THREADS, usable);
    for (int i = 0; i < THREADS; i++)
        table->free(kept[i]);
    assert_live(NULL);
}

/* What a limit is for is that nothing is charged that is not wanted. */
static void
test_limit_ends_lending(void **unused)
{
    (void)unused;
    table->free(grow(NULL, LENT_FROM / 2, GROWN));
    unsigned char *lent = grow(NULL, LENT_FROM / 2, LENT_FROM);
    assert_int_equal(table->heap_limit(heap, 4 << 20), 0); /* enough for a block that moves, beside one that is lent */
    table->free(grow(NULL, LENT_FROM / 2, GROWN));
    uint64_t active = stats_of(heap).active_bytes;
    table->free(lent);
    assert_true(stats_of(heap).active_bytes < active - GROWN / 2);
    for (int i = 0; i < 2; i++) {
        unsigned char *block = grow(NULL, LENT_FROM / 2, LENT_FROM);
        assert_live(block);
        assert_true(table->malloc_usable_size(block) <= LENT_FROM * 5 / 4 + PAGE);
        block = grow(block, LENT_FROM, GROWN);
        assert_live(block);
        table->free(block);
    }
    assert_live(NULL);
    assert_int_equal(table->heap_limit(heap, 0), 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        spare_test(test_next_that_grows_stays_where_it_is),
        spare_test(test_next_that_doubles_stays_where_it_is),
        spare_test(test_larger_than_the_spare),
        spare_test(test_blocks_that_grew_and_stay_hold_little),
        spare_test(test_huge_blocks_that_grew_and_stay_hold_little),
        spare_test(test_room_is_counted_until_it_goes),
        spare_test(test_spare_becomes_smaller),
        spare_test(test_lent_block_shrinks),
        spare_test(test_what_stays_small_holds_little),
        spare_test(test_lent_block_is_freed_by_another_thread),
        spare_test(test_other_heaps_lend_nothing),
        spare_test(test_few_are_lent_by_all_threads),
        spare_test(test_limit_ends_lending), /* last: the heap stays guarded */
    };
    return cmocka_run_group_tests(tests, group_open, NULL);
}
