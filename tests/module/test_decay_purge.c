/* Memory that is not used goes back to the system: at once when asked, by itself after the decay time. */
#include "module.h"

#include <pthread.h>
#include <time.h>

#define RANGE ((size_t)64 << 20)
#define BLOCK ((size_t)1000)
#define MANY (RANGE / BLOCK)

static void *blocks[MANY];

/* A copy of its own for each: one that dlclose cannot unload would not read its options again. */
static char path[] = "/tmp/alcove-decay-XXXXXX";

static int
open_with(const char *options)
{
    strcpy(path + sizeof path - 7, "XXXXXX");
    int file = mkstemp(path);
    if (file < 0 || close(file) != 0 || !module_copy(path))
        return -1;
    options_set(options);
    table = module_open(path, &module);
    return table != NULL ? 0 : -1;
}

static int
open_that_keeps(void **unused)
{
    (void)unused;
    return open_with("dirty_decay_ms:-1");
}

static int
open_that_decays(void **unused)
{
    (void)unused;
    return open_with("dirty_decay_ms:200");
}

static int
open_that_keeps_nothing(void **unused)
{
    (void)unused;
    return open_with("dirty_decay_ms:0");
}

static int
close_it(void **unused)
{
    (void)unused;
    options_set(NULL);
    unlink(path);
    return dlclose(module);
}

/* Allocate, write and free many blocks. Returns how many bytes are resident more than before when all are free. */
static size_t
use_and_free(size_t size)
{
    size_t before = resident_bytes(), n = RANGE / size < MANY ? RANGE / size : MANY;
    for (size_t i = 0; i < n; i++)
        memset(blocks[i] = table->malloc(size), 1, size);
    assert_true(resident_bytes() >= before + RANGE * 3 / 4);
    for (size_t i = 0; i < n; i++)
        table->free(blocks[i]);
    size_t now = resident_bytes();
    return now > before ? now - before : 0;
}

static void
test_dirty_pages_stay_until_purged(void **unused)
{
    (void)unused;
    assert_true(use_and_free(BLOCK) > RANGE / 2);
    assert_true(info_now().dirty_bytes > RANGE / 2);
    size_t before = resident_bytes();
    table->purge();
    assert_true(resident_bytes() + RANGE / 2 < before);
    assert_int_equal(info_now().dirty_bytes, 0);
}

static void
test_purge_returns_large_blocks_too(void **unused)
{
    (void)unused;
    use_and_free(200000);
    table->purge();
    size_t kept = resident_bytes();
    use_and_free(200000);
    table->purge();
    assert_true(resident_bytes() <= kept + (1 << 20));
    assert_int_equal(info_now().dirty_bytes, 0);
}

static void
test_purge_unmaps_chunks(void **unused)
{
    (void)unused;
    use_and_free(BLOCK);
    assert_true(info_now().mapped_bytes >= RANGE);
    table->purge();
    assert_true(info_now().mapped_bytes < (16 << 20));
}

static void
test_purge_leaves_live_blocks_alone(void **unused)
{
    (void)unused;
    for (unsigned i = 0; i < 10000; i++)
        fill(blocks[i] = table->malloc(i % 3000), i % 3000, i);
    for (unsigned i = 0; i < 10000; i += 2)
        table->free(blocks[i]);
    table->purge();
    for (unsigned i = 1; i < 10000; i += 2) {
        assert_true(filled(blocks[i], i % 3000, i));
        table->free(blocks[i]);
    }
}

static void
test_huge_blocks_stay_dirty_like_other_pages(void **unused)
{
    (void)unused;
    size_t before = resident_bytes();
    void *block = table->malloc(RANGE);
    memset(block, 1, RANGE);
    table->free(block);
    assert_true(resident_bytes() > before + RANGE / 2);
    assert_true(info_now().dirty_bytes >= RANGE);
    table->purge();
    assert_true(resident_bytes() < before + RANGE / 8);
    assert_int_equal(info_now().dirty_bytes, 0);
}

static void
test_nothing_stays_if_decay_is_at_once(void **unused)
{
    (void)unused;
    use_and_free(BLOCK);
    assert_int_equal(info_now().dirty_bytes, 0);
}

/* However slow the machine: it is waited for, as long as the allocator is in use. */
static void
test_dirty_pages_decay_while_others_are_used(void **unused)
{
    (void)unused;
    use_and_free(BLOCK);
    for (int i = 0; i < 3000 && info_now().dirty_bytes > RANGE / 100; i++) {
        nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
        for (int j = 0; j < 300; j++)
            table->free(table->malloc(64));
    }
    assert_true(info_now().dirty_bytes <= RANGE / 100);
}

/* Nobody allocates or frees: whoever has nothing else to call gives the turn. */
static void
test_dirty_pages_decay_by_ticks_alone(void **unused)
{
    (void)unused;
    use_and_free(BLOCK);
    for (int i = 0; i < 3000 && info_now().dirty_bytes != 0; i++) {
        nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
        table->tick();
    }
    assert_int_equal(info_now().dirty_bytes, 0);
}

static void *
tick_until_all_has_decayed(void *unused)
{
    for (int i = 0; i < 3000 && info_now().dirty_bytes != 0; i++) {
        nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
        table->tick();
    }
    return unused;
}

/* By a thread that never used the allocator, and has no record after it either. */
static void
test_dirty_pages_decay_by_ticks_of_a_stranger(void **unused)
{
    (void)unused;
    pthread_t thread;
    use_and_free(BLOCK);
    uint32_t threads = info_now().threads;
    assert_int_equal(pthread_create(&thread, NULL, tick_until_all_has_decayed, NULL), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(info_now().dirty_bytes, 0);
    assert_int_equal(info_now().threads, threads);
}

int
main(void)
{
    const struct CMUnitTest keeps[] = {
        cmocka_unit_test(test_dirty_pages_stay_until_purged),
        cmocka_unit_test(test_purge_returns_large_blocks_too),
        cmocka_unit_test(test_purge_unmaps_chunks),
        cmocka_unit_test(test_purge_leaves_live_blocks_alone),
        cmocka_unit_test(test_huge_blocks_stay_dirty_like_other_pages),
    };
    const struct CMUnitTest at_once[] = {
        cmocka_unit_test(test_nothing_stays_if_decay_is_at_once),
        cmocka_unit_test(test_purge_leaves_live_blocks_alone),
    };
    const struct CMUnitTest decays[] = {
        cmocka_unit_test(test_dirty_pages_decay_while_others_are_used),
        cmocka_unit_test(test_dirty_pages_decay_by_ticks_alone),
        cmocka_unit_test(test_dirty_pages_decay_by_ticks_of_a_stranger),
        cmocka_unit_test(test_purge_leaves_live_blocks_alone),
    };
    int failed = cmocka_run_group_tests(keeps, open_that_keeps, close_it);
    failed += cmocka_run_group_tests(at_once, open_that_keeps_nothing, close_it);
    return failed + cmocka_run_group_tests(decays, open_that_decays, close_it);
}
