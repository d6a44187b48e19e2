/*
 * From alcove_load on, whatever the dynamic linker binds leads to us, without another call of ours: of objects that are loaded later, of imports
 * that are bound at their first call, and of who looks a name up. Blocks of a module are released by each of them, and go home. Between an object's
 * arrival and its releases nothing of the loader is called.
 */
#include "host.h"

#include <dlfcn.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../plugins/blocks.h"
#include "../plugins/ways.h"
#include "routed.h"

void *host_block; /* the constructor of the plugin ways releases it */

typedef void release_way(enum way way, void *block);
static void *(*make)(enum blocks_kind kind, size_t size); /* the module's */

static int
setup_blocks(void **state)
{
    setup(state);
    make = CALL(module, blocks_make);
    return 0;
}

static void *
block_new(void)
{
    return make(BLOCKS_MALLOC, 100);
}

/* All blocks so far are at home again, released by others. */
static void
assert_released(unsigned count)
{
    struct alcove_module_stats stats = stats_of(module);
    assert_int_equal(stats.heap.live_blocks, 0);
    assert_int_equal(stats.released_outside, count);
    assert_int_equal(stats.heap.total_frees, count);
}

static void *
release_all_ways(void *library)
{
    release_way *release = (release_way *)dlsym(library, "ways_release");
    ((void (*)(void))dlsym(library, "ways_store"))();
    for (int way = 0; way < WAYS; way++)
        release((enum way)way, block_new());
    return NULL;
}

static void
later_object_releases(const char *name, int flags)
{
    void *later = dlopen(plugin_path(name), flags);
    if (later == NULL)
        fail_msg("%s", dlerror());
    release_all_ways(later);
    assert_released(WAYS);
    dlclose(later);
}

static void
test_object_loaded_later_and_bound_at_once(void **state)
{
    (void)state;
    later_object_releases("ways", RTLD_NOW | RTLD_LOCAL);
}

static void
test_object_loaded_later_and_bound_at_first_calls(void **state)
{
    (void)state;
    later_object_releases("ways_lazy", RTLD_LAZY | RTLD_LOCAL);
}

static void
test_object_loaded_later_with_read_only_slots(void **state)
{
    (void)state;
    later_object_releases("ways_relro", RTLD_NOW | RTLD_LOCAL);
}

static void
test_object_loaded_later_for_all(void **state)
{
    (void)state;
    later_object_releases("ways", RTLD_LAZY | RTLD_GLOBAL);
}

static void
test_object_loaded_later_with_a_scope_of_its_own(void **state)
{
    (void)state;
#ifdef RTLD_DEEPBIND
    later_object_releases("ways_lazy", RTLD_LAZY | RTLD_LOCAL | RTLD_DEEPBIND);
    module_end(module);
    module = plugin_open(allocator, "blocks", NULL);
    make = CALL(module, blocks_make);
    later_object_releases("ways", RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND);
#else
    SKIP_BECAUSE("this libc has no RTLD_DEEPBIND");
#endif
}

static void
test_constructor_of_an_object_loaded_later(void **state)
{
    (void)state;
    host_block = block_new();
    void *later = dlopen(plugin_path("ways"), RTLD_NOW | RTLD_LOCAL);
    assert_non_null(later);
    assert_null(host_block);
    assert_released(1);
    dlclose(later);
}

static void
test_thread_made_later_releases_through_its_initial_data(void **state)
{
    (void)state;
    pthread_t thread;
    void *later = dlopen(plugin_path("ways_relro"), RTLD_NOW | RTLD_LOCAL);
    assert_int_equal(pthread_create(&thread, NULL, release_all_ways, later), 0);
    pthread_join(thread, NULL);
    assert_released(WAYS);
    dlclose(later);
}

/* Nothing of it has been called when the allocator is loaded. */
static void
test_object_loaded_before_and_bound_at_first_calls(void **state)
{
    module_end(module);
    assert_ok(alcove_unload(allocator, 0));
    void *before = dlopen(plugin_path("ways_lazy"), RTLD_LAZY | RTLD_LOCAL);
    setup_blocks(state);
    release_all_ways(before);
    assert_released(WAYS);
    dlclose(before);
}

/* Words of an object that came while an allocator was loaded are what they are without one, when it is unloaded. */
static void
test_object_loaded_later_is_as_ever_after_unload(void **state)
{
    unsigned count;
    void *later = dlopen(plugin_path("ways_relro"), RTLD_NOW | RTLD_LOCAL);
    ((void (*)(void))dlsym(later, "ways_store"))();
    const void *const *words = ((__typeof__(&ways_words))dlsym(later, "ways_words"))(&count);
    const void *guard = words[0];
    module_end(module);
    assert_ok(alcove_unload(allocator, 0));
    words = ((__typeof__(&ways_words))dlsym(later, "ways_words"))(&count);
    assert_ptr_not_equal(words[0], guard);
    for (unsigned i = 1; i < count; i++)
        assert_ptr_equal(words[i], words[0]);
    for (int way = 0; way < WAYS; way++)
        ((release_way *)dlsym(later, "ways_release"))((enum way)way, ((__typeof__(&ways_make))dlsym(later, "ways_make"))((enum way)way));
    dlclose(later);
    setup_blocks(state);
}

/* --- who looks a name up */

/* With a block of a malloc that goes with it, too. */
static void
assert_looked_up_releases(void *address, void *plain)
{
    uint64_t before = stats_of(module).released_outside;
    assert_non_null(address);
    void *block = block_new();
    ((void (*)(void *))address)(block);
    assert_int_equal(stats_of(module).released_outside, before + 1);
    assert_int_equal(stats_of(module).heap.live_blocks, 0);
    ((void (*)(void *))address)(plain);
    ((void (*)(void *))address)(NULL);
}

static void *
made_by(void *address)
{
    return ((void *(*)(size_t))address)(100);
}

static void
test_dlsym_of_all_of_the_next_and_of_a_handle(void **state)
{
    (void)state;
    void *self = dlopen(NULL, RTLD_NOW), *library = dlopen(plugin_path("ways"), RTLD_NOW | RTLD_LOCAL);
    assert_looked_up_releases(dlsym(RTLD_DEFAULT, "free"), made_by(dlsym(RTLD_DEFAULT, "malloc")));
    assert_looked_up_releases(dlsym(RTLD_NEXT, "free"), made_by(dlsym(RTLD_NEXT, "malloc")));
    assert_looked_up_releases(dlsym(self, "free"), made_by(dlsym(self, "malloc")));
    assert_looked_up_releases(dlsym(library, "free"), NULL); /* its libc's */
    dlclose(library);
    dlclose(self);
}

static void
test_dlsym_of_libc(void **state)
{
    (void)state;
#ifdef __GLIBC__
    void *libc = dlopen("libc.so.6", RTLD_NOW | RTLD_NOLOAD);
    assert_non_null(libc);
    assert_looked_up_releases(dlsym(libc, "free"), made_by(dlsym(libc, "malloc")));
    assert_looked_up_releases(dlsym(libc, "__libc_free"), made_by(dlsym(libc, "malloc")));
    if (dlvsym(libc, "cfree", "GLIBC_2.2.5") != NULL)
        assert_looked_up_releases(dlvsym(libc, "cfree", "GLIBC_2.2.5"), made_by(dlsym(libc, "malloc")));
    if (dlvsym(libc, "free", "GLIBC_2.2.5") != NULL)
        assert_looked_up_releases(dlvsym(libc, "free", "GLIBC_2.2.5"), made_by(dlsym(libc, "malloc")));
    dlclose(libc);
#else
    SKIP_BECAUSE("this libc has one name and no versions");
#endif
}

static void
test_dlsym_of_realloc_and_its_kin(void **state)
{
    (void)state;
    void *(*grow)(void *, size_t) = (void *(*)(void *, size_t))dlsym(RTLD_DEFAULT, "realloc");
    void *(*grow_array)(void *, size_t, size_t) = (void *(*)(void *, size_t, size_t))dlsym(RTLD_DEFAULT, "reallocarray");
    size_t (*usable)(void *) = (size_t (*)(void *))dlsym(RTLD_DEFAULT, "malloc_usable_size");
    void *block = block_new();
    assert_true(usable(block) >= 100);
    block = grow_array(grow(block, 5000), 100, 100);
    assert_int_equal(heap_of(allocator, block), heap);
    assert_true(usable(block) >= 10000);
    assert_null(grow(block, 0));
    assert_int_equal(stats_of(module).heap.live_blocks, 0);
}

/* What allocates is led elsewhere while a module opens only. */
static void
test_allocations_of_others_are_libcs(void **state)
{
    (void)state;
    void *later = dlopen(plugin_path("keeper"), RTLD_NOW | RTLD_LOCAL);
    void *block = ((void *(*)(void))dlsym(later, "keeper_first_block"))();
    assert_int_equal(heap_of(allocator, block), ALCOVE_HEAP_NONE);
    void *looked_up = ((void *(*)(size_t))dlsym(RTLD_DEFAULT, "malloc"))(100);
    assert_int_equal(heap_of(allocator, looked_up), ALCOVE_HEAP_NONE);
    free(looked_up);
    dlclose(later);
    assert_int_equal(stats_of(module).heap.total_allocs, 0);
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
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup_blocks, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_object_loaded_later_and_bound_at_once),
        TEST(test_object_loaded_later_and_bound_at_first_calls),
        TEST(test_object_loaded_later_with_read_only_slots),
        TEST(test_object_loaded_later_for_all),
        TEST(test_object_loaded_later_with_a_scope_of_its_own),
        TEST(test_constructor_of_an_object_loaded_later),
        TEST(test_thread_made_later_releases_through_its_initial_data),
        TEST(test_object_loaded_before_and_bound_at_first_calls),
        TEST(test_object_loaded_later_is_as_ever_after_unload),
        TEST(test_dlsym_of_all_of_the_next_and_of_a_handle),
        TEST(test_dlsym_of_libc),
        TEST(test_dlsym_of_realloc_and_its_kin),
        TEST(test_allocations_of_others_are_libcs),
    };
    if (!DLCLOSE_UNLOADS)
        return run_each_apart(tests, sizeof tests / sizeof *tests);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
