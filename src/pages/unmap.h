/*
 * What becomes of the pages when the allocator goes. Afterwards the pool must forget its runs. The caller holds the pool's
 * lock.
 */
#ifndef PAGES_UNMAP_H
#define PAGES_UNMAP_H

/* Unmap all chunks. */
void unmap_all(void);

/* Unmap what is free, and leave the rest mapped for ever: the page map says so of it (WORD_LEFT). */
void unmap_free_runs(void);

#endif
