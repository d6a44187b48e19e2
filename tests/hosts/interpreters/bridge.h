/*
 * What the extensions of the interpreters share: the allocator loaded as a stranger loads it, and
 * used. Everything that can fail returns what went wrong, or NULL.
 */
#ifndef INTERPRETERS_BRIDGE_H
#define INTERPRETERS_BRIDGE_H

#include <stddef.h>

struct functions {
    void *(*malloc)(size_t);
    void *(*realloc)(void *, size_t);
    void (*free)(void *);
};

/* dlopen, and the functions that have the configured prefix. */
const char *bridge_load(const char *path, void **library, struct functions *out);
const char *bridge_unload(void *library);

/* Allocate, grow, check and free blocks of many sizes. Threads differ in their seed. */
const char *bridge_use(const struct functions *functions, unsigned seed);

/* For interpreters without threads: start two that use it, and return when both have; they end
 * when they are told to. */
const char *bridge_threads_start(const struct functions *functions);
const char *bridge_threads_end(void);

#endif
