/* A module is routed whole, or not at all: what module_open counts, and refuses. */
#include "host.h"

#include <dlfcn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../plugins/blocks.h"
#include "../plugins/partial.h"
#include "loaded.h"

int host_wants_partial; /* has the plugin partial spoil one of its imports */
void *host_hook(void *block, size_t size);
void *of_cxx_make(size_t size);
void of_cxx_release(void *block);

void *
host_hook(void *block, size_t size)
{
    return realloc(block, size);
}

static const struct alcove_module_options accept_partial = {.size = sizeof accept_partial, .flags = ALCOVE_OPEN_PARTIAL};

static uint32_t
heaps_now(void)
{
    struct alcove_info info;
    alcove_table_of(allocator)->info(&info);
    return info.heaps;
}

static int
teardown_partial(void **state)
{
    host_wants_partial = 0;
    return teardown(state);
}

/* What an open said that succeeded. */
static void
assert_remark(const char *words)
{
    if (strstr(alcove_error_message(), words) == NULL)
        fail_msg("the message \"%s\" does not say \"%s\"", alcove_error_message(), words);
}

static void
test_every_import_is_counted_and_routed(void **state)
{
    (void)state;
    assert_int_equal(alcove_unload(allocator, 99), ALCOVE_EINVAL);
    alcove_module *module = plugin_open(allocator, "partial", NULL);
    assert_remark("0x63"); /* nothing new */
    struct alcove_module_stats stats = stats_of(module);
    assert_int_equal(stats.imports_found, 3); /* malloc, free, realloc */
    assert_int_equal(stats.imports_routed, 3);
    assert_int_equal(stats.imports_lost, 0);
    assert_int_equal(stats.imports_new, 0);
    module_end(module);
}

static void
host_release(void *block)
{
    free(block);
}

/* As a host does with xmlFree, before the library is a module: it is a variable, and no import any more. */
static void
test_variable_that_the_host_has_set_stays_and_is_no_loss(void **state)
{
    (void)state;
    void *before = dlopen(plugin_path("blocks"), RTLD_NOW | RTLD_LOCAL);
    void (**variable)(void *) = (void (**)(void *))dlsym(before, "blocks_free_pointer");
    assert_non_null(variable);
    *variable = host_release;
    alcove_module *module = plugin_open(allocator, "blocks", NULL);
    assert_int_equal(stats_of(module).imports_lost, 0);
    (*variable)(CALL(module, blocks_make)(BLOCKS_MALLOC, 100));
    assert_int_equal(stats_of(module).heap.live_blocks, 0);
    assert_ptr_equal(*variable, host_release);
    module_end(module);
    dlclose(before);
}

static void
test_import_that_leads_elsewhere_is_named_and_refused(void **state)
{
    (void)state;
    alcove_module *module = untouched;
    alcove_table_of(allocator)->free(alcove_table_of(allocator)->malloc(1)); /* the default heap is made when used */
    uint32_t heaps = heaps_now();
    host_wants_partial = 1;
    assert_refused(alcove_module_open(allocator, plugin_path("partial"), NULL, &module), ALCOVE_EPARTIAL, "realloc");
    assert_refused(alcove_module_open(allocator, plugin_path("partial"), NULL, &module), ALCOVE_EPARTIAL, "partial.so");
    assert_ptr_equal(module, untouched);
    assert_unloaded("partial.so");
    assert_int_equal(heaps_now(), heaps);
}

/* It was there before, and stays: nothing of it is left routed. */
static void
test_refused_library_that_stays_is_as_it_was(void **state)
{
    (void)state;
    alcove_module *module = untouched;
    host_wants_partial = 1;
    void *before = dlopen(plugin_path("partial"), RTLD_NOW | RTLD_LOCAL);
    assert_non_null(before);
    __typeof__(&partial_make) make = (__typeof__(&partial_make))dlsym(before, "partial_make");
    __typeof__(&partial_release) release = (__typeof__(&partial_release))dlsym(before, "partial_release");
    __typeof__(&partial_grow) grow = (__typeof__(&partial_grow))dlsym(before, "partial_grow");
    assert_refused(alcove_module_open(allocator, plugin_path("partial"), NULL, &module), ALCOVE_EPARTIAL, "realloc");
    void *block = make(100);
    assert_int_equal(heap_of(allocator, block), ALCOVE_HEAP_NONE);
    block = grow(block, 5000);
    assert_int_equal(heap_of(allocator, block), ALCOVE_HEAP_NONE);
    release(block);
    /* others' blocks go home by it, as by any library */
    alcove_module *blocks = plugin_open(allocator, "blocks", NULL);
    release(CALL(blocks, blocks_make)(BLOCKS_MALLOC, 100));
    assert_int_equal(stats_of(blocks).heap.live_blocks, 0);
    module_end(blocks);
    dlclose(before);
}

static void
test_import_that_leads_elsewhere_is_accepted_if_asked(void **state)
{
    (void)state;
    host_wants_partial = 1;
    alcove_module *module = plugin_open(allocator, "partial", &accept_partial);
    assert_remark("partial.so\" is routed in part");
    struct alcove_module_stats stats = stats_of(module);
    assert_int_equal(stats.imports_lost, 1);
    assert_int_equal(stats.imports_found, 2);
    assert_int_equal(stats.imports_routed, 2);
    void *block = CALL(module, partial_make)(100);
    assert_int_equal(heap_of(allocator, block), alcove_module_heap(module));
    CALL(module, partial_release)(block);
    module_end(module);
}

/* Accepted too where there is nothing to accept. */
static void
test_whole_module_may_be_opened_so_too(void **state)
{
    (void)state;
    alcove_module *module = plugin_open(allocator, "partial", &accept_partial);
    assert_int_equal(stats_of(module).imports_lost, 0);
    assert_int_equal(stats_of(module).imports_routed, 3);
    module_end(module);
}

static void
test_module_that_imports_nothing_of_the_family(void **state)
{
    (void)state;
    alcove_module *module = plugin_open(allocator, "no_imports", NULL);
    assert_remark("no_imports.so\" imports nothing");
    struct alcove_module_stats stats = stats_of(module);
    assert_int_equal(stats.imports_found, 0);
    assert_int_equal(stats.imports_routed, 0);
    assert_int_equal(stats.imports_lost, 0);
    assert_int_equal(stats.imports_new, 0);
    module_end(module);
}

static void
test_module_that_imports_cxx_new_only(void **state)
{
    (void)state;
    void *runtime = dlopen("libstdc++.so.6", RTLD_NOW | RTLD_GLOBAL);
    if (runtime == NULL)
        SKIP_BECAUSE("there is no libstdc++.so.6");
    alcove_module *module = plugin_open(allocator, "of_cxx", NULL);
    assert_remark("of_cxx.so\" imports C++'s operator new");
    struct alcove_module_stats stats = stats_of(module);
    assert_true(stats.imports_new > 0);
    assert_int_equal(stats.imports_lost, 0);
    void *block = CALL(module, of_cxx_make)(100);
    assert_non_null(block);
    CALL(module, of_cxx_release)(block);
    module_end(module);
    dlclose(runtime);
}

static void
test_module_without_a_policy_is_not_refused(void **state)
{
    (void)state;
    host_wants_partial = 1;
    alcove_module *module = plugin_open(allocator, "partial", &(struct alcove_module_options){.policy = ALCOVE_POLICY_OFF});
    assert_int_equal(alcove_module_heap(module), ALCOVE_HEAP_NONE);
    assert_int_equal(stats_of(module).imports_routed, 0);
    module_end(module);
}

/* A library is constructed once in a process, where none is unloaded: then each test has a process of its own. */
static int
run_each_apart(const struct CMUnitTest *tests, size_t count)
{
    int failed = 0;
    for (size_t i = 0; i < count; i++) {
        int status;
        fflush(NULL);
        pid_t child = fork();
        if (child == 0) {
            int code = _cmocka_run_group_tests(tests[i].name, &tests[i], 1, NULL, NULL);
            fflush(NULL);
            _exit(code != 0);
        }
        failed += child < 0 || waitpid(child, &status, 0) != child || status != 0;
    }
    return failed;
}

int
main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown_partial)
    const struct CMUnitTest tests[] = {
        TEST(test_every_import_is_counted_and_routed),
        TEST(test_variable_that_the_host_has_set_stays_and_is_no_loss),
        TEST(test_import_that_leads_elsewhere_is_named_and_refused),
        TEST(test_refused_library_that_stays_is_as_it_was),
        TEST(test_import_that_leads_elsewhere_is_accepted_if_asked),
        TEST(test_whole_module_may_be_opened_so_too),
        TEST(test_module_that_imports_nothing_of_the_family),
        TEST(test_module_that_imports_cxx_new_only),
        TEST(test_module_without_a_policy_is_not_refused),
    };
    if (!DLCLOSE_UNLOADS)
        return run_each_apart(tests, sizeof tests / sizeof *tests);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
