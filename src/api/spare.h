/*
 * The spare: a block that grew and was freed. Who makes one grow soon makes another grow as far, so the pages stay together, in the
 * thread's cache, and the next that grows is lent all of them: nothing is copied, charged or counted until it outgrows the one before.
 *
 * What stays small holds the pages of one that did not, for as long as it lives, and seems to use them. So only the default heap has
 * spares, and few are lent in the whole process; a cache lends one at a time, and while that is out it
 * has another only when four times as many have grown and been freed as the last time: of a thousand six may be held. A block that is
 * lent has the bin that it had, and counts as one of that, but its page map word names none, so that its free comes by the slow path.
 * Where there is a limit there is no spare.
 */
#ifndef API_SPARE_H
#define API_SPARE_H

#include "heap/large.h"
#include "thread/cache.h"

#define SPARE_MOST ((size_t)512 << 10) /* bytes: as much as a bin of large blocks may keep */
#define SPARE_LEAST (2 * SMALL_MAX)    /* it does not become smaller than that, */
#define SPARE_SHARE 4                  /* nor as long as a quarter of it is asked for */
#define SPARE_TRIES 8                  /* once in so many times */
#define LENT_MOST 8                    /* at once, by all threads; about */

static inline bool
spare_may_be_lent(void)
{
    return atomic_load_explicit(&runs_lent, memory_order_relaxed) < LENT_MOST;
}

/* By its thread, from a block that was in the cache: of `size` bytes, for now. */
static inline void
spare_lend(struct cache *c, struct run *r, size_t size)
{
    r->asked = size;
    r->outgrown = false;
    run_lend(r);
    c->lent = r;
    c->spare = 0;
}

/* Has the block that it lent not come back? One that another thread freed is another block now, or none. */
static inline __attribute__((no_sanitize("thread"))) bool
spare_is_out(const struct cache *c)
{
    const struct run *r = c->lent;
    return r != NULL && r->kind == RUN_LARGE && r->word_bin == 0 && r->heap == c->heap->index;
}

/* Is it time to have another all the same? */
static inline bool
spare_waits(struct cache *c)
{
    if (++c->waited <= c->patience)
        return true;
    c->patience = c->patience * 4 + 3;
    c->waited = 0;
    return false;
}

/* May one that comes back be the spare again as it is? */
static inline bool
spare_stays(struct cache *c, const struct run *r)
{
    bool too_large = r->usable > SPARE_LEAST && r->asked < r->usable / SPARE_SHARE;
    c->too_large = too_large ? c->too_large + 1 : 0;
    return !r->outgrown && c->too_large < SPARE_TRIES;
}

/* As what a block that grew and is freed may stay, to be the spare. 0: it may not. */
static inline size_t
spare_bytes(struct cache *c, const struct run *r)
{
    if (c == NULL || c->heap->index != ALCOVE_HEAP_DEFAULT || c->guarded || c->spare != 0 || r->outgrown || (r != c->lent && spare_is_out(c) && spare_waits(c)))
        return 0;
    size_t bytes = run_is_lent(r) && !spare_stays(c, r) ? large_usable_of_growing(r->asked) : r->usable;
    return bytes <= SPARE_MOST ? bytes : 0;
}

#endif
