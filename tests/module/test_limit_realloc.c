/*
 * realloc to less, and to no more than is usable, never fails: not at a heap's limit, not where the system gives
 * nothing more. Contents and errno are as before.
 */
#include "config.h"
#include "heaps.h"

#include <sys/resource.h>

#include "tests/child.h"

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)
#define MANY 40000

static uint32_t heap;
static void *blocks[MANY];

/* Blocks of a size, until no more is to be had of any. Returns how many. */
static unsigned
fill_with(size_t size)
{
    unsigned n = 0;
    while (n < MANY && (blocks[n] = table->heap_malloc(heap, size)) != NULL) {
        fill(blocks[n], size, n);
        n++;
    }
    for (size_t rest = size; rest > 0; rest /= 2)
        while (table->heap_malloc(heap, rest) != NULL)
            ;
    return n;
}

/* Make block i, of `from` bytes, one of `to` bytes. */
static void
shrink(unsigned i, size_t from, size_t to)
{
    unsigned char wanted = (unsigned char)(i * 37 + from);
    errno = 4711;
    unsigned char *less = table->heap_realloc(heap, blocks[i], to);
    if (less == NULL || errno != 4711) {
        fprintf(stderr, "block %u: realloc of %zu bytes to %zu: %s, errno %d\n", i, from, to, less != NULL ? "done" : "NULL",
                errno);
        _exit(1);
    }
    for (size_t at = 0; at < to; at++)
        CHECK(less[at] == wanted);
    CHECK(table->malloc_usable_size(less) >= to);
    blocks[i] = less;
}

static const size_t sizes[] = { 5, 16, 100, 128, 129, 1000, 4096, 10000, 32 * KIB, 33 * KIB, 100000, 400 * KIB, MIB,
                                2 * MIB, 3 * MIB, 9 * MIB };
#define SIZES (sizeof sizes / sizeof *sizes)

/* From every size to every smaller one, every block of a heap that is full. */
static void
shrink_at_the_limit(void)
{
    CHECK(group_open(NULL) == 0);
    for (unsigned from = 0; from < SIZES; from++)
        for (unsigned to = 0; to < from; to++) {
            heap = heap_new(sizes[from] >= MIB ? sizes[from] + MIB / 2 : MIB);
            unsigned n = fill_with(sizes[from]), shrunk = n < 100 ? n : 100;
            CHECK(n > 0);
            struct alcove_heap_stats s = stats_of(heap);
            for (unsigned i = 0; i < shrunk; i++)
                shrink(i, sizes[from], sizes[to]);
            CHECK(stats_of(heap).live_blocks == s.live_blocks);
            CHECK(stats_of(heap).live_bytes <= s.live_bytes);
            CHECK(stats_of(heap).active_bytes <= s.limit);
            CHECK(stats_of(heap).limit_refused == s.limit_refused);
            heap_end(heap);
        }
}

static void
test_realloc_to_less_at_the_limit(void **unused)
{
    (void)unused;
    in_child(shrink_at_the_limit);
}

/* One block that is as large as its heap may be. */
static void
shrink_all_there_is(void)
{
    static const size_t limits[] = { 64 * KIB, 128 * KIB, 700 * KIB, MIB, 4 * MIB, 12 * MIB, 64 * MIB };
    CHECK(group_open(NULL) == 0);
    for (unsigned i = 0; i < sizeof limits / sizeof *limits; i++)
        for (size_t to = 1; to < limits[i]; to = to * 7 + 1) {
            heap = heap_new(limits[i]);
            size_t size = limits[i];
            while ((blocks[0] = table->heap_malloc(heap, size)) == NULL && size > to)
                size -= 4 * KIB;
            CHECK(size > to);
            fill(blocks[0], size, 0);
            while (table->heap_malloc(heap, 16) != NULL)
                ;
            shrink(0, size, to);
            heap_end(heap);
        }
}

static void
test_realloc_to_less_of_the_only_block(void **unused)
{
    (void)unused;
    in_child(shrink_all_there_is);
}

/* Little by little, as a buffer that is drained. */
static void
shrink_in_steps(void)
{
    CHECK(group_open(NULL) == 0);
    heap = heap_new(16 * MIB);
    size_t size = 10 * MIB;
    CHECK((blocks[0] = table->heap_malloc(heap, size)) != NULL);
    memset(blocks[0], 0x5a, size);
    while (table->heap_malloc(heap, 100) != NULL)
        ;
    while (size > 1) {
        size -= size / 9 + 1;
        errno = 4711;
        unsigned char *less = table->heap_realloc(heap, blocks[0], size);
        CHECK(less != NULL && errno == 4711);
        for (size_t at = 0; at < size; at++)
            CHECK(less[at] == 0x5a);
        blocks[0] = less;
    }
}

static void
test_realloc_to_less_in_steps(void **unused)
{
    (void)unused;
    in_child(shrink_in_steps);
}

/* malloc_usable_size says what may be used: to ask realloc for that much, or anything below, is never too much. */
static void
use_what_is_usable(void)
{
    CHECK(group_open(NULL) == 0);
    for (unsigned i = 0; i < SIZES; i++) {
        heap = heap_new(sizes[i] >= MIB ? sizes[i] + MIB / 2 : MIB);
        unsigned n = fill_with(sizes[i]), used = n < 100 ? n : 100;
        for (unsigned j = 0; j < used; j++) {
            size_t usable = table->malloc_usable_size(blocks[j]);
            for (size_t size = sizes[i]; size <= usable; size += (usable - size) / 3 + 1) {
                errno = 4711;
                void *same = table->heap_realloc(heap, blocks[j], size);
                CHECK(same != NULL && errno == 4711);
                CHECK(filled(same, sizes[i], j));
                blocks[j] = same;
            }
        }
        heap_end(heap);
    }
}

static void
test_realloc_to_what_is_usable_at_the_limit(void **unused)
{
    (void)unused;
    in_child(use_what_is_usable);
}

/* A block that grew may have been given more than it asked for; that is as good as what malloc gave. */
static void
use_what_is_usable_of_grown_blocks(void)
{
    CHECK(group_open(NULL) == 0);
    for (size_t most = 20000; most < 6 * MIB; most += most / 3) {
        heap = heap_new(most * 4 + MIB);
        size_t size = most / 8;
        unsigned char *block = table->heap_malloc(heap, size);
        while (size < most) {
            size += size / 3;
            CHECK((block = table->heap_realloc(heap, block, size)) != NULL);
        }
        size_t usable = table->malloc_usable_size(block);
        memset(block, 0x5a, usable);
        for (size_t rest = most; rest > 0; rest /= 2)
            while (table->heap_malloc(heap, rest) != NULL)
                ;
        errno = 4711;
        block = table->heap_realloc(heap, block, usable);
        CHECK(block != NULL && errno == 4711);
        for (size_t at = 0; at < usable; at++)
            CHECK(block[at] == 0x5a);
        CHECK(stats_of(heap).active_bytes <= most * 4 + MIB);
        heap_end(heap);
    }
}

static void
test_realloc_to_what_is_usable_of_a_grown_block(void **unused)
{
    (void)unused;
    in_child(use_what_is_usable_of_grown_blocks);
}

/* A block with room takes one page of it, if no more than that is left to its heap. */
static void
use_the_last_page(void)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    CHECK(group_open(NULL) == 0);
    heap = heap_new(16 * MIB);
    void *block = table->heap_realloc(heap, table->heap_malloc(heap, 700 * KIB), 800 * KIB);
    size_t usable = table->malloc_usable_size(block);
    uint64_t active = stats_of(heap).active_bytes;
    CHECK(usable >= 800 * KIB && table->heap_limit(heap, active + page) == 0);
    CHECK(table->heap_realloc(heap, block, usable + 1) == block);
    CHECK(table->malloc_usable_size(block) == usable + page);
    CHECK(stats_of(heap).active_bytes == active + page && stats_of(heap).limit_refused == 0);
    CHECK(table->heap_realloc(heap, block, usable + page + 1) == NULL);
    CHECK(stats_of(heap).active_bytes == active + page && stats_of(heap).limit_refused == 1);
}

static void
test_block_with_room_takes_the_last_page_of_the_limit(void **unused)
{
    (void)unused;
    if (ALCOVE_LG_PAGE > 12)
        SKIP_BECAUSE("the figures are for pages of 4 KiB");
    in_child(use_the_last_page);
}

/* No limit of a heap, but not a page more from the system. */
static void
shrink_without_memory(int resource, rlim_t most)
{
    heap = ALCOVE_HEAP_DEFAULT;
    unsigned n[4];
    static const size_t of[4] = { 9 * MIB, MIB, 100 * KIB, 4 * KIB };
    static void *kept[4][100];
    CHECK(setrlimit(resource, &(struct rlimit){ most, most }) == 0);
    for (unsigned kind = 0; kind < 4; kind++) {
        for (n[kind] = 0; n[kind] < 8 && (blocks[n[kind]] = table->malloc(of[kind])) != NULL; n[kind]++)
            fill(blocks[n[kind]], of[kind], n[kind]);
        CHECK(n[kind] > 0);
        memcpy(kept[kind], blocks, n[kind] * sizeof *blocks);
    }
    for (size_t rest = 16 * MIB; rest > 0; rest /= 2)
        while (table->malloc(rest) != NULL)
            ;
    for (unsigned kind = 0; kind < 4; kind++) {
        memcpy(blocks, kept[kind], n[kind] * sizeof *blocks);
        for (unsigned i = 0; i < n[kind]; i++)
            shrink(i, of[kind], (of[kind] >> i % 4 * 3) / 2);
    }
}

#define ROOM (128 * MIB)

static void
shrink_without_address_space(void)
{
    CHECK(group_open(NULL) == 0);
    shrink_without_memory(RLIMIT_AS, mapped_bytes() + ROOM);
}

static void
shrink_without_data(void)
{
    CHECK(group_open(NULL) == 0);
    shrink_without_memory(RLIMIT_DATA, ROOM);
}

static void
test_realloc_to_less_when_the_system_gives_nothing(void **unused)
{
    (void)unused;
    if (emulated())
        SKIP_BECAUSE("qemu's emulation of a program has no such limits");
    in_child(shrink_without_address_space);
    in_child(shrink_without_data);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_realloc_to_less_at_the_limit),
        cmocka_unit_test(test_realloc_to_less_of_the_only_block),
        cmocka_unit_test(test_realloc_to_less_in_steps),
        cmocka_unit_test(test_realloc_to_what_is_usable_at_the_limit),
        cmocka_unit_test(test_realloc_to_what_is_usable_of_a_grown_block),
        cmocka_unit_test(test_block_with_room_takes_the_last_page_of_the_limit),
        cmocka_unit_test(test_realloc_to_less_when_the_system_gives_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
