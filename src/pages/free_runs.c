/* Lists of free runs and spans by length and by age. The pool's lock guards everything here. */
#include "pages/free_runs.h"

#include "pages/base.h"
#include "pages/giants.h"

#define SCAN_MOST 16 /* runs looked at in a list whose members may be too short */

/* The list in which a free run of so many pages is kept, or a span of so many chunks. */
static unsigned
length_list(size_t length)
{
    if (length <= LENGTHS_EXACT)
        return (unsigned)length - 1;
    unsigned lg = 63 - (unsigned)__builtin_clzl(length);
    return LENGTHS_EXACT - 1 + ((lg - LENGTHS_LG_EXACT) << 3) + (unsigned)((length >> (lg - 3)) & 7);
}

struct run *
run_record_new(struct free_runs *f)
{
    struct run *r = f->records;
    if (r != NULL)
        f->records = r->next;
    else
        r = base_alloc(sizeof *r);
    return r;
}

void
run_record_free(struct free_runs *f, struct run *r)
{
    r->next = f->records;
    f->records = r;
}

bool
run_records_keep(struct free_runs *f, unsigned count)
{
    for (const struct run *r = f->records; r != NULL && count > 0; r = r->next)
        count--;
    for (; count > 0; count--) {
        struct run *r = base_alloc(sizeof *r);
        if (r == NULL)
            return false;
        run_record_free(f, r);
    }
    return true;
}

void
run_records_end(struct free_runs *f)
{
    while (f->records != NULL) {
        struct run *r = f->records;
        f->records = r->next;
        base_free(r, sizeof *r);
    }
}

static const struct run inside = { .kind = RUN_INSIDE };

static void
set_ends(const struct run *r, uint64_t word)
{
    pagemap_set(r->base, 1, word);
    if (!run_is_giant(r))
        pagemap_set(r->base + (r->pages << PAGE_LG) - (run_is_span(r) ? CHUNK_SIZE : PAGE_SIZE), 1, word);
}

void
run_enter_ends(struct run *r)
{
    set_ends(r, word_make(r));
    if (run_is_giant(r))
        giant_add(r);
}

void
run_clear_ends(struct run *r)
{
    if (run_is_giant(r))
        giant_remove(r);
    set_ends(r, run_is_span(r) && !run_is_giant(r) ? word_make(&inside) : 0);
}

void
span_enter_inside(const struct run *r)
{
    for (size_t i = 0; i < r->pages && !run_is_giant(r); i += CHUNK_PAGES)
        pagemap_set(r->base + (i << PAGE_LG), 1, word_make(&inside));
}

void
span_clear(const struct run *r)
{
    for (size_t i = 0; i < r->pages && (i == 0 || !run_is_giant(r)); i += CHUNK_PAGES)
        if (pagemap_get((void *)(r->base + (i << PAGE_LG))) != 0)
            pagemap_set(r->base + (i << PAGE_LG), 1, 0);
}

/* Put a run in the list of its length, or take it out. */
static void
list_change(struct free_runs *f, struct run *r, bool add)
{
    bool span = run_is_span(r);
    unsigned kind = r->kind - (span ? SPAN_CLEAN : RUN_CLEAN);
    unsigned i = length_list(span ? r->pages / CHUNK_PAGES : r->pages);
    struct run **list = span ? &f->spans[kind].list[i] : &f->runs[kind].list[i];
    uint64_t *filled = span ? &f->spans[kind].filled[i / 64] : &f->runs[kind].filled[i / 64];
    size_t clean = r->kind == SPAN_CLEAN ? r->pages / CHUNK_PAGES : 0;
    if (add) {
        run_list_push(list, r);
        *filled |= (uint64_t)1 << (i % 64);
        f->clean_chunks += clean;
    } else {
        run_list_remove(list, r);
        if (*list == NULL)
            *filled &= ~((uint64_t)1 << (i % 64));
        f->clean_chunks -= clean;
    }
}

static void
age_add(struct run_ages *ages, struct run *r, struct run *older)
{
    r->older = older;
    r->younger = older != NULL ? older->younger : ages->oldest;
    if (r->older != NULL)
        r->older->younger = r;
    else
        ages->oldest = r;
    if (r->younger != NULL)
        r->younger->older = r;
    else
        ages->youngest = r;
}

static void
age_remove(struct run_ages *ages, struct run *r)
{
    if (r->older != NULL)
        r->older->younger = r->younger;
    else
        ages->oldest = r->younger;
    if (r->younger != NULL)
        r->younger->older = r->older;
    else
        ages->youngest = r->older;
}

/* Pages that decay has to see to. */
static size_t
dirty_pages(const struct run *r)
{
    return r->kind == RUN_DIRTY ? r->pages : r->kind == SPAN_DIRTY ? r->touched : 0;
}

/* Where its kind is kept in order; NULL: nowhere. */
static struct run_ages *
ages_of(struct free_runs *f, const struct run *r)
{
    return r->kind == RUN_CLEAN ? NULL : r->kind == SPAN_CLEAN ? &f->clean_ages : &f->dirty_ages;
}

/* List a run whose neighbours are joined already, next younger than `older` of its kind. */
static void
lists_add(struct free_runs *f, struct run *r, struct run *older)
{
    struct run_ages *ages = ages_of(f, r);
    run_enter_ends(r);
    list_change(f, r, true);
    if (ages != NULL)
        age_add(ages, r, older);
    f->dirty += dirty_pages(r);
}

static void
lists_add_youngest(struct free_runs *f, struct run *r)
{
    struct run_ages *ages = ages_of(f, r);
    lists_add(f, r, ages != NULL ? ages->youngest : NULL);
}

void
free_runs_remove(struct free_runs *f, struct run *r)
{
    struct run_ages *ages = ages_of(f, r);
    list_change(f, r, false);
    if (ages != NULL)
        age_remove(ages, r);
    f->dirty -= dirty_pages(r);
}

struct run *
run_beside(uintptr_t address, uint8_t kind)
{
    uint64_t word = pagemap_get((void *)address);
    struct run *r = word_run(word);
    return r != NULL && r->kind == kind ? r : NULL;
}

/* Join a free neighbour's pages with a run's. */
static void
absorb(struct free_runs *f, struct run *r, struct run *other)
{
    free_runs_remove(f, other);
    run_clear_ends(other);
    if (other->base < r->base)
        r->base = other->base;
    r->pages += other->pages;
    if (run_is_span(r))
        r->touched += other->touched;
    run_record_free(f, other);
}

/* Another pool's record may change at any moment, and says no more than that it is not one of these. */
__attribute__((no_sanitize("thread"))) struct run *
span_at(const struct free_runs *f, uintptr_t address, uint8_t kind)
{
    struct run *r = word_run(pagemap_get((void *)address));
    bool ours = r != NULL && __atomic_load_n(&r->kind, __ATOMIC_RELAXED) == kind && __atomic_load_n(&r->owner, __ATOMIC_RELAXED) == f;
    return ours && address - r->base < r->pages << PAGE_LG ? r : NULL;
}

static struct run *
span_beside(const struct free_runs *f, const struct run *r, uintptr_t address)
{
    struct run *other = span_at(f, address, r->kind);
    if (other == NULL || r->pages + other->pages > GIANT_PAGES)
        return NULL;
    const struct run *left = other->base < r->base ? other : r, *right = left == r ? other : r;
    return f->may_merge == NULL || f->may_merge(left, right) ? other : NULL;
}

void
free_spans_add(struct free_runs *f, struct run *r, size_t touched)
{
    r->bin = r->word_bin = 0;
    r->heap = 0;
    r->owner = f;
    r->touched = touched;
    span_enter_inside(r);
    struct run *other = span_beside(f, r, r->base - CHUNK_SIZE);
    if (other != NULL)
        absorb(f, r, other);
    other = span_beside(f, r, r->base + (r->pages << PAGE_LG));
    if (other != NULL)
        absorb(f, r, other);
    lists_add_youngest(f, r);
}

void
free_runs_add(struct free_runs *f, struct run *r)
{
    r->bin = r->word_bin = 0;
    r->heap = 0;
    if ((r->base & CHUNK_MASK) != 0) {
        struct run *left = run_beside(r->base - 1, r->kind);
        if (left != NULL)
            absorb(f, r, left);
    }
    uintptr_t end = r->base + (r->pages << PAGE_LG);
    if ((end & CHUNK_MASK) != 0) {
        struct run *right = run_beside(end, r->kind);
        if (right != NULL)
            absorb(f, r, right);
    }
    if (r->pages == CHUNK_PAGES) {
        r->kind = r->kind == RUN_CLEAN ? SPAN_CLEAN : SPAN_DIRTY;
        free_spans_add(f, r, r->kind == SPAN_DIRTY ? r->pages : 0);
    } else {
        lists_add_youngest(f, r);
    }
}

bool
free_chunk_is_whole(const struct run *r)
{
    uintptr_t chunk = r->base & ~CHUNK_MASK;
    for (uintptr_t a = chunk; a - chunk < CHUNK_SIZE;) {
        const struct run *each = word_run(pagemap_get((void *)a));
        if (each->kind != RUN_CLEAN && each->kind != RUN_DIRTY)
            return false;
        a += each->pages << PAGE_LG;
    }
    return true;
}

void
free_chunk_join(struct free_runs *f, struct run *r)
{
    uintptr_t chunk = r->base & ~CHUNK_MASK;
    size_t touched = 0;
    for (uintptr_t a = chunk; a - chunk < CHUNK_SIZE;) {
        struct run *each = word_run(pagemap_get((void *)a));
        a += each->pages << PAGE_LG;
        touched += dirty_pages(each);
        free_runs_remove(f, each);
        run_clear_ends(each);
        if (each != r)
            run_record_free(f, each);
    }
    *r = (struct run){ .base = chunk, .pages = CHUNK_PAGES, .kind = SPAN_DIRTY, .hooked = r->hooked, .touched = touched };
}

/* The first list from i on that has a member. */
static struct run *
first_listed(struct run *const *list, const uint64_t *filled, unsigned lengths, unsigned i)
{
    for (unsigned word = i / 64; word <= (lengths - 1) / 64; word++) {
        uint64_t bits = filled[word];
        if (word == i / 64)
            bits &= ~(uint64_t)0 << (i % 64);
        if (bits != 0)
            return list[word * 64 + (unsigned)__builtin_ctzl(bits)];
    }
    return NULL;
}

struct run *
free_runs_find(const struct free_runs *f, uint8_t kind, size_t pages)
{
    const struct run_lists *lists = &f->runs[kind - RUN_CLEAN];
    unsigned i = length_list(pages);
    if (pages > LENGTHS_EXACT) {
        int left = SCAN_MOST;
        for (struct run *r = lists->list[i]; r != NULL && left > 0; r = r->next, left--)
            if (r->pages >= pages)
                return r;
        i++;
    }
    return i < RUN_LENGTHS ? first_listed(lists->list, lists->filled, RUN_LENGTHS, i) : NULL;
}

/* Of the spans that serve, one of the shortest, and of those the lowest: what stays is less in pieces then. */
struct run *
free_spans_find(const struct free_runs *f, uint8_t kind, size_t chunks, uintptr_t alignment)
{
    const struct span_lists *lists = &f->spans[kind - SPAN_CLEAN];
    struct run *best = NULL;
    for (unsigned i = length_list(chunks); best == NULL && i < SPAN_LENGTHS; i++) {
        int left = SCAN_MOST;
        for (struct run *r = lists->list[i]; r != NULL && left > 0; r = r->next, left--)
            if (r->pages >= chunks * CHUNK_PAGES + ((-r->base & (alignment - 1)) >> PAGE_LG) &&
                (best == NULL || r->base < best->base))
                best = r;
    }
    return best;
}

/* Make `cut` of a run that is in no list, and list what is left, which is next younger than `older`. */
static struct run *
divide(struct free_runs *f, struct run *from, struct run *cut, struct run *rest, struct run *older, size_t head, size_t pages)
{
    const struct run whole = *from;
    size_t tail = whole.pages - head - pages, touched = run_is_span(&whole) ? whole.touched : 0;
    uintptr_t base = whole.base + (head << PAGE_LG);
    cut->kind = whole.kind;
    cut->zeroed = whole.kind == RUN_CLEAN || whole.kind == SPAN_CLEAN;
    cut->base = base;
    cut->pages = pages;
    cut->hooked = whole.hooked;
    cut->touched = touched < pages ? touched : pages;
    if (cut == from)
        return cut;
    touched -= cut->touched;
    struct run *left[2] = { head != 0 ? from : NULL, tail != 0 ? (head != 0 ? rest : from) : NULL };
    for (int i = 1; i >= 0; i--) {
        if (left[i] == NULL)
            continue;
        size_t length = i == 0 ? head : tail, mine = touched < length ? touched : length;
        *left[i] = (struct run){ .base = i == 0 ? whole.base : base + (pages << PAGE_LG), .pages = length, .kind = whole.kind,
                                 .hooked = whole.hooked };
        if (run_is_span(&whole)) {
            left[i]->owner = f;
            left[i]->touched = mine;
            touched -= mine;
            if (run_is_giant(&whole))
                span_enter_inside(left[i]);
        }
        lists_add(f, left[i], older);
    }
    return cut;
}

static struct run *
cut_run(struct free_runs *f, struct run *from, bool listed, size_t head, size_t pages, struct run *older)
{
    size_t tail = from->pages - head - pages;
    struct run *cut = from, *rest = NULL;
    if (head != 0 || tail != 0) {
        cut = run_record_new(f);
        if (cut == NULL)
            return NULL;
        if (head != 0 && tail != 0 && (rest = run_record_new(f)) == NULL) {
            run_record_free(f, cut);
            return NULL;
        }
    }
    if (listed)
        free_runs_remove(f, from);
    return divide(f, from, cut, rest, older, head, pages);
}

struct run *
free_runs_cut(struct free_runs *f, struct run *from, size_t head, size_t pages)
{
    return cut_run(f, from, true, head, pages, ages_of(f, from) != NULL ? from->older : NULL);
}

struct run *
free_runs_cut_taken(struct free_runs *f, struct run *taken, size_t head, size_t pages, struct run *older)
{
    return cut_run(f, taken, false, head, pages, older);
}
