/* A plugin with a copy of the loader inside, its names hidden. */
#include "extension.h"

#include <stddef.h>

const struct extension extension = {
    .load = alcove_load,
    .unload = alcove_unload,
    .table_of = alcove_table_of,
    .module_open = alcove_module_open,
    .module_symbol = alcove_module_symbol,
    .module_stats = alcove_module_stats,
    .module_heap = alcove_module_heap,
    .module_limit = alcove_module_limit,
    .module_close = alcove_module_close,
    .refresh = alcove_refresh,
    .error_message = alcove_error_message,
};

void (*extension_farewell)(void);

__attribute__((destructor(101))) static void /* after the loader's own, wherever that is linked */
end(void)
{
    if (extension_farewell != NULL)
        extension_farewell();
}

static void
count_messages(enum alcove_event event, const void *message, void *count)
{
    (void)event, (void)message;
    ++*(unsigned *)count;
}

int
extension_listen(unsigned *count)
{
    return alcove_on(ALCOVE_EVENT_MESSAGE, count_messages, count);
}

static alcove_allocator *allocator;
static alcove_module *module;

void *
extension_block(const char *file, const char *path)
{
    struct alcove_load_options options = {.path = file, .flags = file == NULL ? ALCOVE_LOAD_SHARE : 0};
    if (alcove_load(&allocator, &options) != 0 || alcove_module_open(allocator, path, NULL, &module) != 0)
        return NULL;
    void *(*make)(int, size_t) = (void *(*)(int, size_t))alcove_module_symbol(module, "blocks_make");
    return make != NULL ? make(0, 100) : NULL;
}

int
extension_end(void)
{
    struct alcove_report report;
    int code = alcove_module_close(module, 0, &report);
    return code != 0 ? code : alcove_unload(allocator, 0);
}
