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

static void
live_on_a_small_stack(void)
{
    pthread_attr_t attributes;
    pthread_t thread;
    CHECK(pthread_attr_init(&attributes) == 0 && pthread_attr_setstacksize(&attributes, STACK_BYTES) == 0);
    CHECK(pthread_create(&thread, &attributes, live_a_life, NULL) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
}

static void
test_every_call_on_a_small_stack(void **state)
{
    (void)state;
    if (emulated())
        SKIP_BECAUSE("other machines need larger stacks");
    in_child(live_on_a_small_stack);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_load_without_a_thread_key),
        cmocka_unit_test(test_every_call_on_a_small_stack),
    };
    snprintf(plugin, sizeof plugin, "%s/blocks.so", setting("ALCOVE_TEST_PLUGINS"));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
