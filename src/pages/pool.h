/*
 * The pool: all free pages, which every heap draws from. Memory comes from the system in chunks
 * of CHUNK_SIZE, aligned to that; runs are cut from chunks and join their neighbours again when
 * they are freed. Free runs that were used are dirty, and decay into clean ones.
 */
#ifndef PAGES_POOL_H
#define PAGES_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pages/run.h"

/* What a run is to become. */
struct run_use {
    uint8_t kind, bin;
    uint16_t heap;
};

struct pool_figures {
    size_t mapped, dirty; /* bytes */
};

/* A run of pages that starts at a multiple of `alignment` (a page at least), entered in the page map with
 * its use. At most CHUNK_PAGES pages with alignment up to CHUNK_SIZE. NULL: no memory. */
struct run *pool_take(size_t pages, size_t alignment, struct run_use use);

/* Give runs back that nobody uses any more: a list linked by `next`. They become dirty. */
void pool_give(struct run *runs);

/* Change how many pages a large run has, where it is, and its bin. False if what follows is not free. */
bool pool_resize(struct run *run, size_t pages, uint8_t bin);

/* Change the bin that a large run's entry tells. */
void pool_rebin(struct run *run, uint8_t bin);

/* Blocks with a mapping of their own, of any size and alignment. */
struct run *pool_take_huge(size_t bytes, size_t alignment, struct run_use use);
void pool_give_huge(struct run *run);
/* Resize, moving the mapping if need be. False: no address space; the run is as it was. */
bool pool_resize_huge(struct run *run, size_t bytes);

/* A huge run of `bytes` that has the pages of a large one, moved and not copied; the large one stays,
 * with pages that read as zero. NULL: the system cannot, and nothing is changed. */
struct run *pool_move_to_huge(struct run *run, size_t bytes);

/* Let dirty pages decay, if an epoch has gone by. `now` is os_clock_ms(). */
void pool_tick(uint64_t now);

/* Purge every dirty page now. */
void pool_purge(void);

/* The run that holds an address, free ones left out; NULL if none. Safe for any address. */
struct run *pool_find(const void *address);

/* Is the address in a chunk of the pool's, free or not? Then it is nobody else's. */
bool pool_holds(const void *address);

void pool_init(int64_t dirty_decay_ms);
void pool_figures_get(struct pool_figures *out);
/* Is it the start of a block that an allocator before us left behind? */
bool pool_was_left(const void *address);

/* Unmap everything. There are no huge runs any more. */
void pool_release(void);
/* Unmap what is free, and leave the rest mapped for ever. */
void pool_leave(void);

bool pool_fork_holds(void); /* does this thread, in the middle of something? */
void pool_fork_prepare(void);
void pool_fork_done(void);
void pool_fork_child(void);

#endif
