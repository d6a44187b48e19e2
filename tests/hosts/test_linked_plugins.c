/*
 * Plugins that link the allocator themselves, and are not routed: some depend on libalcove.so, which the
 * dynamic linker then loads and unloads; some have a libalcove.a of their own inside, its names hidden.
 */
#include "host.h"

#include <dlfcn.h>
#include <pthread.h>

#include "tests/plugins/allocating.h"
#include "tests/work.h"

struct plugin {
    void *handle;
    const struct alcove_table *table;
    void *first; /* what its constructor allocated */
};

static struct plugin
linked_open(const char *name, int flags)
{
    struct plugin plugin = {.handle = dlopen(plugin_path(name), RTLD_NOW | flags)};
    if (plugin.handle == NULL)
        fail_msg("%s", dlerror());
    plugin.table = ((__typeof__(&allocating_table))dlsym(plugin.handle, "allocating_table"))();
    plugin.first = ((__typeof__(&allocating_first))dlsym(plugin.handle, "allocating_first"))();
    return plugin;
}

static void
linked_close(const struct plugin *plugin)
{
    assert_int_equal(dlclose(plugin->handle), 0);
}

static int
owns(const struct alcove_table *table, const void *block)
{
    struct alcove_owner owner;
    return table->owner(block, &owner);
}

static void
assert_works_in_threads(const struct alcove_table *table)
{
    pthread_t threads[3];
    assert_true(allocator_works(table));
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, allocator_works_in_thread, (void *)(uintptr_t)table), 0);
    for (int i = 0; i < 3; i++) {
        void *result;
        pthread_join(threads[i], &result);
        assert_non_null(result);
    }
}

static bool
is_mapped(const void *block)
{
    unsigned char resident;
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    return mincore((void *)((uintptr_t)block & ~(page - 1)), 1, &resident) == 0;
}

static void
test_allocator_comes_and_goes_with_the_plugins_that_need_it(void **state)
{
    (void)state;
    SKIP_WITHOUT_UNLOADING();
    for (int round = 0; round < 3; round++) {
        struct plugin one = linked_open("needs_one", RTLD_LOCAL), two = linked_open("needs_two", RTLD_LOCAL);
        assert_ptr_equal(one.table, two.table);
        assert_true(owns(one.table, one.first));
        assert_true(owns(one.table, two.first));
        assert_works_in_threads(one.table);
        linked_close(&one);
        assert_int_not_equal(lines_mapped(allocator_path()), 0);
        assert_works_in_threads(two.table);
        linked_close(&two);
        assert_int_equal(lines_mapped(allocator_path()), 0);
        assert_false(is_mapped(two.first)); /* its memory has gone too */
    }
}

static void
test_loader_leaves_an_allocator_to_the_plugin_that_uses_it(void **state)
{
    (void)state;
    SKIP_WITHOUT_UNLOADING();
    struct plugin one = linked_open("needs_one", RTLD_LOCAL);
    alcove_allocator *allocator = NULL;
    assert_refused(alcove_load(&allocator, &(struct alcove_load_options){.path = allocator_path()}), ALCOVE_EBUSY,
                   "in use already");
    assert_null(allocator);
    assert_works_in_threads(one.table);
    linked_close(&one);
    allocator = allocator_load();
    assert_ok(alcove_unload(allocator, 0));
}

static void
test_plugin_finds_the_allocator_that_the_loader_loaded(void **state)
{
    (void)state;
    SKIP_WITHOUT_UNLOADING();
    alcove_allocator *allocator = allocator_load();
    struct plugin one = linked_open("needs_one", RTLD_LOCAL);
    assert_ptr_equal(one.table, alcove_table_of(allocator));
    assert_int_equal(heap_of(allocator, one.first), ALCOVE_HEAP_DEFAULT);
    assert_refused(alcove_unload(allocator, 0), ALCOVE_EBUSY, "1 block");
    assert_works_in_threads(one.table);
    linked_close(&one);
    assert_ok(alcove_unload(allocator, 0));
    assert_int_equal(lines_mapped(allocator_path()), 0);
}

static void
archive_needed(void)
{
    if (setting("ALCOVE_TEST_STATIC")[0] == 0) {
        print_message("skipped: this build has no libalcove.a\n");
        skip();
    }
}

/* Even with their names in the global scope, had they any there. */
static void
test_two_plugins_with_an_allocator_inside_have_two(void **state)
{
    (void)state;
    SKIP_WITHOUT_UNLOADING();
    archive_needed();
    for (int round = 0; round < 3; round++) {
        struct plugin one = linked_open("static_one", RTLD_GLOBAL), two = linked_open("static_two", RTLD_GLOBAL);
        assert_ptr_not_equal(one.table, two.table);
        assert_true(owns(one.table, one.first));
        assert_false(owns(one.table, two.first));
        assert_true(owns(two.table, two.first));
        assert_false(owns(two.table, one.first));
        assert_works_in_threads(one.table);
        assert_works_in_threads(two.table);
        linked_close(&one);
        assert_works_in_threads(two.table);
        linked_close(&two);
        assert_int_equal(lines_mapped("/static_one.so"), 0);
        assert_int_equal(lines_mapped("/static_two.so"), 0);
    }
}

static void
test_names_of_an_allocator_inside_are_hidden(void **state)
{
    (void)state;
    archive_needed();
    struct plugin one = linked_open("static_one", RTLD_LOCAL);
    static const char *const names[] = {"malloc", "free", "table", "malloc_conf"};
    for (unsigned i = 0; i < 4; i++) {
        char name[128];
        snprintf(name, sizeof name, "%s%s", setting("ALCOVE_TEST_PREFIX"), names[i]);
        assert_null(dlsym(one.handle, name));
    }
    linked_close(&one);
}

/* Three allocators: the module's, routed, and one inside of each of two plugins. */
static void
test_allocators_inside_live_beside_the_loaders(void **state)
{
    (void)state;
    archive_needed();
    struct plugin one = linked_open("static_one", RTLD_LOCAL);
    alcove_allocator *allocator = allocator_load();
    alcove_module *module;
    assert_ok(alcove_module_open(allocator, plugin_path("static_two"), NULL, &module));
    const struct alcove_table *inside = CALL(module, allocating_table)();
    assert_works_in_threads(one.table);
    assert_works_in_threads(inside);
    assert_works_in_threads(alcove_table_of(allocator));
    assert_false(owns(alcove_table_of(allocator), one.first));
    assert_int_equal(module_end(module).heap.total_allocs, 0); /* it has no use for libc's malloc */
    assert_ok(alcove_unload(allocator, 0));
    assert_works_in_threads(one.table);
    linked_close(&one);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_allocator_comes_and_goes_with_the_plugins_that_need_it),
        cmocka_unit_test(test_loader_leaves_an_allocator_to_the_plugin_that_uses_it),
        cmocka_unit_test(test_plugin_finds_the_allocator_that_the_loader_loaded),
        cmocka_unit_test(test_two_plugins_with_an_allocator_inside_have_two),
        cmocka_unit_test(test_names_of_an_allocator_inside_are_hidden),
        cmocka_unit_test(test_allocators_inside_live_beside_the_loaders),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
