/*
 * Forks while threads are in the middle of everything. The child's own threads take over what the
 * parent's threads left, and no block may be handed out twice.
 */
#include "stress.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#define BUSY 3
#define CHILD_THREADS 6
#define CHILD_SECONDS 60

static atomic_bool stop;

/* Fills caches and empties them, by the hundred, so that much of the time is spent in the slow paths. */
static void *
be_busy(void *number)
{
    enum { MANY = 3000 };
    void **blocks = malloc(MANY * sizeof *blocks);
    struct dice d = { (uintptr_t)number + 1 };
    while (!stop) {
        size_t size = 16 + roll(&d, 300);
        for (unsigned i = 0; i < MANY; i++)
            blocks[i] = table->malloc(size);
        for (unsigned i = 0; i < MANY; i++)
            table->free(blocks[i]);
        if (roll(&d, 10) == 0)
            table->purge();
    }
    free(blocks);
    return NULL;
}

/* Takes over a record, and empties its caches of all small sizes. */
static void *
take_all(void *number)
{
    enum { SIZES = 20, EACH = 300 };
    static void *blocks[CHILD_THREADS][SIZES][EACH];
    uintptr_t me = (uintptr_t)number;
    for (unsigned s = 0; s < SIZES; s++)
        for (unsigned i = 0; i < EACH; i++) {
            blocks[me][s][i] = table->malloc((s + 1) * 16);
            if (blocks[me][s][i] == NULL)
                return FAILED;
            mark_write(blocks[me][s][i], (s + 1) * 16, me << 32 | s << 16 | i);
        }
    for (unsigned s = 0; s < SIZES; s++)
        for (unsigned i = 0; i < EACH; i++)
            if (!mark_holds(blocks[me][s][i], (s + 1) * 16, me << 32 | s << 16 | i))
                return FAILED;
    for (unsigned s = 0; s < SIZES; s++)
        for (unsigned i = 0; i < EACH; i++)
            table->free(blocks[me][s][i]);
    return NULL;
}

static void
child(void)
{
    pthread_t threads[CHILD_THREADS];
    int code = 0;
    signal(SIGSEGV, SIG_DFL);
    signal(SIGABRT, SIG_DFL);
    alarm(CHILD_SECONDS);
    for (unsigned i = 0; i < CHILD_THREADS; i++)
        if (pthread_create(&threads[i], NULL, take_all, (void *)(uintptr_t)i) != 0)
            _exit(3);
    for (unsigned i = 0; i < CHILD_THREADS; i++) {
        void *result;
        pthread_join(threads[i], &result);
        if (result != NULL)
            code = 1;
    }
    table->purge();
    if (message_count != 0)
        code |= 2;
    _exit(code);
}

static void
test_no_block_is_handed_out_twice_in_a_child(void **unused)
{
    (void)unused;
#ifdef UNDER_SANITIZER
    skip(); /* their own locks do not survive a fork of many threads */
#endif
    SKIP_FORK_OF_THREADS_IF_EMULATED();
    pthread_t busy[BUSY];
    stop = false;
    for (unsigned i = 0; i < BUSY; i++)
        assert_int_equal(pthread_create(&busy[i], NULL, be_busy, (void *)(uintptr_t)i), 0);
    int bad = 0, last = 0;
    for (unsigned i = 0; i < rounds * 60; i++) {
        int status;
        pid_t pid = fork();
        if (pid == 0)
            child();
        assert_int_equal(waitpid(pid, &status, 0), pid);
        if (status != 0) {
            bad++;
            last = status;
        }
    }
    stop = true;
    for (unsigned i = 0; i < BUSY; i++)
        pthread_join(busy[i], NULL);
    if (bad != 0)
        fail_msg("%d of %u children failed, the last with wait status %#x", bad, rounds * 60, (unsigned)last);
    assert_int_equal(message_count, 0);
}

int
main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_block_is_handed_out_twice_in_a_child),
    };
    rounds_read(argc, argv);
    ALCOVE_PUBLIC(malloc_message) = messages_count;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
