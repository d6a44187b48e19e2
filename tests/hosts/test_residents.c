/*
 * Libraries that stay mapped when their module is closed, with destructors that are yet to release what they left.
 */
#include "host.h"
#include "config.h"

#include <dlfcn.h>

#include "../plugins/stayer.h"
#include "tests/child.h"

static const char *const kinds[] = {"stayer_unique", "stayer_thread", "stayer_nodelete", "stayer"};
#define HELD "stayer" /* it stays because the host holds it */

static struct {
    const char *kind;
    unsigned close_flags, unload_flags;
    enum alcove_policy policy;
    bool reopen, loaded_again, not_unloaded;
} life;

/* Open, work, close, unload, and leave the rest to the end of the process. */
static void
live(void)
{
    alcove_allocator *allocator = allocator_load();
    struct alcove_module_options options = {.policy = life.policy};
    alcove_module *module = plugin_open(allocator, life.kind, &options);
    CALL(module, stayer_work)();
    const unsigned char *block = CALL(module, stayer_block)(0);
    CHECK(heap_of(allocator, block) == alcove_module_heap(module));
    if (strcmp(life.kind, HELD) == 0)
        CHECK(dlopen(plugin_path(life.kind), RTLD_NOW) != NULL);
    struct alcove_report report;
    CHECK(alcove_module_close(module, life.close_flags, &report) == ALCOVE_OK);
    CHECK(report.resident == 1);
    CHECK(report.kept == 1);
    CHECK(report.heap.live_blocks == STAYER_BLOCKS);
    CHECK(heap_of(allocator, block) != ALCOVE_HEAP_NONE);
    if (life.reopen) {
        module = plugin_open(allocator, life.kind, &options);
        CALL(module, stayer_clear)(); /* of what it had before */
        CALL(module, stayer_work)();
        block = CALL(module, stayer_block)(0);
        CHECK(heap_of(allocator, block) == alcove_module_heap(module));
        CHECK(alcove_module_close(module, life.close_flags, &report) == ALCOVE_OK);
        CHECK(report.resident == 1 && report.kept == 1);
    }
    CHECK(alcove_unload(allocator, 0) == ALCOVE_EBUSY);
    if (life.not_unloaded)
        exit(0);
    CHECK(alcove_unload(allocator, life.unload_flags) == ALCOVE_OK);
    if (life.unload_flags == ALCOVE_UNLOAD_RELEASE)
        CHECK(strstr(alcove_error_message(), "is still mapped") != NULL);
    CHECK(block[0] == 1);
    if (life.loaded_again) {
        allocator = allocator_load();
        module = plugin_open(allocator, life.kind, NULL);
        CALL(module, stayer_clear)();
        CALL(module, stayer_work)();
        CHECK(alcove_module_close(module, life.close_flags, NULL) == ALCOVE_OK);
    }
    exit(0);
}

static void
lives_to_its_end(void)
{
    char said[1024];
    int status = child_status(live, said, sizeof said);
    if (status != 0 || strstr(said, "the destructor found its blocks") == NULL)
        fail_msg("%s, close %u, unload %u, policy %d: status 0x%x: %s", life.kind, life.close_flags, life.unload_flags,
                 (int)life.policy, status, said);
}

static void
each_kind_lives_to_its_end(unsigned close_flags, unsigned unload_flags)
{
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        life.kind = kinds[i];
        life.close_flags = close_flags;
        life.unload_flags = unload_flags;
        lives_to_its_end();
    }
}

static int
setup(void **state)
{
    (void)state;
    memset(&life, 0, sizeof life);
    return 0;
}

static void
test_blocks_left_by_a_library_that_stays_can_be_freed_at_exit_after_unload(void **state)
{
    (void)state;
    each_kind_lives_to_its_end(0, ALCOVE_UNLOAD_LEAVE);
}

static void
test_drop_keeps_what_a_library_that_stays_will_free(void **state)
{
    (void)state;
    each_kind_lives_to_its_end(ALCOVE_CLOSE_DROP, ALCOVE_UNLOAD_LEAVE);
}

static void
test_release_leaves_what_a_library_that_stays_will_free(void **state)
{
    (void)state;
    each_kind_lives_to_its_end(0, ALCOVE_UNLOAD_RELEASE);
    each_kind_lives_to_its_end(ALCOVE_CLOSE_DROP, ALCOVE_UNLOAD_RELEASE);
}

static void
test_strict_library_that_stays_frees_its_own_at_exit(void **state)
{
    (void)state;
    life.policy = ALCOVE_POLICY_STRICT;
    each_kind_lives_to_its_end(ALCOVE_CLOSE_DROP, ALCOVE_UNLOAD_RELEASE);
}

static void
test_strict_library_that_stays_frees_its_own_at_exit_of_a_host_that_unloads_nothing(void **state)
{
    (void)state;
    life.policy = ALCOVE_POLICY_STRICT;
    life.not_unloaded = true;
    each_kind_lives_to_its_end(0, 0);
    each_kind_lives_to_its_end(ALCOVE_CLOSE_DROP, 0);
}

static void
test_library_that_stayed_is_opened_again(void **state)
{
    (void)state;
    life.reopen = true;
    each_kind_lives_to_its_end(ALCOVE_CLOSE_DROP, ALCOVE_UNLOAD_RELEASE);
    life.policy = ALCOVE_POLICY_STRICT; /* what it left before is its own */
    each_kind_lives_to_its_end(ALCOVE_CLOSE_DROP, ALCOVE_UNLOAD_RELEASE);
}

static void
test_library_that_stayed_is_opened_by_the_next_allocator(void **state)
{
    (void)state;
    life.loaded_again = true;
    each_kind_lives_to_its_end(ALCOVE_CLOSE_DROP, ALCOVE_UNLOAD_RELEASE);
}

static void
test_library_that_goes_is_dropped_and_released(void **state)
{
    (void)state;
    SKIP_WITHOUT_UNLOADING();
    alcove_allocator *allocator = allocator_load();
    alcove_module *module = plugin_open(allocator, "blocks", NULL);
    struct alcove_report report;
    assert_ok(alcove_module_close(module, ALCOVE_CLOSE_DROP, &report));
    assert_int_equal(report.resident, 0);
    assert_int_equal(report.kept, 0);
    assert_ok(alcove_unload(allocator, 0));
}

static void
test_library_that_stayed_frees_what_it_left_when_the_host_closes_it(void **state)
{
    (void)state;
    SKIP_WITHOUT_UNLOADING();
    alcove_allocator *allocator = allocator_load();
    void *held = dlopen(plugin_path("keeper"), RTLD_NOW);
    assert_non_null(held);
    alcove_module *module = plugin_open(allocator, "keeper", NULL);
    void *(*keep)(size_t) = (void *(*)(size_t))symbol(module, "keeper_keep");
    const void *block = keep(100);
    struct alcove_report report;
    assert_ok(alcove_module_close(module, 0, &report));
    assert_int_equal(report.resident, 1);
    assert_non_null(block);
    assert_int_equal(dlclose(held), 0); /* its destructor frees the block */
    assert_ok(alcove_unload(allocator, 0));
}

int
main(void)
{
#define TEST(name) cmocka_unit_test_setup(name, setup)
    const struct CMUnitTest tests[] = {
        TEST(test_blocks_left_by_a_library_that_stays_can_be_freed_at_exit_after_unload),
        TEST(test_drop_keeps_what_a_library_that_stays_will_free),
        TEST(test_release_leaves_what_a_library_that_stays_will_free),
        TEST(test_strict_library_that_stays_frees_its_own_at_exit),
        TEST(test_strict_library_that_stays_frees_its_own_at_exit_of_a_host_that_unloads_nothing),
        TEST(test_library_that_stayed_is_opened_again),
        TEST(test_library_that_stayed_is_opened_by_the_next_allocator),
        TEST(test_library_that_goes_is_dropped_and_released),
        TEST(test_library_that_stayed_frees_what_it_left_when_the_host_closes_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
