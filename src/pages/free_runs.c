/* Lists of free runs by length and by age. The pool's lock guards everything here. */
#include "pages/free_runs.h"

#include <string.h>

#include "pages/base.h"

/* Lists of free runs by length: one for each length up to EXACT pages, then eight to a doubling. */
#define EXACT 32u
#define LG_EXACT 5
#define LENGTHS (EXACT + 8 * (CHUNK_LG - PAGE_LG - LG_EXACT) + 1)
#define SCAN_MOST 16 /* runs looked at in a list whose members may be too short */

struct run_lists {
    struct run *list[LENGTHS];
    uint64_t filled[(LENGTHS + 63) / 64]; /* a bit for each list that is not empty */
};

static struct {
    struct run_lists lists[2];     /* RUN_CLEAN and RUN_DIRTY */
    struct run *oldest, *youngest; /* dirty runs in the order in which they were freed */
    struct run *records;           /* unused ones */
    size_t dirty;                  /* pages */
    unsigned chunks;               /* that are one clean run */
} runs;

/* The list in which a free run of so many pages is kept. */
static unsigned
length_list(size_t pages)
{
    if (pages <= EXACT)
        return (unsigned)pages - 1;
    unsigned lg = 63 - (unsigned)__builtin_clzl(pages);
    return EXACT - 1 + ((lg - LG_EXACT) << 3) + (unsigned)((pages >> (lg - 3)) & 7);
}

struct run *
run_record_new(void)
{
    struct run *r = runs.records;
    if (r != NULL)
        runs.records = r->next;
    else
        r = base_alloc(sizeof *r);
    return r;
}

void
run_record_free(struct run *r)
{
    r->next = runs.records;
    runs.records = r;
}

void
run_enter_ends(const struct run *r)
{
    uint64_t entry = entry_make(r);
    pagemap_set(r->base, 1, entry);
    if (r->pages > 1)
        pagemap_set(r->base + ((r->pages - 1) << PAGE_LG), 1, entry);
}

static void
list_add(struct run *r)
{
    struct run_lists *lists = &runs.lists[r->kind];
    unsigned i = length_list(r->pages);
    run_list_push(&lists->list[i], r);
    lists->filled[i / 64] |= (uint64_t)1 << (i % 64);
    if (r->kind == RUN_CLEAN && r->pages == CHUNK_PAGES)
        runs.chunks++;
}

static void
list_remove(struct run *r)
{
    struct run_lists *lists = &runs.lists[r->kind];
    unsigned i = length_list(r->pages);
    run_list_remove(&lists->list[i], r);
    if (lists->list[i] == NULL)
        lists->filled[i / 64] &= ~((uint64_t)1 << (i % 64));
    if (r->kind == RUN_CLEAN && r->pages == CHUNK_PAGES)
        runs.chunks--;
}

static void
age_add(struct run *r, struct run *older)
{
    r->older = older;
    r->younger = older != NULL ? older->younger : runs.oldest;
    if (r->older != NULL)
        r->older->younger = r;
    else
        runs.oldest = r;
    if (r->younger != NULL)
        r->younger->older = r;
    else
        runs.youngest = r;
}

static void
age_remove(struct run *r)
{
    if (r->older != NULL)
        r->older->younger = r->younger;
    else
        runs.oldest = r->younger;
    if (r->younger != NULL)
        r->younger->older = r->older;
    else
        runs.youngest = r->older;
}

void
free_runs_remove(struct run *r)
{
    list_remove(r);
    if (r->kind == RUN_DIRTY) {
        age_remove(r);
        runs.dirty -= r->pages;
    }
}

struct run *
run_beside(uintptr_t address, uint8_t kind)
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

void
free_runs_add(struct run *r)
{
    r->bin = 0;
    r->heap = 0;
    if ((r->base & CHUNK_MASK) != 0) {
        struct run *left = run_beside(r->base - 1, r->kind);
        if (left != NULL) {
            free_runs_remove(left);
            map_join(r->base);
            r->base = left->base;
            r->pages += left->pages;
            run_record_free(left);
        }
    }
    uintptr_t end = r->base + (r->pages << PAGE_LG);
    if ((end & CHUNK_MASK) != 0) {
        struct run *right = run_beside(end, r->kind);
        if (right != NULL) {
            free_runs_remove(right);
            map_join(end);
            r->pages += right->pages;
            run_record_free(right);
        }
    }
    run_enter_ends(r);
    list_add(r);
    if (r->kind == RUN_DIRTY) {
        age_add(r, runs.youngest);
        runs.dirty += r->pages;
    }
}

struct run *
free_runs_find(uint8_t kind, size_t pages)
{
    const struct run_lists *lists = &runs.lists[kind];
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

struct run *
free_runs_cut(struct run *from, size_t head, size_t pages)
{
    size_t tail = from->pages - head - pages;
    struct run *cut = from, *rest = NULL;
    if (head != 0 || tail != 0) {
        cut = run_record_new();
        if (cut == NULL)
            return NULL;
        if (head != 0 && tail != 0 && (rest = run_record_new()) == NULL) {
            run_record_free(cut);
            return NULL;
        }
    }
    struct run *older = from->kind == RUN_DIRTY ? from->older : NULL;
    uintptr_t base = from->base + (head << PAGE_LG);
    free_runs_remove(from);
    if (cut != from) {
        /* What is left keeps its age. */
        struct run *left[2] = { head != 0 ? from : NULL, tail != 0 ? (head != 0 ? rest : from) : NULL };
        for (int i = 1; i >= 0; i--) {
            if (left[i] == NULL)
                continue;
            uintptr_t start = i == 0 ? from->base : base + (pages << PAGE_LG);
            *left[i] = (struct run){ .base = start, .pages = i == 0 ? head : tail, .kind = from->kind };
            run_enter_ends(left[i]);
            list_add(left[i]);
            if (left[i]->kind == RUN_DIRTY) {
                age_add(left[i], older);
                runs.dirty += left[i]->pages;
            }
        }
    }
    cut->zeroed = from->kind == RUN_CLEAN;
    cut->base = base;
    cut->pages = pages;
    return cut;
}

struct run *
free_runs_oldest(void)
{
    return runs.oldest;
}

size_t
free_runs_dirty(void)
{
    return runs.dirty;
}

unsigned
free_runs_chunks(void)
{
    return runs.chunks;
}

void
free_runs_forget(void)
{
    memset(&runs, 0, sizeof runs);
}
