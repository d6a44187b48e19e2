/* Thread records: their list, the start and the end of a thread, fork. `records.lock` guards the list. */
#include "thread/records.h"

#include <errno.h>
#include <string.h>

#include "ground/services.h"
#include "ground/conf.h"
#include "os/os.h"
#include "pages/base.h"
#include "thread/ending.h"
#include "thread/fork.h"

struct records records = { .lock = LOCK_INITIAL(LOCK_THREADS) };
struct lock thread_shared_locks[THREAD_SHARED_LOCKS] = { [0 ... THREAD_SHARED_LOCKS - 1] = LOCK_INITIAL(LOCK_RECORD) };

static void
list_add(struct record_head *head, enum thread_state state)
{
    struct record_list *list = &records.lists[state];
    head->state = state;
    head->since = os_clock_ms();
    head->newer = NULL;
    head->older = list->newest;
    *(list->newest != NULL ? &list->newest->newer : &list->oldest) = head;
    list->newest = head;
}

static void
list_remove(struct record_head *head)
{
    struct record_list *list = &records.lists[head->state];
    *(head->newer != NULL ? &head->newer->older : &list->newest) = head->older;
    *(head->older != NULL ? &head->older->newer : &list->oldest) = head->newer;
    if (records.next == head)
        records.next = head->older;
    if (records.next_young == head)
        records.next_young = head->older;
}

void
record_move(struct record_head *head, enum thread_state state)
{
    __atomic_store_n(&records.live, records.live + (state == THREAD_LIVE) - (head->state == THREAD_LIVE), __ATOMIC_RELAXED);
    records.resting += (state == THREAD_RESTING) - (head->state == THREAD_RESTING);
    list_remove(head);
    list_add(head, state);
}

void
record_empty(struct record_head *head)
{
    cache_set_retire_ending(&head->record->set);
    cache_set_collect(&head->record->set, true);
    record_move(head, THREAD_EMPTY);
}

/* What the system refuses to drop stays resident, and is not needed either. */
bool
record_strip(struct record_head *head)
{
    struct cache_set *set = &head->record->set;
    atomic_store_explicit(&records.retiring, true, memory_order_relaxed);
    bool retired = cache_set_retire(set);
    atomic_store_explicit(&records.retiring, false, memory_order_release);
    if (!retired)
        return false;
    head->guarded = set->guarded;
    if (head->guarded != NULL)
        os_purge(head->guarded, CACHE_SET_TABLE_BYTES);
    os_purge(head->record, THREAD_RECORD_BYTES);
    record_move(head, THREAD_BARE);
    return true;
}

static struct record_head *
record_new(void)
{
    struct record_head *head = base_alloc(sizeof *head);
    struct thread *record = head != NULL ? base_alloc_pages(THREAD_RECORD_BYTES) : NULL;
    if (record == NULL) {
        if (head != NULL)
            base_free(head, sizeof *head);
        return NULL;
    }
    if (records.all == NULL)
        records.process = os_process_id();
    *head = (struct record_head){ .next = records.all, .record = record, .state = THREAD_BARE };
    __atomic_store_n(&records.all, head, __ATOMIC_RELEASE); /* for records_first() */
    list_add(head, THREAD_BARE);
    return head;
}

/* Make the caches of one that is bare. */
static void
record_dress(struct record_head *head, struct heap *h)
{
    struct thread *t = head->record;
    t->head = head;
    t->collected = 0;
    atomic_store_explicit(&t->inside, 0, memory_order_relaxed);
    cache_set_init(&t->set, h, t->caches, t->arrays, THREAD_RECORD_BYTES - sizeof *t);
    t->set.guarded = head->guarded;
}

/* A record that no thread has, the one with the most in its caches; NULL: no memory. */
static struct record_head *
record_free(void)
{
    for (enum thread_state state = THREAD_RESTING; state <= THREAD_BARE; state++)
        if (records.lists[state].newest != NULL)
            return records.lists[state].newest;
    return record_new();
}

static struct thread *
thread_start(void)
{
    int saved = errno;
    fork_first_use();
    struct heap *h = heap_default();
    if (!conf.tcache || h == NULL)
        return NULL;
    lock_take(&records.lock);
    int id = os_thread_id();
    records_find_ended_young(id);
    struct record_head *head = record_free();
    if (head != NULL && services.thread_started != NULL && services.thread_started(services.lender) != 0)
        head = NULL;
    if (head != NULL) {
        if (head->state == THREAD_BARE)
            record_dress(head, h);
        record_move(head, THREAD_LIVE);
        head->id = id;
        head->slot = tls_slot();
        *head->slot = (tls_word)head->record | TLS_HAS_RECORD;
    }
    lock_drop(&records.lock);
    if (head != NULL)
        thread_tick(NULL); /* threads that do little may come and go for long, and take no other turn */
    errno = saved;
    return head != NULL ? head->record : NULL;
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
    record_move(t->head, THREAD_RESTING);
    lock_drop(&records.lock);
}

void
thread_drop_heap(uint32_t heap)
{
    lock_take(&records.lock);
    for (struct record_head *head = record_from(records.all); head != NULL; head = record_from(head->next))
        cache_set_drop(&head->record->set, heap);
    lock_drop(&records.lock);
}

void
thread_empty_caches(struct heap *h)
{
    atomic_fetch_add(&h->emptiers, 1);
    for (struct record_head *head = record_from(records_first()); head != NULL; head = record_from(head->next))
        cache_set_empty(&head->record->set, h->index);
    atomic_fetch_sub(&h->emptiers, 1);
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
    for (struct record_head *head = record_from(records.all); head != NULL; head = record_from(head->next)) {
        if (give_back)
            cache_set_collect(&head->record->set, true);
        if (services.thread_started != NULL && head->state == THREAD_LIVE)
            *head->slot = 0;
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
    for (struct record_head *head = record_from(records_first()); head != NULL && !holds; head = record_from(head->next))
        holds = cache_set_fork_holds(&head->record->set);
    for (unsigned i = 0; i < THREAD_SHARED_LOCKS && !holds; i++)
        holds = lock_is_mine(&thread_shared_locks[i]);
    return holds;
}

void
thread_fork_prepare(void)
{
    lock_take(&records.lock);
    for (struct record_head *head = record_from(records.all); head != NULL; head = record_from(head->next))
        cache_set_fork_prepare(&head->record->set);
    for (unsigned i = 0; i < THREAD_SHARED_LOCKS; i++)
        lock_take(&thread_shared_locks[i]);
}

void
thread_fork_done(void)
{
    for (unsigned i = 0; i < THREAD_SHARED_LOCKS; i++)
        lock_drop(&thread_shared_locks[i]);
    for (struct record_head *head = record_from(records.all); head != NULL; head = record_from(head->next))
        cache_set_fork_done(&head->record->set);
    lock_drop(&records.lock);
}

void
thread_fork_child(void)
{
    struct thread *self = tls_get();
    if (self != NULL)
        self->head->id = os_thread_id();
    records.process = os_process_id();
    for (struct record_head *head = record_from(records.all); head != NULL; head = record_from(head->next)) {
        struct thread *t = head->record;
        cache_set_fork_child(&t->set);
        if (t != self)
            atomic_store_explicit(&t->inside, 0, memory_order_relaxed);
        /* The other threads are not in this process. */
        if (t != self && head->state == THREAD_LIVE)
            record_move(head, THREAD_RESTING);
    }
    for (unsigned i = 0; i < THREAD_SHARED_LOCKS; i++)
        lock_init(&thread_shared_locks[i], LOCK_RECORD);
    lock_init(&records.lock, LOCK_THREADS);
    ending_fork_child();
}
