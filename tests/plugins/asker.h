/* What the plugin `asker` exports. It is linked to search in the folders `own` and `other` beside it. */
#ifndef PLUGINS_ASKER_H
#define PLUGINS_ASKER_H

#include <alcove/loader.h>

typedef int asker_opener(alcove_allocator *, const char *, const struct alcove_module_options *, alcove_module **);

/* dlopen and alcove_module_open, called by the plugin's code. */
void *asker_dlopen(const char *path, int flags);
int asker_module_open(asker_opener *open, alcove_allocator *allocator, const char *path, const struct alcove_module_options *options,
                      alcove_module **out);

/* Whose asker_whose() the plugin calls, where the program has one too. */
#define ASKER_PLUGIN 1
#define ASKER_PROGRAM 2
int asker_whose(void);
int asker_asks(void);

#endif
