/*
 * Before each test the allocator is loaded; afterwards it is unloaded, with no module open and no block live.
 */
#ifndef HOSTS_LOADED_H
#define HOSTS_LOADED_H

#include "host.h"

static alcove_allocator *allocator;

/* What a pointer is before a call that fails, and after it. */
static alcove_module *const untouched = (alcove_module *)(uintptr_t)0x5a5a;

static int
setup(void **state)
{
    (void)state;
    allocator = allocator_load();
    return 0;
}

static int
teardown(void **state)
{
    (void)state;
    assert_ok(alcove_unload(allocator, 0));
    return 0;
}

#endif
