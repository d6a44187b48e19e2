/* What the plugin `constructing` exports: a library that does much in its constructors. The program may have host_moment(), which is called between
 * the first and the second. */
#ifndef PLUGINS_CONSTRUCTING_H
#define PLUGINS_CONSTRUCTING_H

#include <stddef.h>

enum constructing_kind {
    CONSTRUCTING_FIRST,  /* strdup, by the first constructor */
    CONSTRUCTING_SECOND, /* malloc, by the second */
    CONSTRUCTING_THREAD, /* calloc, by a thread that the last one starts, and waits for */
    CONSTRUCTING_KINDS
};
extern void *constructing_blocks[CONSTRUCTING_KINDS];

/* By the addresses of malloc and free that a constructor took before anything was allocated, and keeps where nobody looks. */
void *constructing_kept_make(size_t size);
void constructing_kept_release(void *block);

void *constructing_dependency_block(void);
void *constructing_dependency_make(size_t size);
void *constructing_dependency_make_plain(size_t size);

#endif
