/* What the plugin `partial` exports: its constructor leads its import of realloc to the program's host_hook(), if that has host_wants_partial set. */
#ifndef PLUGINS_PARTIAL_H
#define PLUGINS_PARTIAL_H

#include <stddef.h>

void *partial_make(size_t size);
void partial_release(void *block);
void *partial_grow(void *block, size_t size);

#endif
