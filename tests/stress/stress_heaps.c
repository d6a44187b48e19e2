/* Heaps come and go in many threads, each used by two, while another reads all figures. */
#include "stress.h"

#include "pages/pool.h"

#define MAKERS 4
#define BLOCKS 500

struct shared {
    uint32_t heap;
    pthread_barrier_t step;
    struct {
        void *address;
        size_t size;
    } blocks[2][BLOCKS];
    bool failed;
};

static bool
fill_half(struct shared *s, unsigned half, struct dice *d)
{
    for (unsigned i = 0; i < BLOCKS; i++) {
        size_t size = roll_size(d) / 4;
        void *block = table->heap_malloc(s->heap, size);
        struct alcove_owner owner;
        if (block == NULL || !table->owner(block, &owner) || owner.heap != s->heap)
            return false;
        s->blocks[half][i].address = block;
        s->blocks[half][i].size = size;
        mark_write(block, size, (uint64_t)s->heap << 32 | half << 16 | i);
    }
    return true;
}

/* Half of what the other one allocated; the rest goes with the heap. */
static bool
free_half(struct shared *s, unsigned half)
{
    for (unsigned i = 0; i < BLOCKS; i++) {
        if (!mark_holds(s->blocks[half][i].address, s->blocks[half][i].size, (uint64_t)s->heap << 32 | half << 16 | i))
            return false;
        if (i % 2)
            table->free(s->blocks[half][i].address);
    }
    return true;
}

static void *
help(void *argument)
{
    struct shared *s = argument;
    struct dice d = { s->heap + 77 };
    if (!fill_half(s, 1, &d))
        s->failed = true;
    pthread_barrier_wait(&s->step);
    if (!free_half(s, 0))
        s->failed = true;
    thread_ends();
    return NULL;
}

static void *
make_and_destroy(void *number)
{
    struct dice d = { (uintptr_t)number + 1 };
    struct shared *s = calloc(1, sizeof *s);
    pthread_barrier_init(&s->step, NULL, 2);
    for (unsigned i = 0; i < rounds * 30; i++) {
        pthread_t helper;
        struct alcove_heap_options options = { .name = "stress", .limit = roll(&d, 2) ? (uint64_t)1 << 30 : 0 };
        if (table->heap_create(&options, &s->heap) != 0 || pthread_create(&helper, NULL, help, s) != 0)
            return FAILED;
        bool good = fill_half(s, 0, &d);
        pthread_barrier_wait(&s->step);
        good &= free_half(s, 1);
        pthread_join(helper, NULL);
        if (!good || s->failed || !figures_become(s->heap, BLOCKS, 2 * BLOCKS) || table->heap_destroy(s->heap) != 0)
            return FAILED;
    }
    pthread_barrier_destroy(&s->step);
    free(s);
    return NULL;
}

static void
test_heaps_are_made_shared_and_destroyed(void **unused)
{
    (void)unused;
    struct alcove_info before, after;
    table->free(table->malloc(1));
    table->info(&before);
    in_threads(MAKERS, make_and_destroy);
    table->info(&after);
    assert_int_equal(after.heaps, before.heaps);
    assert_int_equal(after.live_blocks, before.live_blocks);
    table->purge();
    assert_int_equal(message_count, 0);
}

static atomic_bool stop;

static void *
watch(void *unused)
{
    (void)unused;
    while (!stop) {
        struct alcove_info info;
        table->info(&info);
        for (uint32_t i = 0; i < 20; i++) {
            struct alcove_heap_stats s;
            table->heap_stats(i, &s);
        }
    }
    return NULL;
}

static void
test_figures_are_read_while_heaps_come_and_go(void **unused)
{
    (void)unused;
    pthread_t watcher;
    stop = false;
    assert_int_equal(pthread_create(&watcher, NULL, watch, NULL), 0);
    in_threads(MAKERS, make_and_destroy);
    stop = true;
    pthread_join(watcher, NULL);
    assert_int_equal(message_count, 0);
}

static void *
purge_often(void *unused)
{
    (void)unused;
    while (!stop)
        table->purge();
    return NULL;
}

static void
test_purging_while_heaps_come_and_go(void **unused)
{
    (void)unused;
    pthread_t purger;
    stop = false;
    assert_int_equal(pthread_create(&purger, NULL, purge_often, NULL), 0);
    in_threads(MAKERS, make_and_destroy);
    stop = true;
    pthread_join(purger, NULL);
    assert_int_equal(message_count, 0);
}

/* A function of an ended heap goes on to work, also while the heap's number is just becoming another's. */
#define NUMBERS_GIVEN 100000 /* in a round; without a second look 1 of 60,000 finds the moment */

static void *
use_number_of_ended_heap(void *number)
{
    const uint32_t heap = *(const uint32_t *)number;
    void *(*allocate)(size_t, size_t) = (void *(*)(size_t, size_t))table->entry(ALCOVE_ENTRY_malloc);
    unsigned refused = 0;
    while (!stop) {
        void *block = allocate(64, heap);
        refused += block == NULL;
        table->free(block);
    }
    return refused == 0 ? NULL : FAILED;
}

static void
test_entries_work_with_ended_heaps_while_numbers_are_given_again(void **unused)
{
    (void)unused;
    uint32_t ended, heap;
    void *result;
    pthread_t users[2];
    assert_int_equal(table->heap_create(NULL, &ended), 0);
    assert_int_equal(table->heap_end(ended), 0);
    stop = false;
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&users[i], NULL, use_number_of_ended_heap, &ended), 0);
    for (unsigned i = 0; i < rounds * NUMBERS_GIVEN; i++)
        if (table->heap_create(NULL, &heap) == 0) /* some that have ended may not be forgotten yet */
            table->heap_end(heap);
    stop = true;
    for (unsigned i = 0; i < 2; i++) {
        pthread_join(users[i], &result);
        assert_null(result);
    }
}

#define USERS 4
#define KINDS 24 /* of blocks */
#define KEPT 5   /* of a kind, of those that a cache holds: no more than it may lose without a turn */

static uint32_t looked_at;
static pthread_barrier_t step;

static size_t
size_of_kind(size_t kind)
{
    return 16 + kind * 64;
}

/* Have a cache of the heap, pop from it what makes a new peak that nobody knows of yet, and come to know of it when others may
 * be giving their caches up. */
static void *
use_and_purge(void)
{
    for (unsigned i = 0; i < rounds * 100; i++) {
        pthread_barrier_wait(&step);
        void *blocks[KINDS][2 * KEPT];
        for (unsigned kind = 0; kind < KINDS; kind++) {
            for (unsigned k = 0; k < 2 * KEPT; k++)
                blocks[kind][k] = table->heap_malloc(looked_at, size_of_kind(kind));
            for (unsigned k = 0; k < 2 * KEPT; k++)
                table->free(blocks[kind][k]);
        }
        pthread_barrier_wait(&step); /* and the peak is begun anew */
        pthread_barrier_wait(&step);
        for (unsigned kind = 0; kind < KINDS; kind++)
            for (unsigned k = 0; k < KEPT; k++)
                if (table->heap_malloc(looked_at, size_of_kind(kind)) == NULL)
                    return FAILED;
        pthread_barrier_wait(&step);
        table->purge(); /* its own affair */
    }
    return NULL;
}

static void *
make_and_destroy_under_looks(void)
{
    for (unsigned i = 0; i < rounds * 100; i++) {
        if (table->heap_create(NULL, &looked_at) != 0)
            return FAILED;
        pthread_barrier_wait(&step);
        pthread_barrier_wait(&step);
        if (table->heap_peak_reset(looked_at) != 0)
            return FAILED;
        pthread_barrier_wait(&step);
        pthread_barrier_wait(&step);
        if (table->heap_destroy(looked_at) != 0)
            return FAILED;
    }
    return NULL;
}

static void *
use_or_destroy(void *number)
{
    return (uintptr_t)number == 0 ? make_and_destroy_under_looks() : use_and_purge();
}

static void
test_heaps_are_destroyed_while_threads_look_at_their_caches(void **unused)
{
    (void)unused;
    pthread_barrier_init(&step, NULL, USERS + 1);
    in_threads(USERS + 1, use_or_destroy);
    pthread_barrier_destroy(&step);
    assert_int_equal(message_count, 0);
}

#define LIMITED 8 /* threads at one limit */
#define SLOTS 400

static uint32_t limited;
static atomic_ullong got, refused;

static void *
allocate_at_the_limit(void *number)
{
    struct dice d = { (uintptr_t)number + 1 };
    void **slots = calloc(SLOTS, sizeof *slots);
    for (unsigned i = 0; i < rounds * 10000; i++) {
        void **slot = &slots[roll(&d, SLOTS)];
        if (*slot != NULL) {
            table->free(*slot);
            *slot = NULL;
        } else {
            *slot = table->heap_malloc(limited, roll(&d, 2000) + 1);
            atomic_fetch_add_explicit(*slot != NULL ? &got : &refused, 1, memory_order_relaxed);
        }
    }
    for (unsigned i = 0; i < SLOTS; i++)
        table->free(slots[i]);
    free(slots);
    return NULL;
}

/* They take from each other's caches. */
static void
test_every_allocation_at_the_limit_counts_once(void **unused)
{
    (void)unused;
    for (unsigned i = 0; i < rounds * 3; i++) {
        struct alcove_heap_options options = { .name = "limited", .limit = (uint64_t)(i % 2 ? 300 : 600) << 10 };
        struct alcove_heap_stats s;
        got = refused = 0;
        assert_int_equal(table->heap_create(&options, &limited), 0);
        in_threads(LIMITED, allocate_at_the_limit);
        assert_int_equal(table->heap_stats(limited, &s), 0);
        assert_int_equal(s.live_blocks, 0);
        assert_int_equal(s.limit_refused, refused);
        assert_int_equal(s.total_allocs, got);
        assert_int_equal(s.total_frees, got);
        assert_int_equal(table->heap_destroy(limited), 0);
    }
    assert_int_equal(message_count, 0);
}

#define FIRST_USERS 12

static atomic_uint used;

/* Use the default heap before and after it has its first limit. */
static void *
use_default_heap(void)
{
    pthread_barrier_wait(&step);
    for (unsigned part = 0; part < 2; part++) {
        void *blocks[KINDS][KEPT];
        for (unsigned kind = 0; kind < KINDS; kind++)
            for (unsigned k = 0; k < KEPT; k++)
                if ((blocks[kind][k] = table->malloc(size_of_kind(kind))) == NULL)
                    return FAILED;
        if (part == 0) {
            pthread_barrier_wait(&step);
            pthread_barrier_wait(&step);
        }
        for (unsigned kind = 0; kind < KINDS; kind++)
            for (unsigned k = 0; k < KEPT; k++)
                table->free(blocks[kind][k]);
    }
    used++;
    return NULL;
}

static void *
limit_and_look(void)
{
    struct alcove_heap_stats s;
    pthread_barrier_wait(&step);
    pthread_barrier_wait(&step);
    if (table->heap_limit(0, (uint64_t)1 << 40) != 0)
        return FAILED;
    pthread_barrier_wait(&step);
    while (used != FIRST_USERS)
        if (table->heap_peak_reset(0) != 0)
            return FAILED;
    if (table->heap_peak_reset(0) != 0 || table->heap_stats(0, &s) != 0)
        return FAILED;
    return s.live_blocks == 0 && s.peak_bytes == 0 ? NULL : FAILED;
}

static void *
use_or_limit(void *number)
{
    return (uintptr_t)number == 0 ? limit_and_look() : use_default_heap();
}

static void
test_default_heap_has_its_first_limit_while_its_caches_are_looked_at(void **unused)
{
    (void)unused;
    pthread_barrier_init(&step, NULL, FIRST_USERS + 1);
    for (unsigned i = 0; i < rounds * 20; i++) {
        table->detach();
        pool_init(-1);
        used = 0;
        in_threads(FIRST_USERS + 1, use_or_limit);
    }
    pthread_barrier_destroy(&step);
    assert_int_equal(message_count, 0);
}

int
main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_heaps_are_made_shared_and_destroyed),
        cmocka_unit_test(test_figures_are_read_while_heaps_come_and_go),
        cmocka_unit_test(test_purging_while_heaps_come_and_go),
        cmocka_unit_test(test_entries_work_with_ended_heaps_while_numbers_are_given_again),
        cmocka_unit_test(test_heaps_are_destroyed_while_threads_look_at_their_caches),
        cmocka_unit_test(test_every_allocation_at_the_limit_counts_once),
        cmocka_unit_test(test_default_heap_has_its_first_limit_while_its_caches_are_looked_at),
    };
    rounds_read(argc, argv);
    ALCOVE_PUBLIC(malloc_message) = messages_count;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
