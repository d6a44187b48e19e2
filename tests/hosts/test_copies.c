/*
 * A program that is linked against its plugin and names variables of it that hold addresses of functions, as programs do with libxml2's xmlFree. Built
 * three times: test_copies is not PIE, so the program has the variables itself, by COPY relocations, and the library uses those; test_copies_pie
 * may have; test_no_copies reaches the library's own.
 */
#include "host.h"

#include <dlfcn.h>

#include "../plugins/blocks.h"
#include "../plugins/variables.h"
#include "routed.h"

static alcove_module *variables;

static int
setup_variables(void **state)
{
    setup(state);
    variables = plugin_open(allocator, "variables", NULL);
    return 0;
}

static int
teardown_variables(void **state)
{
    if (variables != NULL)
        module_end(variables);
    return teardown(state);
}

static uint64_t
live(void)
{
    return stats_of(variables).heap.live_blocks;
}

static void
test_librarys_calls_through_its_variables_are_the_modules(void **state)
{
    (void)state;
    void *block = variables_make(100);
    assert_int_equal(heap_of(allocator, block), alcove_module_heap(variables));
    assert_int_equal(live(), 1);
    variables_release(block);
    assert_int_equal(live(), 0);
    variables_release(variables_make_plain(100));
    variables_release_plain(variables_make(100));
    assert_int_equal(live(), 0);
    assert_int_equal(stats_of(variables).released_outside + stats_of(variables).released_foreign, 0);
}

static void
test_programs_calls_through_the_variables_are_the_modules(void **state)
{
    (void)state;
    variables_free(variables_make_plain(100));
    assert_int_equal(live(), 0);
    void *block = variables_malloc(100);
    assert_int_equal(heap_of(allocator, block), alcove_module_heap(variables));
    block = variables_all.grow(block, 5000);
    assert_int_equal(heap_of(allocator, block), alcove_module_heap(variables));
    variables_all.release(block);
    assert_int_equal(live(), 0);
}

static void
test_programs_blocks_may_be_released_through_the_variables(void **state)
{
    (void)state;
    variables_free(malloc(100));
    variables_release(malloc(100));
    variables_free(CALL(module, blocks_make)(BLOCKS_MALLOC, 100));
    assert_int_equal(stats_of(module).heap.live_blocks, 0);
    assert_int_equal(stats_of(variables).released_foreign, 3);
}

static void
test_variables_are_everybodys_after_close(void **state)
{
    (void)state;
    void *block = variables_make(100), *second = variables_make(100);
    module_end(variables);
    variables = NULL;
    variables_free(block);
    variables_release(second);
    void *plain = variables_make(100);
    assert_int_equal(heap_of(allocator, plain), ALCOVE_HEAP_NONE);
    variables_free(plain);
    variables_free(CALL(module, blocks_make)(BLOCKS_MALLOC, 100));
    assert_int_equal(stats_of(module).heap.live_blocks, 0);
    assert_int_equal(stats_of(module).released_outside, 1);
}

static void
test_variables_are_as_ever_after_unload(void **state)
{
    void *(*make)(size_t) = variables_malloc;
    teardown_variables(state);
    variables = NULL;
    assert_ptr_not_equal(variables_malloc, make);
    variables_free(variables_make(100));
    variables_release(variables_all.grow(variables_malloc(100), 5000));
    void *(*unloaded)(size_t) = variables_malloc;
    void (*unloaded_free)(void *) = variables_free;
    setup_variables(state);
    teardown_variables(state);
    assert_ptr_equal(variables_malloc, unloaded);
    assert_ptr_equal(variables_free, unloaded_free);
    setup_variables(state);
}

/* The program sets a variable to a function of its own. */
static unsigned programs_calls;

static void
programs_free(void *block)
{
    programs_calls++;
    free(block);
}

static void
test_variable_that_the_program_has_set_stays(void **state)
{
    (void)state;
    variables_free = programs_free;
    variables_release(variables_make(100));
    assert_int_equal(programs_calls, 1);
    assert_int_equal(live(), 0);
    module_end(variables);
    assert_ptr_equal(variables_free, programs_free);
    variables_free = free;
    variables = plugin_open(allocator, "variables", NULL);
    variables_release(variables_make(100));
    assert_int_equal(programs_calls, 1);
    assert_int_equal(live(), 0);
}

static void
test_variable_that_holds_another_modules_function_stays(void **state)
{
    (void)state;
    void (*others)(void *) = (void (*)(void *))symbol(module, "free");
    variables_free = others;
    variables_release(CALL(module, blocks_make)(BLOCKS_MALLOC, 100));
    assert_int_equal(stats_of(module).released_outside, 0);
    module_end(variables);
    assert_ptr_equal(variables_free, others);
    variables_free = free;
    variables = plugin_open(allocator, "variables", NULL);
}

int
main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup_variables, teardown_variables)
    const struct CMUnitTest tests[] = {
        TEST(test_librarys_calls_through_its_variables_are_the_modules),
        TEST(test_programs_calls_through_the_variables_are_the_modules),
        TEST(test_programs_blocks_may_be_released_through_the_variables),
        TEST(test_variables_are_everybodys_after_close),
        TEST(test_variables_are_as_ever_after_unload),
        TEST(test_variable_that_the_program_has_set_stays),
        TEST(test_variable_that_holds_another_modules_function_stays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
