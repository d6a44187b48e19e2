/* Locks across a fork: it is known whether the forking thread holds one, and all are dropped in the end that were taken. */
#include "unit.h"

#include <pthread.h>
#include <unistd.h>

#include "heap/heap.h"
#include "thread/ending.h"
#include "thread/records.h"

#if ALCOVE_DEBUG
extern __thread bool lock_forking;
#define set_forking(on) (lock_forking = (on))
#else
#define set_forking(on) ((void)0)
#endif

static struct heap *
heap_new(void)
{
    uint32_t index;
    assert_int_equal(heap_create(NULL, &index), 0);
    return heap_of(index);
}

static bool
has_held_insides(const struct heap *h)
{
    bool holds = lock_is_mine(&h->large_lock);
    for (unsigned bin = 1; bin <= SMALL_BINS; bin++)
        holds = holds || lock_is_mine(&h->bins[bin].lock);
    return holds;
}

static void
heaps_prepare(void)
{
    set_forking(true);
    heap_fork_prepare();
    heap_fork_prepare_insides();
}

/* Whoever lets the last hold of a heap go has no lock: others may still be inside, and wait for one. */
static void
test_locks_of_a_heap_that_is_done_amid_a_fork_are_dropped(void **unused)
{
    (void)unused;
    struct heap *stays = heap_new(), *ends = heap_new();
    assert_true(heap_hold(ends));
    assert_int_equal(heap_end(ends->index, &ends), 0);
    heaps_prepare();
    assert_true(has_held_insides(stays) && has_held_insides(ends));
    heap_let_go(ends);
    assert_null(heap_of(ends->index));
    heap_fork_done();
    set_forking(false);
    assert_false(has_held_insides(stays) || has_held_insides(ends));
    assert_false(heap_fork_holds());
    thread_forget_heaps();
    assert_int_equal(heap_count(), 1);
}

static void
test_child_has_the_locks_of_a_heap_that_was_done_amid_its_fork(void **unused)
{
    (void)unused;
    struct heap *ends = heap_new();
    assert_true(heap_hold(ends));
    assert_int_equal(heap_end(ends->index, &ends), 0);
    heaps_prepare();
    heap_let_go(ends);
    heap_fork_child();
    set_forking(false);
    assert_false(has_held_insides(ends) || heap_fork_holds());
    thread_forget_heaps();
    assert_int_equal(heap_count(), 0);
}

static struct heap *written_to;

static void *
set_limit_and_unseal(void *seal)
{
    assert_int_equal(ALCOVE_PUBLIC(heap_limit)(written_to->index, 1 << 20), 0);
    assert_int_equal(ALCOVE_PUBLIC(heap_unseal)(written_to->index, seal), 0);
    return NULL;
}

/* Whoever destroys or forgets it has the lock of the heaps. */
static void
test_heap_found_by_number_is_not_written_to_while_it_may_go(void **unused)
{
    (void)unused;
    pthread_t thread;
    uint32_t index, seal;
    assert_int_equal(heap_create(&(struct alcove_heap_options){ .seal = &seal }, &index), 0);
    written_to = heap_of(index);
    heaps_prepare();
    assert_int_equal(pthread_create(&thread, NULL, set_limit_and_unseal, &seal), 0);
    usleep(50000); /* enough for who does not wait */
    bool unwritten = written_to->limit == 0 && written_to->seal == &seal;
    heap_fork_done();
    set_forking(false);
    pthread_join(thread, NULL);
    assert_true(unwritten);
    assert_int_equal(written_to->limit, 1 << 20);
    assert_null(written_to->seal);
}

static void *
leave_record(void *unused)
{
    void *volatile block = ALCOVE_PUBLIC(malloc)(100);
    ALCOVE_PUBLIC(free)(block);
    return unused;
}

/* The record of a thread that is not the calling one. */
static struct thread *
other_record(void)
{
    pthread_t thread;
    struct thread *self = thread_get();
    assert_non_null(self);
    assert_int_equal(pthread_create(&thread, NULL, leave_record, NULL), 0);
    pthread_join(thread, NULL);
    struct record_head *head = records_first();
    return head->record != self ? head->record : head->next->record;
}

static void
test_holding_any_lock_of_threads_is_known(void **unused)
{
    (void)unused;
    struct thread *self = thread_get(), *other = other_record();
    struct heap *h = heap_new();
    assert_int_equal(heap_limit_set(h->index, 1 << 20), 0);
    struct cache *guarded = cache_set_get(&self->set, h);
    struct lock *locks[] = { &records.lock, &self->set.lock, &other->set.lock };
    for (unsigned i = 0; i < sizeof locks / sizeof *locks; i++) {
        lock_take(locks[i]);
        assert_true(thread_fork_holds());
        lock_drop(locks[i]);
        assert_false(thread_fork_holds());
    }
    cache_enter(guarded);
    assert_true(thread_fork_holds());
    cache_leave(guarded);
    assert_false(thread_fork_holds());
}

/* Its thread may be giving one up, and has the lock of its set: it is not ours to wait for, nor is what it is about to change to
 * be looked at. */
static void
test_caches_are_not_looked_at_to_know_what_locks_are_held(void **unused)
{
    (void)unused;
    struct thread *other = other_record();
    struct cache *made = other->set.made;
    other->set.made = (struct cache *)16;
    assert_false(thread_fork_holds());
    other->set.made = made;
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        fresh_test(test_locks_of_a_heap_that_is_done_amid_a_fork_are_dropped),
        fresh_test(test_heap_found_by_number_is_not_written_to_while_it_may_go),
        fresh_test(test_holding_any_lock_of_threads_is_known),
        fresh_test(test_caches_are_not_looked_at_to_know_what_locks_are_held),
        fresh_test(test_child_has_the_locks_of_a_heap_that_was_done_amid_its_fork),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
