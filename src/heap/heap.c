/* Heaps. `heaps_lock` guards which numbers are taken, `figures_lock` that what others read of them stays. */
#include "heap/heap.h"

#include <errno.h>
#include <string.h>

#include "ground/services.h"
#include "ground/system.h"
#include "heap/large.h"
#include "heap/slab.h"
#include "pages/base.h"
#include "pages/pool.h"

static struct lock heaps_lock = LOCK_INITIAL(LOCK_HEAPS);
static _Atomic(struct heap *) heaps[ALCOVE_HEAP_MAX];
static _Atomic uint32_t heaps_made; /* how many there are */
static _Atomic uint32_t heaps_end;     /* no heap has this number or a higher one; a fork asks without the lock */
static uint32_t heaps_last;            /* the number that was given last: those that were given up longest ago come first */
static _Atomic uint64_t ended[ALCOVE_HEAP_MAX / 64]; /* a bit for each number whose heap has ended */
static _Atomic(struct heap *) done;
static struct heap *going; /* those that are being destroyed: their pages are on their way to the pool and the system */
static _Atomic uint32_t endings;
static struct lock figures_lock = LOCK_INITIAL(LOCK_FIGURES);

#define LIMIT_MAX ((uint64_t)1 << (ALCOVE_LG_VADDR - 1)) /* no process has more addresses */

/* Across a fork, those whose insides are held: a heap that is done meanwhile is not found by number any more, and stays until it is
 * forgotten, which takes locks that are held, or is done by another fork handler. That may make heaps as well. */
static struct heap *forked;

/* Stands for heaps that are done or being destroyed: their numbers are not free yet. */
#define GONE ((struct heap *)&heaps_lock)

/* Who has just said that it is inside looks here next (thread/ending.h), in the one order of all such stores and loads. */
struct heap *
heap_of(uint32_t index)
{
    struct heap *h = index < ALCOVE_HEAP_MAX ? atomic_load(&heaps[index]) : NULL;
    return h != GONE ? h : NULL;
}

/* snprintf would do, but makes more of libc resident than all that the allocator needs of it. */
static void
name_heap(struct heap *h, const char *name)
{
    if (name != NULL) {
        strncpy(h->name, name, sizeof h->name - 1);
        return;
    }
    char digits[12], *d = digits + sizeof digits - 1;
    *d = '\0';
    uint32_t n = h->index;
    do
        *--d = (char)('0' + n % 10);
    while ((n /= 10) != 0);
    memcpy(h->name, "heap ", 5);
    strcpy(h->name + 5, d);
}

static void
limit_store(struct heap *h, uint64_t limit)
{
    if (limit != 0)
        atomic_store_explicit(&h->guarded, true, memory_order_relaxed);
    atomic_store_explicit(&h->limit, limit, memory_order_relaxed);
}

static int
heap_make(uint32_t index, const char *name, uint64_t limit, const void *seal)
{
    struct heap *h = base_alloc_zeroed(sizeof *h); /* not to be touched where nothing is set */
    if (h == NULL)
        return ENOMEM;
    for (unsigned bin = 1; bin <= SMALL_BINS; bin++)
        lock_init_zeroed(&h->bins[bin].lock, LOCK_BIN);
    lock_init_zeroed(&h->large_lock, LOCK_LARGE);
    limit_store(h, limit);
    h->pool = &pool_default;
    atomic_store_explicit(&h->holds, 1, memory_order_relaxed);
    h->index = index;
    h->seal = seal;
    name_heap(h, name);
    if (lock_forks()) { /* what is taken now is dropped when the fork is over */
        h->next_forked = forked;
        forked = h;
    }
    atomic_store_explicit(&heaps[index], h, memory_order_release);
    if (heap_has_ended(index)) /* no longer, for those who ask: they find the new one then */
        atomic_fetch_and_explicit(&ended[index / 64], ~((uint64_t)1 << index % 64), memory_order_release);
    heaps_made++;
    if (index >= heaps_end)
        heaps_end = index + 1;
    return 0;
}

struct heap *
heap_default(void)
{
    struct heap *h = heap_of(ALCOVE_HEAP_DEFAULT);
    if (h != NULL)
        return h;
    lock_take(&heaps_lock);
    if (heap_of(ALCOVE_HEAP_DEFAULT) == NULL)
        heap_make(ALCOVE_HEAP_DEFAULT, "default", 0, NULL);
    lock_drop(&heaps_lock);
    return heap_of(ALCOVE_HEAP_DEFAULT);
}

static bool
limit_is_possible(uint64_t limit)
{
    return limit == 0 || (limit >= HEAP_LIMIT_MIN && limit <= LIMIT_MAX);
}

#define NUMBERS_LEAST 1023u

/* How many numbers go round. The more there are the later one is given again, and the more of what is kept by number is touched. */
static uint32_t
numbers_in_use(void)
{
    uint32_t numbers = NUMBERS_LEAST;
    while (numbers < ALCOVE_HEAP_MAX - 1 && numbers < 2 * atomic_load_explicit(&heaps_made, memory_order_relaxed))
        numbers = 2 * numbers + 1;
    return numbers;
}

int
heap_create(const struct alcove_heap_options *options, uint32_t *index)
{
    struct alcove_heap_options none = { 0 };
    const struct alcove_heap_options *o = options != NULL ? options : &none;
    if (index == NULL || o->flags != 0 || !limit_is_possible(o->limit))
        return EINVAL;
    lock_take(&heaps_lock);
    int error = EAGAIN;
    uint32_t numbers = numbers_in_use();
    for (uint32_t n = 0; n < numbers && error == EAGAIN; n++) {
        uint32_t i = heaps_last % numbers + 1;
        heaps_last = i;
        if (atomic_load_explicit(&heaps[i], memory_order_relaxed) == NULL) {
            error = heap_make(i, o->name, o->limit, o->seal);
            *index = i;
        }
    }
    lock_drop(&heaps_lock);
    return error;
}

/* All slabs and large blocks of a heap as one list. The lists of its bins are followed side by side, since the records
 * are likely to be far from the processor, and what is next in one list is fetched while the others are served. */
static struct run *
collect_runs(struct heap *h)
{
    struct run *at[3 * SMALL_BINS + 1], *all = NULL;
    unsigned lists = 0;
    if (h->large != NULL)
        at[lists++] = h->large;
    for (unsigned bin = 1; bin <= SMALL_BINS; bin++) {
        if (h->bins[bin].partial != NULL)
            at[lists++] = h->bins[bin].partial;
        if (h->bins[bin].fresh != NULL)
            at[lists++] = h->bins[bin].fresh;
        if (h->bins[bin].full != NULL)
            at[lists++] = h->bins[bin].full;
    }
    while (lists > 0) {
        for (unsigned i = 0; i < lists;) {
            struct run *r = at[i];
            at[i] = r->next;
            r->next = all;
            all = r;
            if (at[i] != NULL)
                __builtin_prefetch(at[i++], 1);
            else
                at[i] = at[--lists];
        }
    }
    return all;
}

void
heap_purge_given(struct heap *h)
{
    pool_purge_some(h->pool, atomic_exchange_explicit(&h->given, 0, memory_order_relaxed));
}

/* Give back all that was collected, and what it gave to the pool before. */
static void
give_all_back(struct heap *h)
{
    pool_give_back(h->pool, &h->large);
    heap_purge_given(h);
}

/* With the lock of the figures held too: who reads them may have found it before. */
static void
forget(struct heap *h)
{
    if (services.heap_gone != NULL)
        services.heap_gone(services.lender, h->index); /* before the number is another's */
    atomic_store_explicit(&heaps[h->index], NULL, memory_order_release);
    heaps_made--;
    if (lock_forks())
        for (struct heap **link = &forked; *link != NULL; link = &(*link)->next_forked)
            if (*link == h) {
                *link = h->next_forked;
                break;
            }
    base_free(h, sizeof *h);
}

/* One that is to go now. */
static int
find_to_go(uint32_t index, struct heap **heap)
{
    struct heap *h = index == ALCOVE_HEAP_DEFAULT ? NULL : heap_of(index);
    if (h == NULL)
        return EINVAL;
    if (h->seal != NULL)
        return EPERM;
    if (heap_is_ending(h) || (atomic_load_explicit(&h->lookers, memory_order_relaxed) & HEAP_CLOSING) != 0)
        return EINVAL; /* it goes already */
    *heap = h;
    return 0;
}

int
heap_close(uint32_t index, struct heap **heap)
{
    lock_take(&heaps_lock);
    int error = find_to_go(index, heap);
    if (error == 0)
        atomic_fetch_or(&(*heap)->lookers, HEAP_CLOSING);
    lock_drop(&heaps_lock);
    if (error != 0)
        return error;
    uint32_t lookers;
    while ((lookers = atomic_load(&(*heap)->lookers)) != HEAP_CLOSING)
        system_futex_wait(&(*heap)->lookers, lookers);
    return 0;
}

/* What takes long is done without a lock. */
void
heap_destroy(struct heap *h)
{
    lock_take(&heaps_lock);
    atomic_store_explicit(&heaps[h->index], GONE, memory_order_release);
    h->large = collect_runs(h);
    h->destroyer = lock_self();
    h->next_done = going;
    going = h;
    lock_drop(&heaps_lock);
    give_all_back(h);
    lock_take(&figures_lock);
    lock_take(&heaps_lock);
    struct heap **link = &going;
    while (*link != h)
        link = &(*link)->next_done;
    *link = h->next_done;
    forget(h);
    lock_drop(&heaps_lock);
    lock_drop(&figures_lock);
}

int
heap_end(uint32_t index, struct heap **heap)
{
    lock_take(&heaps_lock);
    int error = find_to_go(index, heap);
    if (error == 0) {
        atomic_store(&(*heap)->ending, true);
        atomic_fetch_add(&endings, 1);
        heap_let_go(*heap); /* now, for a child that is forked later has nobody who would */
    }
    lock_drop(&heaps_lock);
    return error;
}

uint32_t
heap_endings(void)
{
    return atomic_load_explicit(&endings, memory_order_acquire); /* and those that are counted are seen to be ending */
}

bool
heap_has_ended(uint32_t index)
{
    return index < ALCOVE_HEAP_MAX &&
           (atomic_load_explicit(&ended[index / 64], memory_order_acquire) >> index % 64 & 1) != 0;
}

void
heap_is_done(struct heap *h)
{
    atomic_fetch_or(&ended[h->index / 64], (uint64_t)1 << h->index % 64);
    atomic_store(&heaps[h->index], GONE);
    h->next_done = atomic_load_explicit(&done, memory_order_relaxed);
    while (!atomic_compare_exchange_weak(&done, &h->next_done, h))
        ;
}

void
heaps_forget_done(bool (*somebody_is_inside)(uint32_t index))
{
    if (atomic_load_explicit(&done, memory_order_relaxed) == NULL || !lock_try(&figures_lock))
        return;
    lock_take(&heaps_lock);
    struct heap *h = atomic_exchange(&done, NULL), *next;
    for (; h != NULL; h = next) {
        next = h->next_done;
        if (somebody_is_inside(h->index))
            heap_is_done(h); /* to be looked at again */
        else
            forget(h);
    }
    lock_drop(&heaps_lock);
    lock_drop(&figures_lock);
}

/* Know of no heap any more. With the lock held. */
static void
forget_all(void)
{
    for (uint32_t i = 0; i < heaps_end; i++)
        atomic_store_explicit(&heaps[i], NULL, memory_order_release);
    for (uint32_t i = 0; i < ALCOVE_HEAP_MAX / 64; i++)
        if (atomic_load_explicit(&ended[i], memory_order_relaxed) != 0) /* else not to be touched */
            atomic_store_explicit(&ended[i], 0, memory_order_relaxed);
    atomic_store_explicit(&done, NULL, memory_order_relaxed);
    going = NULL;
    heaps_end = heaps_last = 0;
    heaps_made = 0;
}

void
heap_release_all(void)
{
    lock_take(&heaps_lock);
    for (uint32_t i = 0; i < heaps_end; i++) {
        struct heap *h = heap_of(i);
        if (h == NULL)
            continue;
        h->large = collect_runs(h);
        give_all_back(h);
    }
    forget_all();
    lock_drop(&heaps_lock);
}

void
heap_leave_all(void)
{
    lock_take(&heaps_lock);
    forget_all();
    lock_drop(&heaps_lock);
}

int
heap_limit_set(uint32_t index, uint64_t limit)
{
    if (!limit_is_possible(limit))
        return EINVAL;
    lock_take(&heaps_lock); /* it stays meanwhile */
    struct heap *h = heap_of(index);
    bool is_first = h != NULL && limit != 0 && atomic_load_explicit(&h->limit, memory_order_relaxed) == 0;
    if (h != NULL)
        limit_store(h, limit);
    if (is_first)
        heap_clear_untouched(h, true);
    lock_drop(&heaps_lock);
    return h != NULL ? 0 : EINVAL;
}

int
heap_unseal(uint32_t index, const void *seal)
{
    lock_take(&heaps_lock);
    struct heap *h = heap_of(index);
    bool opens = h != NULL && seal != NULL && h->seal == seal;
    if (opens)
        h->seal = NULL;
    lock_drop(&heaps_lock);
    return h == NULL ? EINVAL : opens ? 0 : EPERM;
}

bool
heap_look_begin(struct heap *h)
{
    if (likely((atomic_fetch_add(&h->lookers, 1) & HEAP_CLOSING) == 0))
        return true;
    heap_look_end(h);
    return false;
}

void
heap_look_end(struct heap *h)
{
    if (unlikely(atomic_fetch_sub(&h->lookers, 1) == (HEAP_CLOSING | 1)))
        system_futex_wake(&h->lookers); /* by its address: it may be gone */
}

struct heap *
heap_look_at(uint32_t index)
{
    lock_take(&figures_lock);
    struct heap *h = heap_of(index);
    bool may = h != NULL && heap_look_begin(h);
    lock_drop(&figures_lock);
    return may ? h : NULL;
}

struct heap *
figures_hold(uint32_t index)
{
    lock_take(&figures_lock);
    struct heap *h = heap_of(index);
    if (h != NULL && heap_look_begin(h))
        return h;
    lock_drop(&figures_lock);
    return NULL;
}

void
figures_let_go(struct heap *h)
{
    heap_look_end(h);
    lock_drop(&figures_lock);
}

uint32_t
heap_count(void)
{
    return atomic_load_explicit(&heaps_made, memory_order_relaxed);
}

bool
heap_clear_uncharged(struct heap *h, const struct run *r, size_t charged)
{
    size_t pages = charged >> PAGE_LG;
    bool purges = r->kind == RUN_HUGE || atomic_load_explicit(&h->limit, memory_order_relaxed) != 0;
    if (r->zeroed || r->pages == pages || !purges)
        return true;
    return pages_purge(h->pool, r->base + charged, r->pages - pages);
}

void
heap_give_pages(struct heap *h, struct run *runs)
{
    if (heap_is_ending(h)) {
        pool_give_back(h->pool, &runs);
        return;
    }
    size_t more = pool_give(h->pool, runs), given = atomic_fetch_add_explicit(&h->given, more, memory_order_relaxed) + more;
    size_t dirty = pool_dirty_seen(h->pool); /* the rest has decayed */
    while (given > dirty && !atomic_compare_exchange_weak_explicit(&h->given, &given, dirty, memory_order_relaxed,
                                                                   memory_order_relaxed))
        ;
}

static bool
fits(uint64_t limit, uint64_t active, size_t bytes)
{
    return limit == 0 || (active <= limit && bytes <= limit - active);
}

bool
heap_charge(struct heap *h, size_t bytes)
{
    uint64_t limit = atomic_load_explicit(&h->limit, memory_order_relaxed);
    uint64_t active = atomic_load_explicit(&h->active, memory_order_relaxed);
    do {
        if (!fits(limit, active, bytes))
            return false;
    } while (!atomic_compare_exchange_weak_explicit(&h->active, &active, active + bytes, memory_order_relaxed,
                                                    memory_order_relaxed));
    return true;
}

void
heap_charge_resident(struct heap *h, size_t bytes)
{
    atomic_fetch_add_explicit(&h->active, bytes, memory_order_relaxed);
}

bool
heap_allows(const struct heap *h, size_t bytes)
{
    return fits(atomic_load_explicit(&h->limit, memory_order_relaxed),
                atomic_load_explicit(&h->active, memory_order_relaxed), bytes);
}

bool
heap_is_near_limit(const struct heap *h)
{
    uint64_t limit = atomic_load_explicit(&h->limit, memory_order_relaxed);
    return limit != 0 && atomic_load_explicit(&h->active, memory_order_relaxed) > limit - limit / 4;
}

void
heap_discharge(struct heap *h, size_t bytes)
{
    atomic_fetch_sub_explicit(&h->active, bytes, memory_order_relaxed);
}

void
heap_count_uncached(struct heap *h, unsigned bin)
{
    heap_count_retired(h, bin, 1);
}

void
heap_count_retired(struct heap *h, unsigned bin, uint64_t allocations)
{
    bool small = bin != 0 && bin <= SMALL_BINS;
    atomic_fetch_add_explicit(small ? &h->bins[bin].uncached : &h->large_uncached[large_counter(bin)], allocations,
                              memory_order_relaxed);
}

/* Across a fork every lock is held, in the order of the ranks. */

bool
heap_fork_holds(void)
{
    bool holds = lock_is_mine(&figures_lock) || lock_is_mine(&heaps_lock);
    for (uint32_t i = 0; i < heaps_end && !holds; i++) {
        const struct heap *h = heap_of(i);
        if (h == NULL)
            continue;
        holds = lock_is_mine(&h->large_lock);
        for (unsigned bin = 1; bin <= SMALL_BINS; bin++)
            holds = holds || lock_is_mine(&h->bins[bin].lock);
    }
    return holds;
}

void
heap_fork_prepare(void)
{
    lock_take(&figures_lock);
    lock_take(&heaps_lock);
}

void
heap_fork_prepare_insides(void)
{
    forked = NULL;
    for (uint32_t i = 0; i < heaps_end; i++) {
        struct heap *h = heap_of(i);
        if (h == NULL)
            continue;
        lock_take(&h->large_lock);
        for (unsigned bin = 1; bin <= SMALL_BINS; bin++)
            lock_take(&h->bins[bin].lock);
        h->next_forked = forked;
        forked = h;
    }
}

void
heap_fork_done(void)
{
    for (struct heap *h = forked; h != NULL; h = h->next_forked) {
        for (unsigned bin = 1; bin <= SMALL_BINS; bin++)
            lock_drop(&h->bins[bin].lock);
        lock_drop(&h->large_lock);
    }
    lock_drop(&heaps_lock);
    lock_drop(&figures_lock);
}

/* Bytes of all blocks that are out. */
static uint64_t
out_bytes(const struct heap *h)
{
    uint64_t bytes = atomic_load_explicit(&h->nobin_out_bytes, memory_order_relaxed);
    for (unsigned bin = 1; bin < BINS; bin++)
        bytes += bin_size(bin) * (bin <= SMALL_BINS ? h->bins[bin].out : h->large_out[large_counter(bin)]);
    return bytes;
}

/* What the threads were at that are not in this process. */
static void
finish_destroying(void)
{
    for (struct heap **link = &going, *h; (h = *link) != NULL;) {
        if (h->destroyer == lock_self()) { /* a signal handler forked: it goes on */
            link = &h->next_done;
            continue;
        }
        *link = h->next_done;
        if (h->large != NULL)
            pool_give(h->pool, h->large);
        forget(h);
    }
}

void
heap_fork_child(void)
{
    for (struct heap *h = forked; h != NULL; h = h->next_forked) {
        for (unsigned bin = 1; bin <= SMALL_BINS; bin++)
            lock_init(&h->bins[bin].lock, LOCK_BIN);
        lock_init(&h->large_lock, LOCK_LARGE);
        atomic_store_explicit(&h->live, out_bytes(h), memory_order_relaxed);
        atomic_flag_clear_explicit(&h->peak_looked_for, memory_order_relaxed);
        atomic_store_explicit(&h->lookers, 0, memory_order_relaxed); /* nor does anybody destroy it: it can be destroyed */
        atomic_store_explicit(&h->emptiers, 0, memory_order_relaxed);
    }
    lock_init(&heaps_lock, LOCK_HEAPS);
    lock_init(&figures_lock, LOCK_FIGURES);
    finish_destroying();
}
