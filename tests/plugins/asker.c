/* A plugin that opens libraries itself. Results are volatile: a call in the last place would be a jump, and return elsewhere. */
#include "asker.h"

#include <dlfcn.h>

void *
asker_dlopen(const char *path, int flags)
{
    void *volatile handle = dlopen(path, flags);
    return handle;
}

int
asker_module_open(asker_opener *open, alcove_allocator *allocator, const char *path, const struct alcove_module_options *options,
                  alcove_module **out)
{
    volatile int code = open(allocator, path, options, out);
    return code;
}

__attribute__((weak, noinline)) int /* weak: else clang takes its own */
asker_whose(void)
{
    return ASKER_PLUGIN;
}

int
asker_asks(void)
{
    return asker_whose();
}
