/* Turns of the slow path: what a thread does for itself, for records that nobody uses and for free pages, now and then. */
#include "ground/conf.h"
#include "ground/services.h"
#include "os/os.h"
#include "pages/pool.h"
#include "thread/ending.h"
#include "thread/records.h"

#define COLLECT_MS 1000      /* time between two collections of a thread's caches */
#define REST_MS RECORDS_WAIT_MS /* how long the caches of a thread that ended wait for an heir */
#define EMPTY_LEAST 4        /* records emptied in one turn, if so many have rested */
#define EMPTY_MS 250         /* in which all of them are, however seldom there is a turn */
#define EMPTIED_MANY 64      /* records emptied in a row that are a wave of threads which nobody followed */

static bool
rested(const struct record_head *head, uint64_t now)
{
    return head != NULL && record_waited(head->since, now, REST_MS);
}

/* Strip records that are empty, so many at most, until somebody looks at one. */
static void
strip_empty(uint32_t most)
{
    const struct record_list *empty = &records.lists[THREAD_EMPTY];
    for (uint32_t n = 0; n < most && empty->oldest != NULL && record_strip(empty->oldest); n++)
        ;
}

/* Empty the caches of records that have waited for an heir long enough. `late`: for so many ms nobody has. True: their pages
 * should not wait to decay. */
static bool
empty_rested(uint64_t now, uint64_t late)
{
    const struct record_list *resting = &records.lists[THREAD_RESTING];
    uint32_t most = records_share(records.resting, late, EMPTY_MS, EMPTY_LEAST), n = 0;
    for (; n < most && rested(resting->oldest, now); n++)
        record_empty(resting->oldest);
    strip_empty(n + EMPTY_LEAST);
    records.emptied = n != 0 ? records.emptied + n : 0;
    return records.emptied >= EMPTIED_MANY && conf.dirty_decay_ms > 0;
}

/* When the next turn for records is due. */
static uint64_t
next_due(uint64_t now)
{
    uint64_t due = now + RECORDS_WAIT_MS;
    const struct record_head *oldest = records.lists[THREAD_RESTING].oldest;
    if (services.thread_started == NULL && records.next_look < due)
        due = records.next_look;
    if (oldest != NULL && oldest->since + REST_MS < due)
        due = oldest->since + REST_MS;
    if (records.lists[THREAD_EMPTY].oldest != NULL) /* somebody looked at it */
        due = now;
    return due;
}

/* Look for threads that have ended, and for their records that nobody took over. */
static void
records_turn(uint64_t now)
{
    uint64_t due = atomic_load_explicit(&records.due, memory_order_relaxed);
    if (now < due && due - now <= RECORDS_WAIT_MS) /* else it is due, or the clock went back */
        return;
    if (!lock_try(&records.lock))
        return;
    if (now >= records.next_look || records.next_look - now > RECORDS_WAIT_MS)
        records_find_ended(now);
    bool purge = empty_rested(now, now > due ? now - due : 0);
    atomic_store_explicit(&records.due, next_due(now), memory_order_relaxed);
    lock_drop(&records.lock);
    if (purge)
        pool_purge();
}

/* What is no thread's own. */
static void
turn_for_all(uint64_t now)
{
    thread_forget_heaps();
    records_turn(now);
    pool_tick(now);
}

/* What is its thread's own. */
static void
turn_for_itself(struct thread *t, uint64_t now)
{
    if (now < t->collected || now - t->collected >= COLLECT_MS) { /* the clock may have gone back */
        /* After a long rest what was cached is as old as pages that have decayed. */
        bool all = conf.dirty_decay_ms >= 0 && now > t->collected && now - t->collected >= (uint64_t)conf.dirty_decay_ms;
        t->collected = now;
        cache_set_collect(&t->set, all);
    }
    cache_set_retire_ending(&t->set);
}

void
thread_tick(struct thread *t)
{
    uint64_t now = os_clock_ms();
    if (t != NULL)
        turn_for_itself(t, now);
    turn_for_all(now);
}

void
thread_purge(void)
{
    struct thread *self = tls_get();
    if (self != NULL)
        cache_set_collect(&self->set, true);
    lock_take(&records.lock);
    records_find_all_ended();
    while (records.lists[THREAD_RESTING].oldest != NULL)
        record_empty(records.lists[THREAD_RESTING].oldest);
    strip_empty(UINT32_MAX);
    lock_drop(&records.lock);
}
