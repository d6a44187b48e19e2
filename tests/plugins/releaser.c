/* A plugin that releases what it is given, from a function that is on the stack meanwhile. */
#include "releaser.h"

#include <stdlib.h>

static volatile unsigned released;

void *
releaser_free(void *block)
{
    free(block);
    released++;
    return NULL;
}
