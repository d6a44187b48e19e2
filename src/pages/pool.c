/* The pool of free pages. `pool.lock` guards everything here, and writes to the page map. */
#include "pages/pool.h"

#include <errno.h>
#include <string.h>

#include "conf/conf.h"
#include "os/os.h"
#include "pages/base.h"
#include "pages/decay.h"
#include "thread/lock.h"

#define CHUNK_MASK (CHUNK_SIZE - 1)

/* Lists of free runs by length: one for each length up to EXACT pages, then eight to a doubling. */
#define EXACT 32u
#define LG_EXACT 5
#define LENGTHS (EXACT + 8 * (CHUNK_LG - PAGE_LG - LG_EXACT) + 1)
#define SCAN_MOST 16 /* runs looked at in a list whose members may be too short */

/* Chunks that stay mapped though they are free and clean, for what comes next. */
#define SPARE_CHUNKS 1

/* Runs purged between two holds of the lock. */
#define PURGE_BATCH 32
/* Pages of a run that are purged at least, if it has them. */
#define PURGE_LEAST ((size_t)64)

struct run_lists {
    struct run *list[LENGTHS];
    uint64_t filled[(LENGTHS + 63) / 64]; /* a bit for each list that is not empty */
};

static struct {
    struct lock lock;
    struct run_lists free[2]; /* RUN_CLEAN and RUN_DIRTY */
    struct run *oldest, *youngest; /* dirty runs in the order in which they were freed */
    struct run *records;           /* unused ones */
    size_t dirty;                  /* pages */
    size_t mapped;                 /* bytes */
    unsigned spares;               /* chunks that are one clean run */
    struct decay decay;
} pool = { .lock = LOCK_INITIAL(LOCK_POOL) };

/* The list in which a free run of so many pages is kept. */
static unsigned
length_list(size_t pages)
{
    if (pages <= EXACT)
        return (unsigned)pages - 1;
    unsigned lg = 63 - (unsigned)__builtin_clzl(pages);
    return EXACT - 1 + ((lg - LG_EXACT) << 3) + (unsigned)((pages >> (lg - 3)) & 7);
}

static struct run *
record_new(void)
{
    struct run *r = pool.records;
    if (r != NULL)
        pool.records = r->next;
    else
        r = base_alloc(sizeof *r);
    return r;
}

static void
record_free(struct run *r)
{
    r->next = pool.records;
    pool.records = r;
}

static void
map_ends(const struct run *r)
{
    uint64_t entry = entry_make(r);
    pagemap_set(r->base, 1, entry);
    if (r->pages > 1)
        pagemap_set(r->base + ((r->pages - 1) << PAGE_LG), 1, entry);
}

static void
list_add(struct run *r)
{
    struct run_lists *lists = &pool.free[r->kind];
    unsigned i = length_list(r->pages);
    run_list_push(&lists->list[i], r);
    lists->filled[i / 64] |= (uint64_t)1 << (i % 64);
    if (r->kind == RUN_CLEAN && r->pages == CHUNK_PAGES)
        pool.spares++;
}

static void
list_remove(struct run *r)
{
    struct run_lists *lists = &pool.free[r->kind];
    unsigned i = length_list(r->pages);
    run_list_remove(&lists->list[i], r);
    if (lists->list[i] == NULL)
        lists->filled[i / 64] &= ~((uint64_t)1 << (i % 64));
    if (r->kind == RUN_CLEAN && r->pages == CHUNK_PAGES)
        pool.spares--;
}

static void
age_add(struct run *r, struct run *older)
{
    r->older = older;
    r->younger = older != NULL ? older->younger : pool.oldest;
    if (r->older != NULL)
        r->older->younger = r;
    else
        pool.oldest = r;
    if (r->younger != NULL)
        r->younger->older = r;
    else
        pool.youngest = r;
}

static void
age_remove(struct run *r)
{
    if (r->older != NULL)
        r->older->younger = r->younger;
    else
        pool.oldest = r->younger;
    if (r->younger != NULL)
        r->younger->older = r->older;
    else
        pool.youngest = r->older;
}

/* Take a free run out of its lists. */
static void
free_remove(struct run *r)
{
    list_remove(r);
    if (r->kind == RUN_DIRTY) {
        age_remove(r);
        pool.dirty -= r->pages;
    }
}

/* The free run of this kind that ends before (or starts at) an address of the same chunk. */
static struct run *
neighbour(uintptr_t address, uint8_t kind)
{
    uint64_t entry = pagemap_get(pagemap, (void *)address);
    struct run *r = entry_run(entry);
    return r != NULL && r->kind == kind ? r : NULL;
}

/* Two free runs are joined at `seam`: the pages on both sides of it are ends no longer. */
static void
map_join(uintptr_t seam)
{
    pagemap_set(seam - PAGE_SIZE, 2, 0);
}

/* Put a free run into its lists, joined with free neighbours of its kind. */
static void
free_add(struct run *r)
{
    r->bin = 0;
    r->heap = 0;
    if ((r->base & CHUNK_MASK) != 0) {
        struct run *left = neighbour(r->base - 1, r->kind);
        if (left != NULL) {
            free_remove(left);
            map_join(r->base);
            r->base = left->base;
            r->pages += left->pages;
            record_free(left);
        }
    }
    uintptr_t end = r->base + (r->pages << PAGE_LG);
    if ((end & CHUNK_MASK) != 0) {
        struct run *right = neighbour(end, r->kind);
        if (right != NULL) {
            free_remove(right);
            map_join(end);
            r->pages += right->pages;
            record_free(right);
        }
    }
    map_ends(r);
    list_add(r);
    if (r->kind == RUN_DIRTY) {
        age_add(r, pool.youngest);
        pool.dirty += r->pages;
    }
}

/* The shortest free run of this kind with so many pages; near enough. */
static struct run *
lists_find(struct run_lists *lists, size_t pages)
{
    unsigned i = length_list(pages);
    if (pages > EXACT) {
        int left = SCAN_MOST;
        for (struct run *r = lists->list[i]; r != NULL && left > 0; r = r->next, left--)
            if (r->pages >= pages)
                return r;
        i++;
    }
    if (i >= LENGTHS)
        return NULL;
    unsigned word = i / 64;
    uint64_t filled = lists->filled[word] & (~(uint64_t)0 << (i % 64));
    while (filled == 0) {
        if (++word == sizeof lists->filled / sizeof lists->filled[0])
            return NULL;
        filled = lists->filled[word];
    }
    return lists->list[word * 64 + (unsigned)__builtin_ctzl(filled)];
}

static struct run *
chunk_new(void)
{
    struct run *r = record_new();
    if (r == NULL)
        return NULL;
    void *p = os_map(CHUNK_SIZE, CHUNK_SIZE);
    if (p == NULL || pagemap_reserve((uintptr_t)p, CHUNK_PAGES) != 0) {
        if (p != NULL)
            os_unmap(p, CHUNK_SIZE);
        record_free(r);
        return NULL;
    }
    if (conf.thp != CONF_THP_DEFAULT)
        os_huge_pages(p, CHUNK_SIZE, conf.thp == CONF_THP_ALWAYS);
    pool.mapped += CHUNK_SIZE;
    r->base = (uintptr_t)p;
    r->pages = CHUNK_PAGES;
    r->kind = RUN_CLEAN;
    free_add(r);
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
    record_free(r);
}

/* Cut `pages` out of a free run, `head` pages after its start. NULL: no memory for records. */
static struct run *
free_cut(struct run *from, size_t head, size_t pages)
{
    size_t tail = from->pages - head - pages;
    struct run *cut = from, *rest = NULL;
    if (head != 0 || tail != 0) {
        cut = record_new();
        if (cut == NULL)
            return NULL;
        if (head != 0 && tail != 0 && (rest = record_new()) == NULL) {
            record_free(cut);
            return NULL;
        }
    }
    struct run *older = from->kind == RUN_DIRTY ? from->older : NULL;
    uintptr_t base = from->base + (head << PAGE_LG);
    free_remove(from);
    if (cut != from) {
        /* What is left keeps its age. */
        struct run *left[2] = { head != 0 ? from : NULL, tail != 0 ? (head != 0 ? rest : from) : NULL };
        for (int i = 1; i >= 0; i--) {
            if (left[i] == NULL)
                continue;
            uintptr_t start = i == 0 ? from->base : base + (pages << PAGE_LG);
            *left[i] = (struct run){ .base = start, .pages = i == 0 ? head : tail, .kind = from->kind };
            map_ends(left[i]);
            list_add(left[i]);
            if (left[i]->kind == RUN_DIRTY) {
                age_add(left[i], older);
                pool.dirty += left[i]->pages;
            }
        }
    }
    cut->zeroed = from->kind == RUN_CLEAN;
    cut->base = base;
    cut->pages = pages;
    return cut;
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
        found = lists_find(&pool.free[RUN_DIRTY], need);
        if (found == NULL)
            found = lists_find(&pool.free[RUN_CLEAN], need);
    }
    if (found == NULL)
        found = chunk_new(); /* its start has any alignment up to its size */
    if (found != NULL) {
        size_t head = (-found->base & (alignment - 1)) >> PAGE_LG;
        r = free_cut(found, head, pages);
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
    struct run *r = pool.oldest, *cut = NULL;
    if (excess < PURGE_LEAST)
        excess = PURGE_LEAST;
    if (r->pages > excess)
        cut = free_cut(r, r->pages - excess, excess);
    if (cut == NULL) {
        cut = r;
        free_remove(r);
    }
    cut->kind = RUN_PURGING; /* so that nobody joins it */
    cut->bin = 0;
    cut->heap = 0;
    map_ends(cut);
    return cut;
}

/* Purge the dirty runs that have been free longest until at most `limit` pages are dirty. Drops the lock meanwhile. */
static void
purge_to(size_t limit)
{
    struct run *batch[PURGE_BATCH];
    while (pool.dirty > limit) {
        unsigned n = 0;
        while (n < PURGE_BATCH && pool.dirty > limit) {
            batch[n++] = take_oldest(pool.dirty - limit);
        }
        lock_drop(&pool.lock);
        for (unsigned i = 0; i < n; i++)
            os_purge((void *)batch[i]->base, batch[i]->pages << PAGE_LG);
        lock_take(&pool.lock);
        for (unsigned i = 0; i < n; i++) {
            batch[i]->kind = RUN_CLEAN;
            free_add(batch[i]);
            if (batch[i]->pages == CHUNK_PAGES && pool.spares > SPARE_CHUNKS) {
                free_remove(batch[i]);
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
    while ((r->base & CHUNK_MASK) != 0 && (other = neighbour(r->base - 1, RUN_GIVEN)) != NULL) {
        r->base = other->base;
        r->pages += other->pages;
        other->kind = RUN_ABSORBED;
    }
    for (;;) {
        uintptr_t end = r->base + (r->pages << PAGE_LG);
        if ((end & CHUNK_MASK) == 0 || (other = neighbour(end, RUN_GIVEN)) == NULL)
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
            record_free(r);
            continue;
        }
        r->kind = RUN_DIRTY;
        absorb_neighbours(r);
        pagemap_set(r->base, r->pages, 0);
        free_add(r);
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
        struct run *tail = record_new();
        if (tail != NULL) {
            *tail = (struct run){ .base = run->base + (pages << PAGE_LG), .pages = run->pages - pages,
                                  .kind = RUN_DIRTY };
            pagemap_set(tail->base, tail->pages, 0);
            run->pages = pages;
            free_add(tail);
            if (pool.decay.ms == 0)
                purge_to(0);
            done = true;
        }
    } else if (!done && (end & CHUNK_MASK) != 0) {
        size_t more = pages - run->pages;
        struct run *after = neighbour(end, RUN_DIRTY);
        if (after == NULL)
            after = neighbour(end, RUN_CLEAN);
        struct run *cut = after != NULL && after->pages >= more ? free_cut(after, 0, more) : NULL;
        if (cut != NULL) {
            record_free(cut);
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
    struct run *r = record_new();
    if (r != NULL && pagemap_reserve((uintptr_t)p, bytes >> PAGE_LG) != 0) {
        record_free(r);
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
    record_free(r);
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
        purge_to(decay_advance(&pool.decay, now, pool.dirty));
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
    out->dirty = pool.dirty << PAGE_LG;
    lock_drop(&pool.lock);
}

static void
release_chunk(uintptr_t chunk)
{
    pagemap_set(chunk, CHUNK_PAGES, 0); /* a guard may ask about what is mapped here next */
    os_unmap((void *)chunk, CHUNK_SIZE);
}

/* Have the entries of what stays tell that nobody knows it any more, and put what is free on a list: it is unmapped when
 * all entries are right, for a guard may ask about what is mapped there next. */
static struct run *leaving;

static void
leave_chunk(uintptr_t chunk)
{
    for (uintptr_t a = chunk; a - chunk < CHUNK_SIZE;) {
        struct run *r = entry_run(pagemap_get(pagemap, (void *)a));
        a += r->pages << PAGE_LG;
        if (r->kind >= RUN_SLAB) {
            pagemap_set(r->base, r->pages, ENTRY_LEFT);
        } else {
            pagemap_set(r->base, r->pages, 0);
            r->next = leaving;
            leaving = r;
        }
    }
}

/* Call a function for every chunk, and for every chunk's worth of a huge run. The first page of each has an
 * entry, and so have pages that an allocator before us left. */
static void
each_chunk(void (*chunk)(uintptr_t), void (*huge)(uintptr_t))
{
    for (uintptr_t i = 0; i < PAGEMAP_ROOT_COUNT; i++) {
        uintptr_t from = i << PAGEMAP_ROOT_SHIFT;
        if (atomic_load_explicit(&pagemap->root[i], memory_order_relaxed) == NULL)
            continue;
        for (uintptr_t a = from; a - from < (uintptr_t)1 << PAGEMAP_ROOT_SHIFT; a += CHUNK_SIZE) {
            const struct run *r = entry_run(pagemap_get(pagemap, (void *)a));
            if (r != NULL)
                (r->kind == RUN_HUGE ? huge : chunk)(a);
        }
    }
}

static void
leave_huge(uintptr_t a)
{
    pagemap_set(a, 1, ENTRY_LEFT);
}

static void
forget(void)
{
    pagemap_release();
    memset(pool.free, 0, sizeof pool.free);
    pool.oldest = pool.youngest = pool.records = NULL;
    pool.dirty = pool.mapped = pool.spares = 0;
}

void
pool_release(void)
{
    lock_take(&pool.lock);
    each_chunk(release_chunk, NULL);
    forget();
    lock_drop(&pool.lock);
}

void
pool_leave(void)
{
    lock_take(&pool.lock);
    atomic_store_explicit(&pagemap->left, 1, memory_order_relaxed);
    each_chunk(leave_chunk, leave_huge);
    for (; leaving != NULL; leaving = leaving->next)
        os_unmap((void *)leaving->base, leaving->pages << PAGE_LG);
    forget();
    lock_drop(&pool.lock);
}

bool pool_fork_holds(void) { return lock_is_mine(&pool.lock); }
void pool_fork_prepare(void) { lock_take(&pool.lock); }
void pool_fork_done(void) { lock_drop(&pool.lock); }
void pool_fork_child(void) { lock_init(&pool.lock, LOCK_POOL); }
