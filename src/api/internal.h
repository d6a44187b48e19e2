/*
 * The public functions' common parts.
 *
 * One allocation, followed: <prefix>malloc() finds the bin of the size and the thread's record,
 * and pops from the cache: cache_pop(). If that has nothing, alloc_slow() makes what is missing
 * (the record, the heap's cache), and cache_refill() takes a batch from the heap: slab_take().
 * A slab is a run of pages from pool_take(), and those come from os_map().
 */
#ifndef API_INTERNAL_H
#define API_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ground/attributes.h"
#include "heap/heap.h"
#include "thread/record.h"

/* Allocate from a bin of a heap, past the hot path. errno is ENOMEM if it fails. */
void *alloc_slow(unsigned bin, size_t heap, bool *zeroed) __attribute__((cold));

/* Allocate what has no bin, or what is aligned to more than a page. */
void *alloc_large(size_t size, size_t alignment, size_t heap, bool *zeroed);

/* Allocate in place of a block of a heap, which goes to the default heap if its owner is ending. */

/* For who can do without: if there is no memory, or the limit forbids it, errno stays as it was and no refusal is counted. */
void *alloc_try(size_t size, struct heap *owner);

/* `size` bytes, with room for `room`, above SMALL_MAX. NULL: none is to be had just so, and errno stays as it was. */
void *alloc_growing(size_t size, size_t room, struct heap *owner);

/* Free a block that the hot path could not push. `caller` is the heap of the module that
 * released it: it may then be foreign, and goes to its owner. ALCOVE_HEAP_NONE: called
 * by our own name, so it must be ours. */
void free_slow(void *block, uint32_t caller) __attribute__((cold));

/* Does this thread's cache hold a block of that run? It looks at those that were freed last. */
bool block_is_cached(const struct run *r, const void *block);

/* Usable bytes of a block that is ours; 0 if it is not the start of one, or was freed as far as is known. */
size_t block_usable(const void *block);

/* Entry points with a heap's number behind the arguments of the libc function; what thunks call
 * (api/thunks.S). Those that release know by it who calls. */
void *entry_malloc(size_t size, size_t heap);
void *entry_calloc(size_t count, size_t size, size_t heap);
void *entry_realloc(void *block, size_t size, size_t heap);
void *entry_reallocarray(void *block, size_t count, size_t size, size_t heap);
void *entry_aligned_alloc(size_t alignment, size_t size, size_t heap);
void *entry_memalign(size_t alignment, size_t size, size_t heap);
int entry_posix_memalign(void **out, size_t alignment, size_t size, size_t heap);
void *entry_valloc(size_t size, size_t heap);
void *entry_pvalloc(size_t size, size_t heap);
char *entry_strdup(const char *text, size_t heap);
char *entry_strndup(const char *text, size_t most, size_t heap);
void entry_free(void *block, size_t heap);
size_t entry_malloc_usable_size(void *block, size_t heap);

#endif
