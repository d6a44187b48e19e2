/* What the plugin `opener` exports. */
#ifndef PLUGINS_OPENER_H
#define PLUGINS_OPENER_H

#include <alcove/table.h>

extern const struct alcove_table *opener_table; /* NULL: its constructor could not load the allocator */
extern void *opener_block;

#endif
