/* A plugin that releases and grows what it is given. As grower_of_arrays it imports no realloc; as grower_lazy it is bound when it calls. */
#include "grower.h"

#include <malloc.h>
#include <stdlib.h>

void
grower_free(void *block)
{
    free(block);
}

void *
grower_grow(void *block, size_t size)
{
#ifdef GROWS_ARRAYS
    return reallocarray(block, size, 1);
#else
    return realloc(block, size);
#endif
}

size_t
grower_usable(void *block)
{
    return malloc_usable_size(block);
}
