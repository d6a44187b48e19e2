/*
 * Before each test the allocator is loaded and the plugin blocks opened as a module; afterwards nothing is left.
 */
#ifndef HOSTS_ROUTED_H
#define HOSTS_ROUTED_H

#include "host.h"

static alcove_allocator *allocator;
static alcove_module *module; /* the plugin blocks */
static uint32_t heap __attribute__((unused));

static int
setup(void **state)
{
    (void)state;
    allocator = allocator_load();
    alcove_table_of(allocator)->free(alcove_table_of(allocator)->malloc(1)); /* the default heap is made when used */
    module = plugin_open(allocator, "blocks", NULL);
    heap = alcove_module_heap(module);
    return 0;
}

static int __attribute__((unused))
teardown(void **state)
{
    (void)state;
    if (module != NULL)
        assert_ok(alcove_module_close(module, 0, NULL));
    module = NULL;
    assert_ok(alcove_unload(allocator, 0));
    return 0;
}

static inline uint32_t
heaps_now(void)
{
    struct alcove_info info;
    alcove_table_of(allocator)->info(&info);
    return info.heaps;
}

#endif
