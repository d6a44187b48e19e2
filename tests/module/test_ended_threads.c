/*
 * What threads that ended leave behind, without a loader that could tell of their end: little, soon. And what a
 * heap that is destroyed leaves: nothing.
 */
#include "module.h"

#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <time.h>

#include "tests/child.h"

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)
#define STACK (64 * KIB)

static pthread_attr_t small_stack;
static pthread_barrier_t barrier;

static void
open_for_threads(void)
{
    CHECK(group_open(NULL) == 0);
    CHECK(pthread_attr_init(&small_stack) == 0);
    size_t stack = STACK > (size_t)PTHREAD_STACK_MIN ? STACK : (size_t)PTHREAD_STACK_MIN;
    CHECK(pthread_attr_setstacksize(&small_stack, stack) == 0);
    table->free(table->malloc(9));
}

/* About 1 MiB in small and large blocks, several times over, freed again. */
#define OWN_BLOCKS 400

static void
use_1_mib(uint32_t seed)
{
    static __thread void *blocks[OWN_BLOCKS];
    uint32_t state = seed * 2654435761u + 1;
    for (int round = 0; round < 3; round++) {
        for (unsigned i = 0; i < OWN_BLOCKS; i++) {
            uint32_t x = random_next(&state);
            size_t size = x % 100 == 0 ? 33000 + (x >> 8) % 100000 : 16 + (x >> 8) % (x % 8 != 0 ? 500 : 20000);
            CHECK((blocks[i] = table->malloc(size)) != NULL);
            memset(blocks[i], 1, size);
        }
        for (unsigned i = 0; i < OWN_BLOCKS; i++)
            table->free(blocks[i]);
    }
}

/* All are there at the same moment, so that none takes over what another left. */
static void *
use_and_meet(void *number)
{
    use_1_mib((uint32_t)(uintptr_t)number);
    pthread_barrier_wait(&barrier);
    return NULL;
}

static void *
use_alone(void *number)
{
    use_1_mib((uint32_t)(uintptr_t)number);
    return NULL;
}

static void
run_together(unsigned n)
{
    static pthread_t threads[2000];
    CHECK(n <= sizeof threads / sizeof *threads);
    pthread_barrier_init(&barrier, NULL, n);
    for (unsigned i = 0; i < n; i++)
        CHECK(pthread_create(&threads[i], &small_stack, use_and_meet, (void *)(uintptr_t)i) == 0);
    for (unsigned i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
    pthread_barrier_destroy(&barrier);
}

static void
run_in_turn(unsigned n)
{
    pthread_t thread;
    for (unsigned i = 0; i < n; i++) {
        CHECK(pthread_create(&thread, &small_stack, use_alone, (void *)(uintptr_t)i) == 0);
        pthread_join(thread, NULL);
    }
}

/* Resident bytes more than before, when they are below `wanted` or have not become that for long. The caller is a thread
 * that works a little, as a program's main thread does. */
#define PATIENCE_SECONDS 10

static size_t
settle_below(size_t before, size_t wanted)
{
    for (unsigned turn = 0;; turn++) {
        size_t now = resident_bytes(), more = now > before ? now - before : 0;
        if (more < wanted || turn == PATIENCE_SECONDS * 20)
            return more;
        nanosleep(&(struct timespec){ .tv_nsec = 50000000 }, NULL);
        for (size_t i = 0; i < 600; i++)
            table->free(table->malloc(40 + i));
    }
}

static void
check_settled(size_t before, size_t wanted)
{
    size_t more = settle_below(before, wanted);
    if (more >= wanted)
        fprintf(stderr, "%zu KiB are resident more\n", more / KIB);
    CHECK(more < wanted);
}

static void
leave_300_at_once(void)
{
    open_for_threads();
    size_t before = resident_bytes();
    run_together(300);
    check_settled(before, 60 * MIB);
}

static void
test_300_threads_at_once_leave_little(void **unused)
{
    (void)unused;
    in_child(leave_300_at_once);
}

static void
leave_2000_in_turn(void)
{
    open_for_threads();
    size_t before = resident_bytes();
    for (unsigned i = 0; i < 10; i++) {
        run_in_turn(200);
        size_t now = resident_bytes();
        if (now > before + 24 * MIB)
            fprintf(stderr, "after %u threads: %zu KiB are resident more\n", (i + 1) * 200, (now - before) / KIB);
        CHECK(now <= before + 24 * MIB);
    }
}

static void
test_2000_threads_in_turn_leave_little(void **unused)
{
    (void)unused;
    in_child(leave_2000_in_turn);
}

/* Threads of a program that also has some that sleep all the time. */
#define SLEEPERS 20

static pthread_barrier_t wake;

static void *
use_and_sleep(void *number)
{
    use_1_mib((uint32_t)(uintptr_t)number);
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&wake);
    use_1_mib((uint32_t)(uintptr_t)number);
    return NULL;
}

static void
leave_beside_sleepers(void)
{
    pthread_t sleepers[SLEEPERS];
    open_for_threads();
    pthread_barrier_init(&barrier, NULL, SLEEPERS + 1);
    pthread_barrier_init(&wake, NULL, SLEEPERS + 1);
    for (unsigned i = 0; i < SLEEPERS; i++)
        CHECK(pthread_create(&sleepers[i], &small_stack, use_and_sleep, (void *)(uintptr_t)i) == 0);
    pthread_barrier_wait(&barrier);
    pthread_barrier_destroy(&barrier);
    size_t before = resident_bytes();
    run_in_turn(500);
    check_settled(before, 24 * MIB);
    pthread_barrier_wait(&wake);
    for (unsigned i = 0; i < SLEEPERS; i++)
        pthread_join(sleepers[i], NULL);
    CHECK(info_now().live_blocks == 0);
}

static void
test_threads_in_turn_beside_sleeping_ones_leave_little(void **unused)
{
    (void)unused;
    in_child(leave_beside_sleepers);
}

/* The records of threads that ended are used again. */
static void *
use_a_little(void *unused)
{
    (void)unused;
    void *small = table->malloc(100), *large = table->malloc(50000);
    table->free(small);
    table->free(large);
    return NULL;
}

static void
end_4000_in_turn(void)
{
    open_for_threads();
    uint64_t first = 0;
    for (unsigned i = 0; i < 4000; i++) {
        pthread_t thread;
        CHECK(pthread_create(&thread, &small_stack, use_a_little, NULL) == 0);
        pthread_join(thread, NULL);
        if (i == 200)
            first = info_now().metadata_bytes;
    }
    uint64_t last = info_now().metadata_bytes;
    if (last > first + MIB)
        fprintf(stderr, "metadata_bytes: %llu after 200 threads, %llu after 4,000\n", (unsigned long long)first,
                (unsigned long long)last);
    CHECK(last <= first + MIB);
}

static void
test_metadata_of_4000_threads_in_turn(void **unused)
{
    (void)unused;
    in_child(end_4000_in_turn);
}

static void *
use_a_little_and_meet(void *unused)
{
    (void)use_a_little(unused);
    pthread_barrier_wait(&barrier);
    return NULL;
}

/* As many at once, again and again: the first time's records are enough for all. */
static void
end_500_at_once_again_and_again(void)
{
    enum { AT_ONCE = 500 };
    static pthread_t threads[AT_ONCE];
    open_for_threads();
    uint64_t first = 0, last = 0;
    for (unsigned turn = 0; turn < 8; turn++) {
        pthread_barrier_init(&barrier, NULL, AT_ONCE);
        for (unsigned i = 0; i < AT_ONCE; i++)
            CHECK(pthread_create(&threads[i], &small_stack, use_a_little_and_meet, NULL) == 0);
        for (unsigned i = 0; i < AT_ONCE; i++)
            pthread_join(threads[i], NULL);
        pthread_barrier_destroy(&barrier);
        last = info_now().metadata_bytes;
        if (turn == 1)
            first = last;
    }
    if (last > first + first / 4)
        fprintf(stderr, "metadata_bytes: %llu after two turns, %llu after eight\n", (unsigned long long)first,
                (unsigned long long)last);
    CHECK(last <= first + first / 4);
}

static void
test_metadata_of_threads_at_once_again_and_again(void **unused)
{
    (void)unused;
    in_child(end_500_at_once_again_and_again);
}

/* Of a record that nobody uses hardly anything is resident, and a fork touches none. The threads have stacks of ours, for libc
 * keeps its own. */
#define LEFT_BY_EACH (3 * KIB)  /* the head of a record, and records of slabs; not two pages */
#define LEFT_BY_LIBC (2 * KIB)  /* of a thread's dynamic TLS */

static void
leave_1000_at_once_and_fork(void)
{
    enum { AT_ONCE = 1000 };
    static pthread_t threads[AT_ONCE];
    open_for_threads();
    size_t before = resident_bytes(), stack = STACK > (size_t)PTHREAD_STACK_MIN ? STACK : (size_t)PTHREAD_STACK_MIN;
    char *stacks = mmap(NULL, AT_ONCE * stack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(stacks != MAP_FAILED);
    pthread_barrier_init(&barrier, NULL, AT_ONCE);
    for (unsigned i = 0; i < AT_ONCE; i++) {
        CHECK(pthread_attr_setstack(&small_stack, stacks + i * stack, stack) == 0);
        CHECK(pthread_create(&threads[i], &small_stack, use_a_little_and_meet, NULL) == 0);
    }
    for (unsigned i = 0; i < AT_ONCE; i++)
        pthread_join(threads[i], NULL);
    CHECK(munmap(stacks, AT_ONCE * stack) == 0);
    while (info_now().threads > 1) /* the system may know a thread for a moment after it was joined */
        sched_yield();
    table->purge();
    size_t left = AT_ONCE * (LEFT_BY_EACH + (strcmp(info_now().tls, "dynamic") == 0 ? LEFT_BY_LIBC : 0));
    for (int forked = 0; forked < 2; forked++) {
        size_t now = resident_bytes();
        if (now > before + left)
            fprintf(stderr, "%s: %zu KiB are resident more\n", forked ? "forked" : "purged", (now - before) / KIB);
        CHECK(now <= before + left);
        pid_t child = forked ? -1 : fork();
        if (child == 0)
            _exit(0);
        CHECK(forked || waitpid(child, NULL, 0) == child);
    }
}

static void
test_record_that_nobody_uses_is_not_resident(void **unused)
{
    (void)unused;
    in_child(leave_1000_at_once_and_fork);
}

/* A heap that is destroyed is given back by the time the call returns, whatever its blocks were. */
#define HEAP_BYTES (100 * MIB)
#define KEPT_BY_A_THREAD (4 * MIB)

static void
destroy_heap_of(size_t size)
{
    uint32_t heap = ALCOVE_HEAP_NONE;
    size_t before = resident_bytes();
    uint64_t mapped = info_now().mapped_bytes;
    CHECK(table->heap_create(NULL, &heap) == 0);
    for (size_t taken = 0; taken < HEAP_BYTES; taken += size) {
        void *block = table->heap_malloc(heap, size);
        CHECK(block != NULL);
        memset(block, 1, size);
    }
    CHECK(resident_bytes() >= before + HEAP_BYTES / 10 * 9);
    CHECK(table->heap_destroy(heap) == 0);
    size_t now = resident_bytes();
    if (now > before + KEPT_BY_A_THREAD)
        fprintf(stderr, "of a heap with blocks of %zu bytes: %zu KiB are resident more\n", size, (now - before) / KIB);
    CHECK(now <= before + KEPT_BY_A_THREAD);
    struct alcove_info info = info_now();
    CHECK(info.dirty_bytes <= KEPT_BY_A_THREAD && info.mapped_bytes <= mapped + 16 * MIB);
}

static void
destroy_heaps(void)
{
    static const size_t sizes[] = { 16, 100, 3000, 32 * KIB, 50000, 700000, 3 * MIB, 25 * MIB };
    CHECK(group_open(NULL) == 0);
    table->free(table->malloc(9));
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++)
        destroy_heap_of(sizes[i]);
}

static void
test_a_destroyed_heap_is_given_back_at_once(void **unused)
{
    (void)unused;
    in_child(destroy_heaps);
}

/* What was freed in it before lies in the cache of a thread, in the heap's slabs, and dirty in the pool. */
static void
destroy_a_used_heap(void)
{
    enum { MANY = 40000 };
    static void *blocks[MANY];
    uint32_t heap = ALCOVE_HEAP_NONE;
    CHECK(group_open(NULL) == 0);
    table->free(table->malloc(9));
    size_t before = resident_bytes() + sizeof blocks;
    CHECK(table->heap_create(NULL, &heap) == 0);
    for (int round = 0; round < 3; round++) {
        for (unsigned i = 0; i < MANY; i++)
            memset(blocks[i] = table->heap_malloc(heap, 1 + i % 4000), 1, 1 + i % 4000);
        for (unsigned i = 0; i < MANY; i++)
            if (round < 2 || i % 3 != 0)
                table->free(blocks[i]);
        void *huge = table->heap_malloc(heap, 30 * MIB);
        memset(huge, 1, 30 * MIB);
        table->free(huge);
    }
    CHECK(table->heap_destroy(heap) == 0);
    size_t now = resident_bytes();
    if (now > before + KEPT_BY_A_THREAD)
        fprintf(stderr, "%zu KiB are resident more\n", (now - before) / KIB);
    CHECK(now <= before + KEPT_BY_A_THREAD);
}

static void
test_a_destroyed_heap_that_was_in_use_is_given_back_at_once(void **unused)
{
    (void)unused;
    in_child(destroy_a_used_heap);
}

/* Chunks come and go at the same addresses; else the page map grows with every one of them. */
static void
come_and_go(void)
{
    enum { CYCLES = 3000 };
    uintptr_t lowest = UINTPTR_MAX, highest = 0;
    size_t before = 0, mapped = 0;
    CHECK(group_open(NULL) == 0);
    for (unsigned i = 0; i < CYCLES; i++) {
        uint32_t heap = ALCOVE_HEAP_NONE;
        CHECK(table->heap_create(NULL, &heap) == 0);
        char *small = table->heap_malloc(heap, 1000), *huge = table->heap_malloc(heap, 9 * MIB);
        CHECK(small != NULL && huge != NULL);
        small[0] = huge[0] = 1;
        lowest = (uintptr_t)huge < lowest ? (uintptr_t)huge : lowest;
        highest = (uintptr_t)huge > highest ? (uintptr_t)huge : highest;
        CHECK(table->heap_destroy(heap) == 0);
        if (i == CYCLES / 10) {
            before = resident_bytes();
            mapped = mapped_bytes();
        }
    }
    CHECK(highest - lowest <= 256 * MIB);
    CHECK(resident_bytes() <= before + MIB && mapped_bytes() <= mapped + 16 * MIB);
}

static void
test_heaps_that_come_and_go_use_the_same_addresses(void **unused)
{
    (void)unused;
    in_child(come_and_go);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_300_threads_at_once_leave_little),
        cmocka_unit_test(test_2000_threads_in_turn_leave_little),
        cmocka_unit_test(test_threads_in_turn_beside_sleeping_ones_leave_little),
        cmocka_unit_test(test_metadata_of_4000_threads_in_turn),
        cmocka_unit_test(test_metadata_of_threads_at_once_again_and_again),
        cmocka_unit_test(test_record_that_nobody_uses_is_not_resident),
        cmocka_unit_test(test_a_destroyed_heap_is_given_back_at_once),
        cmocka_unit_test(test_a_destroyed_heap_that_was_in_use_is_given_back_at_once),
        cmocka_unit_test(test_heaps_that_come_and_go_use_the_same_addresses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
