/* What the plugins `blocks` and `blocks_two` export. */
#ifndef PLUGINS_BLOCKS_H
#define PLUGINS_BLOCKS_H

#include <stdlib.h>

/* How a block is made. */
enum blocks_kind {
    BLOCKS_MALLOC,
    BLOCKS_CALLOC,
    BLOCKS_REALLOC,
    BLOCKS_REALLOC_GROWN,
    BLOCKS_REALLOCARRAY,
    BLOCKS_ALIGNED_ALLOC,
    BLOCKS_MEMALIGN,
    BLOCKS_POSIX_MEMALIGN,
    BLOCKS_VALLOC,
#ifdef __GLIBC__ /* alone has it */
    BLOCKS_PVALLOC,
#endif
    BLOCKS_STRDUP,
    BLOCKS_STRNDUP,
    BLOCKS_KINDS
};
void *blocks_make(enum blocks_kind kind, size_t size);
size_t blocks_usable(void *block);
void blocks_release(void *block);

/* free, its address in initialised data. */
extern void (*blocks_free_pointer)(void *);

/* malloc, its address in constant data: where it lies, and a call through it. */
const void *blocks_constant_slot(void);
void *blocks_constant_malloc(size_t size);

/* "number N" by asprintf: libc's memory. */
char *blocks_printed(int number);

/* Read a file with getline into a buffer of the plugin's that begins with first_size bytes.
 * Returns that buffer, grown to the longest line. */
char *blocks_longest_line(const char *path, size_t first_size, size_t *lines);

#endif
