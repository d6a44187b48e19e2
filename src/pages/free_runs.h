/*
 * The pool's free runs: clean ones, which read as zero, and dirty ones, which were used. They are found by their length, the dirty
 * ones by their age too. Neighbours of one kind are joined. The page map has an entry for the first and the last page of each.
 *
 * The caller holds the pool's lock, which guards all that is here.
 */
#ifndef PAGES_FREE_RUNS_H
#define PAGES_FREE_RUNS_H

#include <stddef.h>
#include <stdint.h>

#include "pages/run.h"

/* A record for a run, with anything in it. NULL: no memory. */
struct run *run_new(void);
void run_free(struct run *r);

/* The run of this kind that has an entry for the page of an address; NULL if it is another's, or nobody's. */
struct run *run_beside(uintptr_t address, uint8_t kind);

/* Enter a run's first and last page in the page map. */
void run_enter_ends(const struct run *r);

/* Add a run, with its base, pages and kind. What is joined with it is one run then, in its record. */
void free_runs_add(struct run *r);
void free_runs_remove(struct run *r);

/* The shortest free run of this kind with so many pages, near enough. NULL: there is none. */
struct run *free_runs_find(uint8_t kind, size_t pages);

/* Cut `pages` out of a free run, `head` pages after its start; what is left stays free, as old as it was. The entries
 * of what is cut are the caller's to make. NULL: no memory for records. */
struct run *free_runs_cut(struct run *from, size_t head, size_t pages);

/* The dirty run that was freed first; NULL if none is dirty. */
struct run *free_runs_oldest(void);

size_t free_runs_dirty(void);    /* pages */
unsigned free_runs_chunks(void); /* clean runs that are a whole chunk */

/* Know of none any more; nothing is unmapped. */
void free_runs_forget(void);

#endif
