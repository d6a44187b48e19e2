/*
 * A pool: free pages, which heaps draw from. Memory comes from the system, or from the hooks that a pool was made with, in spans
 * of chunks of CHUNK_SIZE, aligned to that; runs are cut from chunks and join their neighbours again when
 * they are freed. Free pages that were used are dirty, and decay into clean ones; a span that has decayed goes back.
 *
 * There is one pool that everyone draws from, pool_default; others may be made.
 */
#ifndef PAGES_POOL_H
#define PAGES_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ground/lock.h"
#include "pages/decay.h"
#include "pages/free_runs.h"
#include "pages/run.h"

/* Where a pool's memory comes from and goes to. Each may refuse: nothing is lost then. Addresses and sizes are whole pages.
 * All are called with the pool's lock held, but for `purge`: of free pages it is called without, by several threads at once, but never
 * for the same pages; and with it for what lies behind a huge run. None may call the allocator, nor wait for a thread that does. */
struct pool_hooks {
    /* `size` bytes at a multiple of `alignment`, whole chunks, that read as zero once they are committed. NULL: refused. */
    void *(*reserve)(void *context, size_t size, size_t alignment);
    /* The same at this address, right behind what was reserved before, or not. */
    bool (*reserve_at)(void *context, void *address, size_t size);
    /* Give reserved memory back, whole chunks of it. Refused: it stays, and is offered again. */
    bool (*release)(void *context, void *address, size_t size);
    /* Free pages are going to be used. Those that were not since they were reserved or purged must read as zero then; of others
     * nobody needs the contents. Refused: they stay as they are. */
    bool (*commit)(void *context, void *address, size_t size);
    /* Drop contents: the pages read as zero when they are committed again. Refused: they stay dirty. */
    bool (*purge)(void *context, void *address, size_t size);
    /* May reserved memory be treated as two parts from now on? */
    bool (*split)(void *context, void *address, size_t size, size_t first);
    /* May neighbours be treated as one? */
    bool (*merge)(void *context, void *first, size_t first_size, void *second, size_t second_size);
};

extern const struct pool_hooks pool_system_hooks;

struct pool {
    struct lock lock;
    struct pool *next;       /* of all; guarded by a lock of the list's */
    const struct pool_hooks *hooks;
    void *context;           /* the hooks' first argument */
    size_t mapped;           /* bytes reserved */
    struct run *purging;     /* free runs whose pages are just being purged, without the lock */
    struct run *refused;     /* spans that the hooks refuse to take back, and that can have no words; they are offered again */
    struct run *batch;       /* those of them that the holder of the lock is going to purge, linked by `older` */
    struct decay decay;
    struct free_runs free;
    struct run *youngest_rest, *oldest_rest; /* huge runs behind which pages may be resident */
    size_t rests;            /* how many pages; they are dirty as those of free runs are */
};

extern HIDDEN struct pool pool_default;

/* Is its memory somebody else's than the system's? */
static inline bool
pool_is_hooked(const struct pool *pool)
{
    return pool->hooks != &pool_system_hooks;
}

/* What a run is to become. */
struct run_use {
    uint8_t kind, bin;
    uint16_t heap;
};

struct pool_figures {
    size_t mapped, dirty; /* bytes */
};

/* A run of pages that starts at a multiple of `alignment` (a page at least), entered in the page map with
 * its use, and with `taken`. At most CHUNK_PAGES pages with alignment up to CHUNK_SIZE. NULL: no memory. */
struct run *pool_take(struct pool *pool, size_t pages, size_t alignment, struct run_use use);

/* Give runs back that nobody uses any more, huge ones too: a list linked by `next`. They become dirty: returns how many pages more
 * of the pool then are. */
size_t pool_give(struct pool *pool, struct run *runs);
/* The same, and their pages go back to the system before it returns. The list is made empty when the pool has all of it, which is
 * so at once for who forks. */
void pool_give_back(struct pool *pool, struct run **runs);

/* Purge so many dirty pages now: those behind huge runs, then those that have been free longest. */
void pool_purge_some(struct pool *pool, size_t pages);

/* Change how many pages a large run has, where it is, and its bin. `zeroed` and `taken` then tell of what it got. False if what
 * follows is not free. */
bool pool_resize(struct pool *pool, struct run *run, size_t pages, uint8_t bin);

/* Change the bin that a large run's word tells. For who has its block; takes no lock. */
void run_rebin(struct run *run, uint8_t bin);
/* Its word is to name no bin until run_rebin(). */
void run_lend(struct run *run);
/* Of how many that is so. */
extern HIDDEN _Atomic uint32_t runs_lent;

/* Huge runs, of any size and alignment; they have chunks of their own (pages/huge.c). */
struct run *pool_take_huge(struct pool *pool, size_t bytes, size_t alignment, struct run_use use);
/* Resize, moving it if need be; what it holds goes with it, and `taken` is set. False: it is as it was. */
bool pool_resize_huge(struct pool *pool, struct run *run, size_t bytes);

/* A pool of other memory. The struct is the caller's and reads as zero. Before it ends all runs must have been given back;
 * what its hooks refuse to take then is theirs all the same, and no address in it is known for ours any more. */
void pool_make(struct pool *pool, const struct pool_hooks *hooks, void *context, int64_t dirty_decay_ms);
void pool_end(struct pool *pool);

/* Drop the contents of pages in a run that stays: they read as zero then, and are not resident until they are written to. False:
 * the hooks refuse. Takes no lock. */
bool pages_purge(struct pool *pool, uintptr_t base, size_t pages);

/* Free pages are going to be used. False: the hooks refuse. The caller holds the lock. */
bool pages_commit(struct pool *pool, uintptr_t base, size_t pages);

/* Let dirty pages decay, if an epoch has gone by. `now` is os_clock_ms(). */
void pool_tick(uint64_t now);

/* Purge every dirty page of every pool now. */
void pool_purge(void);

/* The run that holds an address, free ones left out; NULL if none. Safe for any address. */
struct run *pool_find(const void *address);

/* Is the address in a chunk of a pool's, free or not? Then it is nobody else's. */
bool pool_holds(const void *address);

/* Make the default pool, which has nothing or has forgotten all. */
void pool_init(int64_t dirty_decay_ms);
void pool_figures_get(struct pool_figures *out);
/* Dirty pages of one, without its lock. */
size_t pool_dirty_seen(const struct pool *pool);

/* Unmap everything that is the system's, and forget all pools. What came from their hooks is these' own. */
void pool_release(void);
/* Unmap what is free of that, and leave the rest mapped for ever. */
void pool_leave(void);

bool pool_fork_holds(void); /* does this thread, in the middle of something? */
void pool_fork_prepare(void);
void pool_fork_done(void);
void pool_fork_child(void);

/* --- For pages/ only, with the pool's lock held. */

/* pool.c: Note in a run that just had so many more or fewer pages how many of them were dirty: the pool had `dirty` before. */
void note_taken(const struct pool *pool, struct run *r, size_t dirty);
/* Cut a span of so many chunks at this alignment out of free ones, dirty before clean, or reserve it. It has base,
 * pages, `zeroed`, `touched` (of a span) and kind, and no words. NULL: no memory. */
struct run *span_take(struct pool *pool, size_t chunks, size_t alignment);
struct run *span_reserve(struct pool *pool, size_t bytes, size_t alignment);
/* Make sure that tables are there for the words of a span or huge run. 0 or ENOMEM. */
int span_reserve_words(uintptr_t base, size_t pages);
/* Cut `pages` out of a free span, `head` pages after its start, both whole chunks: as span_take() has it. NULL: no memory, or
 * the hooks refuse. */
struct run *span_cut(struct pool *pool, struct run *from, size_t head, size_t pages);

/* purge.c: Give a span back that is in no list and has no words; if the hooks refuse, it is free, with `touched` pages that may
 * be resident, or is kept in `refused`. */
bool span_release(struct pool *pool, struct run *r, size_t touched);
/* Release clean spans, and offer again what was refused, until at most `keep` chunks are clean, or some have been refused. */
void release_clean(struct pool *pool, size_t keep);
/* Purge the dirty runs that have been free longest until at most `limit` pages are dirty, or a few in a row could not be: they come
 * last the next time. Drops the lock meanwhile. */
void purge_to(struct pool *pool, size_t limit);
/* Purge whatever can be. */
void purge_all(struct pool *pool);
/* Have a run or span that is in no list and has no words purged by the next purge_done(), which drops the lock meanwhile. */
void purge_run(struct pool *pool, struct run *r);
void purge_done(struct pool *pool);
/* In a forked child: what other threads were just purging is dirty again. */
void purge_forked(struct pool *pool);

/* huge.c: A huge run becomes a dirty span that is in no list and has no words. */
void huge_leave(struct pool *pool, struct run *r);
/* Purge what lies behind huge runs until at most `limit` pages of the pool are dirty, or no more can be. */
void huge_rests_purge(struct pool *pool, size_t limit);
/* Pages that decay has to see to. */
static inline size_t
pool_dirty(const struct pool *pool)
{
    return pool->free.dirty + pool->rests;
}

#endif
