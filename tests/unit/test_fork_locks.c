/* Locks across a fork: all are dropped in the end that were taken for it. */
#include "unit.h"

#include "heap/heap.h"
#include "thread/ending.h"

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
    assert_ptr_equal(heap_end(ends->index), ends);
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
    assert_ptr_equal(heap_end(ends->index), ends);
    heaps_prepare();
    heap_let_go(ends);
    heap_fork_child();
    set_forking(false);
    assert_false(has_held_insides(ends) || heap_fork_holds());
    thread_forget_heaps();
    assert_int_equal(heap_count(), 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        fresh_test(test_locks_of_a_heap_that_is_done_amid_a_fork_are_dropped),
        fresh_test(test_child_has_the_locks_of_a_heap_that_was_done_amid_its_fork),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
