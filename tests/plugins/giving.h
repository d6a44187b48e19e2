/* What the plugin `giving` exports: it gives away addresses of the malloc family. */
#ifndef PLUGINS_GIVING_H
#define PLUGINS_GIVING_H

#include <stddef.h>

struct giving {
    void *(*malloc)(size_t size);
    void *(*calloc)(size_t count, size_t size);
    void *(*realloc)(void *block, size_t size);
    char *(*strdup)(const char *text);
    size_t (*malloc_usable_size)(void *block);
    void (*free)(void *block);
};
extern const struct giving giving;

void *giving_make(size_t size);

#endif
