/* malloc and its family at their edges, as C17 and POSIX.1-2024 say, and where they leave a choice, as alcove.h does. */
#include "module.h"

#include "config.h"

#define FAMILY(X)                                                      \
    X(void *, malloc, (size_t))                                        \
    X(void *, calloc, (size_t, size_t))                                \
    X(void *, realloc, (void *, size_t))                               \
    X(void *, reallocarray, (void *, size_t, size_t))                  \
    X(void, free, (void *))                                            \
    X(void *, aligned_alloc, (size_t, size_t))                         \
    X(int, posix_memalign, (void **, size_t, size_t))                  \
    X(void *, memalign, (size_t, size_t))                              \
    X(void *, valloc, (size_t))                                        \
    X(void *, pvalloc, (size_t))                                       \
    X(size_t, malloc_usable_size, (void *))

static struct {
#define MEMBER(result, name, parameters) result(*name) parameters;
    FAMILY(MEMBER)
#undef MEMBER
} my;

/* From every kind of block: the smallest, small, large that caches keep, large, huge. */
/* Blocks above 32 KiB are whole pages, of the size that was configured. */
#define LARGE_UNIT ((size_t)1 << ALCOVE_LG_PAGE)

static const size_t sizes[] = { 1,     8,     16,     17,      64,      100,     1000,    1024,     1025,    4096,
                                10000, 32768, 32769,  40000,   100000,  500000,  1048576, 1048577,  1500000, 2097152,
                                2097153, 4194304, 5000000, 20000000 };
#define SIZES (sizeof sizes / sizeof sizes[0])

static size_t page;

static int
open_and_look_up(void **state)
{
    page = (size_t)sysconf(_SC_PAGESIZE);
    if (group_open(state) != 0)
        return -1;
#define LOOK_UP(result, name, parameters)                             \
    my.name = (result(*) parameters)symbol_of(module, #name);         \
    if (my.name == NULL)                                              \
        return -1;
    FAMILY(LOOK_UP)
#undef LOOK_UP
    return 0;
}

/* A variable, so that no compiler warns of a size that it can see is too large. */
static volatile size_t too_large[] = { (size_t)PTRDIFF_MAX + 1, SIZE_MAX, SIZE_MAX - 15, SIZE_MAX - 4095,
                                       PTRDIFF_MAX, PTRDIFF_MAX - 4096, (size_t)1 << 62 };
#define TOO_LARGE (sizeof too_large / sizeof too_large[0])

static void
test_table_has_the_same_functions(void **unused)
{
    (void)unused;
    assert_ptr_equal(table->malloc, my.malloc);
    assert_ptr_equal(table->calloc, my.calloc);
    assert_ptr_equal(table->realloc, my.realloc);
    assert_ptr_equal(table->free, my.free);
    assert_ptr_equal(table->aligned_alloc, my.aligned_alloc);
    assert_ptr_equal(table->posix_memalign, my.posix_memalign);
    assert_ptr_equal(table->malloc_usable_size, my.malloc_usable_size);
}

static void
test_blocks_of_all_sizes_are_aligned_usable_and_apart(void **unused)
{
    (void)unused;
    void *blocks[SIZES][3];
    for (int j = 0; j < 3; j++)
        for (unsigned i = 0; i < SIZES; i++) {
            blocks[i][j] = my.malloc(sizes[i]);
            assert_non_null(blocks[i][j]);
            assert_int_equal((uintptr_t)blocks[i][j] % 16, 0);
            assert_true(my.malloc_usable_size(blocks[i][j]) >= sizes[i]);
            fill(blocks[i][j], my.malloc_usable_size(blocks[i][j]), i * 3 + (unsigned)j);
        }
    for (int j = 0; j < 3; j++)
        for (unsigned i = 0; i < SIZES; i++) {
            assert_true(filled(blocks[i][j], my.malloc_usable_size(blocks[i][j]), i * 3 + (unsigned)j));
            my.free(blocks[i][j]);
        }
}

static void
test_every_size_up_to_a_few_pages(void **unused)
{
    (void)unused;
    for (size_t size = 0; size < 70000; size++) {
        void *block = my.malloc(size);
        size_t usable = my.malloc_usable_size(block);
        size_t most = size <= 32768 ? size + size / 4 + 16 : ((size - 1) / LARGE_UNIT + 1) * LARGE_UNIT + size / 8;
        if (block == NULL || usable < size || (size >= 16 && usable > most))
            fail_msg("size %zu: %p with %zu usable bytes", size, block, usable);
        my.free(block);
    }
}

static void
test_size_zero_gives_distinct_blocks(void **unused)
{
    (void)unused;
    void *a = my.malloc(0), *b = my.malloc(0), *c = my.calloc(0, 10), *d = my.calloc(10, 0), *e = my.realloc(NULL, 0);
    void *f = my.aligned_alloc(64, 0), *all[] = { a, b, c, d, e, f };
    for (int i = 0; i < 6; i++) {
        assert_non_null(all[i]);
        for (int j = 0; j < i; j++)
            assert_ptr_not_equal(all[i], all[j]);
    }
    for (int i = 0; i < 6; i++)
        my.free(all[i]);
}

static void
test_malloc_refuses_impossible_sizes(void **unused)
{
    (void)unused;
    for (unsigned i = 0; i < TOO_LARGE; i++) {
        errno = 0;
        assert_null(my.malloc(too_large[i]));
        assert_int_equal(errno, ENOMEM);
    }
}

static void
test_calloc_refuses_a_product_that_overflows(void **unused)
{
    (void)unused;
    volatile size_t half = SIZE_MAX / 2 + 1, root = (size_t)1 << 32;
    errno = 0;
    assert_null(my.calloc(half, 2));
    assert_int_equal(errno, ENOMEM);
    errno = 0;
    assert_null(my.calloc(2, half));
    assert_int_equal(errno, ENOMEM);
    errno = 0;
    assert_null(my.calloc(root, root));
    assert_int_equal(errno, ENOMEM);
    errno = 0;
    assert_null(my.calloc(too_large[0], 1));
    assert_int_equal(errno, ENOMEM);
}

static void
test_calloc_is_zero_though_its_memory_was_used(void **unused)
{
    (void)unused;
    for (unsigned i = 0; i < SIZES; i++) {
        for (int round = 0; round < 20; round++) {
            unsigned char *block = my.calloc(1, sizes[i]);
            assert_non_null(block);
            for (size_t at = 0; at < sizes[i]; at++)
                if (block[at] != 0)
                    fail_msg("calloc(1, %zu) in round %d: byte %zu is not zero", sizes[i], round, at);
            memset(block, 0xff, my.malloc_usable_size(block));
            my.free(block);
            if (round % 7 == 6)
                table->purge();
        }
    }
}

static void
test_free_of_null_does_nothing(void **unused)
{
    (void)unused;
    messages_clear();
    my.free(NULL);
    assert_int_equal(message_count, 0);
}

static void
test_free_keeps_errno(void **unused)
{
    (void)unused;
    for (unsigned i = 0; i < SIZES; i++) {
        void *blocks[40];
        for (int j = 0; j < 40; j++)
            assert_non_null(blocks[j] = my.malloc(sizes[i]));
        for (int j = 0; j < 40; j++) {
            errno = 4711;
            my.free(blocks[j]);
            assert_int_equal(errno, 4711);
        }
    }
    my.free(NULL);
    assert_int_equal(errno, 4711);
}

static void
test_success_keeps_errno(void **unused)
{
    (void)unused;
    for (unsigned i = 0; i < SIZES; i++) {
        errno = 4711;
        void *block = my.malloc(sizes[i]);
        assert_int_equal(errno, 4711);
        block = my.realloc(block, sizes[i] * 3);
        assert_int_equal(errno, 4711);
        my.free(block);
        my.free(my.aligned_alloc(8192, sizes[i]));
        assert_int_equal(errno, 4711);
    }
}

static void
test_realloc_of_null_allocates(void **unused)
{
    (void)unused;
    void *block = my.realloc(NULL, 1000);
    assert_non_null(block);
    assert_true(my.malloc_usable_size(block) >= 1000);
    my.free(block);
}

static void
test_realloc_to_zero_frees(void **unused)
{
    (void)unused;
    for (unsigned i = 0; i < SIZES; i++) {
        void *block = my.malloc(sizes[i]);
        uint64_t before = stats_of(0).live_blocks;
        errno = 0;
        assert_null(my.realloc(block, 0));
        assert_int_equal(errno, EINVAL);
        assert_int_equal(stats_of(0).live_blocks, before - 1);
    }
}

static void
test_other_reallocs_to_zero_free(void **unused)
{
    (void)unused;
    uint32_t heap;
    assert_int_equal(table->heap_create(NULL, &heap), 0);
    void *(*routed)(void *, size_t, size_t);
    *(void **)&routed = table->entry(ALCOVE_ENTRY_realloc);
    for (unsigned i = 0; i < SIZES; i++) {
        uint64_t before = stats_of(0).live_blocks;
        errno = 0;
        assert_null(my.reallocarray(my.malloc(sizes[i]), 0, 8));
        assert_int_equal(errno, EINVAL);
        errno = 0;
        assert_null(table->heap_realloc(heap, my.malloc(sizes[i]), 0));
        assert_int_equal(errno, EINVAL);
        assert_int_equal(stats_of(0).live_blocks, before);
        errno = 0;
        assert_null(routed(table->heap_malloc(heap, sizes[i]), 0, heap));
        assert_int_equal(errno, 0); /* as libc leaves it */
        assert_int_equal(stats_of(heap).live_blocks, 0);
    }
    assert_int_equal(table->heap_destroy(heap), 0);
}

static void
test_realloc_keeps_contents_from_every_size_to_every_size(void **unused)
{
    (void)unused;
    for (unsigned from = 0; from < SIZES; from++) {
        for (unsigned to = 0; to < SIZES; to++) {
            unsigned char *block = my.malloc(sizes[from]);
            size_t kept = sizes[from] < sizes[to] ? sizes[from] : sizes[to];
            for (size_t i = 0; i < sizes[from]; i++)
                block[i] = (unsigned char)(i * 31 + i / 251);
            block = my.realloc(block, sizes[to]);
            assert_non_null(block);
            assert_true(my.malloc_usable_size(block) >= sizes[to]);
            for (size_t i = 0; i < kept; i++)
                if (block[i] != (unsigned char)(i * 31 + i / 251))
                    fail_msg("realloc from %zu to %zu: byte %zu is another", sizes[from], sizes[to], i);
            memset(block, 0xaa, sizes[to]);
            my.free(block);
        }
    }
}

static void
test_realloc_to_the_same_class_stays_in_place(void **unused)
{
    (void)unused;
    for (unsigned i = 0; i < SIZES; i++) {
        void *block = my.malloc(sizes[i]);
        size_t usable = my.malloc_usable_size(block);
        assert_ptr_equal(my.realloc(block, usable), block);
        assert_ptr_equal(my.realloc(block, sizes[i]), block);
        my.free(block);
    }
}

static void
test_realloc_of_the_smallest_block_to_less_stays_in_place(void **unused)
{
    (void)unused;
    void *block = my.malloc(16);
    assert_ptr_equal(my.realloc(block, 1), block);
    my.free(block);
}

static void
test_realloc_that_fails_leaves_the_block(void **unused)
{
    (void)unused;
    for (unsigned i = 0; i < SIZES; i++) {
        void *block = my.malloc(sizes[i]);
        fill(block, sizes[i], i);
        for (unsigned j = 0; j < TOO_LARGE; j++) {
            errno = 0;
            assert_null(my.realloc(block, too_large[j]));
            assert_int_equal(errno, ENOMEM);
        }
        assert_true(my.malloc_usable_size(block) >= sizes[i]);
        assert_true(filled(block, sizes[i], i));
        my.free(block);
    }
}

static void
test_realloc_gives_back_what_a_large_block_no_longer_needs(void **unused)
{
    (void)unused;
    for (unsigned i = 0; i < SIZES; i++) {
        if (sizes[i] < 1000)
            continue;
        void *block = my.realloc(my.malloc(sizes[i]), sizes[i] / 3);
        assert_true(my.malloc_usable_size(block) <= sizes[i] / 2 ||
                    my.malloc_usable_size(block) <= sizes[i] / 3 + LARGE_UNIT);
        my.free(block);
    }
}

static void
test_large_block_grows_step_by_step_mostly_in_place(void **unused)
{
    (void)unused;
    unsigned moves = 0, steps = 0;
    char *block = my.malloc(40000);
    for (size_t size = 40000; size < 2000000; size += 10000, steps++) {
        char *to = my.realloc(block, size);
        assert_non_null(to);
        moves += to != block;
        block = to;
        block[size - 1] = (char)steps;
    }
    my.free(block);
    assert_true(moves < steps / 10);
}

/* Copying would make both resident at once; the peak of this process would show it. */
static void
test_huge_block_grows_without_a_copy(void **unused)
{
    (void)unused;
    const size_t from = (size_t)64 << 20, to = (size_t)512 << 20;
    unsigned char *block = my.malloc(from);
    for (size_t i = 0; i < from; i += 4096)
        block[i] = (unsigned char)(i >> 12);
    size_t before = resident_bytes();
    block = my.realloc(block, to);
    assert_non_null(block);
    assert_true(resident_bytes() < before + ((size_t)8 << 20));
    for (size_t i = 0; i < from; i += 4096)
        assert_int_equal(block[i], i >> 12 & 255);
    for (size_t i = from; i < to; i += 1 << 20)
        assert_int_equal(block[i], 0);
    block = my.realloc(block, from / 2);
    for (size_t i = 0; i < from / 2; i += 4096)
        assert_int_equal(block[i], i >> 12 & 255);
    my.free(block);
}

static void
test_huge_blocks_that_stand_in_each_others_way_move(void **unused)
{
    (void)unused;
    unsigned char *blocks[8];
    for (unsigned i = 0; i < 8; i++)
        fill(blocks[i] = my.malloc(3 << 20), 3 << 20, i);
    for (unsigned i = 0; i < 8; i++)
        assert_non_null(blocks[i] = my.realloc(blocks[i], (size_t)9 << 20));
    for (unsigned i = 0; i < 8; i++) {
        assert_true(filled(blocks[i], 3 << 20, i));
        my.free(blocks[i]);
    }
}

static void
test_reallocarray_multiplies(void **unused)
{
    (void)unused;
    void *block = my.reallocarray(NULL, 100, 30);
    assert_true(my.malloc_usable_size(block) >= 3000);
    fill(block, 3000, 1);
    block = my.reallocarray(block, 200, 30);
    assert_true(my.malloc_usable_size(block) >= 6000);
    assert_true(filled(block, 3000, 1));
    my.free(block);
}

static void
test_reallocarray_that_overflows_leaves_the_block(void **unused)
{
    (void)unused;
    volatile size_t half = SIZE_MAX / 2 + 1;
    void *block = my.malloc(100);
    fill(block, 100, 1);
    errno = 0;
    assert_null(my.reallocarray(block, half, 2));
    assert_int_equal(errno, ENOMEM);
    assert_true(filled(block, 100, 1));
    my.free(block);
}

static void
test_aligned_alloc_of_every_alignment_and_size(void **unused)
{
    (void)unused;
    for (size_t alignment = 1; alignment <= (size_t)16 << 20; alignment *= 2) {
        void *blocks[SIZES];
        for (unsigned i = 0; i < SIZES; i++) {
            blocks[i] = my.aligned_alloc(alignment, sizes[i]);
            if (blocks[i] == NULL || (uintptr_t)blocks[i] % alignment != 0 ||
                my.malloc_usable_size(blocks[i]) < sizes[i])
                fail_msg("%zu bytes aligned to %zu: %p", sizes[i], alignment, blocks[i]);
            fill(blocks[i], sizes[i], i);
        }
        for (unsigned i = 0; i < SIZES; i++) {
            assert_true(filled(blocks[i], sizes[i], i));
            my.free(blocks[i]);
        }
    }
}

static void
test_aligned_alloc_refuses_what_is_no_power_of_two(void **unused)
{
    (void)unused;
    static volatile size_t bad[] = { 0, 3, 6, 24, 4097, SIZE_MAX };
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        errno = 0;
        assert_null(my.aligned_alloc(bad[i], 64));
        assert_int_equal(errno, EINVAL);
        errno = 0;
        assert_null(my.memalign(bad[i], 64));
        assert_int_equal(errno, EINVAL);
    }
}

/* As glibc's does. The public function is strict. */
static void
test_memalign_of_a_module_rounds_the_alignment_up(void **unused)
{
    (void)unused;
    static const size_t given[] = { 0, 3, 6, 24, 33, 4097, ((size_t)1 << 20) + 1 }, least[] = { 1, 4, 8, 32, 64, 8192, (size_t)1 << 21 };
    void *(*routed)(size_t, size_t, size_t), *(*aligned)(size_t, size_t, size_t);
    *(void **)&routed = table->entry(ALCOVE_ENTRY_memalign);
    *(void **)&aligned = table->entry(ALCOVE_ENTRY_aligned_alloc);
    for (unsigned i = 0; i < sizeof given / sizeof given[0]; i++)
        for (unsigned j = 0; j < SIZES; j++) {
            void *block = routed(given[i], sizes[j], ALCOVE_HEAP_DEFAULT);
            if (block == NULL || (uintptr_t)block % least[i] != 0 || my.malloc_usable_size(block) < sizes[j])
                fail_msg("%zu bytes aligned to %zu: %p", sizes[j], given[i], block);
            my.free(block);
            errno = 0;
            assert_null(aligned(given[i], sizes[j], ALCOVE_HEAP_DEFAULT));
            assert_int_equal(errno, EINVAL);
        }
    static volatile size_t most = SIZE_MAX / 2 + 1;
    errno = 0;
    assert_null(routed(most + 1, 64, ALCOVE_HEAP_DEFAULT));
    assert_int_equal(errno, EINVAL);
    errno = 0;
    assert_null(routed(most - 1, 64, ALCOVE_HEAP_DEFAULT));
    assert_int_equal(errno, ENOMEM);
}

static void
test_aligned_alloc_refuses_impossible_sizes_and_alignments(void **unused)
{
    (void)unused;
    for (unsigned i = 0; i < TOO_LARGE; i++)
        for (size_t alignment = 16; alignment != 0; alignment <<= 3) {
            errno = 0;
            assert_null(my.aligned_alloc(alignment, too_large[i]));
            assert_int_equal(errno, ENOMEM);
        }
    volatile size_t most = (size_t)1 << 63;
    errno = 0;
    assert_null(my.aligned_alloc(most, 1));
    assert_int_equal(errno, ENOMEM);
    errno = 0;
    assert_null(my.aligned_alloc(most / 2, 1));
    assert_int_equal(errno, ENOMEM);
}

static void
test_aligned_block_can_be_resized(void **unused)
{
    (void)unused;
    for (size_t alignment = 16; alignment <= (size_t)8 << 20; alignment *= 8) {
        char *block = my.aligned_alloc(alignment, 3000);
        fill(block, 3000, 1);
        for (size_t size = 3000; size < 10000000; size *= 3) {
            block = my.realloc(block, size);
            assert_non_null(block);
            assert_true(filled(block, 3000, 1));
        }
        block = my.realloc(block, 3000);
        assert_true(filled(block, 3000, 1));
        my.free(block);
    }
}

static void
test_posix_memalign_aligns(void **unused)
{
    (void)unused;
    for (size_t alignment = sizeof(void *); alignment <= (size_t)1 << 20; alignment *= 2) {
        void *block = NULL;
        assert_int_equal(my.posix_memalign(&block, alignment, 100), 0);
        assert_non_null(block);
        assert_int_equal((uintptr_t)block % alignment, 0);
        my.free(block);
    }
}

static void
test_posix_memalign_returns_its_error_and_touches_nothing(void **unused)
{
    (void)unused;
    static volatile size_t bad[] = { 0, 1, 2, 4, 3, 12, 24, SIZE_MAX };
    int here;
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        void *block = &here;
        errno = 4711;
        assert_int_equal(my.posix_memalign(&block, bad[i], 64), EINVAL);
        assert_ptr_equal(block, &here);
        assert_int_equal(errno, 4711);
    }
    for (unsigned i = 0; i < TOO_LARGE; i++) {
        void *block = &here;
        assert_int_equal(my.posix_memalign(&block, 64, too_large[i]), ENOMEM);
        assert_ptr_equal(block, &here);
        assert_int_equal(errno, 4711);
    }
}

static void
test_posix_memalign_of_zero_bytes_can_be_freed(void **unused)
{
    (void)unused;
    void *block = NULL;
    assert_int_equal(my.posix_memalign(&block, 4096, 0), 0);
    assert_non_null(block);
    assert_int_equal((uintptr_t)block % 4096, 0);
    my.free(block);
}

static void
test_valloc_and_pvalloc_give_pages(void **unused)
{
    (void)unused;
    void *v = my.valloc(10), *p = my.pvalloc(10), *empty = my.pvalloc(0), *two = my.pvalloc(page + 1);
    assert_int_equal((uintptr_t)v % page, 0);
    assert_int_equal((uintptr_t)p % page, 0);
    assert_true(my.malloc_usable_size(p) >= page);
    assert_true(my.malloc_usable_size(empty) >= page);
    assert_true(my.malloc_usable_size(two) >= 2 * page);
    my.free(v);
    my.free(p);
    my.free(empty);
    my.free(two);
}

static void
test_valloc_and_pvalloc_refuse_impossible_sizes(void **unused)
{
    (void)unused;
    for (unsigned i = 0; i < TOO_LARGE; i++) {
        errno = 0;
        assert_null(my.valloc(too_large[i]));
        assert_int_equal(errno, ENOMEM);
        errno = 0;
        assert_null(my.pvalloc(too_large[i]));
        assert_int_equal(errno, ENOMEM);
    }
}

static void
test_usable_size_of_null_is_zero(void **unused)
{
    (void)unused;
    messages_clear();
    assert_int_equal(my.malloc_usable_size(NULL), 0);
    assert_int_equal(message_count, 0);
}

static void
test_failures_lose_nothing(void **unused)
{
    (void)unused;
    struct alcove_heap_stats before = stats_of(0), after;
    for (unsigned i = 0; i < TOO_LARGE; i++) {
        assert_null(my.malloc(too_large[i]));
        assert_null(my.calloc(1, too_large[i]));
        assert_null(my.aligned_alloc(1 << 20, too_large[i]));
    }
    after = stats_of(0);
    assert_int_equal(after.live_blocks, before.live_blocks);
    assert_int_equal(after.live_bytes, before.live_bytes);
    assert_int_equal(after.active_bytes, before.active_bytes);
    assert_int_equal(after.total_allocs, before.total_allocs);
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
        cmocka_unit_test(test_table_has_the_same_functions),
        cmocka_unit_test(test_blocks_of_all_sizes_are_aligned_usable_and_apart),
        cmocka_unit_test(test_every_size_up_to_a_few_pages),
        cmocka_unit_test(test_size_zero_gives_distinct_blocks),
        cmocka_unit_test(test_malloc_refuses_impossible_sizes),
        cmocka_unit_test(test_calloc_refuses_a_product_that_overflows),
        cmocka_unit_test(test_calloc_is_zero_though_its_memory_was_used),
        cmocka_unit_test(test_free_of_null_does_nothing),
        cmocka_unit_test(test_free_keeps_errno),
        cmocka_unit_test(test_success_keeps_errno),
        cmocka_unit_test(test_realloc_of_null_allocates),
        cmocka_unit_test(test_realloc_to_zero_frees),
        cmocka_unit_test(test_other_reallocs_to_zero_free),
        cmocka_unit_test(test_realloc_keeps_contents_from_every_size_to_every_size),
        cmocka_unit_test(test_realloc_to_the_same_class_stays_in_place),
        cmocka_unit_test(test_realloc_of_the_smallest_block_to_less_stays_in_place),
        cmocka_unit_test(test_realloc_that_fails_leaves_the_block),
        cmocka_unit_test(test_realloc_gives_back_what_a_large_block_no_longer_needs),
        cmocka_unit_test(test_large_block_grows_step_by_step_mostly_in_place),
        cmocka_unit_test(test_huge_block_grows_without_a_copy),
        cmocka_unit_test(test_huge_blocks_that_stand_in_each_others_way_move),
        cmocka_unit_test(test_reallocarray_multiplies),
        cmocka_unit_test(test_reallocarray_that_overflows_leaves_the_block),
        cmocka_unit_test(test_aligned_alloc_of_every_alignment_and_size),
        cmocka_unit_test(test_aligned_alloc_refuses_what_is_no_power_of_two),
        cmocka_unit_test(test_aligned_alloc_refuses_impossible_sizes_and_alignments),
        cmocka_unit_test(test_aligned_block_can_be_resized),
        cmocka_unit_test(test_memalign_of_a_module_rounds_the_alignment_up),
        cmocka_unit_test(test_posix_memalign_aligns),
        cmocka_unit_test(test_posix_memalign_returns_its_error_and_touches_nothing),
        cmocka_unit_test(test_posix_memalign_of_zero_bytes_can_be_freed),
        cmocka_unit_test(test_valloc_and_pvalloc_give_pages),
        cmocka_unit_test(test_valloc_and_pvalloc_refuse_impossible_sizes),
        cmocka_unit_test(test_usable_size_of_null_is_zero),
        cmocka_unit_test(test_failures_lose_nothing),
        cmocka_unit_test(test_no_message_came),
    };
    return cmocka_run_group_tests(tests, open_and_look_up, NULL);
}
