/* Huge runs: blocks that have chunks of their own. */
#include "pages/pool.h"

#include "os/os.h"
#include "pages/giants.h"
#include "pages/territory.h"

static uintptr_t
end_of_chunks(const struct run *r)
{
    return r->base + (chunks_of(r->pages) << CHUNK_LG);
}

/* A huge block has one word for each chunk, so that an address in it is found; a giant one has the first only. */
static size_t
words_of(size_t pages)
{
    return pages > GIANT_PAGES ? 1 : chunks_of(pages);
}

static void
set_words(const struct run *r, size_t from, size_t to, uint64_t word)
{
    for (size_t i = from; i < to; i++)
        pagemap_set(r->base + (i << CHUNK_LG), 1, word);
}

static void
enter(struct run *r)
{
    set_words(r, 0, words_of(r->pages), word_make(r));
    if (run_is_giant(r))
        giant_add(r);
}

static void
leave(struct run *r)
{
    if (run_is_giant(r))
        giant_remove(r);
    set_words(r, 0, words_of(r->pages), 0);
}

/* It has more or fewer pages where it is. Those that stay are found at any moment: what tells of them is set before what told
 * is cleared. */
static void
set_pages(struct run *r, size_t pages)
{
    size_t old = r->pages;
    set_words(r, words_of(old), words_of(pages), word_make(r));
    if (old > GIANT_PAGES && pages <= GIANT_PAGES)
        giant_remove(r);
    r->pages = pages;
    if (old <= GIANT_PAGES && pages > GIANT_PAGES)
        giant_add(r);
    set_words(r, words_of(pages), words_of(old), 0);
}

/* What lies behind a run in its last chunk is no free run that others could use, but it is dirty and decays like one. So many
 * of these pages, from its end on, may be resident. */
static void
set_rest(struct pool *pool, struct run *r, size_t pages)
{
    if (r->rest == 0 && pages != 0) {
        r->younger_rest = NULL;
        r->older_rest = pool->youngest_rest;
        *(r->older_rest != NULL ? &r->older_rest->younger_rest : &pool->oldest_rest) = r;
        pool->youngest_rest = r;
    } else if (r->rest != 0 && pages == 0) {
        *(r->younger_rest != NULL ? &r->younger_rest->older_rest : &pool->youngest_rest) = r->older_rest;
        *(r->older_rest != NULL ? &r->older_rest->younger_rest : &pool->oldest_rest) = r->younger_rest;
    }
    pool->rests += pages - r->rest;
    r->rest = pages;
}

/* With the lock held: without, the run could be freed or grow meanwhile, and others use these pages. There are few. */
void
huge_rests_purge(struct pool *pool, size_t limit)
{
    for (struct run *r = pool->oldest_rest, *younger; r != NULL && pool_dirty(pool) > limit; r = younger) {
        younger = r->younger_rest;
        if (pages_purge(pool, r->base + (r->pages << PAGE_LG), r->rest))
            set_rest(pool, r, 0);
    }
}

void
huge_leave(struct pool *pool, struct run *r)
{
    size_t touched = r->pages + r->rest;
    set_rest(pool, r, 0);
    leave(r);
    r->kind = SPAN_DIRTY;
    r->touched = touched;
    r->pages = chunks_of(r->pages) * CHUNK_PAGES;
}

struct run *
pool_take_huge(struct pool *pool, size_t bytes, size_t alignment, struct run_use use)
{
    size_t pages = bytes >> PAGE_LG;
    lock_take(&pool->lock);
    size_t dirty = pool_dirty(pool);
    struct run *r = span_take(pool, chunks_of(pages), alignment > CHUNK_SIZE ? alignment : CHUNK_SIZE);
    if (r != NULL && !pages_commit(pool, r->base, pages)) {
        free_spans_add(&pool->free, r, r->zeroed ? 0 : r->touched);
        r = NULL;
    }
    if (r != NULL) {
        size_t behind = r->pages - pages; /* `touched` is no bound: all of it may have gone with what was cut first */
        r->pages = pages;
        r->rest = 0;
        set_rest(pool, r, r->zeroed ? 0 : behind);
        r->kind = use.kind;
        r->bin = r->word_bin = use.bin;
        r->heap = use.heap;
        enter(r);
        note_taken(pool, r, dirty);
    }
    lock_drop(&pool->lock);
    return r;
}

/* Take free chunks that lie right behind a huge run, and of which it will use so many pages. *dirty: they were used before. */
static bool
extend_into_free(struct pool *pool, const struct run *r, size_t chunks, size_t used, bool *dirty)
{
    uintptr_t end = end_of_chunks(r);
    size_t pages = chunks * CHUNK_PAGES;
    struct run *next = span_at(&pool->free, end, SPAN_DIRTY);
    if (next == NULL)
        next = span_at(&pool->free, end, SPAN_CLEAN);
    struct run *cut = next != NULL && next->pages >= pages ? span_cut(pool, next, 0, pages) : NULL;
    if (cut == NULL)
        return false;
    if (!pages_commit(pool, end, used) ||
        !pool->hooks->merge(pool->context, (void *)r->base, end - r->base, (void *)end, pages << PAGE_LG)) {
        free_spans_add(&pool->free, cut, cut->touched);
        return false;
    }
    span_clear(cut); /* a giant has no words there */
    *dirty = !cut->zeroed;
    run_record_free(&pool->free, cut);
    return true;
}

/* Reserve the addresses right behind a huge run, as a free span. */
static bool
reserve_behind(struct pool *pool, const struct run *r, size_t chunks)
{
    uintptr_t end = end_of_chunks(r);
    struct run *span = span_reserve_words(end, chunks * CHUNK_PAGES) == 0 ? run_record_new(&pool->free) : NULL;
    if (span == NULL)
        return false;
    if (!pool->hooks->reserve_at(pool->context, (void *)end, chunks << CHUNK_LG)) {
        run_record_free(&pool->free, span);
        return false;
    }
    chunks_enter(end, chunks * CHUNK_PAGES);
    pool->mapped += chunks << CHUNK_LG;
    *span = (struct run){ .base = end, .pages = chunks * CHUNK_PAGES, .kind = SPAN_CLEAN, .hooked = r->hooked };
    free_spans_add(&pool->free, span, 0);
    return true;
}

/* Grow the mapping of a huge run: it can be moved later then, in a forked child too. *movable: what is there is in the way, but
 * the run may be moved. */
static bool
extend_mapping(struct pool *pool, const struct run *r, size_t chunks, bool *movable)
{
    size_t old = end_of_chunks(r) - r->base, more = chunks << CHUNK_LG;
    if (pool_is_hooked(pool) || !os_resize((void *)r->base, old, old + more, movable))
        return false;
    pool->mapped += more;
    return true;
}

/* Have the chunks behind a huge run, free ones or new ones. */
static bool
extend(struct pool *pool, const struct run *r, size_t chunks, size_t used, bool *dirty, bool *movable)
{
    return extend_into_free(pool, r, chunks, used, dirty) || extend_mapping(pool, r, chunks, movable) ||
           (!*movable && reserve_behind(pool, r, chunks) && extend_into_free(pool, r, chunks, used, dirty));
}

/* Have more pages, without moving. *movable: it cannot, but if it were moved it might. */
static bool
grow(struct pool *pool, struct run *r, size_t pages, bool *movable)
{
    size_t all = chunks_of(r->pages) * CHUNK_PAGES, chunks = chunks_of(pages) - chunks_of(r->pages), more = pages - r->pages;
    size_t last = pages < all ? pages : all;
    bool dirty = false;
    *movable = !pool_is_hooked(pool);
    /* Tables first: what is mapped cannot always be given back. Those that are made in vain cost addresses. */
    if (span_reserve_words(r->base, chunks_of(pages) * CHUNK_PAGES) != 0)
        return false;
    if (last > r->pages && !pages_commit(pool, r->base + (r->pages << PAGE_LG), last - r->pages))
        return false;
    if (chunks != 0 && !extend(pool, r, chunks, pages - all, &dirty, movable))
        return false;
    chunks_enter(r->base, chunks_of(pages) * CHUNK_PAGES);
    size_t rest = dirty ? chunks_of(pages) * CHUNK_PAGES - pages : r->rest > more ? r->rest - more : 0;
    r->zeroed = !dirty && r->rest == 0;
    set_pages(r, pages);
    set_rest(pool, r, rest);
    return true;
}

/* Move a huge run to other addresses, with its pages. */
static bool
move(struct pool *pool, struct run *r, size_t pages)
{
    size_t old = chunks_of(r->pages) << CHUNK_LG, bytes = chunks_of(pages) << CHUNK_LG;
    /* What is in it goes. This may drop the lock: the run is where it was. */
    struct run *to = span_take(pool, bytes >> CHUNK_LG, CHUNK_SIZE);
    if (to == NULL)
        return false;
    span_clear(to);
    leave(r); /* before its old addresses can become somebody else's; so may the new ones, if it fails */
    chunks_leave(r->base, old >> PAGE_LG);
    chunks_leave(to->base, bytes >> PAGE_LG);
    pagemap_purge(r->base, old >> PAGE_LG);
    bool done = os_move((void *)r->base, old, (void *)to->base, bytes);
    if (done) {
        set_rest(pool, r, 0);
        r->base = to->base;
        r->pages = pages;
    }
    enter(r);
    chunks_enter(r->base, chunks_of(r->pages) * CHUNK_PAGES);
    pool->mapped -= done ? old : bytes;
    run_record_free(&pool->free, to);
    return done;
}

/* Give up what is behind the first so many pages. */
static bool
shrink(struct pool *pool, struct run *r, size_t pages)
{
    size_t keep = chunks_of(pages) * CHUNK_PAGES, all = chunks_of(r->pages) * CHUNK_PAGES, touched = r->pages + r->rest;
    struct run *tail = NULL;
    uintptr_t cut = r->base + (keep << PAGE_LG);
    if (keep != all) {
        /* What a giant becomes, and its tail, may have more words than it has. */
        if (span_reserve_words(r->base, keep) != 0 || span_reserve_words(cut, all - keep) != 0)
            return false;
        tail = run_record_new(&pool->free);
        if (tail == NULL)
            return false;
        if (!pool->hooks->split(pool->context, (void *)r->base, all << PAGE_LG, keep << PAGE_LG)) {
            run_record_free(&pool->free, tail);
            return false;
        }
        *tail = (struct run){ .base = cut, .pages = all - keep, .kind = SPAN_DIRTY, .hooked = r->hooked };
        tail->touched = touched - keep; /* the block had them all */
    }
    bool was_giant = run_is_giant(r);
    if (was_giant) {
        chunks_enter(r->base, keep);
        chunks_enter(cut, all - keep);
    }
    set_pages(r, pages);
    set_rest(pool, r, (touched < keep ? touched : keep) - pages);
    if (tail != NULL && was_giant)
        purge_run(pool, tail);
    else if (tail != NULL)
        free_spans_add(&pool->free, tail, tail->touched);
    return true;
}

bool
pool_resize_huge(struct pool *pool, struct run *r, size_t bytes)
{
    size_t pages = bytes >> PAGE_LG;
    bool done = true, movable;
    lock_take(&pool->lock);
    size_t dirty = pool_dirty(pool);
    if (pages < r->pages)
        done = shrink(pool, r, pages);
    else if (pages > r->pages)
        done = grow(pool, r, pages, &movable) || (movable && move(pool, r, pages));
    note_taken(pool, r, dirty);
    purge_done(pool);
    if (r->taken < 0 && pool->decay.ms == 0)
        purge_to(pool, 0);
    lock_drop(&pool->lock);
    return done;
}
