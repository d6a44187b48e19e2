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
struct run *run_record_new(void);
/* The record can be used again; its pages are not touched. */
void run_record_free(struct run *r);

/* The run of this kind whose first or last page has the address. It is the caller's to see that this is no page of
 * another chunk. NULL: there is none. */
struct run *run_beside(uintptr_t address, uint8_t kind);

/* Enter a run's first and last page in the page map. */
void run_enter_ends(const struct run *r);

/* Add a run of kind RUN_CLEAN or RUN_DIRTY, whose pages have no entries. Neighbours that are joined with it are one run with
 * it then, in its record; theirs are freed. */
void free_runs_add(struct run *r);
/* Take a run out of all lists. Its entries stay. */
void free_runs_remove(struct run *r);

/* The shortest free run of this kind with so many pages, 1 to CHUNK_PAGES; near enough. NULL: there is none. */
struct run *free_runs_find(uint8_t kind, size_t pages);

/* Cut `pages` out of a free run, `head` pages after its start; what is left stays free, as old as it was. The result is in no
 * list, may be `from` itself, and has base, pages and `zeroed`; all else, and its entries, are the caller's to set. NULL: no
 * memory for records. */
struct run *free_runs_cut(struct run *from, size_t head, size_t pages);

/* The dirty run that was freed first; NULL if none is dirty. */
struct run *free_runs_oldest(void);

size_t free_runs_dirty(void);    /* pages */
unsigned free_runs_chunks(void); /* clean runs that are a whole chunk */

/* Know of none any more; nothing is unmapped. */
void free_runs_forget(void);

#endif
