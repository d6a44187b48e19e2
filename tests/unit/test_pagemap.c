/* The page map: what it says of any address, and ranges of words. */
#include "unit.h"

#include <errno.h>
#include <sys/mman.h>

#include "os/os.h"
#include "pages/pagemap.h"

#define LEAF_SPAN ((uintptr_t)1 << PAGEMAP_ROOT_SHIFT)

/* An address that no test here has memory at: the map never touches it. */
#define SOMEWHERE (5 * LEAF_SPAN)

/* The words made here belong to no memory: the pool must not find them. */
static int
start(void **unused)
{
    pagemap_release();
    return fresh(unused);
}

static int
stop(void **unused)
{
    (void)unused;
    pagemap_release();
    return 0;
}

static uint64_t
get(uintptr_t address)
{
    return pagemap_get((void *)address);
}

#define map_test(function) cmocka_unit_test_setup_teardown(function, start, stop)

static void
test_addresses_that_were_never_ours_are_not(void **unused)
{
    (void)unused;
    int local = 0;
    static int data;
    assert_int_equal(get(0), 0);
    assert_int_equal(get(1), 0);
    assert_int_equal(get(PAGE_SIZE), 0);
    assert_int_equal(get((uintptr_t)&local), 0);
    assert_int_equal(get((uintptr_t)&data), 0);
    assert_int_equal(get((uintptr_t)get), 0);
}

static void
test_non_canonical_addresses_are_not_ours(void **unused)
{
    (void)unused;
    for (unsigned bit = ALCOVE_LG_VADDR; bit < 64; bit++) {
        assert_int_equal(get((uintptr_t)1 << bit), 0);
        assert_int_equal(get(((uintptr_t)1 << bit) + 12345), 0);
    }
    assert_int_equal(get((uintptr_t)0x8000000000000000), 0);
}

static void
test_top_of_the_address_space_is_not_ours(void **unused)
{
    (void)unused;
    assert_int_equal(get(UINTPTR_MAX), 0);
    assert_int_equal(get(UINTPTR_MAX - PAGE_SIZE), 0);
    assert_int_equal(get(((uintptr_t)1 << ALCOVE_LG_VADDR) - 1), 0);
    assert_int_equal(get(((uintptr_t)1 << (ALCOVE_LG_VADDR - 1)) - 1), 0);
}

static void
test_reserved_range_has_no_entries_yet(void **unused)
{
    (void)unused;
    assert_int_equal(pagemap_reserve(SOMEWHERE, 10), 0);
    assert_int_equal(get(SOMEWHERE), 0);
    assert_int_equal(get(SOMEWHERE + 9 * PAGE_SIZE), 0);
}

static void
test_every_byte_of_a_page_has_its_entry_and_no_other_page(void **unused)
{
    (void)unused;
    assert_int_equal(pagemap_reserve(SOMEWHERE, 10), 0);
    pagemap_set(SOMEWHERE + PAGE_SIZE, 1, 0x1280);
    assert_int_equal(get(SOMEWHERE + PAGE_SIZE - 1), 0);
    assert_int_equal(get(SOMEWHERE + PAGE_SIZE), 0x1280);
    assert_int_equal(get(SOMEWHERE + 2 * PAGE_SIZE - 1), 0x1280);
    assert_int_equal(get(SOMEWHERE + 2 * PAGE_SIZE), 0);
}

static void
test_range_across_a_leaf_boundary(void **unused)
{
    (void)unused;
    uintptr_t base = SOMEWHERE + LEAF_SPAN - 3 * PAGE_SIZE;
    assert_int_equal(pagemap_reserve(base, 7), 0);
    pagemap_set(base, 7, 0x5500);
    for (unsigned i = 0; i < 7; i++)
        assert_int_equal(get(base + i * PAGE_SIZE), 0x5500);
    assert_int_equal(get(base - 1), 0);
    assert_int_equal(get(base + 7 * PAGE_SIZE), 0);
    pagemap_set(base, 7, 0);
    for (unsigned i = 0; i < 7; i++)
        assert_int_equal(get(base + i * PAGE_SIZE), 0);
}

static void
test_range_of_more_than_two_leaves(void **unused)
{
    (void)unused;
    uintptr_t base = SOMEWHERE + LEAF_SPAN - PAGE_SIZE;
    size_t pages = PAGEMAP_LEAF_COUNT + 2;
    assert_int_equal(pagemap_reserve(base, pages), 0);
    pagemap_set(base, pages, 0x80);
    assert_int_equal(get(base), 0x80);
    assert_int_equal(get(base + LEAF_SPAN / 2), 0x80);
    assert_int_equal(get(base + (pages - 1) * PAGE_SIZE), 0x80);
    assert_int_equal(get(base + pages * PAGE_SIZE), 0);
}

static void
test_range_beyond_the_known_addresses_is_refused(void **unused)
{
    (void)unused;
    assert_int_equal(pagemap_reserve((uintptr_t)1 << ALCOVE_LG_VADDR, 1), ENOMEM);
    assert_int_equal(pagemap_reserve(((uintptr_t)1 << ALCOVE_LG_VADDR) - PAGE_SIZE, 2), ENOMEM);
}

static void
test_last_page_of_the_known_addresses_can_be_entered(void **unused)
{
    (void)unused;
    uintptr_t last = ((uintptr_t)1 << ALCOVE_LG_VADDR) - PAGE_SIZE;
    assert_int_equal(pagemap_reserve(last, 1), 0);
    pagemap_set(last, 1, 0x80);
    assert_int_equal(get(last + PAGE_SIZE - 1), 0x80);
}

static void
test_release_empties_the_map(void **unused)
{
    (void)unused;
    assert_int_equal(pagemap_reserve(SOMEWHERE, 1), 0);
    pagemap_set(SOMEWHERE, 1, 0x80);
    assert_int_equal(pagemap_bytes(), PAGEMAP_LEAF_BYTES);
    pagemap_release();
    assert_int_equal(get(SOMEWHERE), 0);
    assert_int_equal(pagemap_bytes(), 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        map_test(test_addresses_that_were_never_ours_are_not),
        map_test(test_non_canonical_addresses_are_not_ours),
        map_test(test_top_of_the_address_space_is_not_ours),
        map_test(test_reserved_range_has_no_entries_yet),
        map_test(test_every_byte_of_a_page_has_its_entry_and_no_other_page),
        map_test(test_range_across_a_leaf_boundary),
        map_test(test_range_of_more_than_two_leaves),
        map_test(test_range_beyond_the_known_addresses_is_refused),
        map_test(test_last_page_of_the_known_addresses_can_be_entered),
        map_test(test_release_empties_the_map),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
