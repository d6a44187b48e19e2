/* The peak: what is counted as live is what is live, whoever moves blocks, and a peak can be begun anew. */
#include "unit.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>

#include "alcove/alcove.h"
#include "stats/stats.h"
#include "thread/peak.h"
#include "thread/record.h"

#define THREADS 4
#define BLOCKS 2000

static struct heap *heap;
static void *kept[THREADS][BLOCKS];

static int
start(void **unused)
{
    uint32_t index;
    fresh(unused);
    if (heap_create(&(struct alcove_heap_options){ .name = "tested" }, &index) != 0)
        return -1;
    heap = heap_of(index);
    return 0;
}

#define peak_test(function) cmocka_unit_test_setup(function, start)

static struct alcove_heap_stats
figures(void)
{
    struct alcove_heap_stats s;
    assert_int_equal(stats_heap(heap->index, &s), 0);
    return s;
}

/* What is known after a look is what the counters of blocks say. */
static void
assert_known(void)
{
    struct alcove_heap_stats s = figures();
    assert_int_equal(atomic_load(&heap->live), s.live_bytes);
    assert_int_equal(s.total_allocs - s.total_frees, s.live_blocks);
    assert_true(s.peak_bytes >= s.live_bytes && s.total_bytes >= s.live_bytes);
}

/* Blocks of all kinds come, change their size, and go; what is kept in the end is in `kept`. */
static void *
use_heap(void *argument)
{
    void **own = argument;
    uint32_t random = (uint32_t)(uintptr_t)own | 1;
    for (int i = 0; i < 30000; i++) {
        random = random * 1664525 + 1013904223;
        void **block = &own[(random >> 8) % BLOCKS];
        size_t size = (size_t)16 << (random >> 20) % (i % 50 == 0 ? 18 : 11);
        size += random % size;
        if (*block == NULL) {
            *block = ALCOVE_PUBLIC(heap_malloc)(heap->index, size);
        } else if (i % 3 == 0) {
            *block = ALCOVE_PUBLIC(realloc)(*block, size);
        } else {
            ALCOVE_PUBLIC(free)(*block);
            *block = NULL;
        }
        if (i % 5000 == 0)
            ALCOVE_PUBLIC(purge)();
    }
    return NULL;
}

static void
free_all(void)
{
    for (unsigned i = 0; i < THREADS; i++)
        for (unsigned k = 0; k < BLOCKS; k++) {
            ALCOVE_PUBLIC(free)(kept[i][k]);
            kept[i][k] = NULL;
        }
}

static void
test_what_counts_as_live_is_live(void **unused)
{
    (void)unused;
    use_heap(kept[0]);
    assert_known();
    free_all();
    assert_known();
    ALCOVE_PUBLIC(purge)();
    assert_int_equal(atomic_load(&heap->live), 0);
}

static void
test_what_counts_as_live_is_live_with_threads_that_look(void **unused)
{
    (void)unused;
    pthread_t threads[THREADS];
    for (unsigned i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, use_heap, kept[i]), 0);
    for (int i = 0; i < 200; i++)
        figures();
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    assert_known();
    free_all();
    assert_known();
    assert_int_equal(atomic_load(&heap->live), 0);
}

static void
test_peak_is_begun_anew_with_what_is_live(void **unused)
{
    (void)unused;
    void *large = ALCOVE_PUBLIC(heap_malloc)(heap->index, 1 << 20), *small = ALCOVE_PUBLIC(heap_malloc)(heap->index, 100);
    ALCOVE_PUBLIC(free)(large);
    assert_true(figures().peak_bytes >= 1 << 20);
    assert_int_equal(stats_peak_reset(heap->index), 0);
    assert_int_equal(figures().peak_bytes, ALCOVE_PUBLIC(malloc_usable_size)(small));
    large = ALCOVE_PUBLIC(heap_malloc)(heap->index, 1 << 19);
    ALCOVE_PUBLIC(free)(large);
    assert_in_range(figures().peak_bytes, 1 << 19, (1 << 19) + 200);
    ALCOVE_PUBLIC(free)(small);
    assert_int_equal(stats_peak_reset(heap->index + 1), EINVAL);
}

/* Blocks that are popped from a full cache make no peak known by themselves: the cache has a turn in time. */
static void
test_peak_of_what_was_cached(void **unused)
{
    (void)unused;
    for (int round = 0; round < 4; round++)
        for (int part = 0; part < 2; part++) {
            size_t size = part == 0 ? 1024 : 100;
            for (int i = 0; i < 400; i++)
                kept[0][i] = ALCOVE_PUBLIC(heap_malloc)(heap->index, size);
            for (int i = 0; i < 400; i++)
                ALCOVE_PUBLIC(free)(kept[0][i]);
        }
    assert_int_equal(stats_peak_reset(heap->index), 0);
    assert_int_equal(figures().peak_bytes, 0);
    assert_true(figures().cached_bytes >= 100 << 10);
    for (int i = 0; i < 90; i++)
        kept[0][i] = ALCOVE_PUBLIC(heap_malloc)(heap->index, 1024);
    for (int i = 0; i < 90; i++)
        ALCOVE_PUBLIC(free)(kept[0][i]);
    memset(kept, 0, sizeof kept);
    assert_in_range(figures().peak_bytes, (90 - 16) << 10, 90 << 10);
}

static pthread_barrier_t turns;
#define BATCH ((int64_t)32 << 10) /* two threads' */
#define CACHED 6000
static void *cached[CACHED];
static int64_t live, most;

static void *
take_counted(size_t size)
{
    void *block = ALCOVE_PUBLIC(heap_malloc)(heap->index, size);
    live += (int64_t)ALCOVE_PUBLIC(malloc_usable_size)(block);
    most = live > most ? live : most;
    return block;
}

/* Take blocks of many sizes, up to a number or until so much is live, and free them. */
static void
take_and_free(unsigned count, int64_t until)
{
    unsigned n = 0;
    for (; n < count && live < until; n++)
        cached[n] = take_counted(1 + n * 37 % 200);
    while (n > 0) {
        live -= (int64_t)ALCOVE_PUBLIC(malloc_usable_size)(cached[--n]);
        ALCOVE_PUBLIC(free)(cached[n]);
    }
}

/* Caches much while little is live, and takes it when the other thread has let much become live. */
static void *
cache_and_take(void *unused)
{
    take_and_free(CACHED, INT64_MAX);
    for (int i = 0; i < 30; i++)
        take_and_free(CACHED / 3, INT64_MAX);
    int64_t held = (int64_t)figures().cached_bytes;
    pthread_barrier_wait(&turns);
    pthread_barrier_wait(&turns);
    take_and_free(CACHED, live + held * 8 / 10);
    return unused;
}

static void
test_peak_of_what_a_thread_had_leave_for_when_less_was_live(void **unused)
{
    (void)unused;
    pthread_t thread;
    uint64_t allocations = 0;
    unsigned n = 0;
    live = most = 0;
    void *large = take_counted(20 << 20);
    live -= (int64_t)ALCOVE_PUBLIC(malloc_usable_size)(large);
    ALCOVE_PUBLIC(free)(large);
    pthread_barrier_init(&turns, NULL, 2);
    assert_int_equal(pthread_create(&thread, NULL, cache_and_take, NULL), 0);
    pthread_barrier_wait(&turns);
    allocations = figures().total_allocs;
    while (live < most - 6000)
        kept[n / BLOCKS][n % BLOCKS] = take_counted(most - live > 100000 ? 50000 : 100), n++;
    assert_int_equal(figures().total_allocs, allocations + n); /* what was recalled is counted as it was */
    int64_t before = most;
    pthread_barrier_wait(&turns);
    pthread_join(thread, NULL);
    assert_true(most - before > 4 * BATCH); /* it was there to be seen */
    assert_in_range(figures().peak_bytes, most - 2 * BATCH, most);
    assert_known();
    pthread_barrier_destroy(&turns);
    free_all();
    assert_known();
}

static atomic_bool destroyed;

static void *
destroy(void *unused)
{
    ALCOVE_PUBLIC(heap_destroy)(heap->index);
    destroyed = true;
    return unused;
}

/* Whoever looks has no lock, and may do so at its own turn, when the heap is nobody's affair any more. */
static void
test_heap_is_destroyed_when_nobody_looks_at_its_caches_any_more(void **unused)
{
    (void)unused;
    pthread_t thread;
    struct heap *h = heap;
    destroyed = false;
    ALCOVE_PUBLIC(free)(ALCOVE_PUBLIC(heap_malloc)(h->index, 100));
    assert_true(heap_look_begin(h));
    assert_int_equal(pthread_create(&thread, NULL, destroy, NULL), 0);
    while (!destroyed && (atomic_load(&h->lookers) & HEAP_CLOSING) == 0)
        sched_yield();
    assert_false(heap_look_begin(h)); /* nor does anybody who comes now */
    assert_int_equal(ALCOVE_PUBLIC(heap_end)(h->index), EINVAL);
    assert_int_equal(ALCOVE_PUBLIC(heap_destroy)(h->index), EINVAL);
    peak_look(h);
    for (int i = 0; i < 1000; i++) {
        assert_false(destroyed);
        assert_non_null(cache_set_find(&thread_get()->set, h->index));
        sched_yield();
    }
    heap_look_end(h);
    pthread_join(thread, NULL);
    assert_true(destroyed);
    assert_null(cache_set_find(&thread_get()->set, h->index));
}

/* What a thread is at with another heap is nobody's affair who reads this one's figures. */
static void
test_figures_wait_for_no_thread_that_moves_blocks_of_another_heap(void **unused)
{
    (void)unused;
    struct thread_sums sums;
    struct cache_set *set = &thread_get()->set;
    ALCOVE_PUBLIC(free)(ALCOVE_PUBLIC(heap_malloc)(heap->index, 100));
    struct cache *own = cache_set_find(set, heap->index), *other = cache_set_find(set, ALCOVE_HEAP_DEFAULT);
    assert_true(heap_look_begin(heap));
    lock_take(&set->lock);
    atomic_store(&other->moving, 1);
    assert_true(thread_sum(heap->index, &sums));
    atomic_store(&own->moving, 1);
    assert_false(thread_sum(heap->index, &sums));
    atomic_store(&own->moving, 0);
    atomic_store(&other->moving, 0);
    lock_drop(&set->lock);
    heap_look_end(heap);
}

static void
test_total_bytes_grow_by_what_a_block_grows_in_place(void **unused)
{
    (void)unused;
    void *block = ALCOVE_PUBLIC(heap_malloc)(heap->index, 3 << 20);
    uint64_t total = figures().total_bytes;
    assert_ptr_equal(ALCOVE_PUBLIC(realloc)(block, 2500 << 10), block);
    assert_int_equal(figures().total_bytes, total);
    assert_int_equal(figures().total_allocs, 1);
    size_t before = ALCOVE_PUBLIC(malloc_usable_size)(block);
    void *now = ALCOVE_PUBLIC(realloc)(block, 3500 << 10);
    assert_int_equal(figures().total_bytes, total + ALCOVE_PUBLIC(malloc_usable_size)(now) - before);
    total = figures().total_bytes;
    ALCOVE_PUBLIC(free)(now);
    assert_int_equal(figures().total_bytes, total);
    assert_int_equal(figures().live_bytes, 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        peak_test(test_what_counts_as_live_is_live),
        peak_test(test_what_counts_as_live_is_live_with_threads_that_look),
        peak_test(test_peak_is_begun_anew_with_what_is_live),
        peak_test(test_peak_of_what_was_cached),
        peak_test(test_peak_of_what_a_thread_had_leave_for_when_less_was_live),
        peak_test(test_heap_is_destroyed_when_nobody_looks_at_its_caches_any_more),
        peak_test(test_figures_wait_for_no_thread_that_moves_blocks_of_another_heap),
        peak_test(test_total_bytes_grow_by_what_a_block_grows_in_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
