/*
 * Figures are true: the peak is the most that was live, what is mapped is all that is mapped, and totals count
 * every block once.
 *
 * A batch is what a thread's cache takes from a heap, or gives back, at a time.
 */
#include "config.h"
#include "heaps.h"

#include <pthread.h>

#include "tests/child.h"

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)
#define BATCH (16 * KIB)
#define MANY 20000

static uint32_t heap;
static void *blocks[MANY];

static int
start(void **unused)
{
    (void)unused;
    heap = heap_new(0);
    return 0;
}

static int
stop(void **unused)
{
    (void)unused;
    return table->heap_destroy(heap);
}

#define figure_test(function) cmocka_unit_test_setup_teardown(function, start, stop)

/* Allocate so many bytes in blocks of a size; returns how many. What is live is added up. */
static unsigned
take(size_t size, size_t bytes, uint64_t *live)
{
    unsigned n = 0;
    for (; n < MANY && n * size < bytes; n++) {
        assert_non_null(blocks[n] = table->heap_malloc(heap, size));
        *live += table->malloc_usable_size(blocks[n]);
    }
    return n;
}

static void
give(unsigned n)
{
    while (n > 0)
        table->free(blocks[--n]);
}

#define assert_peak(most, threads)                                                                              \
    do {                                                                                                        \
        uint64_t peak_is = stats_of(heap).peak_bytes, most_is = (most);                                         \
        if (peak_is + BATCH * (threads) < most_is || peak_is > most_is + BATCH * (threads))                     \
            fail_msg("peak_bytes %llu, and %llu were live", (unsigned long long)peak_is, (unsigned long long)most_is); \
    } while (0)

static void
test_peak_stays_when_blocks_are_freed(void **unused)
{
    (void)unused;
    static const size_t sizes[] = { 16, 100, 1000, 5000, 32 * KIB, 100 * KIB, MIB, 5 * MIB };
    uint64_t most = 0;
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        size_t bytes = (i + 1) * MIB / 8 + sizes[i];
        uint64_t live = 0;
        give(take(sizes[i], bytes, &live));
        most = live > most ? live : most;
        assert_peak(most, 1);
        live = 0;
        give(take(sizes[i], bytes / 3, &live));
        assert_peak(most, 1);
    }
}

/* Free blocks of many sizes pile up in a cache; they are not live. */
static void
test_peak_leaves_out_what_is_cached(void **unused)
{
    (void)unused;
    uint64_t most = 0;
    for (size_t size = 16; size <= MIB; size += size / 8 < 16 ? 16 : size / 8) {
        uint64_t live = 0;
        give(take(size, 100 * KIB, &live));
        most = live > most ? live : most;
    }
    assert_peak(most, 1);
}

/* Until a block that moves is copied, there are two. */
static void
test_peak_of_a_block_that_grows(void **unused)
{
    (void)unused;
    uint64_t most = 0, before = 0;
    void *block = NULL;
    for (size_t size = 16; size <= 9 * MIB; size += size / 2) {
        assert_non_null(block = table->heap_realloc(heap, block, size));
        uint64_t now = table->malloc_usable_size(block);
        most = now + before > most ? now + before : most;
        before = now;
        assert_true(stats_of(heap).peak_bytes >= now);
        if (stats_of(heap).peak_bytes > most + BATCH)
            fail_msg("at %zu bytes: peak_bytes %llu, and %llu were live", size, (unsigned long long)stats_of(heap).peak_bytes,
                     (unsigned long long)most);
    }
    assert_int_equal(stats_of(heap).live_bytes, before);
    table->free(block);
    assert_int_equal(stats_of(heap).live_bytes, 0);
}

/* As of each request that a host serves: blocks of all sizes, out of caches by and by, and of each size they are few. */
static void
test_peak_since_it_was_reset(void **unused)
{
    (void)unused;
    srand(5);
    for (uint64_t most = 25 * KIB; most <= 400 * KIB; most *= 2) {
        for (unsigned request = 0; request < 12; request++) {
            uint64_t live = 0;
            unsigned count = 0;
            assert_int_equal(table->heap_peak_reset(heap), 0);
            assert_int_equal(stats_of(heap).peak_bytes, 0);
            while (live < most) {
                size_t size = (size_t)16 << (rand() % 9);
                assert_non_null(blocks[count] = table->heap_malloc(heap, size + (size_t)rand() % size));
                live += table->malloc_usable_size(blocks[count++]);
            }
            give(count);
            assert_peak(live, 1);
        }
    }
}

/* What was live before is all that ever was. */
static void
test_peak_of_blocks_that_shrink(void **unused)
{
    (void)unused;
    enum { BLOCKS = 50 };
    static const size_t from[] = { 9000, 40000, 1000000, 3000000 }, to[] = { 5000, 20000, 30000, 40000 };
    for (unsigned i = 0; i < sizeof from / sizeof *from; i++) {
        for (unsigned n = 0; n < BLOCKS; n++)
            assert_non_null(blocks[n] = table->heap_malloc(heap, from[i]));
        assert_int_equal(table->heap_peak_reset(heap), 0);
        uint64_t most = stats_of(heap).live_bytes;
        for (unsigned n = 0; n < BLOCKS; n++)
            assert_non_null(blocks[n] = table->realloc(blocks[n], to[i]));
        assert_peak(most, 1);
        give(BLOCKS);
    }
}

/* The room of a block that grew goes back with it. What it used the next one is lent, unless that is too much: then only the pages that
 * one begins with are kept. */
static void
test_room_goes_back_when_a_block_that_grew_is_freed(void **unused)
{
    (void)unused;
    static const size_t to[] = { 300000, 600000 }, kept[] = { 512 * KIB, 128 * KIB };
    for (int of = 0; of < 2; of++) {
        void *before = NULL;
        for (int i = 0; i < 3; i++) {
            void *block = NULL;
            for (size_t size = 10000; size <= to[of]; size += size / 3)
                assert_non_null(block = table->heap_realloc(heap, block, size));
            table->free(block);
            if (stats_of(heap).active_bytes > kept[of])
                fail_msg("%llu bytes are charged, of which none is live", (unsigned long long)stats_of(heap).active_bytes);
            if (before != NULL)
                assert_ptr_equal(block, before);
            before = block;
        }
        table->purge();
    }
}

/* Two blocks that grow in turn are each other's neighbours: each keeps what it holds, and is counted for what it may use. */
static void
test_blocks_that_grow_side_by_side(void **unused)
{
    (void)unused;
    unsigned char *of[2] = { NULL, NULL };
    size_t had[2] = { 0, 0 };
    for (size_t size = 16; size <= 6 * MIB; size += size / 2)
        for (int i = 0; i < 2; i++) {
            assert_non_null(of[i] = table->heap_realloc(heap, of[i], size));
            for (size_t at = 0; at < had[i]; at++)
                if (of[i][at] != (unsigned char)(at * 7 + at / 4096 + (size_t)i))
                    fail_msg("a block of %zu bytes lost byte %zu when it grew to %zu", had[i], at, size);
            for (size_t at = had[i]; at < size; at++)
                of[i][at] = (unsigned char)(at * 7 + at / 4096 + (size_t)i);
            had[i] = size;
            struct alcove_heap_stats s = stats_of(heap);
            uint64_t live = 0;
            for (int j = 0; j < 2; j++)
                live += of[j] != NULL ? table->malloc_usable_size(of[j]) : 0;
            assert_int_equal(s.live_bytes, live);
            if (s.active_bytes < live || s.active_bytes > live + s.cached_bytes + 256 * KIB + 16 * ((size_t)1 << ALCOVE_LG_PAGE))
                fail_msg("at %zu bytes: %llu are charged, %llu live and %llu cached", size, (unsigned long long)s.active_bytes,
                         (unsigned long long)live, (unsigned long long)s.cached_bytes);
        }
    table->free(of[0]);
    table->free(of[1]);
    assert_int_equal(stats_of(heap).live_bytes, 0);
    table->purge();
    assert_int_equal(stats_of(heap).active_bytes, 0);
}

/* The steps that a program's figures would show: 24,000 to 30,000 bytes, 32 KiB to 33. */
static void
test_peak_of_one_step(void **unused)
{
    (void)unused;
    static const size_t steps[][2] = { { 24000, 30000 }, { 32 * KIB, 33 * KIB }, { 16, 17 }, { 100 * KIB, 101 * KIB },
                                       { 2 * MIB, 2 * MIB + 1 } };
    for (unsigned i = 0; i < sizeof steps / sizeof *steps; i++) {
        uint32_t kept = heap;
        heap = heap_new(0);
        void *block = table->heap_malloc(heap, steps[i][0]);
        uint64_t most = table->malloc_usable_size(block);
        block = table->heap_realloc(heap, block, steps[i][1]);
        most += table->malloc_usable_size(block);
        if (stats_of(heap).peak_bytes > most + BATCH)
            fail_msg("%zu to %zu bytes: peak_bytes %llu, and %llu were live", steps[i][0], steps[i][1],
                     (unsigned long long)stats_of(heap).peak_bytes, (unsigned long long)most);
        heap_end(heap);
        heap = kept;
    }
}

/* Threads that take turns: what they have at one time is the most, not what all of them had. */
#define THREADS 8

static pthread_barrier_t barrier;

struct thread_live {
    unsigned number;
    uint64_t live;
};

static void *
have_in_turn(void *argument)
{
    struct thread_live *t = argument;
    static __thread void *own[2000];
    unsigned n = 0;
    for (unsigned turn = 0; turn < THREADS; turn++) {
        if (turn == t->number) {
            for (; n < 2000; n++) {
                own[n] = table->heap_malloc(heap, 16 + n % 40 * 50);
                t->live += table->malloc_usable_size(own[n]);
            }
            while (n > 0)
                table->free(own[--n]);
        }
        pthread_barrier_wait(&barrier);
    }
    return NULL;
}

static void *
have_together(void *argument)
{
    struct thread_live *t = argument;
    static __thread void *own[2000];
    for (unsigned n = 0; n < 2000; n++) {
        own[n] = table->heap_malloc(heap, 16 + n % 40 * 50);
        t->live += table->malloc_usable_size(own[n]);
    }
    pthread_barrier_wait(&barrier);
    for (unsigned n = 0; n < 2000; n++)
        table->free(own[n]);
    return NULL;
}

static void
run_threads(void *(*body)(void *), struct thread_live *of)
{
    pthread_t threads[THREADS];
    pthread_barrier_init(&barrier, NULL, THREADS);
    for (unsigned i = 0; i < THREADS; i++) {
        of[i] = (struct thread_live){ i, 0 };
        assert_int_equal(pthread_create(&threads[i], NULL, body, &of[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
}

static void
test_peak_of_threads_in_turn(void **unused)
{
    (void)unused;
    struct thread_live of[THREADS];
    run_threads(have_in_turn, of);
    assert_peak(of[0].live, THREADS);
}

static void
test_peak_of_threads_together(void **unused)
{
    (void)unused;
    struct thread_live of[THREADS];
    uint64_t most = 0;
    run_threads(have_together, of);
    for (unsigned i = 0; i < THREADS; i++)
        most += of[i].live;
    assert_peak(most, THREADS);
    assert_int_equal(stats_of(heap).live_bytes, 0);
}

static void
test_totals_of_blocks_that_come_and_go(void **unused)
{
    (void)unused;
    uint64_t allocated = 0, freed = 0, bytes = 0;
    for (unsigned round = 0; round < 5; round++)
        for (size_t size = 1; size <= 3 * MIB; size = size * 2 + 3) {
            unsigned n = take(size, 64 * KIB, &bytes);
            allocated += n;
            assert_int_equal(stats_of(heap).live_blocks, n);
            assert_int_equal(stats_of(heap).total_allocs, allocated);
            assert_int_equal(stats_of(heap).total_bytes, bytes);
            give(n);
            freed += n;
            assert_int_equal(stats_of(heap).total_frees, freed);
            assert_int_equal(stats_of(heap).live_bytes, 0);
        }
}

/* A block that stays is the same block, and so is one whose pages move; one that is copied is one more and one less. */
static void
test_totals_of_realloc(void **unused)
{
    (void)unused;
    static const size_t starts[] = { 16, 1000, 20000, 33000, 300000, 3 * MIB };
    for (unsigned i = 0; i < sizeof starts / sizeof *starts; i++) {
        void *block = table->heap_malloc(heap, starts[i]);
        size_t size = starts[i];
        for (int step = 0; step < 16; step++) {
            struct alcove_heap_stats before = stats_of(heap);
            size_t usable = table->malloc_usable_size(block);
            size = step < 10 ? size + size / 3 : size - size / 3;
            void *now = table->heap_realloc(heap, block, size);
            assert_non_null(now);
            struct alcove_heap_stats after = stats_of(heap);
            size_t usable_now = table->malloc_usable_size(now);
            uint64_t allocs = after.total_allocs - before.total_allocs, bytes = after.total_bytes - before.total_bytes;
            if (allocs > (now != block) || after.total_frees - before.total_frees != allocs ||
                bytes > (now != block ? usable_now : usable_now > usable ? usable_now - usable : 0))
                fail_msg("%zu usable bytes to %zu, %s: %llu more allocations of %llu bytes", usable, usable_now,
                         now != block ? "moved" : "in place", (unsigned long long)allocs, (unsigned long long)bytes);
            assert_int_equal(after.live_blocks, 1);
            assert_int_equal(after.live_bytes, usable_now);
            block = now;
        }
        table->free(block);
    }
}

static void
test_totals_do_not_count_what_was_refused(void **unused)
{
    (void)unused;
    static const size_t sizes[] = { 16, 1000, 20000, 33000, 300000 };
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        uint32_t kept = heap;
        heap = heap_new(MIB);
        void *block = table->heap_malloc(heap, sizes[i]), *last = NULL, *other;
        uint64_t n = 1;
        for (; (other = table->heap_malloc(heap, sizes[i])) != NULL; n++)
            last = other;
        assert_non_null(last);
        struct alcove_heap_stats full = stats_of(heap);
        assert_int_equal(full.total_allocs, n);
        for (int times = 0; times < 10; times++) {
            assert_null(table->heap_malloc(heap, 2 * MIB));
            assert_null(table->heap_realloc(heap, block, 2 * MIB));
            assert_null(table->heap_calloc(heap, 2, MIB));
            assert_null(table->heap_aligned_alloc(heap, 4096, 2 * MIB));
        }
        struct alcove_heap_stats after = stats_of(heap);
        assert_int_equal(after.total_allocs, full.total_allocs);
        assert_int_equal(after.total_bytes, full.total_bytes);
        assert_int_equal(after.total_frees, full.total_frees);
        assert_int_equal(after.live_blocks, full.live_blocks);
        assert_int_equal(after.live_bytes, full.live_bytes);
        assert_int_equal(after.peak_bytes, full.peak_bytes);
        heap_end(heap);
        heap = kept;
    }
}

static void *
allocate_grow_and_free(void *argument)
{
    struct thread_live *t = argument;
    uint32_t state = 99 + t->number * 2654435761u;
    for (unsigned i = 0; i < 5000; i++) {
        void *block = table->heap_malloc(heap, 1 + random_next(&state) % 3000);
        if (i % 3 == 0)
            block = table->heap_realloc(heap, block, 1 + random_next(&state) % 60000);
        if (i % 100 == 0) {
            t->live += table->malloc_usable_size(block); /* and it is left */
            continue;
        }
        table->free(block);
    }
    return NULL;
}

static void
test_figures_are_exact_when_threads_have_ended(void **unused)
{
    (void)unused;
    struct thread_live of[THREADS];
    uint64_t left = 0;
    run_threads(allocate_grow_and_free, of);
    for (unsigned i = 0; i < THREADS; i++)
        left += of[i].live;
    struct alcove_heap_stats s = stats_of(heap);
    assert_int_equal(s.live_blocks, THREADS * 50);
    assert_int_equal(s.live_bytes, left);
    assert_int_equal(s.total_allocs - s.total_frees, s.live_blocks);
    assert_in_range(s.total_allocs, THREADS * 5000, THREADS * 5000 * 4 / 3 + THREADS);
    assert_true(s.total_bytes >= s.live_bytes && s.peak_bytes >= s.live_bytes);
}

/* What the system has given, as it says itself, in a process that does nothing else. */
static void
compare_what_is_mapped(const char *when, size_t maps_before, uint64_t info_before, uint64_t slack)
{
    uint64_t grown = mapped_bytes() - maps_before, told = info_now().mapped_bytes - info_before;
    if (told > grown + slack || grown > told + slack) {
        fprintf(stderr, "%s: %llu more bytes are mapped, mapped_bytes says %llu\n", when, (unsigned long long)grown,
                (unsigned long long)told);
        _exit(1);
    }
}

static void *
take_little(void *unused)
{
    (void)unused;
    table->free(table->malloc(10));
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    return NULL;
}

#define SLACK (64 * KIB)

static void
look_at_what_is_mapped(void)
{
    uint32_t heaps[20];
    pthread_t threads[THREADS];
    CHECK(group_open(NULL) == 0);
    free(malloc(50000)); /* libc's own is there */
    size_t maps = mapped_bytes();
    uint64_t info = info_now().mapped_bytes;
    void *first = table->malloc(10);
    compare_what_is_mapped("the first block", maps, info, SLACK);
    for (unsigned i = 0; i < MANY; i++)
        blocks[i] = table->malloc(i % 20 * 500);
    compare_what_is_mapped("many blocks", maps, info, SLACK);
    for (unsigned i = 0; i < 20; i++) {
        CHECK(table->heap_create(NULL, &heaps[i]) == 0);
        CHECK(table->heap_malloc(heaps[i], 10) != NULL);
    }
    compare_what_is_mapped("many heaps", maps, info, SLACK);
    void *huge = table->malloc(50 * MIB), *apart[50];
    for (unsigned i = 0; i < 50; i++)
        CHECK((apart[i] = table->aligned_alloc(64 * MIB, 100 * KIB)) != NULL);
    compare_what_is_mapped("huge and aligned blocks", maps, info, SLACK);
    CHECK((huge = table->realloc(huge, 150 * MIB)) != NULL);
    compare_what_is_mapped("a huge block that grew", maps, info, SLACK);
    table->free(huge);
    for (unsigned i = 0; i < 50; i++)
        table->free(apart[i]);
    compare_what_is_mapped("when they are free", maps, info, SLACK);
    for (unsigned i = 0; i < MANY; i++)
        table->free(blocks[i]);
    table->purge();
    for (unsigned i = 0; i < 20; i++)
        CHECK(table->heap_destroy(heaps[i]) == 0);
    compare_what_is_mapped("when all is free", maps, info, SLACK);
    table->free(first);
    /* Threads' stacks are mapped too: before the first look, and until after the last. */
    pthread_barrier_init(&barrier, NULL, THREADS + 1);
    for (unsigned i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, take_little, NULL) == 0);
    pthread_barrier_wait(&barrier);
    maps = mapped_bytes();
    info = info_now().mapped_bytes;
    CHECK((huge = table->malloc(20 * MIB)) != NULL);
    compare_what_is_mapped("beside threads", maps, info, SLACK);
    pthread_barrier_wait(&barrier);
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
}

static void
test_mapped_bytes_count_all(void **unused)
{
    (void)unused;
    if (emulated())
        SKIP_BECAUSE("what qemu shows as mapped is not what the program maps");
    in_child(look_at_what_is_mapped);
}

/* Whatever is resident is in use, or dirty, or the allocator's own. */
static void
look_at_what_is_resident(void)
{
    CHECK(group_open(NULL) == 0);
    free(malloc(50000));
    size_t before = resident_bytes();
    for (unsigned step = 0; step < 4; step++) {
        for (unsigned i = step; i < MANY; i += 4)
            memset(blocks[i] = table->malloc(i % 20 * 200 + 1), 1, i % 20 * 200 + 1);
        for (unsigned i = 0; i < 300; i++) /* each makes the page map and the records grow */
            *(char *)table->aligned_alloc(4 * MIB, 1) = 1;
        struct alcove_info info = info_now();
        size_t now = resident_bytes();
        uint64_t told = info.active_bytes + info.dirty_bytes + info.metadata_bytes;
        if (now > before + told + 256 * KIB || info.metadata_bytes > info.mapped_bytes) {
            fprintf(stderr, "%zu bytes are resident more, of which %llu active, %llu dirty, %llu metadata (%llu mapped)\n",
                    now - before, (unsigned long long)info.active_bytes, (unsigned long long)info.dirty_bytes,
                    (unsigned long long)info.metadata_bytes, (unsigned long long)info.mapped_bytes);
            _exit(1);
        }
    }
}

static void
test_metadata_bytes_count_all(void **unused)
{
    (void)unused;
    in_child(look_at_what_is_resident);
}

/* The thread's first turn, at which it gives back what it has cached, is in the middle of a block's move. */
static void
shrink_a_first_block(void)
{
    uint32_t first;
    CHECK(group_open(NULL) == 0);
    CHECK(table->heap_create(NULL, &first) == 0);
    void *block = table->heap_malloc(first, 1000000);
    size_t most = table->malloc_usable_size(block);
    block = table->realloc(block, 30000);
    CHECK(stats_of(first).peak_bytes == most);
    CHECK(stats_of(first).live_bytes == table->malloc_usable_size(block));
    table->free(block);
    CHECK(stats_of(first).live_bytes == 0);
}

static void
test_peak_of_a_first_block_that_shrinks(void **unused)
{
    (void)unused;
    in_child(shrink_a_first_block);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        figure_test(test_peak_stays_when_blocks_are_freed),
        figure_test(test_peak_leaves_out_what_is_cached),
        figure_test(test_peak_of_a_block_that_grows),
        figure_test(test_peak_of_blocks_that_shrink),
        figure_test(test_peak_since_it_was_reset),
        figure_test(test_room_goes_back_when_a_block_that_grew_is_freed),
        figure_test(test_blocks_that_grow_side_by_side),
        figure_test(test_peak_of_one_step),
        figure_test(test_peak_of_threads_in_turn),
        figure_test(test_peak_of_threads_together),
        figure_test(test_totals_of_blocks_that_come_and_go),
        figure_test(test_totals_of_realloc),
        figure_test(test_totals_do_not_count_what_was_refused),
        figure_test(test_figures_are_exact_when_threads_have_ended),
    };
    const struct CMUnitTest of_a_fresh_process[] = {
        cmocka_unit_test(test_mapped_bytes_count_all),
        cmocka_unit_test(test_metadata_bytes_count_all),
        cmocka_unit_test(test_peak_of_a_first_block_that_shrinks),
    };
    int failed = cmocka_run_group_tests(of_a_fresh_process, NULL, NULL);
    return cmocka_run_group_tests(tests, group_open, NULL) + failed;
}
