/* Turns of the slow path: what a thread does for itself, for records that nobody uses and for free pages, now and then. */
#include "ground/conf.h"
#include "os/os.h"
#include "pages/pool.h"
#include "thread/records.h"

#define COLLECT_MS 1000 /* time between two collections of a thread's caches */
#define IDLE_MS 1000    /* how long the caches of a thread that ended wait for an heir */
#define ENDED_SCAN 4    /* records looked at, for one whose thread has ended, at each collection */

/* Empty the caches of records that have waited for an heir long enough. */
static void
collect_idle(uint64_t now)
{
    if (!lock_try(&records.lock))
        return;
    records_find_ended(ENDED_SCAN, NOBODY);
    for (struct thread *t = records.idle; t != NULL; t = t->next_idle) {
        if (t->idle_since != 0 && now - t->idle_since >= IDLE_MS) {
            t->idle_since = 0;
            cache_set_collect(&t->set, true);
        }
    }
    lock_drop(&records.lock);
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
    lock_take(&records.lock);
    records_find_ended(ALL_RECORDS, NOBODY);
    for (struct thread *t = records.idle; t != NULL; t = t->next_idle)
        cache_set_collect(&t->set, true);
    lock_drop(&records.lock);
}
