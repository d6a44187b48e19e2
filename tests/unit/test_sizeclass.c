/* Size classes: every size that has a bin, and what is asked about bins. */
#include "unit.h"

#include "ground/sizeclass.h"

/* Bins of large blocks are whole pages. Others are never used. */
static bool
is_used(unsigned bin)
{
    return bin <= SMALL_BINS || bin_size(bin) % PAGE_SIZE == 0;
}

static void
test_bin_of_size_is_the_smallest_that_holds_it(void **unused)
{
    (void)unused;
    for (size_t size = 1; size <= CACHED_MAX; size++) {
        unsigned bin = bin_of_size(size);
        if (bin < 1 || bin >= BINS || bin_size(bin) < size || !is_used(bin))
            fail_msg("size %zu is in bin %u of %zu bytes", size, bin, bin_size(bin));
        for (unsigned b = bin - 1; b > 0 && bin_size(b) >= size; b--)
            if (is_used(b))
                fail_msg("size %zu is in bin %u of %zu bytes, though %u would do", size, bin, bin_size(bin), b);
    }
}

static void
test_tables_agree_with_the_computation(void **unused)
{
    (void)unused;
    for (size_t size = 1; size <= CACHED_MAX; size++)
        if (bin_of_size(size) != bin_of_last(size - 1))
            fail_msg("size %zu: bin %u in the table, %u computed", size, bin_of_size(size),
                     bin_of_last(size - 1));
}

static void
test_size_zero_has_the_smallest_bin(void **unused)
{
    (void)unused;
    assert_int_equal(bin_of_size(0), 1);
}

static void
test_bins_grow_and_end_at_their_limits(void **unused)
{
    (void)unused;
    assert_int_equal(bin_size(1), QUANTUM);
    assert_int_equal(bin_size(SMALL_BINS), SMALL_MAX);
    assert_int_equal(bin_size(BINS - 1), CACHED_MAX);
    for (unsigned bin = 2; bin < BINS; bin++)
        assert_true(bin_size(bin) > bin_size(bin - 1));
}

static void
test_every_block_is_a_multiple_of_the_quantum(void **unused)
{
    (void)unused;
    for (unsigned bin = 1; bin < BINS; bin++)
        assert_int_equal(bin_size(bin) % QUANTUM, 0);
}

/* More than 20 % is lost only where the next multiple of 16 bytes, or of a page, already loses it. */
static void
test_waste_is_at_most_a_fifth(void **unused)
{
    (void)unused;
    for (size_t size = 16; size <= CACHED_MAX; size++) {
        size_t block = bin_size(bin_of_size(size));
        size_t unit = size <= SMALL_MAX ? QUANTUM : PAGE_SIZE;
        if ((block - size) * 5 > block && block != ((size + unit - 1) & ~(unit - 1)))
            fail_msg("a block of %zu bytes for %zu", block, size);
    }
}

static unsigned
bin_of_aligned(size_t size, size_t alignment)
{
    size = size_for_aligned(size, alignment);
    return size <= CACHED_MAX ? bin_of_size(size) : 0;
}

static void
test_aligned_bins_hold_the_size_and_align_every_block(void **unused)
{
    (void)unused;
    for (size_t alignment = 1; alignment <= PAGE_SIZE; alignment *= 2) {
        for (size_t size = 0; size <= CACHED_MAX; size += size < 5000 ? 1 : 997) {
            unsigned bin = bin_of_aligned(size, alignment);
            if (bin == 0)
                continue;
            if (bin >= BINS || bin_size(bin) < size || bin_size(bin) % alignment != 0)
                fail_msg("size %zu aligned to %zu: bin %u of %zu bytes", size, alignment, bin, bin_size(bin));
        }
    }
}

static void
test_aligned_bins_are_the_smallest(void **unused)
{
    (void)unused;
    for (size_t alignment = 16; alignment <= PAGE_SIZE; alignment *= 2) {
        for (size_t size = 1; size <= SMALL_MAX; size += 7) {
            unsigned bin = bin_of_aligned(size, alignment);
            assert_int_not_equal(bin, 0);
            for (unsigned b = bin_of_size(size); b < bin; b++)
                if (bin_size(b) % alignment == 0)
                    fail_msg("size %zu aligned to %zu: bin %u, though %u would do", size, alignment, bin, b);
        }
    }
}

static void
test_aligned_sizes_beyond_the_last_bin_have_none(void **unused)
{
    (void)unused;
    assert_int_equal(bin_of_aligned(CACHED_MAX + 1, 16), 0);
    assert_int_equal(bin_of_aligned(CACHED_MAX - PAGE_SIZE + 1, PAGE_SIZE), BINS - 1);
}

static void
test_huge_sizes_are_rounded_to_whole_pages_with_little_waste(void **unused)
{
    (void)unused;
    for (size_t size = CACHED_MAX + 1; size < (size_t)1 << 46; size += size / 61) {
        size_t rounded = size_round_huge(size);
        if (rounded < size || rounded % PAGE_SIZE != 0 || (rounded - size) * 8 > rounded)
            fail_msg("%zu is rounded to %zu", size, rounded);
    }
}

static void
test_huge_rounding_never_shrinks(void **unused)
{
    (void)unused;
    size_t last = 0;
    for (size_t size = 1; size < (size_t)16 << 20; size += 511) {
        size_t rounded = size_round_huge(size);
        assert_true(rounded >= last);
        assert_int_equal(size_round_huge(rounded), rounded);
        last = rounded;
    }
}

static void
test_huge_rounding_refuses_what_no_pointer_difference_holds(void **unused)
{
    (void)unused;
    assert_int_equal(size_round_huge((size_t)PTRDIFF_MAX + 1), 0);
    assert_int_equal(size_round_huge(SIZE_MAX), 0);
    assert_int_equal(size_round_huge(PTRDIFF_MAX), 0);
    assert_int_equal(size_round_huge((size_t)1 << 62), (size_t)1 << 62);
}

static void
test_slabs_have_at_least_four_blocks(void **unused)
{
    (void)unused;
    for (unsigned bin = 1; bin <= SMALL_BINS; bin++)
        if (((size_t)bin_slab_pages(bin) << PAGE_LG) / bin_size(bin) < 4)
            fail_msg("bin %u of %zu bytes: %u pages", bin, bin_size(bin), bin_slab_pages(bin));
}

static void
test_slabs_waste_less_than_a_sixteenth(void **unused)
{
    (void)unused;
    unsigned part = PAGE_LG == 12 ? 16 : 5; /* with larger pages there are few lengths to choose from */
    for (unsigned bin = 1; bin <= SMALL_BINS; bin++) {
        size_t bytes = (size_t)bin_slab_pages(bin) << PAGE_LG, blocks = bytes / bin_size(bin);
        if (blocks > SLAB_MAX_BLOCKS)
            blocks = SLAB_MAX_BLOCKS;
        size_t waste = bytes - blocks * bin_size(bin);
        if (waste * part > bytes)
            fail_msg("bin %u of %zu bytes: %zu of %zu bytes wasted", bin, bin_size(bin), waste, bytes);
    }
}

/* As slab.c divides: offset * (2^32 / size, rounded up) >> 32. */
static void
test_every_slab_offset_is_divided_exactly_by_the_inverse(void **unused)
{
    (void)unused;
    for (unsigned bin = 1; bin <= SMALL_BINS; bin++) {
        uint64_t size = bin_size(bin), inverse = (uint32_t)((((uint64_t)1 << 32) + size - 1) / size);
        uint64_t bytes = (uint64_t)bin_slab_pages(bin) << PAGE_LG;
        for (uint64_t offset = 0; offset < bytes; offset++)
            if (offset * inverse >> 32 != offset / size)
                fail_msg("%lu / %lu gives %lu", offset, size, offset * inverse >> 32);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bin_of_size_is_the_smallest_that_holds_it),
        cmocka_unit_test(test_tables_agree_with_the_computation),
        cmocka_unit_test(test_size_zero_has_the_smallest_bin),
        cmocka_unit_test(test_bins_grow_and_end_at_their_limits),
        cmocka_unit_test(test_every_block_is_a_multiple_of_the_quantum),
        cmocka_unit_test(test_waste_is_at_most_a_fifth),
        cmocka_unit_test(test_aligned_bins_hold_the_size_and_align_every_block),
        cmocka_unit_test(test_aligned_bins_are_the_smallest),
        cmocka_unit_test(test_aligned_sizes_beyond_the_last_bin_have_none),
        cmocka_unit_test(test_huge_sizes_are_rounded_to_whole_pages_with_little_waste),
        cmocka_unit_test(test_huge_rounding_never_shrinks),
        cmocka_unit_test(test_huge_rounding_refuses_what_no_pointer_difference_holds),
        cmocka_unit_test(test_slabs_have_at_least_four_blocks),
        cmocka_unit_test(test_slabs_waste_less_than_a_sixteenth),
        cmocka_unit_test(test_every_slab_offset_is_divided_exactly_by_the_inverse),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
