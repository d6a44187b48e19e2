/* Thread records: taken over, found when their threads have ended, emptied when nobody takes them over. */
#include "unit.h"

#include <pthread.h>
#include <sched.h>

#include "os/os.h"
#include "thread/records.h"

#define MANY 200
#define LONG_AGO 0 /* on a clock that has run for more than a second */

static struct thread *self;
static pthread_t threads[MANY];
static _Atomic int ids[MANY];
static pthread_barrier_t all;

static void
touch(void)
{
    void *volatile block = ALCOVE_PUBLIC(malloc)(100);
    ALCOVE_PUBLIC(free)(block);
}

static int
start(void **unused)
{
    fresh(unused);
    touch();
    self = thread_get();
    return self != NULL ? 0 : -1;
}

#define record_test(function) cmocka_unit_test_setup(function, start)

static void *
live_with_others(void *id)
{
    touch();
    *(_Atomic int *)id = os_thread_id();
    pthread_barrier_wait(&all); /* each has its record */
    pthread_barrier_wait(&all); /* and may end */
    return NULL;
}

static void *
live_alone(void *id)
{
    touch();
    *(_Atomic int *)id = os_thread_id();
    return NULL;
}

/* The system may know a thread for a moment after it was joined. */
static void
join(int i)
{
    pthread_join(threads[i], NULL);
    while (!os_thread_has_ended(ids[i]))
        sched_yield();
}

static void
begin(int n)
{
    pthread_barrier_init(&all, NULL, (unsigned)n + 1);
    for (int i = 0; i < n; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, live_with_others, (void *)&ids[i]), 0);
    pthread_barrier_wait(&all);
}

static void
end(int n)
{
    pthread_barrier_wait(&all);
    for (int i = 0; i < n; i++)
        join(i);
    pthread_barrier_destroy(&all);
}

static void
live_and_die(int n)
{
    begin(n);
    end(n);
}

static void
one_after_another(int from, int to)
{
    for (int i = from; i < to; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, live_alone, (void *)&ids[i]), 0);
        join(i);
    }
}

static unsigned
count(enum thread_state state)
{
    unsigned n = 0;
    for (const struct thread *t = records.lists[state].newest; t != NULL; t = t->older)
        n++;
    return n;
}

static void
set_since(enum thread_state state, uint64_t since)
{
    for (struct thread *t = records.lists[state].newest; t != NULL; t = t->older)
        t->since = since;
}

/* Whatever there is to do for records is due now: a clock that went back tells nothing of how late it is. */
static void
make_due(void)
{
    uint64_t far = os_clock_ms() + ((uint64_t)1 << 40);
    records.next_look = far;
    atomic_store(&records.due, far);
}

/* It has been due for a second. */
static void
make_late(void)
{
    uint64_t now = os_clock_ms();
    records.next_look = now - RECORDS_WAIT_MS;
    atomic_store(&records.due, now - RECORDS_WAIT_MS);
}

static void
turn(void)
{
    make_due();
    thread_tick(self);
}

static void
test_threads_that_ended_together_are_found_in_a_few_turns(void **unused)
{
    (void)unused;
    live_and_die(MANY);
    assert_int_equal(records.live, MANY + 1);
    for (int i = 0; i < 5; i++)
        turn();
    assert_int_equal(records.live, 1);
    assert_int_equal(count(THREAD_RESTING) + count(THREAD_EMPTY), MANY);
}

static void
test_turn_that_is_late_finds_all_that_ended(void **unused)
{
    (void)unused;
    live_and_die(MANY);
    make_late();
    thread_tick(self);
    assert_int_equal(records.live, 1);
    begin(MANY / 2); /* these look for ended ones by themselves, and find none */
    records_find_all_ended();
    assert_int_equal(records.live, MANY / 2 + 1);
    end(MANY / 2);
}

static void
test_search_goes_on_at_once_while_it_finds_and_rests_when_not(void **unused)
{
    (void)unused;
    uint64_t now = os_clock_ms();
    live_and_die(MANY);
    records_find_ended(now);
    assert_true(records.next_look <= now);
    records_find_all_ended();
    records_find_ended(now);
    assert_int_equal(records.next_look, now + RECORDS_WAIT_MS); /* one thread: once a second */
    begin(MANY);
    records_find_ended(now);
    assert_true(records.next_look > now);
    assert_true(records.next_look < now + 100);
    end(MANY);
}

static void
test_short_lives_among_many_long_ones_need_one_record(void **unused)
{
    (void)unused;
    begin(MANY / 2);
    one_after_another(MANY / 2, MANY);
    unsigned made = 0;
    for (const struct thread *t = records.all; t != NULL; t = t->next)
        made++;
    assert_int_equal(made, MANY / 2 + 2);
    end(MANY / 2);
}

static void
test_thread_whose_number_is_not_known_has_not_ended(void **unused)
{
    (void)unused;
    const int refused = -1;
    records.lists[THREAD_LIVE].newest->id = refused;
    records_find_all_ended();
    records_find_ended(os_clock_ms());
    records_find_ended_young(refused);
    assert_int_equal(records.live, 1);
}

static void
test_heir_takes_the_record_that_rests_the_least(void **unused)
{
    (void)unused;
    live_and_die(3);
    records_find_all_ended();
    const struct thread *newest = records.lists[THREAD_RESTING].newest, *oldest = records.lists[THREAD_RESTING].oldest;
    begin(1);
    assert_ptr_equal(records.lists[THREAD_LIVE].newest, newest);
    assert_ptr_equal(records.lists[THREAD_RESTING].oldest, oldest);
    end(1);
}

static void
test_rested_records_are_emptied_oldest_first_a_few_a_turn(void **unused)
{
    (void)unused;
    live_and_die(20);
    records_find_all_ended();
    const struct thread *oldest = records.lists[THREAD_RESTING].oldest, *newest = records.lists[THREAD_RESTING].newest;
    set_since(THREAD_RESTING, LONG_AGO);
    turn();
    unsigned some = count(THREAD_EMPTY);
    assert_in_range(some, 1, 10);
    assert_ptr_equal(records.lists[THREAD_EMPTY].oldest, oldest);
    assert_ptr_equal(records.lists[THREAD_RESTING].newest, newest);
    while (count(THREAD_RESTING) != 0) {
        assert_true(atomic_load(&records.due) <= os_clock_ms()); /* again, though it was not made so */
        thread_tick(self);
    }
    assert_int_equal(count(THREAD_EMPTY), 20);
    struct thread_sums sums;
    ALCOVE_PUBLIC(purge)();
    thread_sum(ALCOVE_HEAP_DEFAULT, &sums);
    for (unsigned bin = 0; bin < BINS; bin++)
        assert_int_equal(sums.cached[bin], 0);
}

static void
leave_rested(int n)
{
    live_and_die(n);
    records_find_all_ended();
    set_since(THREAD_RESTING, LONG_AGO);
}

static void
test_turn_that_is_late_empties_all_that_rested(void **unused)
{
    (void)unused;
    leave_rested(MANY);
    make_late();
    thread_tick(self);
    assert_int_equal(count(THREAD_EMPTY), MANY);
}

static void
test_thread_that_starts_gives_a_turn(void **unused)
{
    (void)unused;
    leave_rested(20);
    make_late();
    one_after_another(20, 21);
    assert_int_equal(count(THREAD_EMPTY), 19); /* one was taken over */
}

static void
test_thread_that_ends_gives_a_turn(void **unused)
{
    (void)unused;
    leave_rested(20);
    make_late();
    ALCOVE_PUBLIC(table).thread_exit();
    assert_int_equal(count(THREAD_EMPTY), 20);
}

/* A thread may allocate a little of every size, and free nothing. */
static void
test_bins_that_run_empty_give_a_turn(void **unused)
{
    (void)unused;
    leave_rested(20);
    make_late();
    void *blocks[SMALL_BINS];
    for (unsigned bin = 1; bin <= SMALL_BINS; bin++)
        assert_non_null(blocks[bin - 1] = ALCOVE_PUBLIC(malloc)(bin_size(bin)));
    assert_int_equal(count(THREAD_EMPTY), 20);
    for (unsigned bin = 1; bin <= SMALL_BINS; bin++)
        ALCOVE_PUBLIC(free)(blocks[bin - 1]);
}

static void
test_thread_without_a_record_gives_turns(void **unused)
{
    (void)unused;
    fresh(unused);
    conf.tcache = false;
    conf.dirty_decay_ms = 10000;
    pool_init(10000);
    const size_t size = 100000;
    void *block = ALCOVE_PUBLIC(malloc)(100), *large = ALCOVE_PUBLIC(malloc)(size);
    ALCOVE_PUBLIC(free)(large);
    assert_true(pool_default.free.dirty << PAGE_LG >= size);
    pool_default.decay.epoch = LONG_AGO;
    ALCOVE_PUBLIC(free)(block);
    assert_true(pool_default.free.dirty << PAGE_LG < size); /* the block's own pages became free after the turn */
    pool_default.decay.epoch = LONG_AGO;
    block = ALCOVE_PUBLIC(malloc)(100);
    assert_int_equal(pool_default.free.dirty, 0);
    ALCOVE_PUBLIC(free)(block);
}

static void
test_emptied_record_is_taken_again(void **unused)
{
    (void)unused;
    live_and_die(5);
    thread_purge();
    assert_int_equal(count(THREAD_EMPTY), 5);
    begin(5);
    assert_int_equal(count(THREAD_EMPTY), 0);
    assert_int_equal(count(THREAD_LIVE), 6);
    end(5);
}

static void
test_clock_that_went_back_holds_nothing_up(void **unused)
{
    (void)unused;
    uint64_t far = os_clock_ms() + ((uint64_t)1 << 40);
    live_and_die(MANY);
    atomic_store(&records.due, far);
    records.next_look = far;
    self->collected = far;
    thread_tick(self);
    assert_true(records.live < MANY + 1);
    assert_true(self->collected < far);
    records_find_all_ended();
    set_since(THREAD_RESTING, far);
    atomic_store(&records.due, far);
    unsigned before = count(THREAD_EMPTY);
    thread_tick(self);
    assert_true(count(THREAD_EMPTY) > before);
}

static void
test_clock_that_went_back_collects_what_was_not_used_only(void **unused)
{
    (void)unused;
    conf.dirty_decay_ms = 10000;
    struct cache_bin *b = &self->set.first.bins[bin_of_size(100)];
    cache_set_collect(&self->set, false);
    touch();
    self->collected = os_clock_ms() + ((uint64_t)1 << 40);
    thread_tick(self);
    assert_true(b->capacity != 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        record_test(test_threads_that_ended_together_are_found_in_a_few_turns),
        record_test(test_turn_that_is_late_finds_all_that_ended),
        record_test(test_search_goes_on_at_once_while_it_finds_and_rests_when_not),
        record_test(test_short_lives_among_many_long_ones_need_one_record),
        record_test(test_thread_whose_number_is_not_known_has_not_ended),
        record_test(test_heir_takes_the_record_that_rests_the_least),
        record_test(test_rested_records_are_emptied_oldest_first_a_few_a_turn),
        record_test(test_turn_that_is_late_empties_all_that_rested),
        record_test(test_thread_that_starts_gives_a_turn),
        record_test(test_thread_that_ends_gives_a_turn),
        record_test(test_bins_that_run_empty_give_a_turn),
        record_test(test_thread_without_a_record_gives_turns),
        record_test(test_emptied_record_is_taken_again),
        record_test(test_clock_that_went_back_holds_nothing_up),
        record_test(test_clock_that_went_back_collects_what_was_not_used_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
