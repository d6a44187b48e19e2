/* Thread records. `threads.lock` guards the list of them. */
#include "thread/record.h"

#include <errno.h>
#include <string.h>

#include "ground/services.h"
#include "ground/conf.h"
#include "os/os.h"
#include "pages/base.h"
#include "pages/pool.h"

#define COLLECT_MS 1000      /* time between two collections of a thread's caches */
#define IDLE_MS 1000         /* how long a dead thread's caches wait for an heir */
#define LEFT_SCAN 4          /* records looked at, for one that was left, when a thread starts */

static struct {
    struct lock lock;
    struct thread *all, *idle;
    struct thread *cursor;   /* where the next scan goes on */
    uint32_t live;
    int process;             /* whose threads they are */
} threads = { .lock = LOCK_INITIAL(LOCK_THREADS) };

static void
make_idle(struct thread *t)
{
    t->state = THREAD_IDLE;
    t->slot = NULL;
    t->idle_since = os_clock_ms();
    t->next_idle = threads.idle;
    threads.idle = t;
    threads.live--;
}

/* Has its thread ended? `self`: the calling thread's number, if it has no record: then a record with
 * that number is of a thread before it. */
static bool
is_left(const struct thread *t, int self)
{
    return t->state == THREAD_LIVE && (t->id == self || os_thread_has_ended(t->id));
}

#define NOBODY (-1)
#define ALL_RECORDS UINT32_MAX

/* Look at a few records for some that their threads have left, if nobody tells us. */
static void
find_left(unsigned most, int self)
{
    /* A child that was made without our fork handlers cannot ask about threads of its parent: all would seem to have ended. */
    if (services.thread_started != NULL || os_process_id() != threads.process)
        return;
    if (most == ALL_RECORDS)
        threads.cursor = NULL; /* from the first */
    for (unsigned i = 0; i < most && threads.all != NULL; i++) {
        struct thread *t = threads.cursor != NULL ? threads.cursor : threads.all;
        threads.cursor = t->next;
        if (is_left(t, self))
            make_idle(t);
        if (t->next == NULL)
            break;
    }
}

static struct thread *
record_new(struct heap *h)
{
    struct thread *t = base_alloc(sizeof *t);
    if (t == NULL)
        return NULL;
    /* Records are never given back, so t->caches is fresh from the system: zero, and not to be touched. */
    cache_set_init(&t->set, h, t->caches);
    if (threads.all == NULL)
        threads.process = os_process_id();
    t->next = threads.all;
    __atomic_store_n(&threads.all, t, __ATOMIC_RELEASE); /* thread_fork_holds() takes no lock */
    return t;
}

static struct thread *
thread_start(void)
{
    int saved = errno;
    struct heap *h = heap_default();
    if (!conf.tcache || h == NULL)
        return NULL;
    lock_take(&threads.lock);
    int id = os_thread_id();
    find_left(LEFT_SCAN, id);
    struct thread *t = threads.idle;
    if (t != NULL)
        threads.idle = t->next_idle;
    else
        t = record_new(h);
    if (t != NULL) {
        threads.live++;
        if (services.thread_started == NULL || services.thread_started() == 0) {
            t->state = THREAD_LIVE;
            t->id = id;
            t->slot = tls_slot();
            *t->slot = t;
        } else {
            make_idle(t);
            t = NULL;
        }
    }
    lock_drop(&threads.lock);
    errno = saved;
    return t;
}

struct thread *
thread_get(void)
{
    struct thread *t = *tls_slot();
    return t != NULL ? t : thread_start();
}

/* Empty the caches of records that have waited for an heir long enough. */
static void
collect_idle(uint64_t now)
{
    if (!lock_try(&threads.lock))
        return;
    find_left(LEFT_SCAN, NOBODY);
    for (struct thread *t = threads.idle; t != NULL; t = t->next_idle) {
        if (t->idle_since != 0 && now - t->idle_since >= IDLE_MS) {
            t->idle_since = 0;
            cache_set_collect(&t->set, true);
        }
    }
    lock_drop(&threads.lock);
}

void
thread_tick(struct thread *t)
{
    uint64_t now = os_clock_ms();
    if (now - t->collected >= COLLECT_MS) {
        /* After a long rest what was cached is as old as pages that have decayed. */
        bool all = conf.dirty_decay_ms >= 0 && now - t->collected >= (uint64_t)conf.dirty_decay_ms;
        t->collected = now;
        cache_set_collect(&t->set, all);
        collect_idle(now);
    }
    pool_tick(now);
}

void
thread_purge(void)
{
    struct thread *self = *tls_slot();
    if (self != NULL)
        cache_set_collect(&self->set, true);
    lock_take(&threads.lock);
    find_left(ALL_RECORDS, NOBODY);
    for (struct thread *t = threads.idle; t != NULL; t = t->next_idle)
        cache_set_collect(&t->set, true);
    lock_drop(&threads.lock);
}

void
thread_exit(void)
{
    struct thread *t = *tls_slot();
    if (t == NULL)
        return;
    *tls_slot() = NULL;
    lock_take(&threads.lock);
    make_idle(t);
    lock_drop(&threads.lock);
}

void
thread_drop_heap(uint32_t heap)
{
    lock_take(&threads.lock);
    for (struct thread *t = threads.all; t != NULL; t = t->next)
        cache_set_drop(&t->set, heap);
    lock_drop(&threads.lock);
}

/* Reads what other threads write without a lock: each figure is one that was true. */
__attribute__((no_sanitize("thread"))) static void
sum_cache(const struct cache *c, struct thread_sums *out)
{
    for (unsigned bin = 1; bin < BINS; bin++) {
        const struct cache_bin *b = &c->bins[bin];
        uint64_t capacity = __atomic_load_n(&b->capacity, __ATOMIC_RELAXED);
        uint64_t room = (uint64_t)(__atomic_load_n(&b->end, __ATOMIC_RELAXED) -
                                   __atomic_load_n(&b->top, __ATOMIC_RELAXED));
        if (room <= capacity)
            out->cached[bin] += capacity - room;
        out->allocations[bin] += __atomic_load_n(&b->counted, __ATOMIC_RELAXED) +
                                 (uint64_t)(COUNTDOWN - __atomic_load_n(&b->countdown, __ATOMIC_RELAXED));
    }
}

void
thread_sum(uint32_t heap, struct thread_sums *out)
{
    memset(out, 0, sizeof *out);
    lock_take(&threads.lock);
    for (struct thread *t = threads.all; t != NULL; t = t->next) {
        lock_take(&t->set.lock);
        const struct cache *c = atomic_load_explicit(&t->caches[heap], memory_order_acquire);
        if (c != NULL)
            sum_cache(c, out);
        lock_drop(&t->set.lock);
    }
    lock_drop(&threads.lock);
}

uint32_t
thread_count(void)
{
    lock_take(&threads.lock);
    find_left(ALL_RECORDS, NOBODY);
    uint32_t n = threads.live;
    lock_drop(&threads.lock);
    return n;
}

bool
thread_others_live(void)
{
    return thread_count() > (*tls_slot() != NULL);
}

/* A slot that a loader lent must be null when the next allocator finds it. The loader keeps threads from ending
 * meanwhile, so every record that is live has its thread. The slots of our own variable go with us. */
void
thread_release_all(bool give_back)
{
    lock_take(&threads.lock);
    for (struct thread *t = threads.all; t != NULL; t = t->next) {
        if (give_back)
            cache_set_collect(&t->set, true);
        if (services.thread_started != NULL && t->state == THREAD_LIVE)
            *t->slot = NULL;
    }
    threads.all = threads.idle = threads.cursor = NULL;
    threads.live = 0;
    lock_drop(&threads.lock);
    *tls_slot() = NULL;
}

bool
thread_fork_holds(void)
{
    bool holds = lock_is_mine(&threads.lock);
    for (const struct thread *t = __atomic_load_n(&threads.all, __ATOMIC_ACQUIRE); t != NULL && !holds; t = t->next)
        holds = lock_is_mine(&t->set.lock);
    return holds;
}

void
thread_fork_prepare(void)
{
    lock_take(&threads.lock);
    for (struct thread *t = threads.all; t != NULL; t = t->next)
        lock_take(&t->set.lock);
}

void
thread_fork_done(void)
{
    for (struct thread *t = threads.all; t != NULL; t = t->next)
        lock_drop(&t->set.lock);
    lock_drop(&threads.lock);
}

void
thread_fork_child(void)
{
    struct thread *self = *tls_slot();
    if (self != NULL)
        self->id = os_thread_id();
    threads.process = os_process_id();
    for (struct thread *t = threads.all; t != NULL; t = t->next) {
        lock_init(&t->set.lock, LOCK_RECORD);
        /* The other threads are not in this process. */
        if (t != self && t->state == THREAD_LIVE)
            make_idle(t);
    }
    lock_init(&threads.lock, LOCK_THREADS);
}
