/* The territory: the loader's map of it, and that the pool tells the truth at any moment. */
#include "unit.h"

#include <errno.h>
#include <sys/mman.h>

#include "ground/services.h"
#include "keeper/territory.h"
#include "os/os.h"
#include "pages/giants.h"
#include "pages/pool.h"

#define SOMEWHERE ((uintptr_t)0x5a0000000000)
#define LEAF_SPEAKS (ALCOVE_TERRITORY << TERRITORY_LG_LEAF)

static unsigned
number_of(uintptr_t address)
{
    return territory_of((const void *)address);
}

static void
test_addresses_that_nobody_told_are_nobodys(void **unused)
{
    (void)unused;
    int here;
    assert_int_equal(number_of(0), 0);
    assert_int_equal(territory_of(&here), 0);
    assert_int_equal(number_of(UINTPTR_MAX), 0);
    assert_int_equal(number_of(SOMEWHERE), 0);
}

static void
test_every_address_of_what_was_entered_and_no_other(void **unused)
{
    (void)unused;
    uintptr_t base = SOMEWHERE + 7 * ALCOVE_TERRITORY;
    assert_int_equal(territory_reserve(base, 3 * ALCOVE_TERRITORY), 0);
    assert_int_equal(number_of(base), 0);
    territory_enter(5, base, 3 * ALCOVE_TERRITORY);
    assert_int_equal(number_of(base - 1), 0);
    assert_int_equal(number_of(base), 5);
    assert_int_equal(number_of(base + 3 * ALCOVE_TERRITORY - 1), 5);
    assert_int_equal(number_of(base + 3 * ALCOVE_TERRITORY), 0);
    territory_leave(base + ALCOVE_TERRITORY, ALCOVE_TERRITORY);
    assert_int_equal(number_of(base), 5);
    assert_int_equal(number_of(base + ALCOVE_TERRITORY), 0);
    assert_int_equal(number_of(base + 2 * ALCOVE_TERRITORY), 5);
    territory_leave(base, 3 * ALCOVE_TERRITORY);
    assert_int_equal(number_of(base), 0);
}

static void
test_range_across_leaves(void **unused)
{
    (void)unused;
    uintptr_t base = (SOMEWHERE / LEAF_SPEAKS + 2) * LEAF_SPEAKS - ALCOVE_TERRITORY;
    size_t bytes = LEAF_SPEAKS + 2 * ALCOVE_TERRITORY;
    assert_int_equal(territory_reserve(base, bytes), 0);
    territory_enter(6, base, bytes);
    assert_int_equal(number_of(base - 1), 0);
    assert_int_equal(number_of(base), 6);
    assert_int_equal(number_of(base + ALCOVE_TERRITORY), 6);
    assert_int_equal(number_of(base + bytes - 1), 6);
    assert_int_equal(number_of(base + bytes), 0);
    /* Whoever leaves may name what was never reserved. */
    territory_leave(base - LEAF_SPEAKS, bytes + 5 * LEAF_SPEAKS);
    assert_int_equal(number_of(base), 0);
    assert_int_equal(number_of(base + bytes - 1), 0);
}

static void
test_range_beyond_all_addresses_is_refused(void **unused)
{
    (void)unused;
    assert_int_equal(territory_reserve((uintptr_t)1 << 57, ALCOVE_TERRITORY), ENOMEM);
    assert_int_equal(territory_reserve(((uintptr_t)1 << 57) - ALCOVE_TERRITORY, 2 * ALCOVE_TERRITORY), ENOMEM);
}

static void
test_pages_that_were_abandoned_are_told_from_others_of_their_unit(void **unused)
{
    (void)unused;
    uintptr_t base = SOMEWHERE + 100 * ALCOVE_TERRITORY;
    assert_int_equal(territory_reserve(base, 2 * ALCOVE_TERRITORY), 0);
    territory_enter(7, base, 2 * ALCOVE_TERRITORY);
    territory_leave(base, 2 * ALCOVE_TERRITORY);
    assert_false(territory_has_left());
    for (uintptr_t i = 0; i < 10000; i++) /* more than one list holds */
        territory_abandon(base + i % 100 * 0x8000 + 0x1000, 0x2000);
    assert_true(territory_has_left());
    assert_int_equal(number_of(base), TERRITORY_LEFT);
    assert_int_equal(number_of(base + ALCOVE_TERRITORY), 0);
    assert_false(territory_was_left((void *)base));
    assert_true(territory_was_left((void *)(base + 0x1000)));
    assert_true(territory_was_left((void *)(base + 0x2fff)));
    assert_false(territory_was_left((void *)(base + 0x3000)));
    assert_true(territory_was_left((void *)(base + 99 * 0x8000 + 0x1000)));
}

/* What the pool tells, kept by this test: each unit that is told must be mapped, and each address that the pool holds be told. */
static char lender;

static int
told_reserve(void *who, uintptr_t base, size_t bytes)
{
    assert_ptr_equal(who, &lender);
    assert_int_equal(base % ALCOVE_TERRITORY, 0);
    return territory_reserve(base, bytes);
}

static void
told_enter(void *who, uintptr_t base, size_t bytes)
{
    assert_ptr_equal(who, &lender);
    territory_enter(1, base, bytes);
}

static void
told_leave(void *who, uintptr_t base, size_t bytes)
{
    assert_ptr_equal(who, &lender);
    territory_leave(base, bytes);
}

static bool
is_mapped(uintptr_t address)
{
    unsigned char residency;
    return mincore((void *)(address & ~PAGE_MASK), 1, &residency) == 0;
}

/* Addresses that were ever ours. */
enum { SEEN_MOST = 1 << 16 };
static uintptr_t seen[SEEN_MOST];
static size_t seen_count;

static void
see(uintptr_t base, size_t bytes)
{
    for (uintptr_t a = base; a < base + bytes && a < base + 64 * CHUNK_SIZE && seen_count < SEEN_MOST; a += CHUNK_SIZE)
        seen[seen_count++] = a;
}

static void
assert_told_truly(void)
{
    for (size_t i = 0; i < seen_count; i++) {
        unsigned number = number_of(seen[i]);
        if (number != 0 && !is_mapped(seen[i]))
            fail_msg("%#lx is told, and not mapped", (unsigned long)seen[i]);
        if ((number != 0) != pool_holds((void *)seen[i]) && pool_find((void *)seen[i]) == NULL) {
            const struct run *giant = giant_find(seen[i]);
            if (giant == NULL || giant->base == seen[i])
                fail_msg("%#lx is %stold, and the pool holds it%s", (unsigned long)seen[i], number != 0 ? "" : "not ",
                         pool_holds((void *)seen[i]) ? "" : " not");
        }
    }
}

static void
test_pool_tells_its_territory(void **unused)
{
    (void)unused;
    enum { BLOCKS = 24 };
    static struct run *runs[BLOCKS];
    static const struct run_use huge = { RUN_HUGE, 0, 7 }, large = { RUN_LARGE, 80, 7 };
    services.lender = &lender;
    services.territory_reserve = told_reserve;
    services.territory_enter = told_enter;
    services.territory_leave = told_leave;
    unsigned seed = 1;
    for (unsigned n = 0; n < 3000; n++) {
        seed = seed * 1103515245 + 12345;
        struct run **r = &runs[(seed >> 16) % BLOCKS];
        /* up to 600 MiB, and now and then a giant */
        size_t bytes = (((size_t)seed >> 8) % 150 + 1) * CHUNK_SIZE - PAGE_SIZE * ((seed >> 4) % 3);
        if (n % 16 == 0)
            bytes += GIANT_BYTES;
        bool resized = *r != NULL && n % 3 == 0 && (*r)->kind == RUN_HUGE && pool_resize_huge(&pool_default, *r, bytes) != 0;
        if (!resized && *r != NULL) {
            (*r)->next = NULL;
            pool_give(&pool_default, *r);
            *r = NULL;
        } else if (!resized) {
            *r = n % 5 == 0 ? pool_take(&pool_default, bytes % CHUNK_PAGES + 1, PAGE_SIZE, large)
                            : pool_take_huge(&pool_default, bytes, PAGE_SIZE, huge);
        }
        if (*r != NULL)
            see((*r)->base & ~(uintptr_t)CHUNK_MASK, (*r)->pages << PAGE_LG);
        if (n % 500 == 499)
            pool_purge();
        if (n % 50 == 49)
            assert_told_truly();
        if (n % 300 == 299)
            seen_count = 0;
    }
    for (unsigned i = 0; i < BLOCKS; i++)
        if (runs[i] != NULL) {
            runs[i]->next = NULL;
            pool_give(&pool_default, runs[i]);
        }
    pool_purge();
    assert_told_truly();
    pool_release();
    for (size_t i = 0; i < seen_count; i++)
        assert_int_equal(number_of(seen[i]), 0);
    services = (struct alcove_services){ 0 };
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_addresses_that_nobody_told_are_nobodys),
        cmocka_unit_test(test_every_address_of_what_was_entered_and_no_other),
        cmocka_unit_test(test_range_across_leaves),
        cmocka_unit_test(test_range_beyond_all_addresses_is_refused),
        cmocka_unit_test(test_pages_that_were_abandoned_are_told_from_others_of_their_unit),
        cmocka_unit_test(test_pool_tells_its_territory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
