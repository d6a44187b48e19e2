/* A plugin whose constructor loads the allocator and keeps a block of it until its destructor. */
#include "opener.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

const struct alcove_table *opener_table;
void *opener_block;
static void *allocator;

__attribute__((constructor)) static void
begin(void)
{
    char name[128];
    snprintf(name, sizeof name, "%stable", getenv("ALCOVE_TEST_PREFIX"));
    allocator = dlopen(getenv("ALCOVE_TEST_MODULE"), RTLD_NOW | RTLD_LOCAL);
    if (allocator == NULL)
        return;
    opener_table = dlsym(allocator, name);
    opener_block = opener_table->malloc(100);
}

__attribute__((destructor)) static void
end(void)
{
    if (allocator == NULL)
        return;
    opener_table->free(opener_block);
    dlclose(allocator);
}
