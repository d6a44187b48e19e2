#include "variables.h"

#include <stdlib.h>

void *(*variables_malloc)(size_t) = malloc;
void (*variables_free)(void *) = free;
struct variables variables_all = {realloc, free};

void *
variables_make(size_t size)
{
    return variables_malloc(size);
}

void
variables_release(void *block)
{
    variables_free(block);
}

void *
variables_make_plain(size_t size)
{
    return malloc(size);
}

void
variables_release_plain(void *block)
{
    free(block);
}
