/* Pools of free pages. A pool's lock guards all that it has. */
#include "pages/pool.h"

#include "ground/conf.h"
#include "ground/system.h"
#include "os/os.h"
#include "pages/giants.h"
#include "pages/territory.h"
#include "pages/unmap.h"

struct pool pool_default; /* made by pool_init(): what is not touched of it is not resident */

/* The list of pools is written with `pools` held. Who purges all of them holds `walk`, and so does who ends one: `pools` is
 * held for no long time, and a fork waits for no purge. Who asks, before a fork, what this thread holds may wait for nothing: it
 * is one of the `lookers`, and who has unlinked a pool waits until there are none. */
static struct lock pools = LOCK_INITIAL(LOCK_POOLS), walk = LOCK_INITIAL(LOCK_WALK);
static _Atomic uint32_t lookers;

int
span_reserve_words(uintptr_t base, size_t pages)
{
    int error = pagemap_reserve(base, pages > GIANT_PAGES ? 1 : pages);
    return error != 0 ? error : chunks_reserve(base, pages);
}

static struct run *
reserve(struct pool *pool, size_t bytes, size_t alignment)
{
    /* The record first: what is reserved is not always taken back. */
    struct run *r = run_record_new(&pool->free);
    if (r == NULL)
        return NULL;
    void *p = pool->hooks->reserve(pool->context, bytes, alignment);
    if (p == NULL) {
        run_record_free(&pool->free, r);
        return NULL;
    }
    size_t pages = bytes >> PAGE_LG;
    pool->mapped += bytes;
    *r = (struct run){ .base = (uintptr_t)p, .pages = pages, .kind = SPAN_CLEAN, .zeroed = 1, .hooked = pool_is_hooked(pool) };
    if (span_reserve_words(r->base, pages) == 0) {
        chunks_enter(r->base, pages);
        return r;
    }
    span_release(pool, r, 0);
    return NULL;
}

/* Give back all that is kept for later, which may stand in the way of more. False: there was nothing. */
static bool
make_way(struct pool *pool)
{
    if (pool->free.dirty == 0 && pool->free.clean_chunks == 0 && pool->refused == NULL && os_refused_bytes() == 0)
        return false;
    purge_all(pool);
    release_clean(pool, 0);
    return true;
}

struct run *
span_reserve(struct pool *pool, size_t bytes, size_t alignment)
{
    struct run *r = bytes <= PTRDIFF_MAX ? reserve(pool, bytes, alignment) : NULL;
    if (r == NULL && bytes <= PTRDIFF_MAX && make_way(pool))
        r = reserve(pool, bytes, alignment);
    return r;
}

/* Make sure that tables are there for all that comes of a free span when so many pages are cut out of it. Of a giant only the
 * first chunk was known. */
static bool
span_may_be_cut(const struct run *r, size_t head, size_t pages)
{
    uintptr_t cut = r->base + (head << PAGE_LG), tail = cut + (pages << PAGE_LG);
    size_t left = r->pages - head - pages;
    if (!run_is_giant(r))
        return true;
    if ((head != 0 && span_reserve_words(r->base, head) != 0) || span_reserve_words(cut, pages) != 0 ||
        (left != 0 && span_reserve_words(tail, left) != 0))
        return false;
    chunks_enter(r->base, head);
    chunks_enter(cut, pages);
    chunks_enter(tail, left);
    return true;
}

/* What can fail for want of memory comes before the hooks are told. What they agreed to is so, whatever they refuse next. */
struct run *
span_cut(struct pool *pool, struct run *from, size_t head, size_t pages)
{
    size_t size = head + pages;
    if (!run_records_keep(&pool->free, 2) || !span_may_be_cut(from, head, pages))
        return NULL;
    if (size < from->pages &&
        !pool->hooks->split(pool->context, (void *)from->base, from->pages << PAGE_LG, size << PAGE_LG))
        return NULL;
    struct run *older = from->older;
    bool was_giant = run_is_giant(from);
    run_clear_ends(from);
    struct run *r = free_runs_cut(&pool->free, from, 0, size);
    if (head == 0)
        return r;
    if (was_giant) /* of which only the first chunk had a word */
        span_enter_inside(r);
    if (pool->hooks->split(pool->context, (void *)r->base, size << PAGE_LG, head << PAGE_LG))
        return free_runs_cut_taken(&pool->free, r, head, pages, older);
    free_spans_add(&pool->free, r, r->touched);
    return NULL;
}

struct run *
span_take(struct pool *pool, size_t chunks, size_t alignment)
{
    for (uint8_t kind = SPAN_DIRTY; kind >= SPAN_CLEAN; kind--) {
        struct run *from = free_spans_find(&pool->free, kind, chunks, alignment);
        if (from == NULL)
            continue;
        struct run *r = span_cut(pool, from, (-from->base & (alignment - 1)) >> PAGE_LG, chunks * CHUNK_PAGES);
        if (r != NULL)
            return r;
    }
    return span_reserve(pool, chunks << CHUNK_LG, alignment);
}

void
note_taken(const struct pool *pool, struct run *r, size_t dirty)
{
    int64_t taken = (int64_t)(dirty - pool_dirty(pool));
    r->taken = taken > INT32_MAX ? INT32_MAX : taken < INT32_MIN ? INT32_MIN : (int32_t)taken;
}

/* A whole chunk, in no list, for runs. */
static struct run *
chunk_take(struct pool *pool)
{
    struct run *r = span_take(pool, 1, CHUNK_SIZE);
    if (r != NULL)
        r->kind = r->kind == SPAN_CLEAN ? RUN_CLEAN : RUN_DIRTY;
    return r;
}

/* Enter a run in the page map. Of a large block only the first page tells the bin: an address
 * inside of it is then never taken for a block that can be cached. */
static void
map_run(const struct run *r)
{
    uint64_t word = word_make(r);
    pagemap_set(r->base, 1, word);
    if (r->kind == RUN_LARGE)
        word &= ~WORD_BIN_MASK;
    pagemap_set(r->base + PAGE_SIZE, r->pages - 1, word);
}

static void
run_enter(struct run *r, struct run_use use)
{
    r->kind = use.kind;
    r->bin = r->word_bin = use.bin;
    r->heap = use.heap;
    map_run(r);
}

/* Pages out of a chunk that nobody has used yet. */
static struct run *
take_from_chunk(struct pool *pool, size_t head, size_t pages)
{
    struct run *chunk = chunk_take(pool);
    if (chunk == NULL)
        return NULL;
    struct run *r = free_runs_cut_taken(&pool->free, chunk, head, pages, pool->free.dirty_ages.youngest);
    if (r == NULL)
        free_runs_add(&pool->free, chunk);
    return r;
}

struct run *
pool_take(struct pool *pool, size_t pages, size_t alignment, struct run_use use)
{
    size_t align_pages = alignment >> PAGE_LG, need = pages;
    struct run *found = NULL, *r;
    if (align_pages > 1 && alignment < CHUNK_SIZE)
        need += align_pages - 1;
    lock_take(&pool->lock);
    size_t dirty = pool_dirty(pool);
    if (alignment < CHUNK_SIZE && need <= CHUNK_PAGES) {
        found = free_runs_find(&pool->free, RUN_DIRTY, need);
        if (found == NULL)
            found = free_runs_find(&pool->free, RUN_CLEAN, need);
    }
    if (found != NULL)
        r = free_runs_cut(&pool->free, found, (-found->base & (alignment - 1)) >> PAGE_LG, pages);
    else
        r = take_from_chunk(pool, 0, pages); /* its start has any alignment up to its size */
    if (r != NULL && !pages_commit(pool, r->base, pages)) {
        free_runs_add(&pool->free, r);
        r = NULL;
    }
    if (r != NULL) {
        run_enter(r, use);
        note_taken(pool, r, dirty);
    }
    lock_drop(&pool->lock);
    return r;
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
 * first, in two turns over the list, and only what comes of it goes on. Call `each` with every such run, whose pages have no
 * words any more. */
static void
give_joined(struct pool *pool, struct run *runs, void (*each)(struct pool *pool, struct run *r))
{
    struct run *huge = NULL, *large = NULL;
    while (runs != NULL) {
        struct run *r = runs;
        runs = r->next;
        __builtin_prefetch(runs);
        run_set_listed(r, 0); /* its heap may have ended with it */
        r->next = r->kind == RUN_HUGE ? huge : large;
        if (r->kind == RUN_HUGE) {
            huge = r;
        } else {
            r->kind = RUN_GIVEN;
            large = r;
        }
    }
    while (large != NULL) {
        struct run *r = large;
        large = r->next;
        if (r->kind == RUN_ABSORBED) {
            run_record_free(&pool->free, r);
            continue;
        }
        r->kind = RUN_DIRTY;
        absorb_neighbours(r);
        pagemap_set(r->base, r->pages, 0);
        each(pool, r);
    }
    while (huge != NULL) {
        struct run *r = huge;
        huge = r->next;
        huge_leave(pool, r);
        each(pool, r);
    }
}

static void
give_dirty(struct pool *pool, struct run *r)
{
    if (r->kind == RUN_DIRTY)
        free_runs_add(&pool->free, r);
    else if (run_is_giant(r)) /* no part of it could be used without tables */
        purge_run(pool, r);
    else
        free_spans_add(&pool->free, r, r->touched);
}

size_t
pool_give(struct pool *pool, struct run *runs)
{
    lock_take(&pool->lock);
    size_t dirty = pool_dirty(pool);
    give_joined(pool, runs, give_dirty);
    dirty = pool_dirty(pool) - dirty;
    purge_done(pool);
    if (pool->decay.ms == 0)
        purge_to(pool, 0);
    lock_drop(&pool->lock);
    return dirty;
}

void
pool_give_back(struct pool *pool, struct run **runs)
{
    lock_take(&pool->lock);
    give_joined(pool, *runs, purge_run);
    *runs = NULL;
    purge_done(pool);
    lock_drop(&pool->lock);
}

void
pool_purge_some(struct pool *pool, size_t pages)
{
    lock_take(&pool->lock);
    if (pages != 0)
        purge_to(pool, pool_dirty(pool) > pages ? pool_dirty(pool) - pages : 0);
    lock_drop(&pool->lock);
}

_Atomic uint32_t runs_lent;

void
run_rebin(struct run *run, uint8_t bin)
{
    if (run_is_lent(run))
        atomic_fetch_sub_explicit(&runs_lent, 1, memory_order_relaxed);
    run->bin = run->word_bin = bin;
    pagemap_set(run->base, 1, word_make(run));
}

void
run_lend(struct run *run)
{
    run->word_bin = 0;
    atomic_fetch_add_explicit(&runs_lent, 1, memory_order_relaxed);
    pagemap_set(run->base, 1, word_make(run));
}

bool
pool_resize(struct pool *pool, struct run *run, size_t pages, uint8_t bin)
{
    lock_take(&pool->lock);
    uintptr_t end = run->base + (run->pages << PAGE_LG);
    size_t dirty = pool_dirty(pool);
    bool done = pages == run->pages;
    if (pages < run->pages) {
        struct run *tail = run_record_new(&pool->free);
        if (tail != NULL) {
            *tail = (struct run){ .base = run->base + (pages << PAGE_LG), .pages = run->pages - pages,
                                  .kind = RUN_DIRTY, .hooked = run->hooked };
            pagemap_set(tail->base, tail->pages, 0);
            run->pages = pages;
            free_runs_add(&pool->free, tail);
            done = true;
        }
    } else if (!done && (end & CHUNK_MASK) != 0) {
        size_t more = pages - run->pages;
        struct run *after = run_beside(end, RUN_DIRTY);
        if (after == NULL)
            after = run_beside(end, RUN_CLEAN);
        struct run *cut = after != NULL && after->pages >= more ? free_runs_cut(&pool->free, after, 0, more) : NULL;
        if (cut != NULL && !pages_commit(pool, end, more)) {
            free_runs_add(&pool->free, cut);
        } else if (cut != NULL) {
            run->zeroed = cut->zeroed;
            run_record_free(&pool->free, cut);
            pagemap_set(end, more, word_make(run) & ~WORD_BIN_MASK);
            run->pages = pages;
            done = true;
        }
    }
    if (done) {
        run_rebin(run, bin);
        note_taken(pool, run, dirty);
    }
    if (done && run->taken < 0 && pool->decay.ms == 0)
        purge_to(pool, 0);
    lock_drop(&pool->lock);
    return done;
}

/* The next of all pools; the default one is the first. */
static struct pool *
pool_next(const struct pool *p)
{
    return __atomic_load_n(&p->next, __ATOMIC_ACQUIRE);
}

bool
pages_commit(struct pool *pool, uintptr_t base, size_t pages)
{
    return pool->hooks->commit(pool->context, (void *)base, pages << PAGE_LG);
}

bool
pages_purge(struct pool *pool, uintptr_t base, size_t pages)
{
    return pool->hooks->purge(pool->context, (void *)base, pages << PAGE_LG);
}

/* Who forks holds `pools`, which is enough. */
static bool
walk_try(void)
{
    return lock_forks() || lock_try(&walk);
}

static void
walk_take(void)
{
    if (!lock_forks())
        lock_take(&walk);
}

void
pool_tick(uint64_t now)
{
    bool others = __atomic_load_n(&pool_default.next, __ATOMIC_RELAXED) != NULL;
    if ((!others && !decay_is_due(&pool_default.decay, now)) || !walk_try())
        return;
    for (struct pool *p = &pool_default; p != NULL; p = pool_next(p)) {
        if (!decay_is_due(&p->decay, now) || !lock_try(&p->lock))
            continue;
        if (decay_is_due(&p->decay, now))
            purge_to(p, decay_advance(&p->decay, now, pool_dirty(p)));
        lock_drop(&p->lock);
    }
    lock_drop(&walk);
}

void
pool_purge(void)
{
    walk_take();
    for (struct pool *p = &pool_default; p != NULL; p = pool_next(p)) {
        lock_take(&p->lock);
        purge_all(p);
        lock_drop(&p->lock);
    }
    lock_drop(&walk);
}

/* What the chunk of an address says of itself. The first page of a chunk in use has a word at any time, if only a free run's;
 * but of a giant's chunks only the first one has. */
static struct run *
run_of_chunk(uintptr_t address)
{
    struct run *r = word_run(pagemap_get((void *)(address & ~CHUNK_MASK)));
    return r != NULL ? r : giant_find(address);
}

struct run *
pool_find(const void *address)
{
    struct run *r = word_run(pagemap_get(address));
    if (r != NULL)
        return r->kind >= RUN_SLAB ? r : NULL;
    uintptr_t a = (uintptr_t)address;
    r = run_of_chunk(a);
    return r != NULL && r->kind == RUN_HUGE && a - r->base < r->pages << PAGE_LG ? r : NULL;
}

bool
pool_holds(const void *address)
{
    return run_of_chunk((uintptr_t)address) != NULL;
}

static bool
may_merge(const struct run *left, const struct run *right)
{
    struct pool *pool = (struct pool *)((char *)left->owner - offsetof(struct pool, free));
    return pool->hooks->merge(pool->context, (void *)left->base, left->pages << PAGE_LG, (void *)right->base,
                              right->pages << PAGE_LG);
}

void
pool_make(struct pool *pool, const struct pool_hooks *hooks, void *context, int64_t dirty_decay_ms)
{
    lock_init(&pool->lock, LOCK_POOL);
    pool->hooks = hooks;
    pool->context = context;
    pool->free.may_merge = may_merge;
    decay_init(&pool->decay, dirty_decay_ms, os_clock_ms());
    lock_take(&pools);
    pool->next = pool_default.next;
    __atomic_store_n(&pool_default.next, pool, __ATOMIC_RELEASE);
    lock_drop(&pools);
}

/* The hooks have it now, whether they take it or not. */
static void
span_end(struct pool *pool, struct run *r)
{
    span_clear(r);
    chunks_leave(r->base, r->pages);
    pagemap_purge(r->base, r->pages);
    pool->hooks->release(pool->context, (void *)r->base, r->pages << PAGE_LG);
    pool->mapped -= r->pages << PAGE_LG;
    run_record_free(&pool->free, r);
}

static void
end_all(struct pool *pool)
{
    struct run *r;
    for (uint8_t kind = RUN_CLEAN; kind <= RUN_DIRTY; kind++) {
        while ((r = free_runs_find(&pool->free, kind, 1)) != NULL) {
            free_chunk_join(&pool->free, r);
            span_end(pool, r);
        }
    }
    for (uint8_t kind = SPAN_CLEAN; kind <= SPAN_DIRTY; kind++) {
        while ((r = free_spans_find(&pool->free, kind, 1, CHUNK_SIZE)) != NULL) {
            free_runs_remove(&pool->free, r);
            run_clear_ends(r);
            span_end(pool, r);
        }
    }
    while ((r = pool->refused) != NULL) {
        pool->refused = r->next;
        span_end(pool, r);
    }
    run_records_end(&pool->free);
}

void
pool_end(struct pool *pool)
{
    walk_take();
    lock_take(&pool->lock);
    purge_to(pool, 0);
    end_all(pool);
    lock_drop(&pool->lock);
    lock_take(&pools);
    struct pool *before = &pool_default;
    while (before->next != pool)
        before = before->next;
    __atomic_store_n(&before->next, pool->next, __ATOMIC_SEQ_CST);
    lock_drop(&pools);
    lock_drop(&walk);
    while (atomic_load(&lookers) != 0)
        system_cpu_pause();
}

void
pool_init(int64_t dirty_decay_ms)
{
    lock_init(&pool_default.lock, LOCK_POOL);
    pool_default.hooks = &pool_system_hooks;
    decay_init(&pool_default.decay, dirty_decay_ms, os_clock_ms());
}

/* Reads what others write under the pools' locks: each figure is one that was true. */
__attribute__((no_sanitize("thread"))) size_t
pool_dirty_seen(const struct pool *pool)
{
    return __atomic_load_n(&pool->free.dirty, __ATOMIC_RELAXED) + __atomic_load_n(&pool->rests, __ATOMIC_RELAXED);
}

__attribute__((no_sanitize("thread"))) void
pool_figures_get(struct pool_figures *out)
{
    *out = (struct pool_figures){ 0 };
    lock_take(&pools);
    for (struct pool *p = &pool_default; p != NULL; p = pool_next(p)) {
        out->mapped += __atomic_load_n(&p->mapped, __ATOMIC_RELAXED);
        out->dirty += pool_dirty_seen(p) << PAGE_LG;
    }
    lock_drop(&pools);
}

static void
forget(void)
{
    for (struct run *r = pool_default.refused; r != NULL; r = r->next)
        os_give_up((void *)r->base, r->pages << PAGE_LG);
    pool_default.refused = NULL;
    giants_forget();
    pagemap_release();
    atomic_store_explicit(&runs_lent, 0, memory_order_relaxed);
    pool_default.next = NULL;
    pool_default.free = (struct free_runs){ 0 };
    pool_default.purging = pool_default.youngest_rest = pool_default.oldest_rest = NULL;
    pool_default.mapped = pool_default.rests = 0;
}

void
pool_release(void)
{
    lock_take(&pool_default.lock);
    unmap_all();
    forget();
    lock_drop(&pool_default.lock);
}

void
pool_leave(void)
{
    lock_take(&pool_default.lock);
    unmap_free_runs();
    forget();
    lock_drop(&pool_default.lock);
}

bool
pool_fork_holds(void)
{
    bool holds = pagemap_fork_holds() || lock_is_mine(&pools);
    atomic_fetch_add(&lookers, 1);
    for (struct pool *p = &pool_default; p != NULL && !holds; p = __atomic_load_n(&p->next, __ATOMIC_SEQ_CST))
        holds = lock_is_mine(&p->lock);
    atomic_fetch_sub(&lookers, 1);
    return holds;
}

void
pool_fork_prepare(void)
{
    lock_take(&pools);
    for (struct pool *p = &pool_default; p != NULL; p = pool_next(p))
        lock_take(&p->lock);
    pagemap_fork_prepare();
}

void
pool_fork_done(void)
{
    pagemap_fork_done();
    for (struct pool *p = &pool_default; p != NULL; p = pool_next(p))
        lock_drop(&p->lock);
    lock_drop(&pools);
}

void
pool_fork_child(void)
{
    pagemap_fork_child();
    for (struct pool *p = &pool_default; p != NULL; p = pool_next(p)) {
        lock_init(&p->lock, LOCK_POOL);
        purge_forked(p);
    }
    lock_init(&pools, LOCK_POOLS);
    atomic_store(&lookers, 0);
    if (!lock_is_mine(&walk)) /* else this thread goes on with it */
        lock_init(&walk, LOCK_WALK);
}
