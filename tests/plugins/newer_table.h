/* What tests/plugins/newer_table.c has more than today's allocator. */
#ifndef PLUGINS_NEWER_TABLE_H
#define PLUGINS_NEWER_TABLE_H

#include <alcove/table.h>

struct newer_heap_options {
    struct alcove_heap_options today;
    uint64_t colour;
};

struct newer_table {
    struct alcove_table today;
    uint64_t (*last_colour)(void); /* of the heap made last */
};

#define NEWER_FIGURE 4711u /* in the room of heap_stats */

#endif
