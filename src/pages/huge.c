/* Huge runs: blocks that have chunks of their own. */
#include "pages/pool.h"

#include "os/os.h"
#include "pages/giants.h"

static size_t
chunks_of(size_t pages)
{
    return (pages + CHUNK_PAGES - 1) / CHUNK_PAGES;
}

static uintptr_t
end_of_chunks(const struct run *r)
{
    return r->base + (chunks_of(r->pages) << CHUNK_LG);
}

/* A huge block has one word for each chunk, so that an address in it is found; a giant one has the first only. */
static void
set_words(const struct run *r, uint64_t word)
{
    size_t chunks = r->pages > GIANT_PAGES ? 1 : chunks_of(r->pages);
    for (size_t i = 0; i < chunks; i++)
        pagemap_set(r->base + (i << CHUNK_LG), 1, word);
}

static void
enter(struct run *r)
{
    set_words(r, entry_make(r));
    if (r->pages > GIANT_PAGES)
        giant_add(r);
}

static void
leave(struct run *r)
{
    if (r->pages > GIANT_PAGES)
        giant_remove(r);
    set_words(r, 0);
}

void
huge_leave(struct run *r)
{
    leave(r);
    r->kind = SPAN_DIRTY;
    r->touched = r->pages;
    r->pages = chunks_of(r->pages) * CHUNK_PAGES;
}

struct run *
pool_take_huge(struct pool *pool, size_t bytes, size_t alignment, struct run_use use)
{
    size_t pages = bytes >> PAGE_LG;
    lock_take(&pool->lock);
    struct run *r = span_take(pool, chunks_of(pages), alignment > CHUNK_SIZE ? alignment : CHUNK_SIZE);
    if (r != NULL) {
        r->pages = pages;
        r->kind = use.kind;
        r->bin = r->word_bin = use.bin;
        r->heap = use.heap;
        enter(r);
    }
    lock_drop(&pool->lock);
    return r;
}

/* Take free chunks that lie right behind a huge run. */
static bool
extend_into_free(struct pool *pool, struct run *r, size_t chunks)
{
    uintptr_t end = end_of_chunks(r);
    size_t pages = chunks * CHUNK_PAGES;
    struct run *next = run_beside(end, SPAN_DIRTY);
    if (next == NULL)
        next = run_beside(end, SPAN_CLEAN);
    if (next == NULL || next->owner != &pool->free || next->pages < pages)
        return false;
    if ((next->pages > pages &&
         !pool->hooks->split(pool->context, (void *)end, next->pages << PAGE_LG, pages << PAGE_LG)) ||
        (next->kind == SPAN_CLEAN && !pool->hooks->commit(pool->context, (void *)end, pages << PAGE_LG)) ||
        !pool->hooks->merge(pool->context, (void *)r->base, end - r->base, (void *)end, pages << PAGE_LG))
        return false;
    run_clear_ends(next);
    struct run *cut = free_runs_cut(&pool->free, next, 0, pages);
    if (cut == NULL) {
        run_enter_ends(next);
        return false;
    }
    run_record_free(&pool->free, cut);
    r->one_mapping = 0;
    return true;
}

/* Reserve the addresses right behind a huge run. */
static bool
extend_mapping(struct pool *pool, struct run *r, size_t chunks)
{
    uintptr_t end = end_of_chunks(r);
    size_t old = end - r->base, more = chunks << CHUNK_LG;
    /* As one mapping it can be moved later. */
    bool one = r->one_mapping && pool->hooks == &pool_system_hooks;
    if (one ? !os_resize((void *)r->base, old, old + more) : !pool->hooks->reserve_at(pool->context, (void *)end, more))
        return false;
    pool->mapped += more;
    return true;
}

/* Have at least so many pages, without moving. */
static bool
grow(struct pool *pool, struct run *r, size_t pages)
{
    size_t chunks = chunks_of(pages) - chunks_of(r->pages);
    /* Tables first: what is mapped cannot always be given back. Those that are made in vain cost addresses. */
    if (pages <= GIANT_PAGES && pagemap_reserve(r->base, chunks_of(pages) * CHUNK_PAGES) != 0)
        return false;
    return chunks == 0 || extend_into_free(pool, r, chunks) || extend_mapping(pool, r, chunks);
}

/* Move a huge run to other addresses, with its pages. */
static bool
move(struct pool *pool, struct run *r, size_t pages)
{
    size_t old = chunks_of(r->pages) << CHUNK_LG, bytes = chunks_of(pages) << CHUNK_LG;
    if (!r->one_mapping || pool->hooks != &pool_system_hooks)
        return false;
    struct run *to = span_reserve(pool, bytes, CHUNK_SIZE);
    if (to == NULL)
        return false;
    bool done = os_move((void *)r->base, old, (void *)to->base, bytes);
    if (done)
        r->base = to->base;
    pool->mapped -= done ? old : bytes;
    run_record_free(&pool->free, to);
    return done;
}

/* Give up what is behind the first so many pages. */
static bool
shrink(struct pool *pool, struct run *r, size_t pages)
{
    size_t keep = chunks_of(pages) << CHUNK_LG, old = r->pages;
    struct run *tail = NULL;
    uintptr_t end = end_of_chunks(r);
    if (r->base + keep != end) {
        size_t behind = (end - r->base - keep) >> PAGE_LG;
        /* Tables for what a giant becomes, and for its tail, or for the ends of that. */
        if (old > GIANT_PAGES && ((pages <= GIANT_PAGES && pagemap_reserve(r->base, keep >> PAGE_LG) != 0) ||
                                  pagemap_reserve(r->base + keep, behind <= GIANT_PAGES ? behind : 1) != 0 ||
                                  pagemap_reserve(end - PAGE_SIZE, 1) != 0))
            return false;
        tail = run_record_new(&pool->free);
        if (tail == NULL)
            return false;
        if (!pool->hooks->split(pool->context, (void *)r->base, end - r->base, keep)) {
            run_record_free(&pool->free, tail);
            return false;
        }
        *tail = (struct run){ .base = r->base + keep, .pages = behind, .kind = SPAN_DIRTY };
        tail->touched = old - (keep >> PAGE_LG); /* the block had them all */
    }
    leave(r);
    r->pages = pages;
    enter(r);
    size_t rest = (keep >> PAGE_LG) < old ? (keep >> PAGE_LG) - pages : old - pages; /* of the last chunk that stays */
    if (rest != 0)
        pool->hooks->purge(pool->context, (void *)(r->base + (pages << PAGE_LG)), rest << PAGE_LG);
    if (tail == NULL)
        return true;
    if (old > GIANT_PAGES)
        purge_run(pool, tail);
    else
        free_spans_add(&pool->free, tail, tail->touched);
    purge_done(pool);
    if (pool->decay.ms == 0)
        purge_to(pool, 0);
    return true;
}

bool
pool_resize_huge(struct pool *pool, struct run *r, size_t bytes)
{
    size_t pages = bytes >> PAGE_LG;
    lock_take(&pool->lock);
    bool done = true;
    if (pages < r->pages) {
        done = shrink(pool, r, pages);
    } else if (pages > r->pages) {
        size_t old = r->pages;
        leave(r); /* before its old addresses can become somebody else's */
        done = grow(pool, r, pages) || move(pool, r, pages);
        r->pages = done ? pages : old;
        enter(r);
    }
    lock_drop(&pool->lock);
    return done;
}
