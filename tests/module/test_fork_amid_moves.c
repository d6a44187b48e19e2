/*
 * A fork while another thread takes, resizes or gives blocks back. The child has every page either in its heap, charged and counted,
 * or in the pool. The allocator calls this program's functions for the system's, where a thread can be held up: at every call in turn
 * another thread forks.
 */
#include "module.h"

#include <pthread.h>
#include <semaphore.h>
#include <time.h>

#include "heaps.h"
#include "system_calls.h"
#include "tests/child.h"

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)
#define WAIT_MS 10 /* a fork that does not wait for the other thread is done by then */

static _Thread_local bool moving;
static unsigned calls, fork_at; /* of the moving thread's; 0: never */
static sem_t amid_call, forked;

/* What the thread that moves blocks knows. */
enum { KEPT = 12 };
static uint32_t heap, dropped;
static void *volatile kept[KEPT];
static uint64_t mapped_before;
static uint32_t heaps_before;

static void
amid_system_call(void)
{
    int saved = errno;
    if (!moving || ++calls != fork_at)
        return;
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += WAIT_MS * 1000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    sem_post(&amid_call);
    sem_timedwait(&forked, &until); /* it may have to wait for this thread */
    errno = saved;
}

static void
take(unsigned i, size_t size)
{
    kept[i] = table->heap_malloc(heap, size);
    CHECK(kept[i] != NULL);
    *(volatile char *)kept[i] = 1;
}

static void
resize(unsigned i, size_t size)
{
    kept[i] = table->heap_realloc(heap, kept[i], size);
    CHECK(kept[i] != NULL);
}

static void
give(unsigned i)
{
    table->free(kept[i]);
    kept[i] = NULL;
}

/* A heap is destroyed with what is in it. */
static void
drop_heap(void)
{
    for (size_t size = 100; size < 10 * MIB; size *= 5)
        for (unsigned i = 0; i < 5; i++)
            CHECK(table->heap_malloc(dropped, size) != NULL);
    CHECK(table->heap_destroy(dropped) == 0);
}

/* Blocks of all kinds; some grow in steps, so that they get room. */
static void
move_blocks(void)
{
    static const size_t sizes[KEPT] = { 100, 5000, 20 * KIB, 40 * KIB, 100 * KIB, 300 * KIB, 700 * KIB, MIB, 1500 * KIB, 3 * MIB, 9 * MIB, 40 * MIB };
    for (unsigned i = 0; i < KEPT; i++)
        take(i, sizes[i]);
    for (unsigned i = 0; i < KEPT; i += 2)
        give(i);
    for (unsigned i = 1; i < KEPT; i += 2)
        for (unsigned step = 0; step < 4; step++)
            resize(i, sizes[i] + sizes[i] / 4 * (step + 1));
    for (unsigned i = 1; i < KEPT; i += 4)
        resize(i, sizes[i] / 3);
    for (unsigned i = 0; i < KEPT; i += 4)
        take(i, sizes[i]);
    for (unsigned i = 3; i < KEPT; i += 4)
        give(i);
    for (unsigned i = 3; i < KEPT; i += 4)
        take(i, sizes[i]);
    /* What is given back to a heap that is ending is purged at once. */
    CHECK(table->heap_end(heap) == 0);
    for (unsigned i = 0; i < KEPT; i++)
        give(i);
    drop_heap();
    table->purge();
}

/* What is mapped for blocks, and a chunk that was kept for later in use. */
static uint64_t
mapped(void)
{
    void *chunk = table->malloc(4 * MIB);
    table->purge();
    uint64_t bytes = info_now().mapped_bytes - info_now().metadata_bytes;
    table->free(chunk);
    return bytes;
}

static bool
is_there(void)
{
    struct alcove_heap_stats s;
    table->tick();
    return table->heap_stats(heap, &s) == 0;
}

/* In a child: with the blocks that the moving thread had, but for what it was just about to get or resize. */
static void
check_accounts(void)
{
    for (unsigned i = 0; i < KEPT; i++) {
        struct alcove_owner owner;
        if (kept[i] != NULL && table->owner(kept[i], &owner) == 1 && owner.heap == heap && owner.live)
            table->free(kept[i]);
    }
    table->purge();
    if (is_there() && stats_of(heap).live_blocks == 0) {
        CHECK(stats_of(heap).active_bytes == 0 && stats_of(heap).cached_bytes == 0);
        CHECK(table->heap_peak_reset(heap) == 0 && stats_of(heap).peak_bytes == 0);
        table->heap_end(heap); /* if it is not ending already */
        CHECK(!is_there());
    } else if (is_there()) {
        CHECK(stats_of(heap).live_blocks == 1);
        CHECK(table->heap_destroy(heap) == 0);
    }
    table->heap_destroy(dropped); /* if nobody began with that */
    CHECK(info_now().heaps == heaps_before);
    CHECK(mapped() <= mapped_before);
}

static void *
move_in_thread(void *unused)
{
    table->free(table->malloc(1));
    moving = true;
    move_blocks();
    moving = false;
    sem_post(&amid_call); /* there was no such call */
    return unused;
}

/* A child is made amid the given call of the system's. How many calls were there? */
static unsigned
move_and_fork(unsigned at, uint64_t limit)
{
    pthread_t thread;
    int status;
    calls = 0;
    fork_at = at;
    heap = heap_new(limit);
    dropped = heap_new(limit);
    sem_init(&amid_call, 0, 0);
    sem_init(&forked, 0, 0);
    CHECK(pthread_create(&thread, NULL, move_in_thread, NULL) == 0);
    while (sem_wait(&amid_call) != 0)
        ;
    pid_t child = at != 0 ? fork() : -1;
    if (child == 0) {
        alarm(CHILD_SECONDS);
        check_accounts();
        _exit(0);
    }
    sem_post(&forked);
    pthread_join(thread, NULL);
    if (child > 0 && (waitpid(child, &status, 0) != child || status != 0)) {
        fprintf(stderr, "amid call %u, with limit %llu\n", at, (unsigned long long)limit);
        _exit(1);
    }
    return calls;
}

static void
fork_amid_every_call(uint64_t limit)
{
    table->purge(); /* a heap that ended while the last fork had all locks goes now */
    heaps_before = info_now().heaps;
    unsigned all = move_and_fork(0, limit);
    mapped_before = mapped();
    CHECK(info_now().heaps == heaps_before && all > 5);
    for (unsigned at = 1; at <= all; at++)
        move_and_fork(at, limit);
}

static void
fork_amid_moves(void)
{
    CHECK(group_open(NULL) == 0);
    table->free(table->malloc(1));
    fork_amid_every_call(0);
    fork_amid_every_call(200 * MIB); /* what is not charged is purged, and caches are guarded */
}

static void
test_child_has_whole_accounts(void **unused)
{
    (void)unused;
    SKIP_FORK_OF_THREADS_IF_EMULATED();
    options_set("dirty_decay_ms:0"); /* the system is called whenever pages are given back */
    in_child(fork_amid_moves);
}

static void
test_child_has_whole_accounts_where_pages_stay_dirty(void **unused)
{
    (void)unused;
    SKIP_FORK_OF_THREADS_IF_EMULATED();
    options_set("dirty_decay_ms:-1");
    in_child(fork_amid_moves);
}

/* Threads have no records. */
static void
test_child_has_whole_accounts_without_caches(void **unused)
{
    (void)unused;
    SKIP_FORK_OF_THREADS_IF_EMULATED();
    options_set("dirty_decay_ms:0,tcache:false");
    in_child(fork_amid_moves);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_child_has_whole_accounts),
        cmocka_unit_test(test_child_has_whole_accounts_where_pages_stay_dirty),
        cmocka_unit_test(test_child_has_whole_accounts_without_caches),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
