#include "dependency.h"

#include <stdlib.h>

void *dependency_block;
static void *(**copied)(size_t);

__attribute__((constructor)) static void
begin(void)
{
    dependency_block = malloc(300);
    copied = malloc(sizeof *copied);
    *copied = malloc;
}

__attribute__((destructor)) static void
end(void)
{
    free(dependency_block);
    free(copied);
}

void *
dependency_make(size_t size)
{
    return (*copied)(size);
}

void *
dependency_make_plain(size_t size)
{
    return malloc(size);
}
