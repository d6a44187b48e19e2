/* Decay arithmetic: the curve, and how many pages may stay after a given time. */
#include "unit.h"

#include <stdlib.h>

#include "pages/decay.h"

static double
smoothstep(double x)
{
    return x * x * x * (x * (6 * x - 15) + 10);
}

static void
test_curve_is_smoothstep(void **unused)
{
    (void)unused;
    for (unsigned i = 0; i <= DECAY_EPOCHS; i++) {
        double exact = smoothstep((double)i / DECAY_EPOCHS) * (1 << 24), ours = decay_curve(i);
        if (ours > exact + 2 || ours < exact - 2)
            fail_msg("at %u: %f, smoothstep gives %f", i, ours, exact);
    }
}

static void
test_curve_goes_from_nothing_to_all(void **unused)
{
    (void)unused;
    assert_int_equal(decay_curve(0), 0);
    assert_int_equal(decay_curve(DECAY_EPOCHS), 1 << 24);
    for (unsigned i = 0; i < DECAY_EPOCHS; i++)
        assert_true(decay_curve(i) <= decay_curve(i + 1));
}

static void
test_epoch_is_a_two_hundredth_and_at_least_a_millisecond(void **unused)
{
    (void)unused;
    struct decay d;
    decay_init(&d, 10000, 0);
    assert_int_equal(decay_epoch_ms(&d), 50);
    decay_init(&d, 1, 0);
    assert_int_equal(decay_epoch_ms(&d), 1);
}

static void
test_nothing_is_due_before_an_epoch_has_gone_by(void **unused)
{
    (void)unused;
    struct decay d;
    decay_init(&d, 10000, 1000);
    assert_false(decay_is_due(&d, 1000));
    assert_false(decay_is_due(&d, 1049));
    assert_true(decay_is_due(&d, 1050));
}

/* By 300 s, far more than the decay takes: pages go on from where they were. */
static void
test_decay_goes_on_when_the_clock_goes_back(void **unused)
{
    (void)unused;
    struct decay d;
    decay_init(&d, 10000, 400000);
    decay_advance(&d, 400050, 1000);
    assert_true(decay_advance(&d, 405000, 1000) < 1000);
    size_t before = d.limit;
    assert_false(decay_is_due(&d, 404999)); /* read a little earlier */
    assert_true(decay_is_due(&d, 100000));
    assert_int_equal(decay_advance(&d, 100000, before), before);
    assert_false(decay_is_due(&d, 100001));
    assert_true(decay_advance(&d, 103000, before) < before);
    assert_int_equal(decay_advance(&d, 111000, d.limit), 0);
}

static void
test_nothing_is_due_when_pages_go_at_once_or_never(void **unused)
{
    (void)unused;
    struct decay d;
    decay_init(&d, 0, 0);
    assert_false(decay_is_due(&d, UINT64_MAX / 2));
    decay_init(&d, -1, 0);
    assert_false(decay_is_due(&d, UINT64_MAX / 2));
}

/* A thread may have read the clock before another advanced. */
static void
test_nothing_is_due_by_a_clock_that_is_late(void **unused)
{
    (void)unused;
    struct decay d;
    decay_init(&d, 10000, 0);
    size_t limit = decay_advance(&d, 5000, 1000);
    assert_true(limit > 0);
    assert_false(decay_is_due(&d, 4990));
    assert_false(decay_is_due(&d, 4001));
    assert_int_equal(decay_advance(&d, 4990, 1000), limit);
    assert_int_equal(decay_advance(&d, 5001, 1000), limit);
}

static void
test_all_pages_may_stay_at_first(void **unused)
{
    (void)unused;
    struct decay d;
    decay_init(&d, 10000, 0);
    assert_true(decay_advance(&d, 50, 1000000) > 999900);
}

static void
test_no_page_may_stay_after_the_time(void **unused)
{
    (void)unused;
    struct decay d;
    decay_init(&d, 10000, 0);
    size_t limit = 1000000;
    for (uint64_t now = 50; now <= 10050; now += 50)
        limit = decay_advance(&d, now, limit);
    assert_int_equal(limit, 0);
}

/* The pages that were free when decay began, asked about each epoch. */
static void
test_limit_follows_the_curve_downwards(void **unused)
{
    (void)unused;
    struct decay d;
    const size_t pages = 1000000;
    decay_init(&d, 10000, 0);
    size_t last = pages;
    for (unsigned i = 1; i <= DECAY_EPOCHS; i++) {
        size_t limit = decay_advance(&d, i * 50, last);
        double exact = smoothstep((double)(DECAY_EPOCHS - i) / DECAY_EPOCHS) * pages;
        assert_true(limit <= last);
        if ((double)limit > exact + 2 || (double)limit < exact - 2)
            fail_msg("after %u epochs %zu pages may stay, the curve says %f", i, limit, exact);
        last = limit;
    }
}

static void
test_one_long_step_is_as_many_short_ones(void **unused)
{
    (void)unused;
    struct decay fine, coarse;
    decay_init(&fine, 10000, 0);
    decay_init(&coarse, 10000, 0);
    size_t left = 5000;
    for (uint64_t now = 50; now <= 5000; now += 50)
        left = decay_advance(&fine, now, left);
    assert_int_equal(decay_advance(&coarse, 5000, 5000), left);
    assert_true(left > 0 && left < 5000);
}

static void
test_gap_longer_than_the_whole_leaves_nothing(void **unused)
{
    (void)unused;
    struct decay d;
    decay_init(&d, 10000, 0);
    decay_advance(&d, 50, 700);
    assert_int_equal(decay_advance(&d, 50 + 10000, 700), 0);
    decay_init(&d, 10000, 0);
    decay_advance(&d, 50, 700);
    assert_int_equal(decay_advance(&d, UINT64_MAX / 2, 700), 0);
}

static void
test_after_a_long_gap_new_pages_start_at_the_top(void **unused)
{
    (void)unused;
    struct decay d;
    decay_init(&d, 10000, 0);
    uint64_t now = 1000000;
    assert_int_equal(decay_advance(&d, now, 0), 0);
    now += 50;
    assert_true(decay_advance(&d, now, 100000) > 99900);
}

static void
test_pages_that_come_later_go_later(void **unused)
{
    (void)unused;
    struct decay d;
    decay_init(&d, 10000, 0);
    size_t first = decay_advance(&d, 5000, 1000);
    size_t both = decay_advance(&d, 5050, first + 1000);
    assert_true(both > 1000 - 10);
    assert_int_equal(decay_advance(&d, 5050 + 10000, both), 0);
}

static void
test_one_millisecond_is_over_after_a_few(void **unused)
{
    (void)unused;
    struct decay d;
    decay_init(&d, 1, 0);
    assert_true(decay_is_due(&d, 1));
    size_t limit = 100;
    for (uint64_t now = 1; now <= DECAY_EPOCHS + 1; now++)
        limit = decay_advance(&d, now, limit);
    assert_int_equal(limit, 0);
}

static void
test_limit_is_never_above_what_is_there(void **unused)
{
    (void)unused;
    struct decay d;
    decay_init(&d, 400, 0);
    uint64_t now = 0;
    size_t pages = 0;
    unsigned seed = 1;
    for (int i = 0; i < 100000; i++) {
        seed = seed * 1103515245 + 12345;
        now += seed >> 16 & 7;
        pages += seed >> 20 & 63;
        size_t limit = decay_advance(&d, now, pages);
        if (decay_is_due(&d, now))
            fail_msg("still due after advancing to %lu", now);
        if (limit < pages)
            pages = limit;
    }
    assert_true(pages < 64 * 400);
}

static void
test_a_petabyte_of_pages_does_not_overflow(void **unused)
{
    (void)unused;
    struct decay d;
    decay_init(&d, 10000, 0);
    size_t pages = (size_t)1 << 38;
    assert_true(decay_advance(&d, 50, pages) > pages - pages / 1000);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_curve_is_smoothstep),
        cmocka_unit_test(test_curve_goes_from_nothing_to_all),
        cmocka_unit_test(test_epoch_is_a_two_hundredth_and_at_least_a_millisecond),
        cmocka_unit_test(test_nothing_is_due_before_an_epoch_has_gone_by),
        cmocka_unit_test(test_decay_goes_on_when_the_clock_goes_back),
        cmocka_unit_test(test_nothing_is_due_when_pages_go_at_once_or_never),
        cmocka_unit_test(test_nothing_is_due_by_a_clock_that_is_late),
        cmocka_unit_test(test_all_pages_may_stay_at_first),
        cmocka_unit_test(test_no_page_may_stay_after_the_time),
        cmocka_unit_test(test_limit_follows_the_curve_downwards),
        cmocka_unit_test(test_one_long_step_is_as_many_short_ones),
        cmocka_unit_test(test_gap_longer_than_the_whole_leaves_nothing),
        cmocka_unit_test(test_after_a_long_gap_new_pages_start_at_the_top),
        cmocka_unit_test(test_pages_that_come_later_go_later),
        cmocka_unit_test(test_one_millisecond_is_over_after_a_few),
        cmocka_unit_test(test_limit_is_never_above_what_is_there),
        cmocka_unit_test(test_a_petabyte_of_pages_does_not_overflow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
