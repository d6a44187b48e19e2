/* Thread records: their list, the start and the end of a thread, fork. `records.lock` guards the list. */
#include "thread/records.h"

#include <errno.h>
#include <string.h>

#include "ground/services.h"
#include "ground/conf.h"
#include "os/os.h"
#include "pages/base.h"
#include "thread/ending.h"

struct records records = { .lock = LOCK_INITIAL(LOCK_THREADS) };

static void
list_add(struct thread *t, enum thread_state state)
{
    struct record_list *list = &records.lists[state];
    t->state = state;
    t->since = os_clock_ms();
    t->newer = NULL;
    t->older = list->newest;
    *(list->newest != NULL ? &list->newest->newer : &list->oldest) = t;
    list->newest = t;
}

static void
list_remove(struct thread *t)
{
    struct record_list *list = &records.lists[t->state];
    *(t->newer != NULL ? &t->newer->older : &list->newest) = t->older;
    *(t->older != NULL ? &t->older->newer : &list->oldest) = t->newer;
    if (records.next == t)
        records.next = t->older;
    if (records.next_young == t)
        records.next_young = t->older;
}

void
record_move(struct thread *t, enum thread_state state)
{
    __atomic_store_n(&records.live, records.live + (state == THREAD_LIVE) - (t->state == THREAD_LIVE), __ATOMIC_RELAXED);
    records.resting += (state == THREAD_RESTING) - (t->state == THREAD_RESTING);
    list_remove(t);
    list_add(t, state);
}

void
record_empty(struct thread *t)
{
    cache_set_retire_ending(&t->set);
    cache_set_collect(&t->set, true);
    record_move(t, THREAD_EMPTY);
}

static struct thread *
record_new(struct heap *h)
{
    struct thread *t = base_alloc(THREAD_RECORD_BYTES);
    if (t == NULL)
        return NULL;
    /* Records are never given back, so t->caches is fresh from the system: zero, and not to be touched. */
    cache_set_init(&t->set, h, t->caches, t->arrays, THREAD_RECORD_BYTES - sizeof *t);
    if (records.all == NULL)
        records.process = os_process_id();
    t->next = records.all;
    __atomic_store_n(&records.all, t, __ATOMIC_RELEASE); /* for records_first() */
    list_add(t, THREAD_EMPTY);
    return t;
}

static struct thread *
thread_start(void)
{
    int saved = errno;
    struct heap *h = heap_default();
    if (!conf.tcache || h == NULL)
        return NULL;
    lock_take(&records.lock);
    int id = os_thread_id();
    records_find_ended_young(id);
    struct thread *t = records.lists[THREAD_RESTING].newest;
    if (t == NULL)
        t = records.lists[THREAD_EMPTY].newest;
    if (t == NULL)
        t = record_new(h);
    if (t != NULL && services.thread_started != NULL && services.thread_started() != 0)
        t = NULL;
    if (t != NULL) {
        record_move(t, THREAD_LIVE);
        t->id = id;
        t->slot = tls_slot();
        *t->slot = (tls_word)t | TLS_HAS_RECORD;
    }
    lock_drop(&records.lock);
    if (t != NULL)
        thread_tick(NULL); /* threads that do little may come and go for long, and take no other turn */
    errno = saved;
    return t;
}

struct thread *
thread_get(void)
{
    struct thread *t = tls_get();
    return t != NULL ? t : thread_start();
}

void
thread_exit(void)
{
    struct thread *t = tls_get();
    if (t == NULL)
        return;
    thread_tick(NULL); /* nobody may call for long */
    *tls_slot() = 0;
    cache_set_retire_ending(&t->set);
    lock_take(&records.lock);
    record_move(t, THREAD_RESTING);
    lock_drop(&records.lock);
}

void
thread_drop_heap(uint32_t heap)
{
    lock_take(&records.lock);
    for (struct thread *t = records.all; t != NULL; t = t->next)
        cache_set_drop(&t->set, heap);
    lock_drop(&records.lock);
}

bool
thread_empty_caches(uint32_t heap)
{
    bool any = false;
    for (struct thread *t = __atomic_load_n(&records.all, __ATOMIC_ACQUIRE); t != NULL; t = t->next)
        any |= cache_set_empty(&t->set, heap);
    return any;
}

uint32_t
thread_count(void)
{
    if (lock_try(&records.lock)) {
        records_find_all_ended();
        lock_drop(&records.lock);
    }
    return __atomic_load_n(&records.live, __ATOMIC_RELAXED);
}

bool
thread_others_live(void)
{
    lock_take(&records.lock);
    records_find_all_ended();
    bool others = records.live > (tls_get() != NULL);
    lock_drop(&records.lock);
    return others;
}

/* A slot that a loader lent must be 0 when the next allocator finds it. The loader keeps threads from ending
 * meanwhile, so every record that is live has its thread. The slots of our own variable go with us. */
void
thread_release_all(bool give_back)
{
    lock_take(&records.lock);
    for (struct thread *t = records.all; t != NULL; t = t->next) {
        if (give_back)
            cache_set_collect(&t->set, true);
        if (services.thread_started != NULL && t->state == THREAD_LIVE)
            *t->slot = 0;
    }
    records.all = records.next = records.next_young = NULL;
    memset(records.lists, 0, sizeof records.lists);
    records.live = records.resting = records.emptied = 0;
    cache_sets_forget();
    lock_drop(&records.lock);
    *tls_slot() = 0;
}

bool
thread_fork_holds(void)
{
    bool holds = lock_is_mine(&records.lock);
    for (const struct thread *t = records_first(); t != NULL && !holds; t = t->next)
        holds = cache_set_fork_holds(&t->set);
    return holds;
}

void
thread_fork_prepare(void)
{
    lock_take(&records.lock);
    for (struct thread *t = records.all; t != NULL; t = t->next)
        cache_set_fork_prepare(&t->set);
}

void
thread_fork_done(void)
{
    for (struct thread *t = records.all; t != NULL; t = t->next)
        cache_set_fork_done(&t->set);
    lock_drop(&records.lock);
}

void
thread_fork_child(void)
{
    struct thread *self = tls_get();
    if (self != NULL)
        self->id = os_thread_id();
    records.process = os_process_id();
    for (struct thread *t = records.all; t != NULL; t = t->next) {
        cache_set_fork_child(&t->set);
        if (t != self)
            atomic_store_explicit(&t->inside, 0, memory_order_relaxed);
        /* The other threads are not in this process. */
        if (t != self && t->state == THREAD_LIVE)
            record_move(t, THREAD_RESTING);
    }
    lock_init(&records.lock, LOCK_THREADS);
    ending_fork_child();
}
