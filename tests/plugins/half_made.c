/*
 * A plugin that is half made for as long as its host likes. The dynamic linker binds its import of free, then asks it which
 * function to choose, and then writes that beside the import, into pages that are made read-only at last.
 */
#include "half_made.h"

static int
ready(void)
{
    return 1;
}

#if HALF_MADE_POSSIBLE
static __attribute__((used)) int (*choose(void))(void) /* by its name only, which clang does not see */
{
    if (host_half_made)
        host_half_made();
    return ready;
}

static int chosen(void) __attribute__((ifunc("choose")));
#else
#define chosen ready
#endif

int
half_made_is_ready(void)
{
    return chosen();
}

void
half_made_release(void *block)
{
    free(block);
}
