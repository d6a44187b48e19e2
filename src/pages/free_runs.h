/*
 * A pool's free memory: clean runs and spans, which read as zero, and dirty ones, which were used. They are found by their
 * length, the dirty ones by their age too. Neighbours of one kind are joined; a run that is a whole chunk then becomes a span,
 * so that it serves huge blocks too. The page map has a word for the first and the last page of each run, and for the first
 * page of each chunk of a span: between its ends one that is of no run and only says whose the chunk is. Spans are not joined to
 * giants (pages/giants.h); where the hooks refuse to take one back, it has a word at its start only.
 *
 * The caller holds the pool's lock, which guards all that is here.
 */
#ifndef PAGES_FREE_RUNS_H
#define PAGES_FREE_RUNS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pages/run.h"

/* Lists by length: one for each length up to EXACT, then eight to a doubling; in pages for runs, in chunks for spans. */
#define LENGTHS_EXACT 32u
#define LENGTHS_LG_EXACT 5
#define LENGTHS_UP_TO(lg) (LENGTHS_EXACT + 8 * ((lg) - LENGTHS_LG_EXACT) + 1)
#define RUN_LENGTHS LENGTHS_UP_TO(CHUNK_LG - PAGE_LG)
#define SPAN_LENGTHS LENGTHS_UP_TO(ALCOVE_LG_VADDR - CHUNK_LG)

struct run_lists {
    uint64_t filled[(RUN_LENGTHS + 63) / 64]; /* a bit for each list that is not empty */
    struct run *list[RUN_LENGTHS];
};

struct span_lists {
    uint64_t filled[(SPAN_LENGTHS + 63) / 64];
    struct run *list[SPAN_LENGTHS];
};

struct run_ages {
    struct run *oldest, *youngest;
};

struct free_runs {
    struct run *records;           /* unused ones */
    struct run_ages dirty_ages;    /* dirty runs and spans in the order in which they were freed */
    struct run_ages clean_ages;    /* clean spans in the order in which they became clean, or were refused last */
    size_t dirty;                  /* pages that may be resident */
    size_t clean_chunks;           /* in clean spans */
    bool (*may_merge)(const struct run *left, const struct run *right); /* spans that are neighbours; NULL: always */
    struct run_lists runs[2];      /* clean, dirty */
    struct span_lists spans[2];
};

/* A record for a run, with anything in it. NULL: no memory. */
struct run *run_record_new(struct free_runs *f);
/* The record can be used again; its pages are not touched. */
void run_record_free(struct free_runs *f, struct run *r);
/* Records that are not used are anybody's again. */
void run_records_end(struct free_runs *f);

static inline bool
run_is_span(const struct run *r)
{
    return r->kind == SPAN_CLEAN || r->kind == SPAN_DIRTY ||
           (r->kind == RUN_PURGING && ((r->base & CHUNK_MASK) | (r->pages & (CHUNK_PAGES - 1))) == 0);
}

/* The run of this kind whose first or last page has the address. It is the caller's to see that this is no page of
 * another chunk. NULL: there is none. */
struct run *run_beside(uintptr_t address, uint8_t kind);

/* The free span of this kind, one of these, whose first or last chunk begins at the address. NULL: there is none. */
struct run *span_at(const struct free_runs *f, uintptr_t address, uint8_t kind);

/* Enter a run's first and last page in the page map, of a span those of its first and last chunk. */
void run_enter_ends(struct run *r);

/* Clear the words of a whole run's ends. A span's become what those between them are. */
void run_clear_ends(struct run *r);

/* Have all chunks of a span's say that they are inside of one. */
void span_enter_inside(const struct run *r);

/* Clear the words of a span's or huge run's chunks, which are going to be somebody else's. */
void span_clear(const struct run *r);

/* Add a free run or span, whose pages have no words. touched, for a span: pages that may be resident. Neighbours that are
 * joined with it are one with it then, in its record; theirs are freed. */
void free_runs_add(struct free_runs *f, struct run *r);
void free_spans_add(struct free_runs *f, struct run *r, size_t touched);
/* Take a run out of all lists. Its words stay. */
void free_runs_remove(struct free_runs *f, struct run *r);

/* Have a chunk in which all runs are free, clean or dirty, become one dirty span, in the record of any of them: in no list, without
 * words, and with `touched`. */
void free_chunk_join(struct free_runs *f, struct run *r);
/* Are all runs in the chunk of this one free, and none being purged? */
bool free_chunk_is_whole(const struct run *r);

/* The shortest free run of this kind with so many pages, 1 to CHUNK_PAGES; near enough. NULL: there is none. */
struct run *free_runs_find(const struct free_runs *f, uint8_t kind, size_t pages);
/* The same of spans, with so many chunks at a multiple of `alignment`, a power of two. */
struct run *free_spans_find(const struct free_runs *f, uint8_t kind, size_t chunks, uintptr_t alignment);

/* Have so many records at hand: as many runs more can be made without fail. False: no memory. */
bool run_records_keep(struct free_runs *f, unsigned count);

/* Cut `pages` out of a free run or span, `head` pages after its start (of spans, both are whole chunks); what is left stays
 * free, as old as it was. The result is in no list, may be `from` itself, and has base, pages, `zeroed`, and of spans
 * `touched`; all else, and its words, are the caller's to set. NULL: no memory for records. */
struct run *free_runs_cut(struct free_runs *f, struct run *from, size_t head, size_t pages);

/* The same of what is in no list, just cut itself: a span, or a whole chunk, of kind RUN_CLEAN or RUN_DIRTY now. What is left is next
 * younger than `older` of its kind. */
struct run *free_runs_cut_taken(struct free_runs *f, struct run *taken, size_t head, size_t pages, struct run *older);

#endif
