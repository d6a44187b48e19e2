/* Thread records: taken over, found when their threads have ended, emptied when nobody takes them over. */
#include "unit.h"

#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>

#include "api/internal.h"
#include "os/os.h"
#include "pages/base.h"
#include "tests/child.h"
#include "thread/ending.h"
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
    for (const struct record_head *head = records.lists[state].newest; head != NULL; head = head->older)
        n++;
    return n;
}

static void
set_since(enum thread_state state, uint64_t since)
{
    for (struct record_head *head = records.lists[state].newest; head != NULL; head = head->older)
        head->since = since;
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
    assert_int_equal(count(THREAD_RESTING) + count(THREAD_BARE), MANY);
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
    for (const struct record_head *head = records.all; head != NULL; head = head->next)
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
    const struct record_head *newest = records.lists[THREAD_RESTING].newest, *oldest = records.lists[THREAD_RESTING].oldest;
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
    const struct record_head *oldest = records.lists[THREAD_RESTING].oldest, *newest = records.lists[THREAD_RESTING].newest;
    set_since(THREAD_RESTING, LONG_AGO);
    turn();
    unsigned some = count(THREAD_BARE);
    assert_in_range(some, 1, 10);
    assert_ptr_equal(records.lists[THREAD_BARE].oldest, oldest);
    assert_ptr_equal(records.lists[THREAD_RESTING].newest, newest);
    while (count(THREAD_RESTING) != 0) {
        assert_true(atomic_load(&records.due) <= os_clock_ms()); /* again, though it was not made so */
        thread_tick(self);
    }
    assert_int_equal(count(THREAD_BARE), 20);
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
    assert_int_equal(count(THREAD_BARE), MANY);
}

static void
test_thread_that_starts_gives_a_turn(void **unused)
{
    (void)unused;
    leave_rested(20);
    make_late();
    one_after_another(20, 21);
    assert_int_equal(count(THREAD_BARE), 19); /* one was taken over */
}

static void
test_thread_that_ends_gives_a_turn(void **unused)
{
    (void)unused;
    leave_rested(20);
    make_late();
    ALCOVE_PUBLIC(table).thread_exit();
    assert_int_equal(count(THREAD_BARE), 20);
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
    assert_int_equal(count(THREAD_BARE), 20);
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

/* What an emptied record leaves, when its threads have used three heaps: the default one, one more, and one with a limit. */
#define HEAPS 3
#define OF_EACH 5 /* blocks that a thread takes of a heap and frees */

static uint32_t heaps[HEAPS];

static int
start_with_heaps(void **unused)
{
    const struct alcove_heap_options limited = { .limit = 16 << 20 };
    if (start(unused) != 0)
        return -1;
    heaps[0] = ALCOVE_HEAP_DEFAULT;
    return heap_create(NULL, &heaps[1]) != 0 || heap_create(&limited, &heaps[2]) != 0 ? -1 : 0;
}

#define heaps_test(function) cmocka_unit_test_setup(function, start_with_heaps)

static void *
use_heaps(void *id)
{
    void *blocks[OF_EACH];
    for (int i = 0; i < HEAPS; i++) {
        for (int j = 0; j < OF_EACH; j++)
            blocks[j] = entry_malloc(100, heaps[i]);
        for (int j = 0; j < OF_EACH; j++)
            entry_free(blocks[j], ALCOVE_HEAP_NONE);
    }
    *(_Atomic int *)id = os_thread_id();
    pthread_barrier_wait(&all);
    return NULL;
}

static void
heaps_are_used_by(int n)
{
    pthread_barrier_init(&all, NULL, (unsigned)n);
    for (int i = 0; i < n; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, use_heaps, (void *)&ids[i]), 0);
    for (int i = 0; i < n; i++)
        join(i);
    pthread_barrier_destroy(&all);
}

static bool
reads_as_zero(const void *memory, size_t size)
{
    const char *p = memory;
    return p[0] == 0 && memcmp(p, p + 1, size - 1) == 0;
}

static bool
is_resident(void *memory, size_t size)
{
    unsigned char pages[THREAD_RECORD_BYTES / 4096] = { 0 };
    size_t page = (size_t)sysconf(_SC_PAGESIZE), resident = 0;
    if (mincore(memory, size, pages) == 0)
        for (size_t i = 0; i < (size + page - 1) / page; i++)
            resident += pages[i] & 1;
    return resident != 0;
}

static bool
record_is_purged(const struct record_head *head)
{
    return reads_as_zero(head->record, THREAD_RECORD_BYTES) &&
           (head->guarded == NULL || reads_as_zero(head->guarded, CACHE_SET_TABLE_BYTES));
}

static uint64_t
allocated(uint32_t heap)
{
    struct alcove_heap_stats s;
    assert_int_equal(ALCOVE_PUBLIC(table).heap_stats(heap, &s), 0);
    return s.total_allocs;
}

static void
test_emptied_record_reads_as_zero(void **unused)
{
    (void)unused;
    heaps_are_used_by(MANY / 10);
    records_find_all_ended();
    turn(); /* they have not rested for long */
    assert_int_equal(count(THREAD_RESTING), MANY / 10);
    assert_false(record_is_purged(records.lists[THREAD_RESTING].oldest));
    set_since(THREAD_RESTING, LONG_AGO);
    make_late();
    thread_tick(self);
    assert_int_equal(count(THREAD_BARE), MANY / 10);
    for (const struct record_head *head = records.lists[THREAD_BARE].newest; head != NULL; head = head->older) {
        assert_int_equal((uintptr_t)head->record & PAGE_MASK, 0);
        assert_non_null(head->guarded);
        assert_false(is_resident(head->record, THREAD_RECORD_BYTES));
        assert_false(is_resident(head->guarded, CACHE_SET_TABLE_BYTES));
        assert_true(record_is_purged(head));
    }
    for (int i = 1; i < HEAPS; i++) {
        assert_int_equal(atomic_load(&heap_of(heaps[i])->holds), 1);
        assert_int_equal(atomic_load(&heap_of(heaps[i])->caches), 0);
    }
    assert_int_equal(atomic_load(&heap_default()->caches), 1);
}

static void
test_figures_stay_when_records_are_emptied_and_taken_again(void **unused)
{
    (void)unused;
    enum { N = 10 };
    uint64_t first = allocated(ALCOVE_HEAP_DEFAULT);
    size_t taken = 0;
    for (unsigned round = 1; round <= 3; round++) {
        heaps_are_used_by(N);
        for (int emptied = 0; emptied < 2; emptied++) {
            for (int i = 0; i < HEAPS; i++)
                assert_int_equal(allocated(heaps[i]) - (i == 0 ? first : 0), round * N * OF_EACH);
            thread_purge();
        }
        assert_int_equal(count(THREAD_BARE), N);
        if (round == 1)
            taken = base_bytes();
    }
    assert_int_equal(base_bytes(), taken); /* with the tables of their guarded caches */
    assert_int_equal(message_count, 0);
}

/* Who reads figures counts what a cache has counted, or what its heap took over from it: never both, nor neither. */
static void
test_caches_stay_while_somebody_looks(void **unused)
{
    (void)unused;
    for (int i = 0; i < HEAPS; i++) {
        heaps_are_used_by(1);
        struct heap *h = figures_hold(heaps[i]);
        struct thread_sums before, after;
        thread_sum(heaps[i], &before);
        thread_purge();
        thread_sum(heaps[i], &after);
        figures_let_go(h);
        assert_int_equal(count(THREAD_EMPTY), 1);
        assert_memory_equal(before.allocations, after.allocations, sizeof after.allocations);
        assert_int_equal(after.cached[bin_of_size(100)], 0);
        uint64_t total = allocated(heaps[i]);
        heaps_are_used_by(1); /* whichever caches are left, it can be used as it is */
        assert_int_equal(count(THREAD_EMPTY) + count(THREAD_BARE), 0);
        assert_int_equal(allocated(heaps[i]), total + OF_EACH);
        thread_purge();
        assert_int_equal(count(THREAD_BARE), 1);
    }
}

static void
test_record_that_somebody_looked_at_is_stripped_in_a_later_turn(void **unused)
{
    (void)unused;
    heaps_are_used_by(MANY / 10);
    struct heap *h = figures_hold(heaps[1]);
    thread_purge();
    figures_let_go(h);
    assert_int_equal(count(THREAD_EMPTY), MANY / 10);
    while (count(THREAD_EMPTY) != 0) {
        unsigned before = count(THREAD_EMPTY);
        turn();
        assert_in_range(count(THREAD_EMPTY), 0, before - 1);
    }
    assert_true(record_is_purged(records.lists[THREAD_BARE].newest));
}

static void *
strip_the_empty_one(void *unused)
{
    (void)unused;
    lock_take(&records.lock);
    bool stripped = record_strip(records.lists[THREAD_EMPTY].oldest);
    lock_drop(&records.lock);
    return stripped ? NULL : &records;
}

/* One that others may enter is held up between that it is found no more and that its heap has counted. */
static void
test_sum_is_not_steady_while_caches_are_retired(void **unused)
{
    (void)unused;
    struct thread_sums sums;
    pthread_t other;
    void *failed;
    heaps_are_used_by(1);
    struct heap *h = figures_hold(heaps[2]);
    thread_purge();
    figures_let_go(h);
    const struct cache_set *set = &records.lists[THREAD_EMPTY].oldest->record->set;
    struct cache *c = cache_set_find(set, heaps[2]);
    assert_true(thread_sum(heaps[2], &sums));
    struct lock *guard = c->guard;
    lock_take(guard);
    assert_int_equal(pthread_create(&other, NULL, strip_the_empty_one, NULL), 0);
    while (cache_set_find(set, heaps[2]) != NULL)
        sched_yield();
    bool steady = thread_sum(heaps[2], &sums);
    lock_drop(guard);
    pthread_join(other, &failed);
    assert_null(failed);
    assert_false(steady);
    assert_true(thread_sum(heaps[2], &sums));
    assert_int_equal(allocated(heaps[2]), OF_EACH);
}

static void *
empty_guarded_caches(void *heap)
{
    thread_empty_caches(heap);
    return NULL;
}

static void
test_record_stays_while_others_empty_its_cache(void **unused)
{
    (void)unused;
    pthread_t other;
    heaps_are_used_by(1);
    records_find_all_ended();
    struct heap *h = heap_of(heaps[2]);
    const struct cache *c = cache_set_find(&records.lists[THREAD_RESTING].oldest->record->set, heaps[2]);
    assert_true(c->held != 0);
    struct lock *lock = &records.lists[THREAD_RESTING].oldest->record->set.lock;
    lock_take(lock);
    assert_int_equal(pthread_create(&other, NULL, empty_guarded_caches, h), 0);
    while ((atomic_load(&lock->state) & LOCK_WAITED) == 0)
        sched_yield();
    uint32_t emptiers = atomic_load(&h->emptiers);
    lock_drop(lock);
    pthread_join(other, NULL);
    assert_int_equal(emptiers, 1);
    assert_int_equal(atomic_load(&h->emptiers), 0);
    assert_int_equal(c->held, 0);
}

/* What a look found cached just when it was given back is not missing from what is live for ever. */
static void
test_what_a_cache_was_thought_to_hold_is_live_no_less_when_it_goes(void **unused)
{
    (void)unused;
    heaps_are_used_by(1);
    thread_purge(); /* all but what `self` holds is given back */
    struct heap *h = heap_of(heaps[1]);
    assert_int_equal(atomic_load(&h->live), 0);
    heaps_are_used_by(1);
    records_find_all_ended();
    struct cache_set *set = &records.lists[THREAD_RESTING].newest->record->set;
    cache_set_collect(set, true);
    unsigned bin = bin_of_size(100);
    atomic_store(&cache_set_find(set, heaps[1])->known[bin], 3);
    heap_count_live(h, -3 * (int64_t)bin_size(bin));
    thread_purge();
    assert_int_equal(atomic_load(&h->live), 0);
}

static void
test_heaps_go_while_records_are_bare(void **unused)
{
    (void)unused;
    heaps_are_used_by(5);
    thread_purge();
    assert_int_equal(ALCOVE_PUBLIC(heap_destroy)(heaps[1]), 0);
    assert_int_equal(thread_end_heap(heaps[2]), 0);
    assert_null(heap_of(heaps[2]));
    for (const struct record_head *head = records.lists[THREAD_BARE].newest; head != NULL; head = head->older)
        assert_true(record_is_purged(head)); /* nobody took a lock there */
    assert_int_equal(heap_create(NULL, &heaps[1]), 0);
    assert_int_equal(heap_create(NULL, &heaps[2]), 0);
    heaps_are_used_by(5);
    for (int i = 1; i < HEAPS; i++)
        assert_int_equal(allocated(heaps[i]), 5 * OF_EACH);
}

/* An empty record that could not be stripped keeps an ending heap no longer than one that rests. */
static void
test_ending_heap_is_left_by_an_empty_record(void **unused)
{
    (void)unused;
    heaps_are_used_by(1);
    struct heap *h = figures_hold(heaps[1]);
    thread_purge();
    figures_let_go(h);
    assert_int_equal(count(THREAD_EMPTY), 1);
    assert_int_equal(thread_end_heap(heaps[1]), 0);
    assert_null(heap_of(heaps[1]));
}

/* The system drops no page that is locked. */
static void
test_record_that_cannot_be_purged_is_taken_again_as_well(void **unused)
{
    (void)unused;
    heaps_are_used_by(1);
    records_find_all_ended();
    struct record_head *head = records.lists[THREAD_RESTING].oldest;
    if (mlock(head->record, THREAD_RECORD_BYTES) != 0)
        skip();
    for (unsigned n = 1; n <= 3; n++) {
        thread_purge();
        assert_int_equal(count(THREAD_BARE), 1);
        for (int i = 1; i < HEAPS; i++)
            assert_int_equal(allocated(heaps[i]), n * OF_EACH);
        if (n == 1 && record_is_purged(head)) /* an emulator may do it */
            skip();
        heaps_are_used_by(1);
        assert_int_equal(count(THREAD_BARE), 0);
        assert_ptr_equal(cache_set_find(&head->record->set, ALCOVE_HEAP_DEFAULT), &head->record->set.first);
    }
    assert_int_equal(message_count, 0);
}

static void
use_bare_records_in_a_child(void)
{
    heaps_are_used_by(7);
    CHECK(count(THREAD_BARE) == 0);
    thread_purge();
    CHECK(count(THREAD_BARE) == 7);
    CHECK(allocated(heaps[1]) == 12 * OF_EACH);
}

static void
test_child_has_bare_records_too(void **unused)
{
    (void)unused;
    heaps_are_used_by(5);
    thread_purge();
    in_child(use_bare_records_in_a_child);
    heaps_are_used_by(5);
    assert_int_equal(allocated(heaps[1]), 10 * OF_EACH);
    assert_int_equal(count(THREAD_BARE), 0);
}

static void
test_emptied_record_is_taken_again(void **unused)
{
    (void)unused;
    live_and_die(5);
    thread_purge();
    assert_int_equal(count(THREAD_BARE), 5);
    begin(5);
    assert_int_equal(count(THREAD_BARE), 0);
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
    unsigned before = count(THREAD_BARE);
    thread_tick(self);
    assert_true(count(THREAD_BARE) > before);
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
        heaps_test(test_emptied_record_reads_as_zero),
        heaps_test(test_figures_stay_when_records_are_emptied_and_taken_again),
        heaps_test(test_caches_stay_while_somebody_looks),
        heaps_test(test_record_that_somebody_looked_at_is_stripped_in_a_later_turn),
        heaps_test(test_sum_is_not_steady_while_caches_are_retired),
        heaps_test(test_record_stays_while_others_empty_its_cache),
        heaps_test(test_what_a_cache_was_thought_to_hold_is_live_no_less_when_it_goes),
        heaps_test(test_heaps_go_while_records_are_bare),
        heaps_test(test_ending_heap_is_left_by_an_empty_record),
        heaps_test(test_record_that_cannot_be_purged_is_taken_again_as_well),
        heaps_test(test_child_has_bare_records_too),
        record_test(test_emptied_record_is_taken_again),
        record_test(test_clock_that_went_back_holds_nothing_up),
        record_test(test_clock_that_went_back_collects_what_was_not_used_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
