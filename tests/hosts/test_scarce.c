/* The loader in a process that has little left: no thread key, and threads with small stacks. */
#include "host.h"

#include <pthread.h>

#include "tests/child.h"
#include "tests/plugins/blocks.h"

#define KEYS_MOST 4096
#define STACK_BYTES (16 << 10)

static pthread_key_t keys[KEYS_MOST];
static char plugin[4096]; /* not by plugin_path(), whose thread-local buffers are taken from a thread's stack */

static void
load_without_keys(void)
{
    unsigned n = 0;
    while (n < KEYS_MOST && pthread_key_create(&keys[n], NULL) == 0)
        n++;
    alcove_allocator *allocator = NULL;
    const struct alcove_load_options options = {.path = allocator_path()};
    for (int i = 0; i < 2; i++) {
        CHECK(alcove_load(&allocator, &options) == ALCOVE_ESYSTEM);
        CHECK(allocator == NULL);
        CHECK(strstr(alcove_error_message(), "no thread key is free") != NULL);
    }
    pthread_key_delete(keys[--n]); /* for the end of threads, and there is none for messages */
    CHECK(alcove_load(&allocator, &options) == ALCOVE_OK);
    for (int i = 0; i < 2; i++) {
        CHECK(alcove_unload(allocator, 99) == ALCOVE_EINVAL);
        CHECK(strstr(alcove_error_message(), "0x63") != NULL);
        while (n > 0)
            pthread_key_delete(keys[--n]);
    }
    CHECK(alcove_unload(allocator, 0) == ALCOVE_OK);
}

/* A load that fails for want of a key works when there is one. */
static void
test_load_without_a_thread_key(void **state)
{
    (void)state;
    in_child(load_without_keys);
}

static void *
live_a_life(void *unused)
{
    (void)unused;
    alcove_allocator *allocator;
    alcove_module *module;
    struct alcove_module_stats stats;
    struct alcove_report report;
    CHECK(alcove_load(&allocator, &(struct alcove_load_options){.path = allocator_path()}) == ALCOVE_OK);
    CHECK(alcove_module_open(allocator, plugin, NULL, &module) == ALCOVE_OK);
    void *(*make)(enum blocks_kind, size_t) = (__typeof__(make))alcove_module_symbol(module, "blocks_make");
    CHECK(make != NULL && make(BLOCKS_MALLOC, 100) != NULL);
    CHECK(alcove_module_symbol(module, "there_is_none") == NULL);
    CHECK(alcove_module_stats(module, &stats) == ALCOVE_OK && stats.heap.live_blocks == 1);
    CHECK(alcove_unload(allocator, 0) == ALCOVE_EBUSY);
    CHECK(alcove_module_close(module, 0, &report) == ALCOVE_OK);
    CHECK(alcove_unload(allocator, 0) == ALCOVE_EBUSY);
    CHECK(alcove_unload(allocator, ALCOVE_UNLOAD_RELEASE) == ALCOVE_OK);
    return NULL;
}

#define PATH_PART 100
static char long_path[901], not_elf[] = "/tmp/alcove-words-XXXXXX";

/* Each way to a message that is long, or has figures. */
static void *
make_mistakes(void *unused)
{
    enum { HEAPS = 40 };
    alcove_allocator *allocator, *other = NULL;
    alcove_module *module, *second;
    uint32_t heaps[HEAPS];
    CHECK(alcove_load(&other, &(struct alcove_load_options){.path = long_path}) == ALCOVE_ENOENT);
    CHECK(alcove_load(&other, &(struct alcove_load_options){.path = not_elf}) == ALCOVE_EFORMAT);
    CHECK(alcove_load(&other, &(struct alcove_load_options){.path = plugin}) == ALCOVE_EABI);
    CHECK(alcove_load(&allocator, &(struct alcove_load_options){.path = allocator_path()}) == ALCOVE_OK);
    CHECK(alcove_module_open(allocator, long_path, NULL, &module) == ALCOVE_ENOENT);
    CHECK(alcove_module_open(allocator, strrchr(long_path, '/') + 1, NULL, &module) == ALCOVE_ENOENT); /* a name to search for */
    CHECK(alcove_module_open(allocator, not_elf, NULL, &module) == ALCOVE_EFORMAT);
    CHECK(alcove_module_open(allocator, "libc.so.6", NULL, &module) == ALCOVE_EINVAL);
    CHECK(alcove_module_open(allocator, plugin, &(struct alcove_module_options){.limit = 1 << 20}, &module) == ALCOVE_OK);
    CHECK(alcove_module_open(allocator, plugin, &(struct alcove_module_options){.limit = 2 << 20}, &second) == ALCOVE_EBUSY);
    CHECK(alcove_module_symbol(module, long_path) == NULL);
    CHECK(strstr(alcove_error_message(), "xxxx") != NULL);
    CHECK(alcove_module_limit(module, 1) == ALCOVE_EINVAL);
    void *(*make)(enum blocks_kind, size_t) = (__typeof__(make))alcove_module_symbol(module, "blocks_make");
    void (*release)(void *) = (__typeof__(release))alcove_module_symbol(module, "blocks_release");
    CHECK(make(BLOCKS_MALLOC, 2 << 20) == NULL); /* which looks for memory in all caches first */
    release(make(BLOCKS_REALLOC_GROWN, 300000));
    free(make(BLOCKS_ALIGNED_ALLOC, 4096));
    CHECK(alcove_unload(allocator, 0) == ALCOVE_EBUSY);
    CHECK(alcove_module_close(module, ALCOVE_CLOSE_DROP, NULL) == ALCOVE_OK);
    CHECK(alcove_module_close(module, 0, NULL) == ALCOVE_ECLOSED);
    const struct alcove_table *table = alcove_table_of(allocator);
    for (int i = 0; i < HEAPS; i++)
        CHECK(table->heap_create(NULL, &heaps[i]) == 0 && table->heap_malloc(heaps[i], 100) != NULL);
    CHECK(alcove_unload(allocator, 0) == ALCOVE_EBUSY && strstr(alcove_error_message(), "heap 12") != NULL);
    CHECK(alcove_refresh() == ALCOVE_OK);
    CHECK(alcove_unload(allocator, ALCOVE_UNLOAD_LEAVE) == ALCOVE_OK);
    CHECK(alcove_unload(allocator, 0) == ALCOVE_ECLOSED);
    return unused;
}

static void
run_on_a_small_stack(void *(*body)(void *))
{
    pthread_attr_t attributes;
    pthread_t thread;
    CHECK(pthread_attr_init(&attributes) == 0 && pthread_attr_setstacksize(&attributes, STACK_BYTES) == 0);
    CHECK(pthread_create(&thread, &attributes, body, NULL) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
}

static void
live_on_a_small_stack(void)
{
    run_on_a_small_stack(live_a_life);
}

static void
make_mistakes_on_a_small_stack(void)
{
    memset(long_path, 'x', sizeof long_path - 1);
    for (size_t i = 0; i < sizeof long_path - 1; i += PATH_PART)
        long_path[i] = '/';
    int file = mkstemp(not_elf);
    CHECK(write(file, "no library, but words", 21) == 21 && close(file) == 0);
    run_on_a_small_stack(make_mistakes);
    CHECK(unlink(not_elf) == 0);
}

static void
test_every_call_on_a_small_stack(void **state)
{
    (void)state;
    if (emulated())
        SKIP_BECAUSE("other machines need larger stacks");
    in_child(live_on_a_small_stack);
}

static void
test_every_error_on_a_small_stack(void **state)
{
    (void)state;
    if (emulated())
        SKIP_BECAUSE("other machines need larger stacks");
    in_child(make_mistakes_on_a_small_stack);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_load_without_a_thread_key),
        cmocka_unit_test(test_every_call_on_a_small_stack),
        cmocka_unit_test(test_every_error_on_a_small_stack),
    };
    snprintf(plugin, sizeof plugin, "%s/blocks.so", setting("ALCOVE_TEST_PLUGINS"));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
