/* The loaders of the process: the program's, and those that extensions have inside, which are there all the time or come and go. */
#include <dlfcn.h>

#include "tests/stress/loader/scenario.h"

static const struct extension program = {
    .load = alcove_load, .unload = alcove_unload, .table_of = alcove_table_of, .module_open = alcove_module_open,
    .module_symbol = alcove_module_symbol, .module_stats = alcove_module_stats, .module_heap = alcove_module_heap,
    .module_limit = alcove_module_limit, .module_close = alcove_module_close, .refresh = alcove_refresh,
    .error_message = alcove_error_message,
};
__thread const struct extension *loader = &program;
atomic_uint farewells;

static struct held {
    void *handle;
    const struct extension *of;
} held[LOADERS]; /* all the time */
static __thread void *handle; /* of the thread's own, while it has one open */

static void
farewell(void)
{
    atomic_fetch_add(&farewells, 1);
}

static struct held
extension_open(unsigned number)
{
    struct held opened = {.handle = dlopen(file_of("extension_one", number), RTLD_NOW | RTLD_LOCAL)};
    if (opened.handle == NULL) {
        fprintf(stderr, "%s\n", dlerror());
        exit(1);
    }
    opened.of = dlsym(opened.handle, "extension");
    void (**told)(void) = dlsym(opened.handle, "extension_farewell");
    __atomic_store_n(told, farewell, __ATOMIC_RELAXED);
    return opened;
}

void
loaders_begin(void)
{
    held[0].of = &program;
    for (unsigned number = 1; number < now.loaders && !now.open_each; number++)
        held[number] = extension_open(number);
}

void
loaders_end(void)
{
    for (unsigned number = 1; number < now.loaders && !now.open_each; number++)
        HOLDS(dlclose(held[number].handle) == 0);
}

void
loader_take(unsigned number)
{
    if (number != 0 && now.open_each) {
        struct held opened = extension_open(number);
        handle = opened.handle;
        loader = opened.of;
    } else {
        loader = held[number].of;
    }
}

void
loader_give_back(void)
{
    loader = &program;
    if (handle != NULL)
        HOLDS(dlclose(handle) == 0);
    handle = NULL;
}
