/*
 * A fork amid locks. A signal handler may fork while the allocator holds any of its locks, if the child only execs. Here it
 * need not be waited for: the allocator calls this program's functions for the system's, and these fork first. So a fork comes
 * at every place where the allocator asks the system for something, under whatever locks it holds there, within other forks too.
 */
#include "module.h"

#include <pthread.h>

#include "heaps.h"
#include "system_calls.h"
#include "tests/child.h"
#include "tests/work.h"

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)

static bool forking; /* at calls of the system's */
static unsigned forks;

static void
amid_system_call(void)
{
    int saved = errno, status;
    if (!forking)
        return;
    forking = false;
    forks++;
    pid_t child = fork();
    if (child == 0)
        _exit(0);
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    forking = true;
    errno = saved;
}

/* So many that memory for records is asked for when heaps are made, and when their caches are, which takes no other lock. */
static void
ask_for_records(void)
{
    enum { HEAPS = 200 };
    uint32_t heaps[HEAPS];
    for (unsigned i = 0; i < HEAPS; i++)
        CHECK(table->heap_create(NULL, &heaps[i]) == 0);
    for (unsigned i = 0; i < HEAPS; i++)
        CHECK(table->heap_malloc(heaps[i], 1) != NULL);
    for (unsigned i = 0; i < HEAPS; i++)
        CHECK(table->heap_destroy(heaps[i]) == 0);
}

/* Everything for which the system is called, under every kind of lock: records of threads, heaps and caches, slabs and the
 * pages of slabs at a limit, blocks that grow and move, caches and pages that are given back. */
static void
ask_for_all_kinds(void)
{
    enum { MANY = 3000 };
    static void *blocks[MANY];
    unsigned n = 0;
    uint32_t heap = ALCOVE_HEAP_NONE;
    ask_for_records();
    CHECK(table->heap_create(&(struct alcove_heap_options){ .limit = MIB }, &heap) == 0);
    while (n < MANY && (blocks[n] = table->heap_malloc(heap, 1 * KIB)) != NULL)
        n++;
    for (unsigned i = 0; i < n; i++)
        if (i % 256 != 0)
            table->free(blocks[i]);
    void *large = table->heap_malloc(heap, 400 * KIB);
    CHECK(large != NULL);
    table->free(large);
    CHECK(table->heap_destroy(heap) == 0);
    void *behind = NULL, *huge = table->malloc(3 * MIB);
    for (size_t size = 3 * MIB; size < 100 * MIB; size *= 3) {
        CHECK((huge = table->realloc(huge, size)) != NULL);
        table->free(behind);
        behind = table->malloc(5 * MIB);
    }
    table->free(table->realloc(huge, 4 * MIB));
    table->free(behind);
    table->purge();
}

static void *
ask_in_thread(void *unused)
{
    forking = true;
    ask_for_all_kinds();
    forking = false;
    return unused;
}

static void *
work(void *unused)
{
    CHECK(allocator_works(table));
    return unused;
}

static void
work_in_thread(void)
{
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, work, NULL) == 0);
    pthread_join(thread, NULL);
}

/* No lock is left behind: after a fork, the child and other threads have them all. */
static void
fork_and_work(void)
{
    int status;
    pid_t child = fork();
    if (child == 0) {
        CHECK(info_now().threads == 1);
        CHECK(allocator_works(table));
        if (!emulated())
            work_in_thread();
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    work_in_thread();
    CHECK(allocator_works(table));
}

static pthread_barrier_t barrier;

/* Has a record of the allocator's, and rests. */
static void *
use_and_rest(void *unused)
{
    table->free(table->malloc(100));
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    return unused;
}

static pthread_t resting;

static void
rest_begins(void)
{
    pthread_barrier_init(&barrier, NULL, 2);
    CHECK(pthread_create(&resting, NULL, use_and_rest, NULL) == 0);
    pthread_barrier_wait(&barrier);
}

static void
rest_ends(void)
{
    pthread_barrier_wait(&barrier);
    pthread_join(resting, NULL);
}

static void
fork_at_every_call(void)
{
    pthread_t thread;
    forking = true;
    CHECK(group_open(NULL) == 0);
    table->free(table->malloc(1));
    forking = false;
    rest_begins();
    ask_in_thread(NULL);
    CHECK(pthread_create(&thread, NULL, ask_in_thread, NULL) == 0);
    pthread_join(thread, NULL);
    CHECK(forks > 50);
    fork_and_work();
    fork_and_work();
    rest_ends();
}

static void
test_fork_at_every_call_of_the_systems(void **unused)
{
    (void)unused;
    SKIP_FORK_OF_THREADS_IF_EMULATED();
    in_child(fork_at_every_call);
}

/* Fork handlers that were there before the allocator: its own has taken all locks when they run. */
static bool asking;

static void
ask_within(void)
{
    if (!asking)
        return;
    asking = false; /* not within the forks that come of it */
    ask_in_thread(NULL);
    asking = true;
}

static void
fork_within_forks(void)
{
    CHECK(pthread_atfork(ask_within, ask_within, ask_within) == 0);
    CHECK(group_open(NULL) == 0);
    rest_begins();
    for (int i = 0; i < 3; i++) {
        unsigned before = forks;
        asking = true;
        fork_and_work();
        asking = false;
        CHECK(forks > before + 50);
        fork_and_work();
    }
    rest_ends();
}

static void
test_fork_within_fork_handlers(void **unused)
{
    (void)unused;
#ifndef __GLIBC__
    SKIP_BECAUSE("musl holds a lock of its own while fork handlers run, which a fork in one of them waits for");
#endif
    SKIP_FORK_OF_THREADS_IF_EMULATED();
    in_child(fork_within_forks);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fork_at_every_call_of_the_systems),
        cmocka_unit_test(test_fork_within_fork_handlers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
