/*
 * What a host says and learns of a module: its report, its limit, its policy. test_strict has the strict one.
 */
#include "host.h"
#include "config.h"

#include <errno.h>
#include <malloc.h>
#include <time.h>

#include "../plugins/blocks.h"
#include "routed.h"
#include "tests/child.h"

static void
test_report_has_what_was_left_and_the_heap_stays_until_it_is_freed(void **state)
{
    (void)state;
    static const size_t sizes[] = {1, 100, 5000, 300000};
    void *left[4];
    uint64_t bytes = 0;
    uint32_t heaps = heaps_now();
    alcove_module *other = plugin_open(allocator, "blocks_two", &(struct alcove_module_options){.name = "leaky"});
    for (int i = 0; i < 4; i++) {
        left[i] = CALL(other, blocks_make)(BLOCKS_MALLOC, sizes[i]);
        memset(left[i], 'x', sizes[i]);
        bytes += malloc_usable_size(left[i]);
    }
    for (int i = 0; i < 10; i++)
        CALL(other, blocks_release)(CALL(other, blocks_make)(BLOCKS_MALLOC, 64));
    struct alcove_report report = module_end(other);
    assert_string_equal(report.name, "leaky");
    assert_int_equal(report.heap.live_blocks, 4);
    assert_int_equal(report.heap.live_bytes, bytes);
    assert_int_equal(report.heap.total_allocs, 14);
    assert_int_equal(report.heap.total_frees, 10);
    assert_true(report.heap.peak_bytes >= bytes);
    assert_int_equal(report.kept, 1);

    for (int i = 0; i < 4; i++) {
        assert_int_equal(((char *)left[i])[sizes[i] - 1], 'x');
        free(left[i]);
    }
    alcove_refresh();
    assert_int_equal(heaps_now(), heaps);
}

static void
test_close_with_drop_leaves_nothing(void **state)
{
    (void)state;
    uint32_t heaps = heaps_now();
    void *blocks[1000];
    alcove_module *other = plugin_open(allocator, "blocks_two", NULL);
    for (int i = 0; i < 1000; i++)
        assert_non_null(blocks[i] = CALL(other, blocks_make)(BLOCKS_MALLOC, 500));
    struct alcove_report report;
    assert_ok(alcove_module_close(other, ALCOVE_CLOSE_DROP, &report));
    assert_int_equal(report.heap.live_blocks, 1000);
    assert_int_equal(report.kept, !DLCLOSE_UNLOADS);
    assert_int_equal(report.resident, !DLCLOSE_UNLOADS);
    if (!DLCLOSE_UNLOADS) { /* what is live in a library that stays is kept, and the heap goes with the last of it */
        assert_int_equal(heaps_now(), heaps + 1);
        for (int i = 0; i < 1000; i++)
            free(blocks[i]);
        assert_ok(alcove_refresh());
    }
    assert_int_equal(heaps_now(), heaps);
}

static void
test_limit_fails_the_module_and_nobody_else(void **state)
{
    (void)state;
    struct alcove_module_options options = {.limit = 1 << 20};
    alcove_module *limited = plugin_open(allocator, "blocks_two", &options);
    void *blocks[1000];
    unsigned count = 0;
    errno = 0;
    while (count < 1000 && (blocks[count] = CALL(limited, blocks_make)(BLOCKS_MALLOC, 10000)) != NULL)
        count++;
    assert_int_equal(errno, ENOMEM);
    assert_in_range(count, 50, 105);
    assert_true(stats_of(limited).heap.active_bytes <= 1 << 20);
    assert_true(stats_of(limited).heap.limit_refused >= 1);
    assert_int_equal(stats_of(limited).heap.limit, 1 << 20);

    void *mine = CALL(module, blocks_make)(BLOCKS_MALLOC, 5 << 20), *libcs = malloc(5 << 20);
    assert_non_null(mine);
    assert_non_null(libcs);
    CALL(module, blocks_release)(mine);
    free(libcs);
    while (count > 0)
        CALL(limited, blocks_release)(blocks[--count]);
    module_end(limited);
}

static void
test_limit_can_be_raised_while_the_module_runs(void **state)
{
    (void)state;
    alcove_module *limited = plugin_open(allocator, "blocks_two", &(struct alcove_module_options){.limit = 1 << 20});
    assert_null(CALL(limited, blocks_make)(BLOCKS_MALLOC, 2 << 20));
    assert_ok(alcove_module_limit(limited, 8 << 20));
    void *block = CALL(limited, blocks_make)(BLOCKS_MALLOC, 2 << 20);
    assert_non_null(block);
    CALL(limited, blocks_release)(block);
    module_end(limited);
}

static void
test_policy_off_leaves_the_module_to_libc(void **state)
{
    (void)state;
    alcove_module *plain = plugin_open(allocator, "blocks_two", &(struct alcove_module_options){.policy = ALCOVE_POLICY_OFF});
    assert_int_equal(alcove_module_heap(plain), ALCOVE_HEAP_NONE);
    void *block = CALL(plain, blocks_make)(BLOCKS_MALLOC, 100);
    assert_int_equal(heap_of(allocator, block), ALCOVE_HEAP_NONE);
    free(block);
    assert_int_equal(stats_of(plain).imports_routed, 0);
    assert_int_equal(stats_of(plain).heap.total_allocs, 0);
    /* yet its releases are guarded like everyone's */
    CALL(plain, blocks_release)(CALL(module, blocks_make)(BLOCKS_MALLOC, 100));
    assert_int_equal(stats_of(module).heap.live_blocks, 0);
    assert_int_equal(stats_of(module).released_outside, 1);
    module_end(plain);
}

static void
test_a_limit_where_the_policy_is_off_is_refused(void **state)
{
    (void)state;
    alcove_module *plain = NULL;
    const unsigned before = DLCLOSE_UNLOADS ? 0 : lines_mapped("blocks_two.so"); /* of earlier tests */
    const struct alcove_module_options options = {.policy = ALCOVE_POLICY_OFF, .limit = 1 << 20};
    assert_refused(alcove_module_open(allocator, plugin_path("blocks_two"), &options, &plain), ALCOVE_EINVAL, "the policy is off");
    assert_null(plain);
    assert_int_equal(lines_mapped("blocks_two.so"), before);
}

static void
test_only_the_loader_ends_or_destroys_the_heap_of_a_module(void **state)
{
    (void)state;
    const struct alcove_table *table = alcove_table_of(allocator);
    char *block = CALL(module, blocks_make)(BLOCKS_MALLOC, 100);
    assert_int_equal(table->heap_destroy(heap), EPERM);
    assert_int_equal(table->heap_end(heap), EPERM);
    assert_int_equal(table->heap_unseal(heap, &heap), EPERM);
    assert_int_equal(heap_of(allocator, block), heap);
    assert_int_equal(stats_of(module).heap.live_blocks, 1);
    CALL(module, blocks_release)(block);
}

static void
test_the_table_sets_the_limit_of_a_module_as_the_loader_does(void **state)
{
    (void)state;
    const struct alcove_table *table = alcove_table_of(allocator);
    assert_int_equal(table->heap_limit(heap, 1 << 20), 0);
    assert_int_equal(stats_of(module).heap.limit, 1 << 20);
    assert_null(CALL(module, blocks_make)(BLOCKS_MALLOC, 2 << 20));
    assert_int_equal(stats_of(module).heap.limit_refused, 1);
    assert_int_equal(table->heap_limit(heap, 1), EINVAL);
    assert_ok(alcove_module_limit(module, 0));
    CALL(module, blocks_release)(CALL(module, blocks_make)(BLOCKS_MALLOC, 2 << 20));
}

/* They are found in libc, by way of the module. */
static void
test_functions_of_libc_looked_up_in_a_module_are_its_own(void **state)
{
    (void)state;
    void (*release)(void *) = (void (*)(void *))symbol(module, "free");
    void *(*resize)(void *, size_t) = (void *(*)(void *, size_t))symbol(module, "realloc");
    void *(*make)(size_t) = (void *(*)(size_t))symbol(module, "malloc");
    void *block = resize(CALL(module, blocks_make)(BLOCKS_MALLOC, 100), 200000);
    assert_int_equal(heap_of(allocator, block), heap);
    release(block);
    assert_int_equal(stats_of(module).heap.live_blocks, 0);
    block = make(100);
    assert_int_equal(heap_of(allocator, block), heap);
    release(block);
    CALL(module, blocks_release)(make(100));
    assert_int_equal(stats_of(module).heap.live_blocks, 0);
    assert_int_equal(stats_of(module).released_outside, 0);
}

/* Each is one run of pages; freed, they are joined into one free run that has them inside of it. */
static void
host_frees_blocks_twice(size_t size)
{
    void *volatile blocks[3];
    for (int i = 0; i < 3; i++)
        blocks[i] = CALL(module, blocks_make)(BLOCKS_MALLOC, size);
    for (int i = 0; i < 6; i++)
        free(blocks[i % 3]);
    if (malloc_usable_size(blocks[0]) + malloc_usable_size(blocks[1]) + malloc_usable_size(blocks[2]) != 0)
        abort();
}

static void
host_frees_large_blocks_twice(void)
{
    host_frees_blocks_twice(1200000);
}

static void
host_frees_huge_blocks_twice(void)
{
    host_frees_blocks_twice((size_t)30 << 20);
}

static void
double_frees_are_told(void (*frees)(void))
{
    char message[1024];
    int status = child_status(frees, message, sizeof message);
    /* The option abort is on in a debug build: the first message is the last. */
    if (status != (ALCOVE_DEBUG ? SIGABRT : 0))
        fail_msg("status 0x%x: %s", status, message);
    const char *said = message;
    for (int i = 0; i < (ALCOVE_DEBUG ? 1 : 3); i++) {
        said = strstr(said, "double free of 0x");
        assert_non_null(said);
        said++;
    }
}

static void
test_host_frees_large_blocks_of_the_module_twice(void **state)
{
    (void)state;
    double_frees_are_told(host_frees_large_blocks_twice);
}

static void
test_host_frees_huge_blocks_of_the_module_twice(void **state)
{
    (void)state;
    double_frees_are_told(host_frees_huge_blocks_twice);
}

int
main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_report_has_what_was_left_and_the_heap_stays_until_it_is_freed),
        TEST(test_close_with_drop_leaves_nothing),
        TEST(test_limit_fails_the_module_and_nobody_else),
        TEST(test_limit_can_be_raised_while_the_module_runs),
        TEST(test_policy_off_leaves_the_module_to_libc),
        TEST(test_a_limit_where_the_policy_is_off_is_refused),
        TEST(test_only_the_loader_ends_or_destroys_the_heap_of_a_module),
        TEST(test_the_table_sets_the_limit_of_a_module_as_the_loader_does),
        TEST(test_functions_of_libc_looked_up_in_a_module_are_its_own),
        TEST(test_host_frees_large_blocks_of_the_module_twice),
        TEST(test_host_frees_huge_blocks_of_the_module_twice),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
