/*
 * A program that another allocator is part of: jemalloc's archive defines malloc and free here, and
 * libc and every library call those. The allocator beside it, bare and with the loader.
 *
 * The linker has bound this program's own calls of free to jemalloc's, out of the guards' reach
 * (README.md, Limits). So it releases a module's blocks through the table.
 */
#include "host.h"
#include "config.h"

#include <dlfcn.h>
#include <pthread.h>
#include <unistd.h>

#include "../plugins/blocks.h"
#include "routed.h"

static int
teardown_and_unmap(void **state)
{
    teardown(state);
    assert_int_equal(lines_mapped(allocator_path()), 0);
    return 0;
}

static void
test_malloc_and_free_are_the_programs(void **state)
{
    (void)state;
    static const char *const names[] = {"malloc", "calloc", "realloc", "free", "malloc_usable_size"};
    Dl_info program, found;
    assert_int_not_equal(dladdr(names, &program), 0);
    for (int i = 0; i < 5; i++) {
        assert_int_not_equal(dladdr(dlsym(RTLD_DEFAULT, names[i]), &found), 0);
        assert_ptr_equal(found.dli_fbase, program.dli_fbase);
    }
}

static pthread_barrier_t barrier;

static void *
use_and_outlive(void *table)
{
    const struct alcove_table *t = table;
    char *blocks[100];
    for (int i = 0; i < 100; i++)
        memset(blocks[i] = t->malloc((size_t)i * 300 + 1), i, (size_t)i * 300 + 1);
    for (int i = 0; i < 100; i++) {
        blocks[i] = t->realloc(blocks[i], (size_t)i * 600 + 1);
        if (blocks[i][0] != i || memcmp(blocks[i], blocks[i] + 1, (size_t)i * 300) != 0)
            abort();
        t->free(blocks[i]);
    }
    free(strdup("of the program's own allocator"));
    pthread_barrier_wait(&barrier); /* used */
    pthread_barrier_wait(&barrier); /* unloaded */
    return NULL;
}

static void
threads_start(pthread_t threads[2], const struct alcove_table *table)
{
    pthread_barrier_init(&barrier, NULL, 3);
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, use_and_outlive, (void *)table), 0);
    pthread_barrier_wait(&barrier);
}

static void
threads_end(pthread_t threads[2])
{
    pthread_barrier_wait(&barrier);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    pthread_barrier_destroy(&barrier);
}

static void
test_bare_allocator_is_used_by_two_threads_and_unloaded(void **state)
{
    (void)state;
    char name[256];
    snprintf(name, sizeof name, "%stable", setting("ALCOVE_TEST_PREFIX"));
    for (int cycle = 0; cycle < 10; cycle++) {
        pthread_t threads[2];
        void *library = dlopen(allocator_path(), RTLD_NOW | RTLD_LOCAL);
        assert_non_null(library);
        threads_start(threads, dlsym(library, name));
        assert_int_equal(dlclose(library), 0);
        assert_int_equal(lines_mapped(allocator_path()), 0);
        threads_end(threads);
    }
}

static void
test_threads_outlive_an_allocator_that_the_loader_loaded(void **state)
{
    for (int cycle = 0; cycle < 10; cycle++) {
        pthread_t threads[2];
        setup(state);
        threads_start(threads, alcove_table_of(allocator));
        teardown_and_unmap(state);
        threads_end(threads);
    }
}

static void
test_module_allocates_in_its_heap_and_the_program_in_its_own(void **state)
{
    (void)state;
    void *own = malloc(100);
    for (int kind = 0; kind < BLOCKS_KINDS; kind++) {
        void *block = CALL(module, blocks_make)((enum blocks_kind)kind, 100);
        assert_int_equal(heap_of(allocator, block), heap);
        CALL(module, blocks_release)(block);
    }
    assert_int_equal(heap_of(allocator, own), ALCOVE_HEAP_NONE);
    free(own);
    assert_int_equal(stats_of(module).heap.live_blocks, 0);
    assert_int_equal(stats_of(module).released_foreign, 0);
}

static void
test_module_releases_blocks_of_the_program(void **state)
{
    (void)state;
    CALL(module, blocks_release)(malloc(100));
    CALL(module, blocks_release)(malloc(10 << 20));
    CALL(module, blocks_release)(CALL(module, blocks_printed)(7)); /* libc took it from the program */
    assert_int_equal(stats_of(module).released_foreign, 3);
}

static void
test_library_releases_blocks_of_the_module(void **state)
{
    (void)state;
    void *library = dlopen(plugin_path("blocks_two"), RTLD_NOW | RTLD_LOCAL);
    assert_non_null(library);
    assert_ok(alcove_refresh());
    void (*release)(void *) = (void (*)(void *))dlsym(library, "blocks_release");
    release(CALL(module, blocks_make)(BLOCKS_MALLOC, 100));
    (*(void (**)(void *))dlsym(library, "blocks_free_pointer"))(CALL(module, blocks_make)(BLOCKS_MALLOC, 100));
    release(malloc(100));
    assert_int_equal(stats_of(module).released_outside, 2);
    assert_int_equal(stats_of(module).heap.live_blocks, 0);
    dlclose(library);
}

static void
test_getline_grows_a_block_of_the_module_inside_libc(void **state)
{
    (void)state;
    char path[] = "/tmp/alcove-lines-XXXXXX";
    int file = mkstemp(path);
    assert_int_equal(dprintf(file, "%5000d\n", 7), 5001);
    close(file);
    size_t lines;
    char *buffer = CALL(module, blocks_longest_line)(path, 1, &lines);
    unlink(path);
    assert_int_equal(strlen(buffer), 5001);
    assert_int_equal(heap_of(allocator, buffer), heap);
    CALL(module, blocks_release)(buffer);
    assert_int_equal(stats_of(module).heap.live_blocks, 0);
}

static void
test_program_releases_blocks_of_the_module_through_the_table(void **state)
{
    (void)state;
    const struct alcove_table *table = alcove_table_of(allocator);
    char *block = CALL(module, blocks_make)(BLOCKS_MALLOC, 100);
    strcpy(block, "of the module");
    block = table->realloc(block, 100000);
    assert_string_equal(block, "of the module");
    assert_int_equal(heap_of(allocator, block), heap);
    table->free(block);
    assert_int_equal(stats_of(module).heap.live_blocks, 0);
}

int
main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown_and_unmap)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_malloc_and_free_are_the_programs),
        cmocka_unit_test(test_bare_allocator_is_used_by_two_threads_and_unloaded),
        cmocka_unit_test(test_threads_outlive_an_allocator_that_the_loader_loaded),
        TEST(test_module_allocates_in_its_heap_and_the_program_in_its_own),
        TEST(test_module_releases_blocks_of_the_program),
        TEST(test_library_releases_blocks_of_the_module),
        TEST(test_getline_grows_a_block_of_the_module_inside_libc),
        TEST(test_program_releases_blocks_of_the_module_through_the_table),
    };
    if (!ALCOVE_TEST_STATIC_ALLOCATOR) {
        puts("1..0 # SKIP configure found no libjemalloc.a (libjemalloc-dev)");
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
