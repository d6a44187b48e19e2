/* The pool of free pages. `pool.lock` guards everything here, and writes to the page map. */
#include "pages/pool.h"

#include "ground/conf.h"
#include "os/os.h"
#include "pages/decay.h"
#include "pages/free_runs.h"
#include "pages/unmap.h"
#include "ground/lock.h"

/* Chunks that stay mapped though they are free and clean, for what comes next. */
#define SPARE_CHUNKS 1

/* Runs purged between two holds of the lock. */
#define PURGE_BATCH 32
/* Pages of a run that are purged at least, if it has them. */
#define PURGE_LEAST ((size_t)64)

static struct {
    struct lock lock;
    size_t mapped; /* bytes */
    struct decay decay;
} pool = { .lock = LOCK_INITIAL(LOCK_POOL) };

static struct run *
chunk_new(void)
{
    struct run *r = run_record_new();
    if (r == NULL)
        return NULL;
    void *p = os_map(CHUNK_SIZE, CHUNK_SIZE);
    if (p == NULL || pagemap_reserve((uintptr_t)p, CHUNK_PAGES) != 0) {
        if (p != NULL)
            os_unmap(p, CHUNK_SIZE);
        run_record_free(r);
        return NULL;
    }
    if (conf.thp != CONF_THP_DEFAULT)
        os_huge_pages(p, CHUNK_SIZE, conf.thp == CONF_THP_ALWAYS);
    pool.mapped += CHUNK_SIZE;
    r->base = (uintptr_t)p;
    r->pages = CHUNK_PAGES;
    r->kind = RUN_CLEAN;
    free_runs_add(r);
    return r;
}

/* Give a whole chunk, free and in no list, back to the system. */
static void
chunk_release(struct run *r)
{
    pagemap_set(r->base, 1, 0);
    pagemap_set(r->base + CHUNK_SIZE - PAGE_SIZE, 1, 0);
    os_unmap((void *)r->base, CHUNK_SIZE);
    pool.mapped -= CHUNK_SIZE;
    run_record_free(r);
}

/* Enter a run in the page map. Of a large block only the first page tells the bin: an address
 * inside of it is then never taken for a block that can be cached. */
static void
map_run(const struct run *r)
{
    uint64_t entry = entry_make(r);
    pagemap_set(r->base, 1, entry);
    if (r->kind == RUN_LARGE)
        entry &= ~ENTRY_BIN_MASK;
    pagemap_set(r->base + PAGE_SIZE, r->pages - 1, entry);
}

static void
run_enter(struct run *r, struct run_use use)
{
    r->kind = use.kind;
    r->bin = use.bin;
    r->heap = use.heap;
    map_run(r);
}

struct run *
pool_take(size_t pages, size_t alignment, struct run_use use)
{
    size_t align_pages = alignment >> PAGE_LG, need = pages;
    struct run *found = NULL, *r = NULL;
    if (align_pages > 1 && alignment < CHUNK_SIZE)
        need += align_pages - 1;
    lock_take(&pool.lock);
    if (alignment < CHUNK_SIZE && need <= CHUNK_PAGES) {
        found = free_runs_find(RUN_DIRTY, need);
        if (found == NULL)
            found = free_runs_find(RUN_CLEAN, need);
    }
    if (found == NULL)
        found = chunk_new(); /* its start has any alignment up to its size */
    if (found != NULL) {
        size_t head = (-found->base & (alignment - 1)) >> PAGE_LG;
        r = free_runs_cut(found, head, pages);
        if (r != NULL)
            run_enter(r, use);
    }
    lock_drop(&pool.lock);
    return r;
}

/* Take pages out of the run that has been free longest: all of a short one, and of a long one what is
 * in excess, but not so little that it is not worth a system call. */
static struct run *
take_oldest(size_t excess)
{
    struct run *r = free_runs_oldest(), *cut = NULL;
    if (excess < PURGE_LEAST)
        excess = PURGE_LEAST;
    if (r->pages > excess)
        cut = free_runs_cut(r, r->pages - excess, excess);
    if (cut == NULL) {
        cut = r;
        free_runs_remove(r);
    }
    cut->kind = RUN_PURGING; /* so that nobody joins it */
    cut->bin = 0;
    cut->heap = 0;
    run_enter_ends(cut);
    return cut;
}

/* Purge the dirty runs that have been free longest until at most `limit` pages are dirty. Drops the lock meanwhile. */
static void
purge_to(size_t limit)
{
    struct run *batch[PURGE_BATCH];
    while (free_runs_dirty() > limit) {
        unsigned n = 0;
        while (n < PURGE_BATCH && free_runs_dirty() > limit) {
            batch[n++] = take_oldest(free_runs_dirty() - limit);
        }
        lock_drop(&pool.lock);
        for (unsigned i = 0; i < n; i++)
            os_purge((void *)batch[i]->base, batch[i]->pages << PAGE_LG);
        lock_take(&pool.lock);
        for (unsigned i = 0; i < n; i++) {
            batch[i]->kind = RUN_CLEAN;
            free_runs_add(batch[i]);
            if (batch[i]->pages == CHUNK_PAGES && free_runs_chunks() > SPARE_CHUNKS) {
                free_runs_remove(batch[i]);
                chunk_release(batch[i]);
            }
        }
    }
}

/* Extend a run over the neighbours that are being given with it. */
static void
absorb_neighbours(struct run *r)
{
    struct run *other;
    while ((r->base & CHUNK_MASK) != 0 && (other = run_beside(r->base - 1, RUN_GIVEN)) != NULL) {
        r->base = other->base;
        r->pages += other->pages;
        other->kind = RUN_ABSORBED;
    }
    for (;;) {
        uintptr_t end = r->base + (r->pages << PAGE_LG);
        if ((end & CHUNK_MASK) == 0 || (other = run_beside(end, RUN_GIVEN)) == NULL)
            return;
        r->pages += other->pages;
        other->kind = RUN_ABSORBED;
    }
}

/* A heap that is destroyed gives thousands of runs which are each other's neighbours: these are joined
 * first, in two turns over the list, and only what comes of it is put among the free runs. */
void
pool_give(struct run *runs)
{
    lock_take(&pool.lock);
    for (struct run *r = runs; r != NULL; r = r->next) {
        __builtin_prefetch(r->next);
        r->kind = RUN_GIVEN;
    }
    while (runs != NULL) {
        struct run *r = runs;
        runs = r->next;
        if (r->kind == RUN_ABSORBED) {
            run_record_free(r);
            continue;
        }
        r->kind = RUN_DIRTY;
        absorb_neighbours(r);
        pagemap_set(r->base, r->pages, 0);
        free_runs_add(r);
    }
    if (pool.decay.ms == 0)
        purge_to(0);
    lock_drop(&pool.lock);
}

bool
pool_resize(struct run *run, size_t pages, uint8_t bin)
{
    lock_take(&pool.lock);
    uintptr_t end = run->base + (run->pages << PAGE_LG);
    bool done = pages == run->pages;
    if (pages < run->pages) {
        struct run *tail = run_record_new();
        if (tail != NULL) {
            *tail = (struct run){ .base = run->base + (pages << PAGE_LG), .pages = run->pages - pages,
                                  .kind = RUN_DIRTY };
            pagemap_set(tail->base, tail->pages, 0);
            run->pages = pages;
            free_runs_add(tail);
            if (pool.decay.ms == 0)
                purge_to(0);
            done = true;
        }
    } else if (!done && (end & CHUNK_MASK) != 0) {
        size_t more = pages - run->pages;
        struct run *after = run_beside(end, RUN_DIRTY);
        if (after == NULL)
            after = run_beside(end, RUN_CLEAN);
        struct run *cut = after != NULL && after->pages >= more ? free_runs_cut(after, 0, more) : NULL;
        if (cut != NULL) {
            run_record_free(cut);
            pagemap_set(end, more, entry_make(run) & ~ENTRY_BIN_MASK);
            run->pages = pages;
            done = true;
        }
    }
    if (done) {
        run->bin = bin;
        pagemap_set(run->base, 1, entry_make(run));
    }
    lock_drop(&pool.lock);
    return done;
}

void
pool_rebin(struct run *run, uint8_t bin)
{
    lock_take(&pool.lock);
    run->bin = bin;
    pagemap_set(run->base, 1, entry_make(run));
    lock_drop(&pool.lock);
}

/* A huge block has one entry for each chunk's worth of addresses; it starts where a chunk would. */
static void
huge_enter(const struct run *r, uint64_t entry)
{
    for (size_t offset = 0; offset < r->pages << PAGE_LG; offset += CHUNK_SIZE)
        pagemap_set(r->base + offset, 1, entry);
}

struct run *
pool_take_huge(size_t bytes, size_t alignment, struct run_use use)
{
    void *p = os_map(bytes, alignment > CHUNK_SIZE ? alignment : CHUNK_SIZE);
    if (p == NULL)
        return NULL;
    if (conf.thp != CONF_THP_DEFAULT)
        os_huge_pages(p, bytes, conf.thp == CONF_THP_ALWAYS);
    lock_take(&pool.lock);
    struct run *r = run_record_new();
    if (r != NULL && pagemap_reserve((uintptr_t)p, bytes >> PAGE_LG) != 0) {
        run_record_free(r);
        r = NULL;
    }
    if (r != NULL) {
        *r = (struct run){ .base = (uintptr_t)p, .pages = bytes >> PAGE_LG, .kind = use.kind,
                           .bin = use.bin, .heap = use.heap, .zeroed = 1 };
        huge_enter(r, entry_make(r));
        pool.mapped += bytes;
    }
    lock_drop(&pool.lock);
    if (r == NULL)
        os_unmap(p, bytes);
    return r;
}

void
pool_give_huge(struct run *r)
{
    lock_take(&pool.lock);
    void *p = (void *)r->base;
    size_t bytes = r->pages << PAGE_LG;
    huge_enter(r, 0);
    pool.mapped -= bytes;
    run_record_free(r);
    lock_drop(&pool.lock);
    os_unmap(p, bytes);
}

/* Move a huge run to another place. */
static bool
move_huge(struct run *r, size_t bytes)
{
    size_t old = r->pages << PAGE_LG;
    void *to = os_map(bytes, CHUNK_SIZE);
    if (to == NULL)
        return false;
    if (pagemap_reserve((uintptr_t)to, bytes >> PAGE_LG) != 0 || !os_move((void *)r->base, old, to, bytes)) {
        os_unmap(to, bytes);
        return false;
    }
    r->base = (uintptr_t)to;
    return true;
}

bool
pool_resize_huge(struct run *r, size_t bytes)
{
    size_t old = r->pages << PAGE_LG;
    lock_take(&pool.lock);
    huge_enter(r, 0); /* before an address that is given up can become somebody else's */
    bool done = os_resize((void *)r->base, old, bytes);
    /* Tables are only made for addresses that there are. */
    if (done && bytes > old && pagemap_reserve(r->base, bytes >> PAGE_LG) != 0) {
        os_resize((void *)r->base, bytes, old);
        done = false;
    } else if (!done) {
        done = move_huge(r, bytes);
    }
    if (done) {
        r->pages = bytes >> PAGE_LG;
        pool.mapped += bytes - old;
    }
    huge_enter(r, entry_make(r));
    lock_drop(&pool.lock);
    return done;
}

struct run *
pool_move_to_huge(struct run *run, size_t bytes)
{
    size_t used = run->pages << PAGE_LG;
    struct run *to = pool_take_huge(used, CHUNK_SIZE, (struct run_use){ RUN_HUGE, 0, run->heap });
    if (to == NULL)
        return NULL;
    if (os_move_pages((void *)run->base, used, (void *)to->base)) {
        if (pool_resize_huge(to, bytes))
            return to;
        os_move_pages((void *)to->base, used, (void *)run->base);
    }
    pool_give_huge(to);
    return NULL;
}

void
pool_tick(uint64_t now)
{
    if (!decay_is_due(&pool.decay, now) || !lock_try(&pool.lock))
        return;
    if (decay_is_due(&pool.decay, now))
        purge_to(decay_advance(&pool.decay, now, free_runs_dirty()));
    lock_drop(&pool.lock);
}

void
pool_purge(void)
{
    lock_take(&pool.lock);
    purge_to(0);
    lock_drop(&pool.lock);
}

struct run *
pool_find(const void *address)
{
    struct run *r = entry_run(pagemap_get(pagemap, address));
    if (r != NULL)
        return r->kind >= RUN_SLAB ? r : NULL;
    uintptr_t a = (uintptr_t)address;
    r = entry_run(pagemap_get(pagemap, (void *)(a & ~CHUNK_MASK)));
    return r != NULL && r->kind == RUN_HUGE && a - r->base < r->pages << PAGE_LG ? r : NULL;
}

bool
pool_holds(const void *address)
{
    /* The first page of a chunk always has an entry, if only a free run's. So has the last one, which
     * the loader's guards look at: a huge run has none there. */
    const struct run *r = entry_run(pagemap_get(pagemap, (void *)((uintptr_t)address & ~CHUNK_MASK)));
    return r != NULL && r->kind != RUN_HUGE;
}

bool
pool_was_left(const void *address)
{
    return pagemap_get(pagemap, address) == ENTRY_LEFT;
}

void
pool_init(int64_t dirty_decay_ms)
{
    decay_init(&pool.decay, dirty_decay_ms, os_clock_ms());
}

void
pool_figures_get(struct pool_figures *out)
{
    lock_take(&pool.lock);
    out->mapped = pool.mapped;
    out->dirty = free_runs_dirty() << PAGE_LG;
    lock_drop(&pool.lock);
}

static void
forget(void)
{
    pagemap_release();
    free_runs_forget();
    pool.mapped = 0;
}

void
pool_release(void)
{
    lock_take(&pool.lock);
    unmap_all();
    forget();
    lock_drop(&pool.lock);
}

void
pool_leave(void)
{
    lock_take(&pool.lock);
    unmap_free_runs();
    forget();
    lock_drop(&pool.lock);
}

bool pool_fork_holds(void) { return lock_is_mine(&pool.lock); }
void pool_fork_prepare(void) { lock_take(&pool.lock); }
void pool_fork_done(void) { lock_drop(&pool.lock); }
void pool_fork_child(void) { lock_init(&pool.lock, LOCK_POOL); }
