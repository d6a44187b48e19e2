/* Threads: each has its caches; blocks cross from one to another; an ended thread leaves nothing behind. */
#include "module.h"

#include "tests/work.h"

#include <pthread.h>

#define THREADS 8

static void
run(unsigned n, void *(*body)(void *), void *arguments, size_t argument_size)
{
    pthread_t threads[64];
    for (unsigned i = 0; i < n; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, body, (char *)arguments + i * argument_size), 0);
    for (unsigned i = 0; i < n; i++) {
        void *result;
        pthread_join(threads[i], &result);
        assert_null(result); /* NULL: all was well */
    }
}

struct batch {
    uint32_t heap;
    unsigned seed;
    void *blocks[1000];
    uint64_t bytes;
};

static size_t
size_of(const struct batch *b, unsigned i)
{
    unsigned x = (i + 1) * 2654435761u + b->seed * 40503u;
    return x >> 24 == 3 ? x >> 9 & 0x1fffff : x >> 16 & 2047;
}

static void *
allocate_batch(void *argument)
{
    struct batch *b = argument;
    for (unsigned i = 0; i < 1000; i++) {
        b->blocks[i] = table->heap_malloc(b->heap, size_of(b, i));
        if (b->blocks[i] == NULL)
            return b;
        fill(b->blocks[i], size_of(b, i), b->seed + i);
        b->bytes += table->malloc_usable_size(b->blocks[i]);
    }
    return NULL;
}

static void *
free_batch(void *argument)
{
    struct batch *b = argument;
    for (unsigned i = 0; i < 1000; i++) {
        if (!filled(b->blocks[i], size_of(b, i), b->seed + i))
            return b;
        table->free(b->blocks[i]);
    }
    return NULL;
}

static struct batch batches[THREADS];

static uint32_t
batches_new(void)
{
    uint32_t heap;
    assert_int_equal(table->heap_create(NULL, &heap), 0);
    memset(batches, 0, sizeof batches);
    for (unsigned i = 0; i < THREADS; i++)
        batches[i] = (struct batch){ .heap = heap, .seed = i };
    return heap;
}

static uint64_t
batches_bytes(void)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < THREADS; i++)
        sum += batches[i].bytes;
    return sum;
}

static void
test_blocks_outlive_their_thread(void **unused)
{
    (void)unused;
    uint32_t heap = batches_new();
    run(THREADS, allocate_batch, batches, sizeof batches[0]);
    for (unsigned i = 0; i < THREADS; i++)
        assert_null(free_batch(&batches[i]));
    assert_int_equal(stats_of(heap).live_blocks, 0);
    assert_int_equal(table->heap_destroy(heap), 0);
}

static void
test_blocks_are_freed_by_other_threads(void **unused)
{
    (void)unused;
    uint32_t heap = batches_new();
    for (unsigned i = 0; i < THREADS; i++)
        assert_null(allocate_batch(&batches[i]));
    run(THREADS, free_batch, batches, sizeof batches[0]);
    assert_int_equal(stats_of(heap).live_blocks, 0);
    threads_settled(table, 1);
    table->purge();
    assert_int_equal(stats_of(heap).active_bytes, 0);
    assert_int_equal(table->heap_destroy(heap), 0);
}

static void
test_figures_are_exact_after_threads_have_ended(void **unused)
{
    (void)unused;
    uint32_t heap = batches_new();
    run(THREADS, allocate_batch, batches, sizeof batches[0]);
    struct alcove_heap_stats s = stats_of(heap);
    assert_int_equal(s.live_blocks, THREADS * 1000);
    assert_int_equal(s.live_bytes, batches_bytes());
    assert_int_equal(s.total_allocs, THREADS * 1000);
    assert_int_equal(s.total_bytes, batches_bytes());
    assert_int_equal(s.total_frees, 0);
    run(THREADS, free_batch, batches, sizeof batches[0]);
    s = stats_of(heap);
    assert_int_equal(s.live_blocks, 0);
    assert_int_equal(s.live_bytes, 0);
    assert_int_equal(s.total_frees, THREADS * 1000);
    assert_int_equal(s.total_bytes, batches_bytes());
    assert_int_equal(table->heap_destroy(heap), 0);
}

static void *
allocate_and_free(void *argument)
{
    uint32_t heap = *(uint32_t *)argument;
    for (int round = 0; round < 50; round++) {
        void *blocks[100];
        for (unsigned i = 0; i < 100; i++)
            blocks[i] = table->heap_malloc(heap, i * 20);
        for (unsigned i = 0; i < 100; i++)
            table->free(blocks[i]);
    }
    return NULL;
}

static void
test_cached_blocks_of_ended_threads_come_back(void **unused)
{
    (void)unused;
    uint32_t heap = batches_new();
    run(THREADS, allocate_and_free, &heap, 0);
    assert_true(stats_of(heap).cached_bytes > 0);
    threads_settled(table, 1);
    table->purge();
    struct alcove_heap_stats s = stats_of(heap);
    assert_int_equal(s.cached_bytes, 0);
    assert_int_equal(s.active_bytes, 0);
    assert_int_equal(s.total_allocs, THREADS * 5000);
    assert_int_equal(table->heap_destroy(heap), 0);
}

static void *
touch(void *unused)
{
    (void)unused;
    table->free(table->malloc(10));
    return NULL;
}

static void
test_ended_threads_are_no_longer_counted(void **unused)
{
    (void)unused;
    touch(NULL);
    run(THREADS, touch, NULL, 0);
    assert_int_equal(threads_settled(table, 1), 1);
}

static pthread_barrier_t all;

static void *
touch_and_wait(void *unused)
{
    touch(unused);
    pthread_barrier_wait(&all); /* each has its record */
    pthread_barrier_wait(&all); /* and was counted */
    return NULL;
}

static void
test_sixty_threads_at_once_are_counted_and_forgotten(void **unused)
{
    (void)unused;
    pthread_t threads[60];
    touch(NULL);
    pthread_barrier_init(&all, NULL, 61);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 60; i++)
            assert_int_equal(pthread_create(&threads[i], NULL, touch_and_wait, NULL), 0);
        pthread_barrier_wait(&all);
        assert_int_equal(info_now().threads, 61);
        pthread_barrier_wait(&all);
        for (int i = 0; i < 60; i++)
            pthread_join(threads[i], NULL);
        run(3, touch, NULL, 0);
        assert_int_equal(threads_settled(table, 1), 1);
    }
    pthread_barrier_destroy(&all);
}

static void
test_records_of_ended_threads_are_used_again(void **unused)
{
    (void)unused;
    run(THREADS, allocate_and_free, &(uint32_t){ 0 }, 0);
    uint64_t before = info_now().metadata_bytes;
    for (int i = 0; i < 100; i++)
        run(THREADS, allocate_and_free, &(uint32_t){ 0 }, 0);
    /* A thread that the system still knew for a moment after its join costs a record. */
    assert_true(info_now().metadata_bytes <= before + (256 << 10));
}

static void *
end_twice(void *unused)
{
    touch(unused);
    table->thread_exit();
    table->thread_exit();
    void *block = table->malloc(100); /* gets a record again */
    table->thread_exit();
    table->free(block);
    table->thread_exit();
    return NULL;
}

static void
test_thread_exit_may_be_called_twice_and_the_thread_go_on(void **unused)
{
    (void)unused;
    uint64_t live = stats_of(0).live_blocks;
    touch(NULL);
    run(4, end_twice, NULL, 0);
    assert_int_equal(stats_of(0).live_blocks, live);
    assert_int_equal(threads_settled(table, 1), 1);
}

/* A ring: each thread frees what its neighbour allocated, at the same time. */
#define RING 4
#define SLOTS 128
static _Atomic(unsigned *) ring[RING][SLOTS];

static void *
hand_on(void *argument)
{
    unsigned me = *(unsigned *)argument;
    for (unsigned i = 0; i < 200000; i++) {
        size_t size = 16 + (i * 7 + me) % 500;
        unsigned *block = table->malloc(size);
        if (block == NULL)
            return argument;
        block[0] = block[3] = i;
        block = atomic_exchange(&ring[me][i % SLOTS], block);
        if (block != NULL) { /* nobody took it */
            if (block[0] != block[3])
                return argument;
            table->free(block);
        }
        block = atomic_exchange(&ring[(me + 1) % RING][i * 5 % SLOTS], NULL);
        if (block != NULL) {
            if (block[0] != block[3])
                return argument;
            block[0] = ~block[3];
            table->free(block);
        }
    }
    return NULL;
}

static void
test_ring_of_threads_hands_blocks_on(void **unused)
{
    (void)unused;
    unsigned numbers[RING];
    uint64_t before = stats_of(0).live_blocks;
    for (unsigned i = 0; i < RING; i++)
        numbers[i] = i;
    run(RING, hand_on, numbers, sizeof numbers[0]);
    for (unsigned i = 0; i < RING; i++)
        for (unsigned j = 0; j < SLOTS; j++)
            table->free(atomic_exchange(&ring[i][j], NULL));
    assert_int_equal(stats_of(0).live_blocks, before);
    assert_string_equal(messages, "");
}

/*
 * Destructors of thread keys run in the order of the keys, one made after the allocator's key after it. They may
 * still allocate, and no other thread may then have got the record of this one.
 */
static pthread_key_t late_key;
static pthread_barrier_t late;
static bool late_failed;

static void *
churn(void *failure)
{
    unsigned *blocks[32] = { 0 };
    void *result = NULL;
    for (unsigned i = 0; i < 300000 && result == NULL; i++) {
        unsigned at = i * 7 % 32;
        if (blocks[at] != NULL && (blocks[at][0] != (i - 32) || blocks[at][5] != (unsigned)(uintptr_t)&blocks))
            result = failure;
        table->free(blocks[at]);
        blocks[at] = table->malloc(64);
        blocks[at][0] = i;
        blocks[at][5] = (unsigned)(uintptr_t)&blocks;
    }
    for (unsigned i = 0; i < 32; i++)
        table->free(blocks[i]);
    return result;
}

static void
allocate_late(void *unused)
{
    (void)unused;
    pthread_barrier_wait(&late);
    if (churn(&late_failed) != NULL)
        late_failed = true;
}

static void *
end_with_late_key(void *unused)
{
    touch(unused);
    pthread_setspecific(late_key, &late);
    return NULL;
}

static void
test_destructors_of_thread_keys_may_allocate(void **unused)
{
    (void)unused;
    pthread_t ending;
    touch(NULL);
    assert_int_equal(pthread_key_create(&late_key, allocate_late), 0);
    pthread_barrier_init(&late, NULL, 2);
    assert_int_equal(pthread_create(&ending, NULL, end_with_late_key, NULL), 0);
    pthread_barrier_wait(&late); /* it is in the destructor now */
    info_now();                  /* looks for threads that have ended */
    run(4, churn, &late_failed, 0);
    pthread_join(ending, NULL);
    pthread_barrier_destroy(&late);
    pthread_key_delete(late_key);
    assert_false(late_failed);
    assert_string_equal(messages, "");
    assert_int_equal(threads_settled(table, 1), 1);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_blocks_outlive_their_thread),
        cmocka_unit_test(test_blocks_are_freed_by_other_threads),
        cmocka_unit_test(test_figures_are_exact_after_threads_have_ended),
        cmocka_unit_test(test_cached_blocks_of_ended_threads_come_back),
        cmocka_unit_test(test_ended_threads_are_no_longer_counted),
        cmocka_unit_test(test_sixty_threads_at_once_are_counted_and_forgotten),
        cmocka_unit_test(test_records_of_ended_threads_are_used_again),
        cmocka_unit_test(test_thread_exit_may_be_called_twice_and_the_thread_go_on),
        cmocka_unit_test(test_ring_of_threads_hands_blocks_on),
        cmocka_unit_test(test_destructors_of_thread_keys_may_allocate),
    };
    return cmocka_run_group_tests(tests, group_open, NULL);
}
