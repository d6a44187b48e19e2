/* The end of heaps. */
#include "thread/ending.h"

#include <errno.h>

#include "thread/records.h"

_Atomic uint32_t ending_visitors[ENDING_VISITORS];

/* Records are only ever added to the list. */
static bool
somebody_is_inside(uint32_t heap)
{
    if (atomic_load(&ending_visitors[heap % ENDING_VISITORS]) != 0)
        return true;
    for (struct record_head *head = record_from(records_first()); head != NULL; head = record_from(head->next))
        if (atomic_load(&head->record->inside) == heap)
            return true;
    return false;
}

void
thread_forget_heaps(void)
{
    heaps_forget_done(somebody_is_inside);
}

int
thread_end_heap(uint32_t heap)
{
    struct visit visit = visit_begin(heap);
    struct heap *h;
    int error = heap_end(heap, &h);
    if (error != 0) {
        visit_end(visit);
        return error;
    }
    struct thread *self = tls_get();
    if (self != NULL)
        cache_set_retire_ending(&self->set);
    lock_take(&records.lock);
    for (struct record_head *head = record_from(records.all); head != NULL; head = record_from(head->next))
        if (head->state != THREAD_LIVE)
            cache_set_retire_ending(&head->record->set);
    lock_drop(&records.lock);
    thread_empty_caches(h); /* where they are guarded, those of others too */
    heap_purge_given(h);
    visit_end(visit);
    thread_forget_heaps();
    return 0;
}

void
ending_fork_child(void)
{
    for (unsigned i = 0; i < ENDING_VISITORS; i++)
        if (atomic_load_explicit(&ending_visitors[i], memory_order_relaxed) != 0) /* else not to be touched */
            atomic_store_explicit(&ending_visitors[i], 0, memory_order_relaxed);
}
