/*
 * A module releases the host's blocks by the functions that its imports led to, where a process has several of one name. test_preloaded.sh runs this
 * with a library whose functions have the version that programs were linked with; dlsym finds libc's, which die of that library's blocks.
 */
#include "host.h"
#include "loaded.h"

#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>

#include "tests/plugins/grower.h"

static const size_t sizes[] = {10, 5000, 300000};
#define SIZES (sizeof sizes / sizeof sizes[0])

static void *
filled(size_t size)
{
    void *block = malloc(size);
    assert_non_null(block);
    return memset(block, 'x', size);
}

static void
assert_takes_the_hosts_blocks(alcove_module *module)
{
    for (unsigned i = 0; i < SIZES; i++) {
        CALL(module, grower_free)(filled(sizes[i]));
        char *block = filled(sizes[i]);
        assert_int_equal(CALL(module, grower_usable)(block), malloc_usable_size(block));
        block = CALL(module, grower_grow)(block, 3 * sizes[i]);
        assert_int_equal(heap_of(allocator, block), ALCOVE_HEAP_NONE);
        assert_int_equal(block[0], 'x');
        assert_int_equal(block[sizes[i] - 1], 'x');
        assert_true(malloc_usable_size(block) >= 3 * sizes[i]);
        free(block);
        block = CALL(module, grower_grow)(filled(sizes[i]), sizes[i] / 2);
        assert_int_equal(block[sizes[i] / 2 - 1], 'x');
        CALL(module, grower_free)(block);
    }
    assert_int_equal(stats_of(module).released_foreign, 2 * SIZES);
}

static void
test_module_takes_the_hosts_blocks(void **state)
{
    (void)state;
    alcove_module *module = plugin_open(allocator, "grower", NULL);
    assert_takes_the_hosts_blocks(module);
    module_end(module);
}

static void
test_module_that_grows_arrays_only(void **state)
{
    (void)state;
    alcove_module *module = plugin_open(allocator, "grower_of_arrays", NULL);
    assert_takes_the_hosts_blocks(module);
    module_end(module);
}

static void
test_module_that_was_not_bound_yet(void **state)
{
    (void)state;
    void *before = dlopen(plugin_path("grower_lazy"), RTLD_LAZY | RTLD_LOCAL);
    assert_non_null(before);
    alcove_module *module = plugin_open(allocator, "grower_lazy", NULL);
    assert_takes_the_hosts_blocks(module);
    module_end(module);
    ((__typeof__(&grower_free))dlsym(before, "grower_free"))(filled(10)); /* led back to where it would have been bound to */
    dlclose(before);
}

/* The heap's number is no module's any more, so that nothing is known of who releases: by the function that dlsym finds. */
static void
test_number_that_was_a_modules(void **state)
{
    (void)state;
    alcove_module *module = plugin_open(allocator, "grower", NULL);
    const struct alcove_table *table = alcove_table_of(allocator);
    uint32_t number = alcove_module_heap(module);
    module_end(module);
    assert_ok(alcove_refresh());
    struct alcove_heap_stats stats;
    assert_int_equal(table->heap_stats(number, &stats), EINVAL);
    void *(*found)(size_t) = (void *(*)(size_t))dlsym(RTLD_DEFAULT, "malloc");
    void (*released)(void *, size_t) = (void (*)(void *, size_t))table->entry(ALCOVE_ENTRY_free);
    void *(*grown)(void *, size_t, size_t) = (void *(*)(void *, size_t, size_t))table->entry(ALCOVE_ENTRY_realloc);
    for (unsigned i = 0; i < SIZES; i++)
        released(grown(found(sizes[i]), 2 * sizes[i], number), number);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_module_takes_the_hosts_blocks, setup, teardown),
        cmocka_unit_test_setup_teardown(test_module_that_grows_arrays_only, setup, teardown),
        cmocka_unit_test_setup_teardown(test_module_that_was_not_bound_yet, setup, teardown),
        cmocka_unit_test_setup_teardown(test_number_that_was_a_modules, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
