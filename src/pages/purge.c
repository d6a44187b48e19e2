/*
 * Dirty pages become clean. The system takes its time for that, so the pool's lock is dropped meanwhile; whole chunks are
 * released afterwards with the lock held, when nothing is left in them, so that a fork finds each page in one of two places:
 * among `purging`, still mapped, or gone.
 */
#include "os/os.h"
#include "pages/giants.h"
#include "pages/pool.h"
#include "pages/territory.h"

/* Clean chunks that stay mapped, for what comes next. */
#define SPARE_CHUNKS 1

/* Spans that are offered to the hooks and refused, in one turn. */
#define RELEASE_TRIES 16

/* Runs purged between two holds of the lock. */
#define PURGE_BATCH 32
/* Pages of a run that are purged at least, if it has them. */
#define PURGE_LEAST ((size_t)64)

void
purge_run(struct pool *pool, struct run *r)
{
    r->kind = RUN_PURGING; /* so that nobody joins it */
    r->bin = r->word_bin = 0;
    r->heap = 0;
    r->purger = lock_self();
    if (run_is_span(r))
        span_enter_inside(r);
    run_enter_ends(r);
    run_list_push(&pool->purging, r);
    r->older = pool->batch;
    pool->batch = r;
}

/* Take pages out of what has been free longest: all of it if it is short, and if it is long what is
 * in excess, but not so little that it is not worth a system call. */
static void
purge_oldest(struct pool *pool, size_t excess)
{
    struct run *r = pool->free.dirty_ages.oldest, *cut = NULL;
    bool span = run_is_span(r);
    if (excess == 0)
        excess = r->pages;
    if (excess < PURGE_LEAST)
        excess = PURGE_LEAST;
    if (span)
        excess = chunks_of(excess) * CHUNK_PAGES;
    size_t head = r->pages - excess;
    run_clear_ends(r);
    if (r->pages > excess && !run_is_giant(r) &&
        (!span || (run_records_keep(&pool->free, 1) &&
                   pool->hooks->split(pool->context, (void *)r->base, r->pages << PAGE_LG, head << PAGE_LG))))
        cut = free_runs_cut(&pool->free, r, head, excess);
    if (cut == NULL) {
        cut = r;
        free_runs_remove(&pool->free, r);
    }
    purge_run(pool, cut);
}

static void
refused_push(struct pool *pool, struct run *r)
{
    r->next = pool->refused;
    pool->refused = r;
}

bool
span_release(struct pool *pool, struct run *r, size_t touched)
{
    span_clear(r);
    chunks_leave(r->base, r->pages);
    pagemap_purge(r->base, r->pages);
    if (pool->hooks->release(pool->context, (void *)r->base, r->pages << PAGE_LG)) {
        pool->mapped -= r->pages << PAGE_LG;
        run_record_free(&pool->free, r);
        return true;
    }
    if (span_reserve_words(r->base, r->pages) == 0) {
        chunks_enter(r->base, r->pages);
        free_spans_add(&pool->free, r, touched);
    } else {
        r->touched = touched;
        refused_push(pool, r);
    }
    return false;
}

/* What is not tried this time comes first the next. */
static void
release_refused(struct pool *pool)
{
    struct run *r = pool->refused, *next;
    pool->refused = NULL;
    for (unsigned tries = RELEASE_TRIES; r != NULL; r = next) {
        next = r->next;
        if (tries == 0)
            refused_push(pool, r);
        else
            tries -= !span_release(pool, r, r->touched);
    }
}

/* One that is refused comes last the next time. */
void
release_clean(struct pool *pool, size_t keep)
{
    struct run *r, *refused = NULL;
    release_refused(pool);
    for (unsigned tries = RELEASE_TRIES; tries > 0 && pool->free.clean_chunks > keep;) {
        r = pool->free.clean_ages.oldest;
        if (r == refused)
            return;
        free_runs_remove(&pool->free, r);
        run_clear_ends(r);
        if (span_release(pool, r, 0))
            continue;
        tries--;
        if (refused == NULL)
            refused = r;
    }
}

/* Offer the chunk of a dirty run to the hooks, if it is free as a whole. False: it is not, or they refuse. */
static bool
chunk_release(struct pool *pool, struct run *r)
{
    if (run_is_span(r)) {
        free_runs_remove(&pool->free, r);
        run_clear_ends(r);
    } else if (free_chunk_is_whole(r)) {
        free_chunk_join(&pool->free, r);
    } else {
        return false;
    }
    return span_release(pool, r, r->touched);
}

/* A run that was to be purged is free again; `purged`: its pages read as zero. `offer` it to the hooks, if it is a span, or its
 * chunk if that could become one. False: it is dirty still. */
static bool
purge_end(struct pool *pool, struct run *r, bool purged, bool offer)
{
    bool whole = run_is_span(r);
    run_list_remove(&pool->purging, r);
    run_clear_ends(r);
    r->kind = whole ? (purged ? SPAN_CLEAN : SPAN_DIRTY) : (purged ? RUN_CLEAN : RUN_DIRTY);
    if (whole && offer)
        return span_release(pool, r, purged ? 0 : r->pages) || purged;
    if (whole)
        free_spans_add(&pool->free, r, purged ? 0 : r->pages);
    else
        free_runs_add(&pool->free, r);
    return purged || (offer && !whole && chunk_release(pool, r));
}

/* Purge what purge_run() was given. False: nothing could be. */
static bool
purge_batch(struct pool *pool)
{
    struct run *batch = pool->batch;
    pool->batch = NULL;
    if (batch == NULL)
        return false;
    lock_drop(&pool->lock);
    for (struct run *r = batch; r != NULL; r = r->older)
        r->zeroed = pool->hooks->purge(pool->context, (void *)r->base, r->pages << PAGE_LG);
    lock_take(&pool->lock);
    bool any = false;
    while (batch != NULL) {
        struct run *r = batch;
        batch = r->older;
        /* Locked pages (mlockall) cannot be purged, but they can be released. */
        any |= purge_end(pool, r, r->zeroed, !r->zeroed || run_is_giant(r));
    }
    release_clean(pool, SPARE_CHUNKS);
    return any;
}

void
purge_done(struct pool *pool)
{
    purge_batch(pool);
}

/* Which pages of a dirty span were touched is not known, only how many at the most: parts of it that seem to have none go
 * last, when nothing dirty may stay. */
static bool
too_much_is_dirty(const struct pool *pool, size_t limit)
{
    return pool->free.dirty > limit || (limit == 0 && pool->free.dirty_ages.oldest != NULL);
}

/* Up to `patience` pages may be refused before it stops, and a batch in any case. */
static void
purge(struct pool *pool, size_t limit, size_t patience)
{
    huge_rests_purge(pool, limit); /* first, for no block can be cut from them */
    do {
        size_t dirty = pool->free.dirty;
        for (unsigned n = 0; n < PURGE_BATCH && too_much_is_dirty(pool, limit); n++)
            purge_oldest(pool, pool->free.dirty - limit);
        size_t tried = dirty != pool->free.dirty ? dirty - pool->free.dirty : 1;
        if (purge_batch(pool))
            continue;
        if (tried >= patience)
            break;
        patience -= tried;
    } while (too_much_is_dirty(pool, limit));
    release_clean(pool, SPARE_CHUNKS);
    os_give_up_refused();
}

void
purge_to(struct pool *pool, size_t limit)
{
    purge(pool, limit, 0);
}

/* Each gets its turn, for those that are refused come last. */
void
purge_all(struct pool *pool)
{
    purge(pool, 0, pool->free.dirty);
}

void
purge_forked(struct pool *pool)
{
    pool->batch = NULL;
    for (struct run *r = pool->purging, *next; r != NULL; r = next) {
        next = r->next;
        /* What this thread was at, before a signal handler forked, it goes on with. */
        if (r->purger != lock_self())
            purge_end(pool, r, false, run_is_giant(r));
    }
}
