/*
 * What becomes of the pages when the allocator goes. Afterwards the pool must forget its runs. The caller holds the pool's
 * lock.
 */
#ifndef PAGES_UNMAP_H
#define PAGES_UNMAP_H

/* Unmap all chunks. */
void unmap_all(void);

/* Unmap what is free, and leave the rest mapped for ever: the loader is told. */
void unmap_free_runs(void);

#endif
