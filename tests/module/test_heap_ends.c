/* Heaps that were told to end: they go when the last block is released and no thread can be inside of them. */
#include "heaps.h"

#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>

/* Is the heap still there, after whoever can let go of it has done so? */
static bool
heap_lives(uint32_t heap)
{
    struct alcove_heap_stats s;
    table->tick();
    return table->heap_stats(heap, &s) == 0;
}

static void
test_heap_without_blocks_ends_at_once(void **unused)
{
    (void)unused;
    uint32_t heap = heap_new(0), heaps = info_now().heaps;
    for (size_t size = 10; size < 10000000; size *= 3)
        table->free(table->heap_malloc(heap, size));
    assert_int_equal(table->heap_end(heap), 0);
    assert_false(heap_lives(heap));
    assert_int_equal(info_now().heaps, heaps - 1);
}

static void
test_heap_ends_with_its_last_block(void **unused)
{
    (void)unused;
    static const size_t sizes[] = { 16, 1000, 40000, 1500000, 9000000 };
    void *blocks[5];
    uint32_t heap = heap_new(0);
    for (int i = 0; i < 5; i++)
        memset(blocks[i] = table->heap_malloc(heap, sizes[i]), i + 1, sizes[i]);
    assert_int_equal(table->heap_end(heap), 0);
    assert_int_equal(table->heap_end(heap), EINVAL);
    assert_int_equal(table->heap_destroy(heap), EINVAL);
    for (int i = 0; i < 5; i++) {
        assert_true(heap_lives(heap));
        assert_int_equal(stats_of(heap).live_blocks, 5 - i);
        assert_int_equal(((unsigned char *)blocks[i])[sizes[i] - 1], i + 1);
        assert_int_equal(owner_of(blocks[i]).heap, heap);
        table->free(blocks[i]);
    }
    assert_false(heap_lives(heap));
}

static void
test_end_of_no_heap_or_the_default_one_is_refused(void **unused)
{
    (void)unused;
    assert_int_equal(table->heap_end(ALCOVE_HEAP_DEFAULT), EINVAL);
    assert_int_equal(table->heap_end(4000), EINVAL);
    assert_int_equal(table->heap_end(ALCOVE_HEAP_MAX), EINVAL);
    assert_int_equal(table->heap_end(ALCOVE_HEAP_NONE), EINVAL);
}

/* A thread was in a thunk of a module that is closed meanwhile. */
static void
test_entries_go_on_to_work_with_an_ended_heap(void **unused)
{
    (void)unused;
    uint32_t heap = heap_new(0);
    void *(*allocate)(size_t, size_t) = (void *(*)(size_t, size_t))table->entry(ALCOVE_ENTRY_malloc);
    void (*release)(void *, size_t) = (void (*)(void *, size_t))table->entry(ALCOVE_ENTRY_free);
    void *kept = allocate(100, heap);
    assert_int_equal(owner_of(kept).heap, heap);
    assert_int_equal(table->heap_end(heap), 0);
    for (int round = 0; round < 2; round++) { /* it is ending; it has ended */
        for (size_t size = 10; size < 10000000; size *= 7) {
            void *block = allocate(size, heap);
            assert_non_null(block);
            assert_int_equal(owner_of(block).heap, ALCOVE_HEAP_DEFAULT);
            memset(block, 1, size);
            release(block, heap);
        }
        release(round == 0 ? kept : NULL, heap);
        table->tick();
    }
    uint32_t next = heap_new(0);
    void *block = allocate(100, heap);
    assert_int_equal(stats_of(next).live_blocks, 0);
    release(block, heap);
    heap_end(next);
}

/* realloc may leave a block to its heap while it is where it was. */
static void
test_realloc_takes_no_new_block_of_an_ending_heap(void **unused)
{
    (void)unused;
    static const size_t from[] = { 100, 8000, 40000 }, to[] = { 50, 300, 10000, 60000, 3000000 };
    for (int i = 0; i < 3; i++) {
        for (int j = 0; j < 5; j++) {
            uint32_t heap = heap_new(0);
            char *block = table->heap_malloc(heap, from[i]);
            memset(block, i + 1, from[i]);
            assert_int_equal(table->heap_end(heap), 0);
            char *now = table->realloc(block, to[j]);
            assert_non_null(now);
            assert_int_equal(owner_of(now).heap, now == block ? heap : ALCOVE_HEAP_DEFAULT);
            for (size_t k = 0; k < from[i] && k < to[j]; k++)
                assert_int_equal(now[k], i + 1);
            table->free(now);
            assert_false(heap_lives(heap));
        }
    }
}

/* By a quarter, where realloc gives a block room. */
static void
test_growing_block_leaves_an_ending_heap(void **unused)
{
    (void)unused;
    static const size_t sizes[] = { 100, 8000, 20000, 700000 };
    for (int i = 0; i < 4; i++) {
        size_t size = sizes[i];
        uint32_t heap = heap_new(0);
        char *block = table->heap_malloc(heap, size), *before;
        assert_int_equal(table->heap_end(heap), 0);
        do {
            before = block;
            size += size / 4;
            assert_non_null(block = table->realloc(block, size));
        } while (block == before);
        assert_int_equal(owner_of(block).heap, ALCOVE_HEAP_DEFAULT);
        assert_false(heap_lives(heap));
        table->free(block);
    }
}

static void
test_pages_go_back_as_blocks_of_an_ending_heap_are_freed(void **unused)
{
    (void)unused;
    enum { BLOCKS = 60 };
    void *blocks[BLOCKS];
    uint32_t heap = heap_new(0);
    size_t before = resident_bytes();
    for (int i = 0; i < BLOCKS; i++)
        memset(blocks[i] = table->heap_malloc(heap, 1000000), 1, 1000000);
    assert_int_equal(table->heap_end(heap), 0);
    for (int i = 0; i < BLOCKS; i++)
        table->free(blocks[i]);
    assert_true(resident_bytes() < before + 10000000);
}

/* What was freed before waits for nothing either, though a block stays. */
static void
test_pages_that_were_free_before_go_back_when_a_heap_is_told_to_end(void **unused)
{
    (void)unused;
    static const size_t sizes[] = { 1000, 300000, 9000000 };
    static void *blocks[60000];
    for (int kind = 0; kind < 3; kind++) {
        unsigned many = (unsigned)(60000000 / sizes[kind]);
        uint32_t heap = heap_new(0);
        void *kept = table->heap_malloc(heap, 100);
        size_t before = resident_bytes();
        for (unsigned i = 0; i < many; i++)
            memset(blocks[i] = table->heap_malloc(heap, sizes[kind]), 1, sizes[kind]);
        for (unsigned i = 0; i < many; i++)
            table->free(blocks[i]);
        assert_int_equal(table->heap_end(heap), 0);
        assert_true(resident_bytes() < before + 10000000);
        table->free(kept);
        assert_false(heap_lives(heap));
    }
}

static void *
end_elsewhere(void *heap)
{
    return table->heap_end(*(uint32_t *)heap) == 0 ? NULL : heap;
}

/* While little is live, every pop of such a block is a turn. */
static void
test_next_turn_of_a_thread_leaves_an_ending_heap(void **unused)
{
    (void)unused;
    pthread_t thread;
    void *refused;
    uint32_t heap = heap_new(0);
    void *(*allocate)(size_t, size_t) = (void *(*)(size_t, size_t))table->entry(ALCOVE_ENTRY_malloc);
    void *kept = allocate(100, heap);
    for (int i = 0; i < 4; i++)
        table->free(allocate(16000, heap));
    assert_int_equal(pthread_create(&thread, NULL, end_elsewhere, &heap), 0);
    pthread_join(thread, &refused);
    assert_null(refused);
    void *block = allocate(16000, heap);
    assert_int_equal(owner_of(block).heap, ALCOVE_HEAP_DEFAULT);
    table->free(block);
    table->free(kept);
    assert_false(heap_lives(heap));
}

#define GROWN 100

/* Blocks of 300 KB that grew to that, in pages with room. */
static void
grow_blocks(uint32_t heap, void **blocks)
{
    for (int i = 0; i < GROWN; i++) {
        blocks[i] = NULL;
        for (size_t size = 10000; size <= 300000; size += size / 2) {
            assert_non_null(blocks[i] = table->heap_realloc(heap, blocks[i], size));
            memset(blocks[i], 1, size);
        }
    }
}

static void
test_room_goes_back_as_blocks_of_an_ending_heap_are_freed(void **unused)
{
    (void)unused;
    void *blocks[GROWN];
    uint32_t heap = heap_new(0);
    table->purge();
    size_t before = resident_bytes();
    grow_blocks(heap, blocks);
    assert_int_equal(table->heap_end(heap), 0);
    for (int i = 0; i < GROWN; i++)
        table->free(blocks[i]);
    assert_true(resident_bytes() < before + 5000000);
    assert_false(heap_lives(heap));
}

static void
test_room_that_went_back_before_goes_with_a_heap_that_is_destroyed(void **unused)
{
    (void)unused;
    void *blocks[GROWN];
    uint32_t heap = heap_new(0);
    table->purge();
    size_t before = resident_bytes();
    grow_blocks(heap, blocks);
    for (int i = 0; i < GROWN; i++)
        table->free(blocks[i]);
    assert_int_equal(table->heap_destroy(heap), 0);
    assert_true(resident_bytes() < before + 5000000);
}

/* A thread that is stopped somewhere inside of malloc or free of a heap, by a signal whose handler waits. */
static sem_t stopped, go_on;
static _Atomic bool finish;
static _Atomic unsigned damaged, rounds_done;
static uint32_t stopped_heap;

static void
handler(int unused)
{
    (void)unused;
    int saved = errno;
    sem_post(&stopped);
    while (sem_wait(&go_on) != 0)
        ;
    errno = saved;
}

static void *
churn(void *unused)
{
    (void)unused;
    void *(*allocate)(size_t, size_t) = (void *(*)(size_t, size_t))table->entry(ALCOVE_ENTRY_malloc);
    void (*release)(void *, size_t) = (void (*)(void *, size_t))table->entry(ALCOVE_ENTRY_free);
    for (unsigned n = 1; !finish; n++) {
        unsigned *block = allocate(n % 8 == 0 ? 50000 : 64, stopped_heap);
        block[0] = block[15] = n;
        damaged += block[0] != n || block[15] != n;
        release(block, stopped_heap);
        rounds_done = n;
    }
    return NULL;
}

#define OTHERS 3000
#define PATIENCE 5 /* seconds */

/* What another thread does meanwhile: the heap is told to end, and somebody else gets memory. */
struct meanwhile {
    bool slowly;
    int refused;
    bool lived; /* its caches keep it */
    uint32_t other;
    unsigned char *blocks[OTHERS];
};

static void *
end_and_allocate(void *argument)
{
    struct meanwhile *m = argument;
    m->refused = table->heap_end(stopped_heap);
    if (m->slowly)
        nanosleep(&(struct timespec){ .tv_sec = 1, .tv_nsec = 500000000 }, NULL);
    m->lived = heap_lives(stopped_heap);
    m->other = heap_new(0);
    for (int i = 0; i < OTHERS; i++)
        memset(m->blocks[i] = table->heap_malloc(m->other, 64), 0xaa, 64);
    return NULL;
}

/* False: the first thread was stopped where it has a lock, for which the second one had to wait. */
static bool
stop_a_thread_inside(unsigned round)
{
    static struct meanwhile m;
    pthread_t inside, elsewhere;
    stopped_heap = heap_new(0);
    finish = false;
    rounds_done = 0;
    m.slowly = round == 0;
    assert_int_equal(pthread_create(&inside, NULL, churn, NULL), 0);
    while (rounds_done == 0) /* then it has caches */
        sched_yield();
    nanosleep(&(struct timespec){ .tv_nsec = 1000000 + round * 7000 }, NULL);
    pthread_kill(inside, SIGUSR1);
    while (sem_wait(&stopped) != 0)
        ;
    assert_int_equal(pthread_create(&elsewhere, NULL, end_and_allocate, &m), 0);
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += PATIENCE;
    bool waits = pthread_timedjoin_np(elsewhere, NULL, &until) != 0;
    sem_post(&go_on);
    if (waits)
        pthread_join(elsewhere, NULL);
    nanosleep(&(struct timespec){ .tv_nsec = 500000 }, NULL);
    finish = true;
    pthread_join(inside, NULL);
    assert_int_equal(m.refused, 0);
    assert_true(m.lived || waits);
    for (int i = 0; i < OTHERS; i++) {
        for (int k = 0; k < 64; k++)
            assert_int_equal(m.blocks[i][k], 0xaa);
        table->free(m.blocks[i]);
    }
    heap_end(m.other);
    return !waits;
}

static void
test_thread_stopped_inside_keeps_the_heap(void **unused)
{
    enum { ROUNDS = 40 };
    (void)unused;
    unsigned shown = 0;
    sem_init(&stopped, 0, 0);
    sem_init(&go_on, 0, 0);
    signal(SIGUSR1, handler);
    for (unsigned round = 0; round < ROUNDS; round++)
        shown += stop_a_thread_inside(round);
    assert_true(shown >= ROUNDS / 2);
    assert_int_equal(damaged, 0);
    signal(SIGUSR1, SIG_DFL);
}

/* What a sleeping thread caches keeps the heap until it calls again. */
static void *
sleeper(void *argument)
{
    uint32_t heap = *(uint32_t *)argument;
    table->free(table->heap_malloc(heap, 100));
    sem_post(&stopped);
    while (sem_wait(&go_on) != 0)
        ;
    table->tick();
    sem_post(&stopped);
    while (sem_wait(&go_on) != 0)
        ;
    return NULL;
}

static void
test_sleeping_thread_lets_go_when_it_calls_again(void **unused)
{
    (void)unused;
    uint32_t heap = heap_new(0);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, sleeper, &heap), 0);
    while (sem_wait(&stopped) != 0)
        ;
    assert_int_equal(table->heap_end(heap), 0);
    assert_true(heap_lives(heap));
    sem_post(&go_on);
    while (sem_wait(&stopped) != 0)
        ;
    assert_false(heap_lives(heap));
    sem_post(&go_on);
    pthread_join(thread, NULL);
}

/* Numbers of heaps that ended are given again; of those that live on for a block they are not. */
static void
test_numbers_are_not_used_up(void **unused)
{
    (void)unused;
    uint32_t keeping = heap_new(0);
    void *block = table->heap_malloc(keeping, 100);
    assert_int_equal(table->heap_end(keeping), 0);
    for (int i = 0; i < 10000; i++) {
        uint32_t heap = heap_new(0);
        assert_int_not_equal(heap, keeping);
        void *short_lived = table->heap_malloc(heap, 100);
        assert_int_equal(table->heap_end(heap), 0);
        table->free(short_lived);
    }
    assert_true(heap_lives(keeping));
    table->free(block);
    assert_false(heap_lives(keeping));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_heap_without_blocks_ends_at_once),
        cmocka_unit_test(test_heap_ends_with_its_last_block),
        cmocka_unit_test(test_end_of_no_heap_or_the_default_one_is_refused),
        cmocka_unit_test(test_entries_go_on_to_work_with_an_ended_heap),
        cmocka_unit_test(test_realloc_takes_no_new_block_of_an_ending_heap),
        cmocka_unit_test(test_growing_block_leaves_an_ending_heap),
        cmocka_unit_test(test_pages_go_back_as_blocks_of_an_ending_heap_are_freed),
        cmocka_unit_test(test_pages_that_were_free_before_go_back_when_a_heap_is_told_to_end),
        cmocka_unit_test(test_next_turn_of_a_thread_leaves_an_ending_heap),
        cmocka_unit_test(test_room_goes_back_as_blocks_of_an_ending_heap_are_freed),
        cmocka_unit_test(test_room_that_went_back_before_goes_with_a_heap_that_is_destroyed),
        cmocka_unit_test(test_thread_stopped_inside_keeps_the_heap),
        cmocka_unit_test(test_sleeping_thread_lets_go_when_it_calls_again),
        cmocka_unit_test(test_numbers_are_not_used_up),
    };
    return cmocka_run_group_tests(tests, group_open, NULL);
}
