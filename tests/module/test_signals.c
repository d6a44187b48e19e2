/*
 * Signals that interrupt the allocator: a handler that does not allocate may do as it likes, which
 * includes fork and exec.
 */
#include "module.h"

#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>

#include "tests/child.h"
#include "tests/work.h"

static atomic_uint handled, bad;
static atomic_bool stop;

/* Block by block through every size, so that the interrupted thread is often where locks are held. */
static void *
allocate_on(void *unused)
{
    (void)unused;
    enum { KEPT = 200 };
    unsigned char *kept[KEPT] = { 0 };
    unsigned seed = 1;
    while (!stop) {
        seed = seed * 1103515245 + 12345;
        unsigned at = (seed >> 8) % KEPT;
        size_t size = (seed >> 20) % 40 == 0 ? seed >> 13 & 0x3ffff : seed >> 20 & 2047;
        if (kept[at] != NULL && kept[at][0] != at)
            atomic_fetch_add(&bad, 1);
        table->free(kept[at]);
        kept[at] = table->malloc(size + 1);
        if (kept[at] == NULL)
            atomic_fetch_add(&bad, 1);
        else
            kept[at][0] = (unsigned char)at;
    }
    for (unsigned i = 0; i < KEPT; i++)
        table->free(kept[i]);
    return NULL;
}

/* Uses the stack and the vector registers, and changes errno back as it should. */
static void
count(int signal_number)
{
    int saved = errno;
    volatile double sums[64];
    for (int i = 0; i < 64; i++)
        sums[i] = signal_number * 0.5 + i;
    errno = sums[63] > 0 ? EINTR : 0;
    atomic_fetch_add(&handled, 1);
    errno = saved;
}

static void
fork_and_exec(int signal_number)
{
    (void)signal_number;
    int saved = errno, status = -1;
    pid_t child = fork();
    if (child == 0) {
        execl("/bin/true", "true", (char *)NULL);
        _exit(127);
    }
    if (child < 0 || waitpid(child, &status, 0) != child || status != 0)
        atomic_fetch_add(&bad, 1);
    atomic_fetch_add(&handled, 1);
    errno = saved;
}

/* In a child: threads allocate, and signals come, one when the last was handled, with a handler. */
static void
interrupt(unsigned threads, unsigned times, void (*handler)(int))
{
    pthread_t working[4];
    struct sigaction action = { .sa_handler = handler, .sa_flags = SA_RESTART };
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
    for (unsigned i = 0; i < threads; i++)
        CHECK(pthread_create(&working[i], NULL, allocate_on, NULL) == 0);
    for (unsigned i = 0; i < times; i++) {
        CHECK(pthread_kill(working[i % threads], SIGUSR1) == 0);
        while (handled == i)
            usleep(20);
    }
    stop = true;
    for (unsigned i = 0; i < threads; i++)
        pthread_join(working[i], NULL);
    CHECK(bad == 0);
    CHECK(allocator_works(table));
    struct alcove_info info = info_now();
    CHECK(info.live_blocks == 0);
}

static void
handler_counts(void)
{
    CHECK(group_open(NULL) == 0);
    interrupt(2, 5000, count);
    CHECK(dlclose(module) == 0);
}

static void
test_handler_that_does_not_allocate(void **unused)
{
    (void)unused;
    in_child(handler_counts);
}

static void
handler_forks(void)
{
    CHECK(group_open(NULL) == 0);
    interrupt(2, 150, fork_and_exec);
    CHECK(dlclose(module) == 0);
}

static void
test_handler_that_forks_and_execs(void **unused)
{
    (void)unused;
    in_child(handler_forks);
}

/* Without caches every call takes locks, and most signals come while one is held. */
static void
handler_forks_amid_locks(void)
{
    options_set("tcache:false");
    handler_forks();
}

static void
test_handler_that_forks_and_execs_amid_locks(void **unused)
{
    (void)unused;
    in_child(handler_forks_amid_locks);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_handler_that_does_not_allocate),
        cmocka_unit_test(test_handler_that_forks_and_execs),
        cmocka_unit_test(test_handler_that_forks_and_execs_amid_locks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
