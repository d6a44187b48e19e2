/* Heaps: made, used, measured exactly, destroyed; and their entry points for routed modules. */
#include "heaps.h"

#include <pthread.h>

static void
test_new_heap_is_empty(void **unused)
{
    (void)unused;
    uint32_t heap = heap_new(0);
    struct alcove_heap_stats s = stats_of(heap), nothing = { .size = s.size };
    assert_memory_equal(&s, &nothing, sizeof s);
    heap_end(heap);
}

static void
test_heaps_are_counted(void **unused)
{
    (void)unused;
    uint32_t before = info_now().heaps, one = heap_new(0), two = heap_new(0);
    assert_int_not_equal(one, two);
    assert_int_equal(info_now().heaps, before + 2);
    heap_end(one);
    heap_end(two);
    assert_int_equal(info_now().heaps, before);
}

static void
test_options_may_be_missing(void **unused)
{
    (void)unused;
    uint32_t heap;
    assert_int_equal(table->heap_create(NULL, &heap), 0);
    assert_non_null(table->heap_malloc(heap, 10));
    heap_end(heap);
}

static void
test_options_that_are_not_understood_are_refused(void **unused)
{
    (void)unused;
    uint32_t heap = 4711, before = info_now().heaps;
    assert_int_equal(table->heap_create(&(struct alcove_heap_options){ .flags = 1 }, &heap), EINVAL);
    assert_int_equal(table->heap_create(&(struct alcove_heap_options){ .size = 4 }, &heap), EINVAL);
    assert_int_equal(table->heap_create(&(struct alcove_heap_options){ .size = UINT32_MAX - 7 }, &heap), EINVAL);
    assert_int_equal(table->heap_create(NULL, NULL), EINVAL);
    assert_int_equal(heap, 4711);
    assert_int_equal(info_now().heaps, before);
}

static void
test_heap_that_does_not_exist_is_refused(void **unused)
{
    (void)unused;
    struct alcove_heap_stats s;
    static const uint32_t numbers[] = { 99, ALCOVE_HEAP_MAX - 1, ALCOVE_HEAP_MAX, ALCOVE_HEAP_NONE, UINT32_MAX };
    for (int i = 0; i < 5; i++) {
        assert_int_equal(table->heap_destroy(numbers[i]), EINVAL);
        assert_int_equal(table->heap_limit(numbers[i], 0), EINVAL);
        assert_int_equal(table->heap_stats(numbers[i], &s), EINVAL);
    }
    assert_int_equal(table->heap_stats(0, NULL), EINVAL);
}

/* Blocks in a sealed heap cannot be lost to somebody else's idea of its number. */
static void
test_sealed_heap_is_left_alone_until_it_is_unsealed(void **unused)
{
    (void)unused;
    static const char seal, other;
    struct alcove_heap_options options = { .size = sizeof options, .name = "sealed", .seal = &seal };
    uint32_t heap;
    assert_int_equal(table->heap_create(&options, &heap), 0);
    char *block = table->heap_malloc(heap, 100);
    memset(block, 1, 100);
    assert_int_equal(table->heap_destroy(heap), EPERM);
    assert_int_equal(table->heap_end(heap), EPERM);
    assert_int_equal(table->heap_unseal(heap, &other), EPERM);
    assert_int_equal(table->heap_unseal(heap, NULL), EPERM);
    assert_int_equal(table->heap_destroy(heap), EPERM);
    assert_int_equal(block[99], 1);
    assert_int_equal(stats_of(heap).live_blocks, 1);
    assert_int_equal(table->heap_unseal(heap, &seal), 0);
    heap_end(heap);
    assert_int_equal(table->heap_unseal(heap, &seal), EINVAL);
    heap = heap_new(0);
    assert_int_equal(table->heap_unseal(heap, &seal), EPERM); /* it has none */
    assert_int_equal(table->heap_unseal(heap, NULL), EPERM);
    heap_end(heap);
}

#define BINS_MOST 256

/* Blocks of every kind: cut from slabs, with pages of their own, larger than any class; some freed, some cached. */
static void
blocks_of_every_kind(uint32_t heap, void **blocks, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        size_t size = i % 16 == 15 ? (size_t)(i + 1) << 17 : i % 4 == 3 ? (size_t)i << 9 : i * 7 % 3000;
        assert_non_null(blocks[i] = table->heap_malloc(heap, size));
    }
    for (unsigned i = 0; i < count; i += 2)
        table->free(blocks[i]);
}

static void
test_figures_by_bin_add_up(void **unused)
{
    (void)unused;
    enum { COUNT = 200 };
    void *blocks[COUNT];
    struct alcove_bin_stats bins[BINS_MOST], sum = { 0 };
    uint32_t heap = heap_new(0), count = BINS_MOST;
    blocks_of_every_kind(heap, blocks, COUNT);
    struct alcove_heap_stats s = stats_of(heap);
    assert_int_equal(table->heap_bins(heap, bins, sizeof *bins, &count), 0);
    assert_in_range(count, 2, BINS_MOST);
    uint64_t cached_bytes = 0;
    for (uint32_t i = 0; i < count; i++) {
        assert_true(i == 0 || bins[i].block_size > bins[i - 1].block_size || i == count - 1);
        assert_true(i == count - 1 || bins[i].live_bytes == bins[i].live_blocks * bins[i].block_size);
        sum.slabs += bins[i].slabs;
        sum.live_blocks += bins[i].live_blocks;
        sum.live_bytes += bins[i].live_bytes;
        sum.total_allocs += bins[i].total_allocs;
        sum.total_bytes += bins[i].total_bytes;
        cached_bytes += bins[i].cached_blocks * bins[i].block_size;
    }
    assert_int_equal(bins[count - 1].block_size, 0);
    assert_true(bins[count - 1].live_blocks != 0);
    assert_true(sum.slabs != 0);
    assert_int_equal(sum.live_blocks, COUNT / 2);
    assert_int_equal(sum.live_blocks, s.live_blocks);
    assert_int_equal(sum.live_bytes, s.live_bytes);
    assert_int_equal(sum.total_allocs, s.total_allocs);
    assert_int_equal(sum.total_bytes, s.total_bytes);
    assert_int_equal(cached_bytes, s.cached_bytes);
    heap_end(heap);
}

/* By a caller whose struct is shorter or longer, or who has room for fewer. */
static void
test_figures_by_bin_of_any_stride(void **unused)
{
    (void)unused;
    static uint64_t longer[BINS_MOST][16], shorter[BINS_MOST];
    uint32_t heap = heap_new(0), all = 0, count = BINS_MOST;
    assert_non_null(table->heap_malloc(heap, 16));
    assert_int_equal(table->heap_bins(heap, NULL, sizeof(struct alcove_bin_stats), &all), 0);
    memset(longer, -1, sizeof longer);
    assert_int_equal(table->heap_bins(heap, (struct alcove_bin_stats *)longer, sizeof *longer, &count), 0);
    assert_int_equal(count, all);
    assert_int_equal(longer[0][0], 16);
    assert_int_equal(longer[0][2], 1); /* live */
    for (uint32_t i = 0; i < count; i++)
        for (unsigned k = sizeof(struct alcove_bin_stats) / 8; k < 16; k++)
            assert_int_equal(longer[i][k], 0);
    assert_true(longer[count][0] == UINT64_MAX);
    memset(shorter, -1, sizeof shorter);
    count = 3;
    assert_int_equal(table->heap_bins(heap, (struct alcove_bin_stats *)shorter, 8, &count), 0);
    assert_int_equal(count, all);
    assert_int_equal(shorter[2], 48);
    assert_true(shorter[3] == UINT64_MAX);
    struct alcove_bin_stats bins[1];
    count = 1;
    assert_int_equal(table->heap_bins(heap, bins, 12, &count), EINVAL);
    assert_int_equal(table->heap_bins(heap, bins, 0, &count), EINVAL);
    assert_int_equal(table->heap_bins(heap, NULL, sizeof *bins, &count), EINVAL);
    assert_int_equal(table->heap_bins(heap, bins, sizeof *bins, NULL), EINVAL);
    assert_int_equal(table->heap_bins(ALCOVE_HEAP_MAX, bins, sizeof *bins, &count), EINVAL);
    assert_int_equal(count, 1);
    heap_end(heap);
}

static void
test_peak_begins_anew(void **unused)
{
    (void)unused;
    uint32_t heap = heap_new(0);
    void *large = table->heap_malloc(heap, (size_t)8 << 20), *small = table->heap_malloc(heap, 1000);
    table->free(large);
    assert_true(stats_of(heap).peak_bytes >= (size_t)8 << 20);
    assert_int_equal(table->heap_peak_reset(heap), 0);
    struct alcove_heap_stats s = stats_of(heap);
    assert_int_equal(s.peak_bytes, s.live_bytes);
    large = table->heap_malloc(heap, (size_t)4 << 20);
    assert_in_range(stats_of(heap).peak_bytes, (size_t)4 << 20, ((size_t)8 << 20) - 1);
    table->free(large);
    table->free(small);
    assert_int_equal(table->heap_peak_reset(ALCOVE_HEAP_NONE), EINVAL);
    heap_end(heap);
}

static void
test_default_heap_cannot_be_destroyed(void **unused)
{
    (void)unused;
    assert_int_equal(table->heap_destroy(ALCOVE_HEAP_DEFAULT), EINVAL);
    table->free(table->malloc(10));
}

/* Blocks and bytes of every kind of block, in one thread. */
static void
test_figures_are_exact(void **unused)
{
    (void)unused;
    uint32_t heap = heap_new(0);
    enum { MANY = 3000 };
    static void *blocks[MANY];
    uint64_t bytes = 0, total = 0;
    for (int i = 0; i < MANY; i++) {
        size_t size = i % 100 == 0 ? (size_t)i * 1000 : (size_t)i % 2000;
        blocks[i] = table->heap_malloc(heap, size);
        assert_non_null(blocks[i]);
        bytes += table->malloc_usable_size(blocks[i]);
        struct alcove_heap_stats s;
        if (i % 50 == 0) {
            s = stats_of(heap);
            assert_int_equal(s.live_blocks, i + 1);
            assert_int_equal(s.live_bytes, bytes);
        }
    }
    total = bytes;
    for (int i = 0; i < MANY; i++) {
        if (i % 50 == 0) {
            struct alcove_heap_stats s = stats_of(heap);
            assert_int_equal(s.live_blocks, MANY - i);
            assert_int_equal(s.live_bytes, bytes);
            assert_int_equal(s.total_allocs, MANY);
            assert_int_equal(s.total_frees, i);
            assert_int_equal(s.total_bytes, total);
        }
        bytes -= table->malloc_usable_size(blocks[i]);
        table->free(blocks[i]);
    }
    struct alcove_heap_stats s = stats_of(heap);
    assert_int_equal(s.live_blocks, 0);
    assert_int_equal(s.live_bytes, 0);
    assert_int_equal(s.total_allocs, MANY);
    assert_int_equal(s.total_frees, MANY);
    assert_int_equal(s.total_bytes, total);
    assert_in_range(s.peak_bytes, total, total * 2);
    heap_end(heap);
}

static void
test_realloc_keeps_the_figures_exact(void **unused)
{
    (void)unused;
    uint32_t heap = heap_new(0);
    void *block = NULL;
    for (size_t size = 1; size < 30000000; size = size * 5 / 4 + 3) {
        block = table->heap_realloc(heap, block, size);
        assert_non_null(block);
        struct alcove_heap_stats s = stats_of(heap);
        assert_int_equal(s.live_blocks, 1);
        assert_int_equal(s.live_bytes, table->malloc_usable_size(block));
        assert_true(s.active_bytes >= s.live_bytes);
    }
    for (size_t size = 20000000; size > 0; size /= 3) {
        block = table->realloc(block, size);
        assert_int_equal(stats_of(heap).live_blocks, 1);
        assert_int_equal(stats_of(heap).live_bytes, table->malloc_usable_size(block));
    }
    table->free(block);
    table->purge();
    assert_int_equal(stats_of(heap).live_bytes, 0);
    assert_int_equal(stats_of(heap).active_bytes, 0);
    heap_end(heap);
}

static void
test_block_stays_in_its_heap_when_resized(void **unused)
{
    (void)unused;
    uint32_t heap = heap_new(0);
    void *block = table->heap_malloc(heap, 100);
    for (size_t size = 100; size < 20000000; size *= 4) {
        block = table->realloc(block, size);
        assert_int_equal(owner_of(block).heap, heap);
    }
    table->free(block);
    heap_end(heap);
}

static void
test_cached_blocks_are_told_apart_from_live_ones(void **unused)
{
    (void)unused;
    uint32_t heap = heap_new(0);
    table->free(table->heap_malloc(heap, 64));
    struct alcove_heap_stats s = stats_of(heap);
    assert_int_equal(s.live_blocks, 0);
    assert_true(s.cached_bytes >= 64);
    assert_true(s.active_bytes >= s.cached_bytes);
    table->purge();
    s = stats_of(heap);
    assert_int_equal(s.cached_bytes, 0);
    assert_int_equal(s.active_bytes, 0);
    assert_int_equal(s.total_allocs, 1);
    heap_end(heap);
}

static void
test_two_heaps_never_share_a_page(void **unused)
{
    (void)unused;
    uint32_t heaps[2] = { heap_new(0), heap_new(0) };
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    for (int i = 0; i < 2000; i++) {
        uint32_t heap = heaps[i % 2];
        char *block = table->heap_malloc(heap, (size_t)(i * 7) % 3000);
        char *first = (char *)((uintptr_t)block & ~(page - 1));
        for (char *p = first; p < first + page; p += 16) {
            struct alcove_owner owner;
            if (!table->owner(p, &owner) || owner.heap != heap)
                fail_msg("byte %p, in a page of heap %u's, belongs to heap %u", (void *)p, heap, owner.heap);
        }
    }
    heap_end(heaps[0]);
    heap_end(heaps[1]);
}

static void
test_owner_tells_heap_block_and_size_of_every_address(void **unused)
{
    (void)unused;
    uint32_t heap = heap_new(0);
    static const size_t sizes[] = { 1, 64, 1000, 30000, 40000, 300000, 1500000, 12000000 };
    for (int i = 0; i < 8; i++) {
        char *block = table->heap_malloc(heap, sizes[i]);
        size_t usable = table->malloc_usable_size(block);
        for (size_t at = 0; at < usable; at += usable / 16) {
            struct alcove_owner owner = owner_of(block + at);
            assert_int_equal(owner.heap, heap);
            assert_int_equal(owner.live, 1);
            assert_ptr_equal(owner.block, block);
            assert_int_equal(owner.usable, usable);
        }
        assert_ptr_equal(owner_of(block + usable - 1).block, block);
    }
    heap_end(heap);
}

static void
test_destroyed_heaps_addresses_are_no_longer_ours(void **unused)
{
    (void)unused;
    uint32_t heap = heap_new(0);
    static char *blocks[2000];
    size_t sizes[2000];
    for (int i = 0; i < 2000; i++) {
        sizes[i] = i % 200 == 0 ? (size_t)3 << 20 : i % 50 == 0 ? 100000 : (size_t)i;
        blocks[i] = table->heap_malloc(heap, sizes[i]);
    }
    heap_end(heap);
    struct alcove_owner owner;
    for (int i = 0; i < 2000; i++) {
        assert_int_equal(table->owner(blocks[i], &owner), 0);
        assert_int_equal(table->owner(blocks[i] + sizes[i] / 2, &owner), 0);
        assert_int_equal(owner.heap, ALCOVE_HEAP_NONE);
    }
}

static void
test_destroying_gives_all_pages_back(void **unused)
{
    (void)unused;
    table->purge();
    size_t before = resident_bytes();
    struct alcove_info first = info_now(), last;
    uint32_t heap = heap_new(0);
    for (int i = 0; i < 40000; i++)
        fill(table->heap_malloc(heap, 1000), 1000, (unsigned)i);
    fill(table->heap_malloc(heap, 8 << 20), 8 << 20, 1);
    assert_true(resident_bytes() > before + (40 << 20));
    heap_end(heap);
    table->purge();
    last = info_now();
    assert_true(resident_bytes() < before + (4 << 20));
    assert_int_equal(last.live_blocks, first.live_blocks);
    assert_int_equal(last.active_bytes, first.active_bytes);
}

static void
test_other_heaps_are_unharmed_by_a_destruction(void **unused)
{
    (void)unused;
    uint32_t one = heap_new(0), two = heap_new(0);
    void *kept[300];
    for (unsigned i = 0; i < 300; i++) {
        table->heap_malloc(one, i * 50);
        fill(kept[i] = table->heap_malloc(two, i * 50), i * 50, i);
        table->heap_malloc(one, i * 50);
    }
    heap_end(one);
    uint32_t three = heap_new(0);
    for (unsigned i = 0; i < 300; i++)
        memset(table->heap_malloc(three, i * 50), 0xee, i * 50);
    assert_int_equal(stats_of(two).live_blocks, 300);
    for (unsigned i = 0; i < 300; i++) {
        assert_true(filled(kept[i], i * 50, i));
        table->free(kept[i]);
    }
    heap_end(two);
    heap_end(three);
}

static void
test_number_of_a_destroyed_heap_is_used_again_for_an_empty_one(void **unused)
{
    (void)unused;
    uint32_t heap = heap_new(1 << 20);
    for (int i = 0; i < 100; i++)
        table->free(table->heap_malloc(heap, 64));
    table->heap_malloc(heap, 64);
    heap_end(heap);
    uint32_t next = heap_new(0);
    assert_int_not_equal(next, heap); /* those that were given up longest ago come first */
    heap_end(next);
    uint32_t again = heap_new_of_number(heap);
    struct alcove_heap_stats s = stats_of(again), nothing = { .size = s.size };
    assert_memory_equal(&s, &nothing, sizeof s);
    void *block = table->heap_malloc(again, 64);
    assert_int_equal(owner_of(block).heap, again);
    heap_end(again);
}

static void
test_all_numbers_can_be_taken_and_one_more_is_refused(void **unused)
{
    (void)unused;
    static uint32_t heaps[ALCOVE_HEAP_MAX];
    uint32_t n = 0, more = 4711;
    int error;
    while ((error = table->heap_create(NULL, &heaps[n])) == 0) {
        table->free(table->heap_malloc(heaps[n], 100));
        n++;
    }
    assert_int_equal(error, EAGAIN);
    assert_int_equal(n, ALCOVE_HEAP_MAX - 1);
    assert_int_equal(table->heap_create(NULL, &more), EAGAIN);
    assert_int_equal(more, 4711);
    while (n > 0)
        heap_end(heaps[--n]);
}

/* What is kept by number is touched by those that are used only. */
static void
test_numbers_that_go_round_are_few_while_few_heaps_live(void **unused)
{
    (void)unused;
    for (int i = 0; i < 5000; i++) {
        uint32_t heap = heap_new(0);
        assert_in_range(heap, 1, 1023);
        heap_end(heap);
    }
}

static void
test_heap_calloc_is_zero_and_refuses_overflow(void **unused)
{
    (void)unused;
    uint32_t heap = heap_new(0);
    volatile size_t half = SIZE_MAX / 2 + 1;
    for (int round = 0; round < 50; round++) {
        unsigned char *block = table->heap_calloc(heap, 30, 100);
        assert_int_equal(owner_of(block).heap, heap);
        for (int i = 0; i < 3000; i++)
            assert_int_equal(block[i], 0);
        memset(block, 0xff, 3000);
        table->free(block);
    }
    errno = 0;
    assert_null(table->heap_calloc(heap, half, 2));
    assert_int_equal(errno, ENOMEM);
    heap_end(heap);
}

static void
test_heap_aligned_alloc(void **unused)
{
    (void)unused;
    uint32_t heap = heap_new(0);
    for (size_t alignment = 1; alignment <= 8 << 20; alignment *= 2) {
        void *block = table->heap_aligned_alloc(heap, alignment, 1000);
        assert_int_equal((uintptr_t)block % alignment, 0);
        assert_int_equal(owner_of(block).heap, heap);
    }
    errno = 0;
    assert_null(table->heap_aligned_alloc(heap, 24, 100));
    assert_int_equal(errno, EINVAL);
    heap_end(heap);
}

static void
test_entries_work_on_the_heap_they_are_given(void **unused)
{
    (void)unused;
    uint32_t heap = heap_new(0);
#define ENTRY(name, result, ...) \
    result(*do_##name)(__VA_ARGS__, size_t) = (result(*)(__VA_ARGS__, size_t))table->entry(ALCOVE_ENTRY_##name); \
    assert_non_null(do_##name)
    ENTRY(malloc, void *, size_t);
    ENTRY(calloc, void *, size_t, size_t);
    ENTRY(realloc, void *, void *, size_t);
    ENTRY(reallocarray, void *, void *, size_t, size_t);
    ENTRY(aligned_alloc, void *, size_t, size_t);
    ENTRY(memalign, void *, size_t, size_t);
    ENTRY(posix_memalign, int, void **, size_t, size_t);
    ENTRY(valloc, void *, size_t);
    ENTRY(pvalloc, void *, size_t);
    ENTRY(strdup, char *, const char *);
    ENTRY(strndup, char *, const char *, size_t);
    ENTRY(free, void, void *);
    ENTRY(malloc_usable_size, size_t, void *);
#undef ENTRY
    void *aligned = NULL;
    assert_int_equal(do_posix_memalign(&aligned, 256, 100, heap), 0);
    void *blocks[] = { do_malloc(100, heap),           do_calloc(3, 100, heap),   do_realloc(NULL, 100, heap), do_reallocarray(NULL, 3, 100, heap),
                       do_aligned_alloc(64, 100, heap), do_memalign(64, 100, heap), aligned,               do_valloc(100, heap),
                       do_pvalloc(100, heap),          do_strdup("a text", heap), do_strndup("a text", 3, heap) };
    for (unsigned i = 0; i < sizeof blocks / sizeof blocks[0]; i++) {
        assert_non_null(blocks[i]);
        assert_int_equal(owner_of(blocks[i]).heap, heap);
        assert_int_equal(do_malloc_usable_size(blocks[i], heap), table->malloc_usable_size(blocks[i]));
    }
    assert_string_equal(blocks[9], "a text");
    assert_string_equal(blocks[10], "a t");
    assert_int_equal(stats_of(heap).live_blocks, 11);
    for (unsigned i = 0; i < 11; i++)
        do_free(blocks[i], heap);
    assert_int_equal(stats_of(heap).live_blocks, 0);
    heap_end(heap);
}

static void
test_entry_that_does_not_exist_is_null(void **unused)
{
    (void)unused;
    assert_null(table->entry(ALCOVE_ENTRY_COUNT));
}

static void *
allocate_and_leave(void *argument)
{
    uint32_t heap = *(uint32_t *)argument;
    for (int i = 0; i < 1000; i++)
        table->free(table->heap_malloc(heap, (size_t)i));
    return table->heap_malloc(heap, 64);
}

/* Their caches of it must be gone before its number is used again. */
static void
test_heap_that_ended_threads_used_can_be_destroyed(void **unused)
{
    (void)unused;
    for (int round = 0; round < 20; round++) {
        uint32_t heap = heap_new(0);
        pthread_t threads[3];
        void *block;
        for (int i = 0; i < 3; i++)
            assert_int_equal(pthread_create(&threads[i], NULL, allocate_and_leave, &heap), 0);
        for (int i = 0; i < 3; i++) {
            pthread_join(threads[i], &block);
            assert_int_equal(owner_of(block).heap, heap);
        }
        assert_int_equal(stats_of(heap).live_blocks, 3);
        assert_int_equal(stats_of(heap).total_allocs, 3003);
        heap_end(heap);
    }
}

static pthread_barrier_t barrier;

static void *
use_two_heaps(void *argument)
{
    uint32_t *heaps = argument;
    table->free(table->heap_malloc(heaps[0], 64));
    pthread_barrier_wait(&barrier); /* used */
    pthread_barrier_wait(&barrier); /* destroyed and made again */
    void *block = table->heap_malloc(heaps[1], 64);
    struct alcove_owner owner;
    return table->owner(block, &owner) && owner.heap == heaps[1] && owner.live ? NULL : argument;
}

/* A thread that lives on has a cache of the destroyed heap, which must not serve the next of its number. */
static void
test_living_threads_forget_a_destroyed_heap(void **unused)
{
    (void)unused;
    uint32_t heaps[2] = { heap_new(0), 0 };
    pthread_t thread;
    void *result;
    pthread_barrier_init(&barrier, NULL, 2);
    assert_int_equal(pthread_create(&thread, NULL, use_two_heaps, heaps), 0);
    pthread_barrier_wait(&barrier);
    heap_end(heaps[0]);
    heaps[1] = heap_new_of_number(heaps[0]);
    pthread_barrier_wait(&barrier);
    pthread_join(thread, &result);
    assert_null(result);
    heap_end(heaps[1]);
    pthread_barrier_destroy(&barrier);
}

static void
test_ten_thousand_heaps_one_after_the_other_do_not_grow(void **unused)
{
    (void)unused;
    struct alcove_info first = { 0 }, last;
    for (int i = 0; i < 10000; i++) {
        uint32_t heap = heap_new(0);
        table->heap_malloc(heap, (size_t)i % 5000);
        table->free(table->heap_malloc(heap, 100));
        heap_end(heap);
        if (i == 100)
            first = info_now();
    }
    last = info_now();
    assert_int_equal(last.metadata_bytes, first.metadata_bytes);
    assert_true(last.mapped_bytes <= first.mapped_bytes + (4 << 20));
}

static void
test_no_message_came(void **unused)
{
    (void)unused;
    assert_string_equal(messages, "");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_new_heap_is_empty),
        cmocka_unit_test(test_heaps_are_counted),
        cmocka_unit_test(test_options_may_be_missing),
        cmocka_unit_test(test_options_that_are_not_understood_are_refused),
        cmocka_unit_test(test_heap_that_does_not_exist_is_refused),
        cmocka_unit_test(test_sealed_heap_is_left_alone_until_it_is_unsealed),
        cmocka_unit_test(test_figures_by_bin_add_up),
        cmocka_unit_test(test_figures_by_bin_of_any_stride),
        cmocka_unit_test(test_peak_begins_anew),
        cmocka_unit_test(test_default_heap_cannot_be_destroyed),
        cmocka_unit_test(test_figures_are_exact),
        cmocka_unit_test(test_realloc_keeps_the_figures_exact),
        cmocka_unit_test(test_block_stays_in_its_heap_when_resized),
        cmocka_unit_test(test_cached_blocks_are_told_apart_from_live_ones),
        cmocka_unit_test(test_two_heaps_never_share_a_page),
        cmocka_unit_test(test_owner_tells_heap_block_and_size_of_every_address),
        cmocka_unit_test(test_destroyed_heaps_addresses_are_no_longer_ours),
        cmocka_unit_test(test_destroying_gives_all_pages_back),
        cmocka_unit_test(test_other_heaps_are_unharmed_by_a_destruction),
        cmocka_unit_test(test_number_of_a_destroyed_heap_is_used_again_for_an_empty_one),
        cmocka_unit_test(test_all_numbers_can_be_taken_and_one_more_is_refused),
        cmocka_unit_test(test_numbers_that_go_round_are_few_while_few_heaps_live),
        cmocka_unit_test(test_heap_calloc_is_zero_and_refuses_overflow),
        cmocka_unit_test(test_heap_aligned_alloc),
        cmocka_unit_test(test_entries_work_on_the_heap_they_are_given),
        cmocka_unit_test(test_entry_that_does_not_exist_is_null),
        cmocka_unit_test(test_heap_that_ended_threads_used_can_be_destroyed),
        cmocka_unit_test(test_living_threads_forget_a_destroyed_heap),
        cmocka_unit_test(test_ten_thousand_heaps_one_after_the_other_do_not_grow),
        cmocka_unit_test(test_no_message_came),
    };
    return cmocka_run_group_tests(tests, group_open, NULL);
}
