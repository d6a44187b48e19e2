/*
 * A plugin that calls the allocator by its names, from its constructor to its destructor. Built four
 * times: two depend on libalcove.so, and two have a libalcove.a of their own inside.
 */
#include "allocating.h"

#include <alcove/alcove.h>

static void *first;

__attribute__((constructor)) static void
begin(void)
{
    first = alcove_malloc(100);
}

__attribute__((destructor)) static void
end(void)
{
    alcove_free(first);
}

void *
allocating_first(void)
{
    return first;
}

const struct alcove_table *
allocating_table(void)
{
    return &alcove_table;
}
