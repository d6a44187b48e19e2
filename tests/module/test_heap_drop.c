/*
 * What a heap has is given back to the system when it is destroyed, which takes as long as that takes: others go on meanwhile. The
 * allocator calls this program's functions for the system's.
 */
#include "module.h"

#include <pthread.h>
#include <semaphore.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>

#include "heaps.h"
#include "tests/child.h"

#define MIB ((size_t)1 << 20)
#define MOST_SECONDS 10 /* that others take meanwhile; more if they wait */

static _Thread_local bool held_up; /* when it purges next */
static sem_t purges, goes_on;
static uint64_t purged; /* bytes */

int
madvise(void *address, size_t size, int advice)
{
    if (advice == MADV_DONTNEED)
        purged += size;
    if (held_up && advice == MADV_DONTNEED) {
        struct timespec until;
        held_up = false;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_sec += MOST_SECONDS;
        sem_post(&purges);
        CHECK(sem_timedwait(&goes_on, &until) == 0);
    }
    return (int)syscall(SYS_madvise, address, size, advice);
}

static uint32_t dropped;

static void *
drop_slowly(void *unused)
{
    held_up = true;
    CHECK(table->heap_destroy(dropped) == 0);
    return unused;
}

/* As many heaps as there may be. Returns how many were made. */
static unsigned
make_all_heaps(void)
{
    unsigned made = 0;
    uint32_t heap;
    while (table->heap_create(NULL, &heap) == 0) {
        CHECK(heap != dropped);
        made++;
    }
    return made;
}

static uint64_t
mapped_for_blocks(void)
{
    table->purge();
    return info_now().mapped_bytes - info_now().metadata_bytes;
}

static void
use_heaps_while_one_is_destroyed(void)
{
    pthread_t thread;
    int status;
    CHECK(group_open(NULL) == 0);
    table->free(table->malloc(1));
    uint32_t heaps = info_now().heaps;
    dropped = heap_new(0);
    for (unsigned i = 0; i < 20; i++)
        memset(table->heap_malloc(dropped, MIB), 1, MIB);
    CHECK(pthread_create(&thread, NULL, drop_slowly, NULL) == 0);
    while (sem_wait(&purges) != 0)
        ;
    struct alcove_heap_stats s;
    CHECK(table->heap_stats(dropped, &s) == EINVAL && table->heap_limit(dropped, MIB) == EINVAL);
    CHECK(table->heap_destroy(dropped) == EINVAL && table->heap_end(dropped) == EINVAL);
    CHECK(table->heap_malloc(dropped, 1) == NULL && errno == EINVAL);
    uint32_t heap = heap_new(0);
    void *block = table->heap_malloc(heap, 100);
    CHECK(block != NULL);
    pid_t child = emulated() ? -1 : fork();
    if (child == 0) {
        alarm(CHILD_SECONDS);
        table->free(block);
        CHECK(info_now().heaps == heaps + 1 && mapped_for_blocks() < 10 * MIB);
        dropped = ALCOVE_HEAP_NONE; /* its number is free there */
        CHECK(make_all_heaps() == ALCOVE_HEAP_MAX - 2);
        _exit(0);
    }
    CHECK(child < 0 || (waitpid(child, &status, 0) == child && status == 0));
    CHECK(make_all_heaps() == ALCOVE_HEAP_MAX - 3);
    sem_post(&goes_on);
    pthread_join(thread, NULL);
    CHECK(table->heap_create(NULL, &heap) == 0 && heap == dropped);
}

static void
test_nobody_waits_for_a_heap_that_is_destroyed(void **unused)
{
    (void)unused;
    in_child(use_heaps_while_one_is_destroyed);
}

/* Pages of a small heap come and go, while others leave many dirty ones. */
static void
drop_what_was_reused(void)
{
    CHECK(group_open(NULL) == 0);
    static const size_t sizes[] = { 20000, MIB + 1, 3 * MIB };
    void *others[64], *blocks[50];
    for (unsigned i = 0; i < 64; i++)
        memset(others[i] = table->malloc(3 * MIB), 1, 3 * MIB);
    dropped = heap_new(0);
    for (unsigned round = 0; round < 200; round++) {
        size_t size = sizes[round % 3];
        unsigned many = (unsigned)(3 * MIB / size);
        if (many > 50)
            many = 50;
        for (unsigned i = 0; i < many; i++)
            memset(blocks[i] = table->heap_malloc(dropped, size), 1, size);
        if (many == 1)
            for (size_t other = size; other < 2 * size; other += MIB / 2)
                CHECK((blocks[0] = table->realloc(blocks[0], round % 2 != 0 ? other : 3 * size - other)) != NULL);
        for (unsigned i = 0; i < many; i++)
            table->free(blocks[i]);
    }
    for (unsigned i = 0; i < 64; i++)
        table->free(others[i]);
    purged = 0;
    CHECK(table->heap_destroy(dropped) == 0);
    CHECK(purged < 64 * MIB);
}

static void
test_pages_that_others_have_by_now_are_not_purged(void **unused)
{
    (void)unused;
    options_set("dirty_decay_ms:-1");
    in_child(drop_what_was_reused);
}

/* Blocks of all sizes came and went before: large ones took chunks of which little had been used. The pages that the heap gave back
 * then go with it, and with one that ends, when the last of its blocks is freed. */
static void
take_and_give_all_sizes(bool drop)
{
    enum { BLOCKS = 400 };
    static void *blocks[BLOCKS];
    uint32_t heap = heap_new(0);
    for (int round = 0; round < 12; round++) {
        for (int i = 0; i < BLOCKS; i++) {
            size_t most = (size_t)rand() % 16 != 0 ? 3 * MIB : 30 * MIB, size = rand() % 4 != 0 ? 2000 : most;
            size = 1 + (size_t)rand() % size;
            if (blocks[i] != NULL && rand() % 4 == 0)
                blocks[i] = table->heap_realloc(heap, blocks[i], size);
            else {
                table->free(blocks[i]);
                blocks[i] = table->heap_malloc(heap, size);
            }
            CHECK(blocks[i] != NULL);
            *(char *)blocks[i] = 1;
        }
    }
    if (drop)
        CHECK(table->heap_destroy(heap) == 0);
    else {
        for (int i = 0; i < BLOCKS; i++)
            table->free(blocks[i]);
        CHECK(table->heap_end(heap) == 0);
    }
    memset(blocks, 0, sizeof blocks);
    if (info_now().dirty_bytes != 0) {
        fprintf(stderr, "%llu KiB are kept\n", (unsigned long long)info_now().dirty_bytes >> 10);
        _exit(1);
    }
}

static void
give_back_what_was_given_before(void)
{
    options_set("dirty_decay_ms:-1,tcache:false");
    CHECK(group_open(NULL) == 0);
    table->free(table->malloc(1));
    table->purge();
    srand(9);
    for (int i = 0; i < 4; i++)
        take_and_give_all_sizes(i % 2 == 0);
}

static void
test_all_that_was_given_before_goes_too(void **unused)
{
    (void)unused;
    in_child(give_back_what_was_given_before);
}

/* Who ends a heap is inside of it until all is purged that it gave, whether the thread has a record or not. */
static void *
end_slowly(void *unused)
{
    held_up = true;
    CHECK(table->heap_end(dropped) == 0);
    return unused;
}

static void
end_without_records(void)
{
    pthread_t thread;
    CHECK(group_open(NULL) == 0);
    table->free(table->malloc(1));
    dropped = heap_new(0);
    table->free(table->heap_malloc(dropped, 3 * MIB));
    uint32_t heaps = info_now().heaps;
    sem_init(&purges, 0, 0);
    sem_init(&goes_on, 0, 0);
    CHECK(pthread_create(&thread, NULL, end_slowly, NULL) == 0);
    CHECK(sem_wait(&purges) == 0);
    for (int i = 0; i < 3; i++)
        table->tick();
    CHECK(info_now().heaps == heaps);
    sem_post(&goes_on);
    pthread_join(thread, NULL);
    table->tick();
    CHECK(info_now().heaps == heaps - 1);
}

static void
test_heap_stays_while_somebody_ends_it(void **unused)
{
    (void)unused;
    options_set("dirty_decay_ms:-1,tcache:false");
    in_child(end_without_records);
    options_set("dirty_decay_ms:-1");
    in_child(end_without_records);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nobody_waits_for_a_heap_that_is_destroyed),
        cmocka_unit_test(test_pages_that_others_have_by_now_are_not_purged),
        cmocka_unit_test(test_all_that_was_given_before_goes_too),
        cmocka_unit_test(test_heap_stays_while_somebody_ends_it),
    };
    sem_init(&purges, 0, 0);
    sem_init(&goes_on, 0, 0);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
