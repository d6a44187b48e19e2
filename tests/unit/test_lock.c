/* The lock: one thread at a time, nobody left asleep, and in a debug build the order. */
#include "unit.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ground/lock.h"

#define THREADS 8
#define ROUNDS 20000

static struct lock lock = LOCK_INITIAL(LOCK_BASE);
static uint64_t counter; /* guarded by the lock */

static void
test_try_fails_while_it_is_held(void **unused)
{
    (void)unused;
    assert_true(lock_try(&lock));
    assert_false(lock_try(&lock));
    lock_drop(&lock);
    assert_true(lock_try(&lock));
    lock_drop(&lock);
}

static void
test_drop_frees_it(void **unused)
{
    (void)unused;
    lock_take(&lock);
    lock_drop(&lock);
    assert_int_equal(atomic_load(&lock.state), 0);
}

static void *
count(void *unused)
{
    (void)unused;
    for (int i = 0; i < ROUNDS; i++) {
        lock_take(&lock);
        counter++;
        lock_drop(&lock);
    }
    return NULL;
}

static void
test_threads_take_turns(void **unused)
{
    (void)unused;
    pthread_t threads[THREADS];
    counter = 0;
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, count, NULL), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(counter, THREADS * ROUNDS);
    assert_int_equal(atomic_load(&lock.state), 0);
}

static void *
count_slowly(void *unused)
{
    (void)unused;
    for (int i = 0; i < 20; i++) {
        lock_take(&lock);
        uint64_t seen = counter;
        usleep(100); /* the others must sleep in the kernel */
        counter = seen + 1;
        lock_drop(&lock);
    }
    return NULL;
}

static void
test_sleepers_are_all_woken(void **unused)
{
    (void)unused;
    pthread_t threads[THREADS];
    counter = 0;
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, count_slowly, NULL), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(counter, THREADS * 20);
}

static void *
try_and_count(void *unused)
{
    (void)unused;
    for (int i = 0; i < ROUNDS; i++) {
        while (!lock_try(&lock))
            sched_yield();
        counter++;
        lock_drop(&lock);
    }
    return NULL;
}

static void
test_try_and_take_exclude_each_other(void **unused)
{
    (void)unused;
    pthread_t threads[4];
    counter = 0;
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, i % 2 ? count : try_and_count, NULL), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(counter, 4 * ROUNDS);
}

static void
test_init_frees_a_held_lock(void **unused)
{
    (void)unused;
    struct lock l;
    lock_init(&l, LOCK_BASE);
    assert_int_equal(atomic_load(&l.state), 0);
    atomic_store(&l.state, 2); /* as fork's child finds it */
    lock_init(&l, LOCK_BASE);
    assert_int_equal(atomic_load(&l.state), 0);
    assert_int_equal(l.rank, LOCK_BASE);
}

#if ALCOVE_DEBUG
static uint64_t
takes(void)
{
    return atomic_load(&ALCOVE_PUBLIC(lock_counts).takes);
}

static uint64_t
waits(void)
{
    return atomic_load(&ALCOVE_PUBLIC(lock_counts).waits);
}

static void
test_takes_are_counted_in_a_debug_build(void **unused)
{
    (void)unused;
    uint64_t before = takes(), waits_before = waits();
    lock_take(&lock);
    assert_false(lock_try(&lock));
    lock_drop(&lock);
    assert_true(lock_try(&lock));
    lock_drop(&lock);
    assert_int_equal(takes() - before, 2);
    assert_int_equal(waits() - waits_before, 0);
}

static void *
take_once(void *unused)
{
    (void)unused;
    lock_take(&lock);
    lock_drop(&lock);
    return NULL;
}

static void
test_waits_are_counted_in_a_debug_build(void **unused)
{
    (void)unused;
    pthread_t thread;
    uint64_t before = waits();
    lock_take(&lock);
    assert_int_equal(pthread_create(&thread, NULL, take_once, NULL), 0);
    while (waits() == before)
        sched_yield();
    lock_drop(&lock);
    pthread_join(thread, NULL);
    assert_int_equal(waits() - before, 1);
}

static void
test_wrong_order_aborts_in_a_debug_build(void **unused)
{
    (void)unused;
    pid_t child = fork();
    if (child == 0) {
        static struct lock first = LOCK_INITIAL(LOCK_POOL), second = LOCK_INITIAL(LOCK_HEAPS);
        signal(SIGABRT, SIG_DFL);
        lock_take(&first);
        lock_take(&second);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGABRT);
}
#endif

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_try_fails_while_it_is_held),
        cmocka_unit_test(test_drop_frees_it),
        cmocka_unit_test(test_threads_take_turns),
        cmocka_unit_test(test_sleepers_are_all_woken),
        cmocka_unit_test(test_try_and_take_exclude_each_other),
        cmocka_unit_test(test_init_frees_a_held_lock),
#if ALCOVE_DEBUG
        cmocka_unit_test(test_takes_are_counted_in_a_debug_build),
        cmocka_unit_test(test_waits_are_counted_in_a_debug_build),
        fresh_test(test_wrong_order_aborts_in_a_debug_build),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
