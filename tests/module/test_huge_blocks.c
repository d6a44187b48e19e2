/*
 * Huge blocks: of any size that the address space has room for, at the cost of what is touched; kept for the next one
 * for a while, and then given back.
 *
 * Each test is a child process, with an allocator of the options that it needs.
 */
#include "heaps.h"

#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>
#include <time.h>

#include "tests/child.h"

#define MIB ((size_t)1 << 20)
#define TIB ((size_t)1 << 40)
#define COST (16 * MIB) /* most that an untouched block may take, page tables included */

static size_t
real_bytes(void)
{
    return process_figure("/proc/self/status", "VmRSS") + process_figure("/proc/self/status", "VmPTE");
}

/* A page map that is filled for all that a block spans would take the machine's memory: end before. */
#define MOST_EVER (512 * MIB)

static atomic_bool watched;

static void *
stop_early(void *unused)
{
    (void)unused;
    for (;;) {
        if (real_bytes() > MOST_EVER) {
            fprintf(stderr, "more than %zu MiB are resident\n", MOST_EVER / MIB);
            _exit(1);
        }
        atomic_store(&watched, true);
        nanosleep(&(struct timespec){ .tv_nsec = 5000000 }, NULL);
    }
    return NULL;
}

static void
open_watched(void)
{
    pthread_t watcher;
    CHECK(group_open(NULL) == 0);
    table->free(table->malloc(1));
    CHECK(pthread_create(&watcher, NULL, stop_early, NULL) == 0);
    while (!atomic_load(&watched))
        sched_yield(); /* until it has all that libc maps for it */
}

/* A system that counts what is mapped gives no such block, and an emulator has less room for one. */
static void
skip_without_address_space(void)
{
    if (emulated())
        SKIP_BECAUSE("an emulator's address space is smaller");
    if (getenv("ALCOVE_TEST_VALGRIND") != NULL)
        SKIP_BECAUSE("valgrind's address space is smaller");
    void *space = mmap(NULL, 4 * TIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (space == MAP_FAILED)
        SKIP_BECAUSE("the system gives no 4 TiB");
    munmap(space, 4 * TIB);
}

static void
take_4_tib(void)
{
    open_watched();
    size_t real = real_bytes(), size = process_figure("/proc/self/status", "VmSize"), told = info_now().mapped_bytes;
    unsigned mappings = mappings_with("");
    char *block = table->malloc(4 * TIB);
    CHECK(block != NULL);
    CHECK(real_bytes() < real + COST);
    CHECK(mappings_with("") <= mappings + 4);
    CHECK(table->malloc_usable_size(block) >= 4 * TIB);
    for (size_t at = 0; at < 4 * TIB; at += 123456789012) {
        struct alcove_owner owner;
        CHECK(table->owner(block + at, &owner) == 1);
        CHECK(owner.block == block && owner.live == 1 && owner.usable >= 4 * TIB && owner.heap == 0);
        block[at] = 1;
    }
    struct alcove_owner owner;
    CHECK(table->owner(block + 4 * TIB - 1, &owner) == 1 && owner.block == block);
    CHECK(real_bytes() < real + COST);
    table->free(block);
    CHECK(table->owner(block + TIB, &owner) == 0 || owner.live == 0);
    table->purge();
    CHECK(real_bytes() < real + 2 * MIB);
    CHECK(process_figure("/proc/self/status", "VmSize") < size + 8 * MIB);
    CHECK(info_now().mapped_bytes < told + 8 * MIB);
    CHECK(mappings_with("") <= mappings + 4);
}

static void
test_4_tib_cost_what_is_touched(void **unused)
{
    (void)unused;
    skip_without_address_space();
    in_child(take_4_tib);
}

/* Is it had, it costs nothing; is it not, that is told at once. */
static void
take_more_and_more(void)
{
    open_watched();
    size_t real = real_bytes();
    for (unsigned lg = 33; lg <= 47; lg++)
        for (int more = 0; more < 2; more++) {
            errno = 0;
            char *block = table->malloc(((size_t)1 << lg) + (size_t)more * 5000);
            CHECK(block != NULL || errno == ENOMEM);
            CHECK(real_bytes() < real + COST);
            if (block == NULL)
                continue;
            block[((size_t)1 << lg) - 1] = 1;
            char *zeroed = table->calloc(1 << 10, (size_t)1 << (lg - 12));
            CHECK(zeroed == NULL || zeroed[(size_t)1 << (lg - 3)] == 0);
            table->free(zeroed);
            table->free(block);
        }
    table->purge();
    CHECK(real_bytes() < real + 2 * MIB);
}

static void
test_any_size_costs_what_is_touched(void **unused)
{
    (void)unused;
    skip_without_address_space();
    in_child(take_more_and_more);
}

static void
ask_for_the_impossible(void)
{
    static const size_t sizes[] = { (size_t)1 << 47, ((size_t)1 << 47) + 1, (size_t)1 << 48, (size_t)1 << 56, (size_t)1 << 62,
                                    PTRDIFF_MAX - 4096, PTRDIFF_MAX, (size_t)PTRDIFF_MAX + 1, SIZE_MAX - 4096, SIZE_MAX };
    open_watched();
    void *small = table->malloc(100), *large = table->malloc(3 * MIB), *aligned = NULL;
    fill(small, 100, 1);
    fill(large, 3 * MIB, 2);
    size_t real = real_bytes();
    struct alcove_heap_stats before = stats_of(0);
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        volatile size_t size = sizes[i];
        errno = 0;
        CHECK(table->malloc(size) == NULL && errno == ENOMEM);
        errno = 0;
        CHECK(table->calloc(1, size) == NULL && errno == ENOMEM);
        errno = 0;
        CHECK(table->realloc(small, size) == NULL && errno == ENOMEM);
        errno = 0;
        CHECK(table->realloc(large, size) == NULL && errno == ENOMEM);
        errno = 0;
        CHECK(table->aligned_alloc(4 * MIB, size) == NULL && errno == ENOMEM);
        CHECK(table->posix_memalign(&aligned, 64, size) == ENOMEM && aligned == NULL);
        CHECK(table->heap_malloc(ALCOVE_HEAP_DEFAULT, size) == NULL);
    }
    CHECK(filled(small, 100, 1) && filled(large, 3 * MIB, 2));
    struct alcove_heap_stats after = stats_of(0);
    CHECK(after.live_blocks == before.live_blocks && after.live_bytes == before.live_bytes);
    CHECK(after.total_allocs == before.total_allocs && after.limit_refused == before.limit_refused);
    CHECK(real_bytes() < real + MIB);
}

static void
test_impossible_sizes_are_refused_at_once(void **unused)
{
    (void)unused;
    in_child(ask_for_the_impossible);
}

/* Minor faults of this thread. */
static size_t
faults(void)
{
    struct rusage usage;
    CHECK(getrusage(RUSAGE_SELF, &usage) == 0);
    return (size_t)usage.ru_minflt;
}

static void
touch_pages(char *block, size_t size)
{
    for (size_t at = 0; at < size; at += 4096)
        block[at] = 1;
}

/* In a buffer that a program makes and drops at each turn, only the first turn's pages are new. */
static void
come_and_go(void)
{
    enum { TURNS = 200 };
    const size_t size = 24 * MIB;
    options_set("thp:never");
    CHECK(group_open(NULL) == 0);
    size_t before = faults(), page = (size_t)sysconf(_SC_PAGESIZE);
    for (int i = 0; i < TURNS; i++) {
        char *block = table->malloc(size);
        CHECK(block != NULL);
        touch_pages(block, size);
        table->free(block);
    }
    size_t had = faults() - before, touched = TURNS * (size / page);
    if (had > touched / 10)
        fprintf(stderr, "%zu page faults for %zu pages touched\n", had, touched);
    CHECK(had <= touched / 10);
}

static void
test_pages_of_huge_blocks_that_come_and_go_are_kept(void **unused)
{
    (void)unused;
    in_child(come_and_go);
}

/* Of different sizes, some of them live while others come: 4 to 64 MiB, 256 MiB live. */
static void
come_and_go_among_others(void)
{
    enum { HELD = 8, TURNS = 100 };
    char *held[HELD] = { NULL };
    uint32_t state = 4711;
    options_set("thp:never");
    CHECK(group_open(NULL) == 0);
    size_t before = faults(), page = (size_t)sysconf(_SC_PAGESIZE), touched = 0;
    for (int i = 0; i < TURNS; i++) {
        unsigned at = random_next(&state) % HELD;
        size_t size = 4 * MIB + random_next(&state) % (60 * MIB);
        table->free(held[at]);
        CHECK((held[at] = table->malloc(size)) != NULL);
        touch_pages(held[at], size);
        touched += size / page;
    }
    size_t had = faults() - before;
    if (had > touched / 5 * 4) /* libc has 84 in a hundred */
        fprintf(stderr, "%zu page faults for %zu pages touched\n", had, touched);
    CHECK(had <= touched / 5 * 4);
}

static void
test_pages_of_huge_blocks_of_many_sizes_are_kept(void **unused)
{
    (void)unused;
    in_child(come_and_go_among_others);
}

/* What is kept is not clean: calloc must not think so. */
static void
clear_what_is_kept(void)
{
    CHECK(group_open(NULL) == 0);
    for (size_t size = 3 * MIB; size < 100 * MIB; size += size / 2) {
        char *block = table->malloc(size);
        memset(block, 0x5a, size);
        table->free(block);
        char *zeroed = table->calloc(1, size - MIB);
        for (size_t at = 0; at < size - MIB; at++)
            CHECK(zeroed[at] == 0);
        memset(zeroed, 0x5a, size - MIB);
        table->free(zeroed);
        zeroed = table->calloc(3, size / 2); /* beyond what was kept */
        for (size_t at = 0; at < size / 2 * 3; at++)
            CHECK(zeroed[at] == 0);
        table->free(zeroed);
    }
}

static void
test_calloc_clears_pages_that_were_kept(void **unused)
{
    (void)unused;
    in_child(clear_what_is_kept);
}

static void
keep_nothing(void)
{
    options_set("dirty_decay_ms:0");
    CHECK(group_open(NULL) == 0);
    table->free(table->malloc(3 * MIB));
    size_t before = resident_bytes();
    for (size_t size = 3 * MIB; size < 200 * MIB; size *= 3) {
        char *block = table->malloc(size);
        memset(block, 1, size);
        table->free(block);
        CHECK(resident_bytes() < before + MIB);
        CHECK(info_now().dirty_bytes == 0);
    }
}

/* Nor does it make more of them resident than a read does, which is none. */
static size_t
written_bytes(void)
{
    return process_figure("/proc/self/smaps_rollup", "Rss");
}

static void
clear_sparsely(void)
{
    CHECK(group_open(NULL) == 0);
    table->free(table->malloc(3 * MIB));
    for (size_t size = 3 * MIB; size < 200 * MIB; size *= 3) {
        size_t before = written_bytes();
        char *block = table->malloc(size);
        block[size / 3] = 1;
        table->free(block);
        block = table->calloc(1, size);
        CHECK(written_bytes() < before + MIB);
        for (size_t i = 0; i < size; i++)
            CHECK(block[i] == 0);
        table->free(block);
        table->purge();
    }
}

static void
test_calloc_makes_no_page_resident(void **unused)
{
    (void)unused;
    if (emulated())
        SKIP_BECAUSE("what is resident is the emulator's");
    in_child(clear_sparsely);
}

static void
test_nothing_is_kept_if_decay_is_at_once(void **unused)
{
    (void)unused;
    in_child(keep_nothing);
}

static void
purge_what_is_kept(void)
{
    options_set("dirty_decay_ms:-1");
    CHECK(group_open(NULL) == 0);
    table->free(table->malloc(3 * MIB));
    table->purge();
    size_t before = resident_bytes();
    uint64_t mapped = info_now().mapped_bytes;
    char *blocks[5];
    for (int i = 0; i < 5; i++) {
        blocks[i] = table->malloc((size_t)(i * 17 + 3) * MIB);
        memset(blocks[i], 1, (size_t)(i * 17 + 3) * MIB);
    }
    for (int i = 0; i < 5; i++)
        table->free(blocks[i]);
    size_t now = resident_bytes();
    CHECK(now <= before + info_now().dirty_bytes + 2 * MIB); /* what is kept is told */
    table->purge();
    CHECK(resident_bytes() < before + MIB);
    CHECK(info_now().dirty_bytes == 0);
    CHECK(info_now().mapped_bytes <= mapped + 8 * MIB);
}

static void
test_purge_gives_all_back(void **unused)
{
    (void)unused;
    in_child(purge_what_is_kept);
}

/* However slow the machine: it is waited for, as long as the allocator is in use. */
static void
wait_for_decay(void)
{
    options_set("dirty_decay_ms:200");
    CHECK(group_open(NULL) == 0);
    table->free(table->malloc(1));
    size_t before = resident_bytes();
    char *block = table->malloc(64 * MIB);
    memset(block, 1, 64 * MIB);
    table->free(block);
    for (int i = 0; i < 3000 && resident_bytes() > before + 2 * MIB; i++) {
        nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
        for (int j = 0; j < 300; j++)
            table->free(table->malloc(64));
    }
    CHECK(resident_bytes() <= before + 2 * MIB);
}

static void
test_what_is_kept_decays(void **unused)
{
    (void)unused;
    in_child(wait_for_decay);
}

/* What was freed is nobody's: a limit has room again, however often. */
static void
come_and_go_under_a_limit(void)
{
    CHECK(group_open(NULL) == 0);
    uint32_t heap = heap_new(32 * MIB);
    for (size_t i = 0; i < 40; i++) {
        size_t size = (24 + i % 8) * MIB;
        char *block = table->heap_malloc(heap, size);
        CHECK(block != NULL);
        touch_pages(block, size);
        CHECK(stats_of(heap).active_bytes <= 32 * MIB);
        table->free(block);
        CHECK(stats_of(heap).live_bytes == 0 && stats_of(heap).active_bytes < 8 * MIB);
    }
    CHECK(stats_of(heap).limit_refused == 0);
    heap_end(heap);
}

static void
test_what_is_kept_is_not_charged(void **unused)
{
    (void)unused;
    in_child(come_and_go_under_a_limit);
}

/* Blocks that are shorter than what they are cut from: what lies behind them is told, and goes with a purge. */
static void
fill_with_shorter_blocks(void)
{
    enum { LONG = 24, LONG_MIB = 4, MOST = 100 };
    const size_t limit = LONG * LONG_MIB * MIB, size = 2 * MIB + 4096;
    char *blocks[MOST];
    int n = 0;
    options_set("dirty_decay_ms:-1");
    CHECK(group_open(NULL) == 0);
    uint32_t heap = heap_new(limit);
    table->free(table->heap_malloc(heap, 1));
    size_t before = resident_bytes();
    for (int i = 0; i < LONG; i++)
        touch_pages(blocks[i] = table->heap_malloc(heap, LONG_MIB * MIB), LONG_MIB * MIB);
    for (int i = 0; i < LONG; i++)
        table->free(blocks[i]);
    while (n < MOST && (blocks[n] = table->heap_malloc(heap, size)) != NULL)
        fill(blocks[n++], size, 7);
    CHECK(n < MOST && n > LONG);
    CHECK(resident_bytes() <= before + limit + info_now().dirty_bytes + 2 * MIB);
    table->purge();
    CHECK(info_now().dirty_bytes == 0);
    CHECK(resident_bytes() <= before + limit + 2 * MIB);
    for (int i = 0; i < n; i++)
        CHECK(filled(blocks[i], size, 7));
    heap_end(heap);
}

static void
test_pages_behind_blocks_are_not_beyond_the_limit(void **unused)
{
    (void)unused;
    in_child(fill_with_shorter_blocks);
}

static char *asked_about;
static atomic_bool asking, resizing = true;

/* How often was the answer wrong? */
static void *
ask_for_owner(void *wrong)
{
    struct alcove_owner owner;
    while (!atomic_load(&asking))
        sched_yield();
    while (atomic_load(&resizing))
        *(size_t *)wrong += table->owner(asked_about, &owner) != 1 || owner.block != asked_about || owner.live != 1;
    return NULL;
}

/* A block that lives all the time, in the end as a giant every now and then. */
static void
resize_while_another_asks(void)
{
    static const size_t sizes[] = { 100 * MIB, 400 * MIB, 1500 * MIB, 1300 * MIB, 400 * MIB };
    pthread_t thread;
    size_t wrong = 0;
    options_set("dirty_decay_ms:-1");
    CHECK(group_open(NULL) == 0);
    CHECK(pthread_create(&thread, NULL, ask_for_owner, &wrong) == 0);
    asked_about = table->malloc(1500 * MIB);
    if (asked_about == NULL)
        _exit(0); /* the system counts what is mapped */
    for (int i = 0; i < 5; i++) /* all tables are made */
        CHECK((asked_about = table->realloc(asked_about, sizes[i])) != NULL);
    char *block = asked_about;
    atomic_store(&asking, true);
    for (int i = 0; i < 20000 && block == asked_about; i++)
        CHECK((block = table->realloc(block, sizes[i % (i < 15000 ? 2 : 5)])) != NULL);
    atomic_store(&resizing, false);
    pthread_join(thread, NULL);
    CHECK(wrong == 0 || block != asked_about); /* somebody else came behind it, and it moved */
}

static void
test_block_is_found_while_it_is_resized(void **unused)
{
    (void)unused;
    in_child(resize_while_another_asks);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_4_tib_cost_what_is_touched),
        cmocka_unit_test(test_any_size_costs_what_is_touched),
        cmocka_unit_test(test_impossible_sizes_are_refused_at_once),
        cmocka_unit_test(test_pages_of_huge_blocks_that_come_and_go_are_kept),
        cmocka_unit_test(test_pages_of_huge_blocks_of_many_sizes_are_kept),
        cmocka_unit_test(test_calloc_clears_pages_that_were_kept),
        cmocka_unit_test(test_calloc_makes_no_page_resident),
        cmocka_unit_test(test_nothing_is_kept_if_decay_is_at_once),
        cmocka_unit_test(test_purge_gives_all_back),
        cmocka_unit_test(test_what_is_kept_decays),
        cmocka_unit_test(test_what_is_kept_is_not_charged),
        cmocka_unit_test(test_pages_behind_blocks_are_not_beyond_the_limit),
        cmocka_unit_test(test_block_is_found_while_it_is_resized),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
