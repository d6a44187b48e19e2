/*
 * What a copy of the loader can do, as the plugins extension_one, extension_two, extension_three and other_prefix show it, each
 * of which has a copy of its own inside.
 */
#ifndef PLUGINS_EXTENSION_H
#define PLUGINS_EXTENSION_H

#include <alcove/loader.h>

struct extension {
    int (*load)(alcove_allocator **out, const struct alcove_load_options *options);
    int (*unload)(alcove_allocator *allocator, unsigned flags);
    const struct alcove_table *(*table_of)(alcove_allocator *allocator);
    int (*module_open)(alcove_allocator *allocator, const char *path, const struct alcove_module_options *options,
                       alcove_module **out);
    void *(*module_symbol)(alcove_module *module, const char *name);
    int (*module_stats)(alcove_module *module, struct alcove_module_stats *out);
    uint32_t (*module_heap)(alcove_module *module);
    int (*module_limit)(alcove_module *module, uint64_t limit);
    int (*module_close)(alcove_module *module, unsigned flags, struct alcove_report *report);
    int (*refresh)(void);
    const char *(*error_message)(void);
};

/* The table's variable is called `extension`. */
extern const struct extension extension;

/* Called by the destructor, if it is set. */
extern void (*extension_farewell)(void);

/* Have its copy of the loader tell a function of the plugin's of messages, which counts them. 0: well done. */
int extension_listen(unsigned *count);

/* For hosts without structs: load the allocator (NULL: share), open the plugin `blocks` at `path`, take a block of it. NULL: failed. */
void *extension_block(const char *allocator, const char *path);
/* Close and unload. 0: well done. */
int extension_end(void);

#endif
