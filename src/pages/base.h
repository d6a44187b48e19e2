/*
 * Memory for the allocator's own records: runs, caches, heaps, thread records. Taken from the
 * system in blocks of its own, so that no metadata lies beside a user's block. A record that is
 * given back is kept for the next of its size; blocks go back to the system only all at once.
 * Records lie at a block's start, whole pages of their owner's at its end.
 */
#ifndef PAGES_BASE_H
#define PAGES_BASE_H

#include <stdbool.h>
#include <stddef.h>

/* A record of `size` bytes, aligned to 128 bytes if size is a multiple of that, else to 64. Its
 * contents are undefined. NULL: the system has no memory. */
void *base_alloc(size_t size);

/* The same, reading as zero. What is fresh from the system is not touched for that. */
void *base_alloc_zeroed(size_t size);

void base_free(void *record, size_t size);

/* Pages of its own for `size` bytes, fresh from the system: zero, and not touched. They are never given back, but may be purged.
 * NULL: the system has no memory. */
void *base_alloc_pages(size_t size);

/* Bytes taken from the system for records. */
size_t base_bytes(void);

/* Unmap all records. Nothing of the allocator may be used until it starts afresh. */
void base_release(void);

bool base_fork_holds(void); /* does this thread, in the middle of something? */
void base_fork_prepare(void);
void base_fork_done(void);
void base_fork_child(void);

#endif
