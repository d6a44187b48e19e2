/*
 * What a heap's limit allows, and what it does not: nearly all of it can be live, and never more of it is resident.
 *
 * Each test is a child process with an allocator that keeps no free pages, so that what is resident is what is in use.
 */
#include "config.h"
#include "heaps.h"

#include <pthread.h>

#include "tests/child.h"

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)
/* A page for each of thirty size classes is half of a small limit then. */
#define SKIP_WITH_LARGE_PAGES()                                      \
    do {                                                             \
        if (ALCOVE_LG_PAGE > 12)                                     \
            SKIP_BECAUSE("the figures are for pages of 4 KiB");      \
    } while (0)

#define OWN_RECORDS (3 * MIB) /* page map, pool and records of an allocator with one small heap */
#define OF_A_THREAD (160 * KIB) /* its record and caches, and what it touches of its stack */

static uint32_t heap;

static void
open_without_free_pages(void)
{
    options_set("dirty_decay_ms:0");
    CHECK(group_open(NULL) == 0);
}

/* Blocks of random sizes, uniform from 1 to `largest`, until the first is refused: is so much of the limit live? */
static void
fill_fresh_heaps(uint64_t limit, uint32_t largest, unsigned percent)
{
    open_without_free_pages();
    for (uint32_t seed = 1; seed <= 8; seed++) {
        uint32_t state = seed * 2654435761u;
        heap = heap_new(limit);
        while (table->heap_malloc(heap, 1 + random_next(&state) % largest) != NULL)
            ;
        struct alcove_heap_stats s = stats_of(heap);
        if (s.live_bytes * 100 < limit * percent || s.live_bytes > limit) {
            fprintf(stderr, "limit %llu, seed %u: refused with %llu bytes live\n", (unsigned long long)limit, seed,
                    (unsigned long long)s.live_bytes);
            _exit(1);
        }
        heap_end(heap);
    }
}

static void
fill_256_kib(void)
{
    fill_fresh_heaps(256 * KIB, 1024, 60);
}

static void
fill_1_mib(void)
{
    fill_fresh_heaps(MIB, 1024, 85);
}

static void
fill_16_mib(void)
{
    fill_fresh_heaps(16 * MIB, 64 * KIB, 90);
}

static void
test_60_percent_of_256_kib_can_be_live(void **unused)
{
    (void)unused;
    SKIP_WITH_LARGE_PAGES();
    in_child(fill_256_kib);
}

static void
test_85_percent_of_1_mib_can_be_live(void **unused)
{
    (void)unused;
    SKIP_WITH_LARGE_PAGES();
    in_child(fill_1_mib);
}

static void
test_90_percent_of_16_mib_can_be_live(void **unused)
{
    (void)unused;
    SKIP_WITH_LARGE_PAGES();
    in_child(fill_16_mib);
}

/* The smallest limit there is holds a block of every small size. */
static void
fill_64_kib(void)
{
    open_without_free_pages();
    for (size_t size = 1; size <= 32 * KIB; size = size * 5 / 4 + 1) {
        heap = heap_new(64 * KIB);
        if (table->heap_malloc(heap, size) == NULL) {
            fprintf(stderr, "limit of 64 KiB: refused %zu bytes as the first\n", size);
            _exit(1);
        }
        heap_end(heap);
    }
}

static void
test_64_kib_holds_any_small_block(void **unused)
{
    (void)unused;
    in_child(fill_64_kib);
}

/* Resident pages that the page map says are the heap's. */
static size_t
resident_of_heap(void)
{
    static unsigned char residency[16384];
    char line[PATH_MAX + 128];
    size_t page = (size_t)sysconf(_SC_PAGESIZE), found = 0;
    unsigned long start, end, inode;
    struct alcove_owner owner;
    FILE *f = fopen("/proc/self/maps", "r");
    CHECK(f != NULL);
    while (fgets(line, sizeof line, f) != NULL) {
        if (sscanf(line, "%lx-%lx %*s %*s %*s %lu", &start, &end, &inode) != 3 || inode != 0)
            continue;
        for (unsigned long from = start, to; from < end; from = to) {
            to = end - from > sizeof residency * page ? from + sizeof residency * page : end;
            if (mincore((void *)from, to - from, residency) != 0)
                break; /* not a range of ours */
            for (size_t i = 0; i < (to - from) / page; i++)
                if ((residency[i] & 1) != 0 && table->owner((void *)(from + i * page), &owner) == 1 && owner.heap == heap)
                    found += page;
        }
    }
    fclose(f);
    return found;
}

static size_t resident_before;

/* Nobody may be using the heap. */
static void
check_the_limit(uint64_t limit, unsigned threads)
{
    size_t of_heap = resident_of_heap(), now = resident_bytes(), more = now > resident_before ? now - resident_before : 0;
    struct alcove_heap_stats s = stats_of(heap);
    if (of_heap > limit || s.live_bytes > limit || s.active_bytes > limit ||
        (more > limit + OWN_RECORDS + threads * OF_A_THREAD && !emulated())) /* qemu has records of its own */ {
        fprintf(stderr, "limit %llu: %zu bytes resident of the heap, %zu more of the process, %llu live, %llu active\n",
                (unsigned long long)limit, of_heap, more, (unsigned long long)s.live_bytes, (unsigned long long)s.active_bytes);
        _exit(1);
    }
}

/* Threads that do all that a heap can be asked for, and write all that they get. */
#define THREADS_MOST 16
#define HELD 64 /* by each */
#define ROUNDS 12

static pthread_barrier_t barrier;

static size_t
size_at_random(uint32_t *state, unsigned threads)
{
    uint32_t kind = random_next(state) % 32, x = random_next(state);
    return kind < 20  ? 1 + x % 2000
           : kind < 26 ? 1 + x % 30000
           : kind < 31 ? 1 + x % 400000
                       : 2 * MIB + x % (threads > 1 ? MIB : 4 * MIB);
}

static void
use_heap_once(void **held, uint32_t *state, unsigned threads)
{
    void **block = &held[random_next(state) % HELD], *other;
    size_t size = size_at_random(state, threads), now = table->malloc_usable_size(*block);
    switch (random_next(state) % 6) {
    case 0:
        other = table->heap_realloc(heap, *block, now + now / 3 + 1);
        break;
    case 1:
        other = table->heap_realloc(heap, *block, now / 2 + 1);
        break;
    case 2:
        table->free(*block);
        other = *block = table->heap_calloc(heap, 1, size);
        break;
    case 3:
        table->free(*block);
        other = *block = table->heap_aligned_alloc(heap, (size_t)1 << random_next(state) % 23, size % 9000);
        break;
    default:
        table->free(*block);
        other = *block = table->heap_malloc(heap, size);
    }
    if (other == NULL)
        return;
    *block = other;
    memset(other, 0x5a, table->malloc_usable_size(other));
}

struct worker {
    unsigned number, threads;
};

static void *
use_heap(void *argument)
{
    const struct worker *w = argument;
    uint32_t state = 77 + w->number * 2654435761u;
    void *held[HELD];
    for (unsigned i = 0; i < HELD; i++)
        held[i] = table->heap_malloc(heap, 1);
    for (unsigned round = 0; round < ROUNDS; round++) {
        for (unsigned i = 0; i < 3000 / w->threads; i++)
            use_heap_once(held, &state, w->threads);
        pthread_barrier_wait(&barrier);
        pthread_barrier_wait(&barrier); /* it was looked at */
    }
    return NULL;
}

static void
use_heap_in_threads(unsigned n, uint64_t limit)
{
    pthread_t threads[THREADS_MOST];
    struct worker workers[THREADS_MOST];
    open_without_free_pages();
    heap = heap_new(limit);
    resident_before = resident_bytes();
    pthread_barrier_init(&barrier, NULL, n + 1);
    for (unsigned i = 0; i < n; i++) {
        workers[i] = (struct worker){ i, n };
        CHECK(pthread_create(&threads[i], NULL, use_heap, &workers[i]) == 0);
    }
    for (unsigned round = 0; round < ROUNDS; round++) {
        pthread_barrier_wait(&barrier);
        check_the_limit(limit, n);
        pthread_barrier_wait(&barrier);
    }
    for (unsigned i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
    CHECK(stats_of(heap).limit_refused > 0); /* it was needed */
}

static void
use_heap_in_1_thread(void)
{
    use_heap_in_threads(1, 8 * MIB);
}

static void
use_heap_in_16_threads(void)
{
    use_heap_in_threads(16, 24 * MIB);
}

static void
test_limit_is_not_exceeded_by_one_thread(void **unused)
{
    (void)unused;
    in_child(use_heap_in_1_thread);
}

static void
test_limit_is_not_exceeded_by_16_threads(void **unused)
{
    (void)unused;
    in_child(use_heap_in_16_threads);
}

/* A block that grew has room that was not charged, for nothing had touched it. When it is freed, a cache may hand it
 * out again as a larger block, which is used to its end. How much larger is tried, one step a turn. */
#define GROWING 8
#define TURNS 9
#define GROWN ((size_t)300000)

static void *
grow_and_take_again(void *unused)
{
    (void)unused;
    for (size_t turn = 0; turn < TURNS; turn++) {
        pthread_barrier_wait(&barrier);
        void *block = table->heap_malloc(heap, 40000), *grown;
        for (size_t size = 40000; size < GROWN; block = grown) {
            size = size + size / 3 < GROWN ? size + size / 3 : GROWN;
            if ((grown = table->heap_realloc(heap, block, size)) == NULL)
                break;
        }
        size_t wanted = table->malloc_usable_size(block) * (8 + turn) / 8;
        pthread_barrier_wait(&barrier);
        table->free(block);
        pthread_barrier_wait(&barrier);
        if ((block = table->heap_malloc(heap, wanted)) != NULL)
            memset(block, 1, table->malloc_usable_size(block));
        pthread_barrier_wait(&barrier);
        pthread_barrier_wait(&barrier); /* it was looked at, and there is a new heap */
    }
    return NULL;
}

static void
grow_in_threads(unsigned n)
{
    pthread_t threads[GROWING];
    uint64_t limit = (GROWN + 50000) * n;
    open_without_free_pages();
    resident_before = resident_bytes();
    heap = heap_new(limit);
    pthread_barrier_init(&barrier, NULL, n + 1);
    for (unsigned i = 0; i < n; i++)
        CHECK(pthread_create(&threads[i], NULL, grow_and_take_again, NULL) == 0);
    for (int turn = 0; turn < TURNS; turn++) {
        for (int wait = 0; wait < 4; wait++)
            pthread_barrier_wait(&barrier);
        check_the_limit(limit, n);
        uint32_t full = heap;
        heap = heap_new(limit);
        heap_end(full);
        pthread_barrier_wait(&barrier);
    }
    for (unsigned i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
}

static void
grow_in_1_thread(void)
{
    grow_in_threads(1);
}

static void
grow_in_8_threads(void)
{
    grow_in_threads(GROWING);
}

static void
test_room_to_grow_on_does_not_exceed_the_limit_later(void **unused)
{
    (void)unused;
    in_child(grow_in_1_thread);
    in_child(grow_in_8_threads);
}

/* Each of these costs a page of its own, and what it makes the page map and the records grow by. */
static void
take_far_apart(void)
{
    const uint64_t limit = 16 * MIB;
    open_without_free_pages();
    for (size_t far = 4 * MIB; far >= (size_t)16 << ALCOVE_LG_PAGE; far /= 4) {
        heap = heap_new(limit);
        resident_before = resident_bytes();
        unsigned char *block;
        unsigned n = 0;
        while ((block = table->heap_aligned_alloc(heap, far, 1)) != NULL && n < 20000) {
            *block = 1;
            n++;
        }
        CHECK(n > 100);
        check_the_limit(limit, 1);
        table->heap_destroy(heap);
    }
}

static void
test_what_blocks_far_apart_cost_is_charged(void **unused)
{
    (void)unused;
    in_child(take_far_apart);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_60_percent_of_256_kib_can_be_live),
        cmocka_unit_test(test_85_percent_of_1_mib_can_be_live),
        cmocka_unit_test(test_90_percent_of_16_mib_can_be_live),
        cmocka_unit_test(test_64_kib_holds_any_small_block),
        cmocka_unit_test(test_limit_is_not_exceeded_by_one_thread),
        cmocka_unit_test(test_limit_is_not_exceeded_by_16_threads),
        cmocka_unit_test(test_room_to_grow_on_does_not_exceed_the_limit_later),
        cmocka_unit_test(test_what_blocks_far_apart_cost_is_charged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
