/* What the plugin `variables` exports: a library whose allocator is in variables, as libxml2's are. A program that names one has it itself, as a copy. */
#ifndef PLUGINS_VARIABLES_H
#define PLUGINS_VARIABLES_H

#include <stddef.h>

struct variables {
    void *(*grow)(void *block, size_t size);
    void (*release)(void *block);
};
extern void *(*variables_malloc)(size_t size);
extern void (*variables_free)(void *block);
extern struct variables variables_all;

void *variables_make(size_t size);       /* by the variable */
void variables_release(void *block);     /* by the variable */
void *variables_make_plain(size_t size); /* by a call of malloc */
void variables_release_plain(void *block);

#endif
