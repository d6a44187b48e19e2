/*
 * Other ways to a process than fork and going on: vfork and posix_spawn, and daemons, which fork twice. Threads
 * start them, all at once, while others allocate.
 */
#include "module.h"

#include <pthread.h>
#include <spawn.h>
#include <sys/wait.h>

#include "tests/child.h"
#include "tests/work.h"

#define STARTERS 3
#define TIMES 15

extern char **environ;

static atomic_bool stop;
static atomic_uint bad;

static void *
allocate_on(void *unused)
{
    (void)unused;
    while (!stop)
        if (!allocator_works(table))
            atomic_fetch_add(&bad, 1);
    return NULL;
}

static char *const arguments[] = { "sh", "-c", "exit 7", NULL };

static bool
ends_with_seven(pid_t child)
{
    int status;
    return child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 7;
}

/* The child runs in the parent's memory until it execs; the parent's thread waits. */
static bool
vfork_and_exec(void)
{
    pid_t child = vfork();
    if (child == 0) {
        execv("/bin/sh", arguments);
        _exit(127);
    }
    return ends_with_seven(child);
}

static bool
spawn(void)
{
    pid_t child = -1;
    return posix_spawn(&child, "/bin/sh", NULL, NULL, arguments, environ) == 0 && ends_with_seven(child);
}

/* The grandchild allocates, has threads, and tells through a pipe that all was well. */
static void
be_a_daemon(int out)
{
    pthread_t thread;
    void *result = NULL;
    char well = allocator_works(table) &&
                pthread_create(&thread, NULL, allocator_works_in_thread, (void *)(uintptr_t)table) == 0 &&
                pthread_join(thread, &result) == 0 && result != NULL;
    table->purge();
    if (write(out, &well, 1) != 1)
        _exit(1);
    _exit(0);
}

static bool
start_daemon(void)
{
    int ends[2], status;
    char well = 0;
    if (pipe2(ends, O_CLOEXEC) != 0)
        return false;
    pid_t child = fork();
    if (child == 0) {
        signal(SIGSEGV, SIG_DFL);
        setsid();
        pid_t grandchild = allocator_works(table) ? fork() : -1;
        if (grandchild == 0) {
            alarm(CHILD_SECONDS);
            be_a_daemon(ends[1]);
        }
        _exit(grandchild < 0);
    }
    close(ends[1]);
    bool started = child > 0 && waitpid(child, &status, 0) == child && status == 0;
    bool told = read(ends[0], &well, 1) == 1; /* 0 bytes: it ended without a word */
    close(ends[0]);
    return started && told && well;
}

static bool (*start)(void);

static void *
start_often(void *unused)
{
    (void)unused;
    for (int i = 0; i < TIMES; i++) {
        void *block = table->malloc(1000);
        if (!start())
            atomic_fetch_add(&bad, 1);
        table->free(block);
    }
    return NULL;
}

static void
start_from_threads(bool (*way)(void))
{
    pthread_t starters[STARTERS], allocating[2];
    start = way;
    stop = false;
    bad = 0;
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&allocating[i], NULL, allocate_on, NULL), 0);
    for (int i = 0; i < STARTERS; i++)
        assert_int_equal(pthread_create(&starters[i], NULL, start_often, NULL), 0);
    for (int i = 0; i < STARTERS; i++)
        pthread_join(starters[i], NULL);
    stop = true;
    for (int i = 0; i < 2; i++)
        pthread_join(allocating[i], NULL);
    assert_int_equal(bad, 0);
    assert_true(allocator_works(table));
    assert_int_equal(info_now().live_blocks, 0);
}

static void
test_vfork_and_exec_while_threads_allocate(void **unused)
{
    (void)unused;
    start_from_threads(vfork_and_exec);
}

static void
test_posix_spawn_while_threads_allocate(void **unused)
{
    (void)unused;
    start_from_threads(spawn);
}

static void
test_daemons_while_threads_allocate(void **unused)
{
    (void)unused;
    SKIP_FORK_OF_THREADS_IF_EMULATED();
    start_from_threads(start_daemon);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vfork_and_exec_while_threads_allocate),
        cmocka_unit_test(test_posix_spawn_while_threads_allocate),
        cmocka_unit_test(test_daemons_while_threads_allocate),
    };
    return cmocka_run_group_tests(tests, group_open, NULL);
}
