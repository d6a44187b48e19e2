/*
 * How a heap ends: when nothing keeps it any more, and no thread is inside. Nothing keeps it when it has no runs, so that no
 * block of it is out, and no caches (heap_hold). A thread retires its own caches of a heap that is ending at its next turn of the
 * slow path; one that sleeps keeps the heap until then. A thread is inside while it is in the slow path of the heap, where it
 * holds a pointer to it: it says so in its record.
 *
 * Who is inside says so first and looks for the heap then; who ends a heap hides it first and looks for threads then. All
 * of these are sequentially consistent, so that one of the two sees the other. It is the same with caches: heap_look_begin()
 * and cache_set_find() against who hides a cache and asks heap_is_looked_at().
 */
#ifndef THREAD_ENDING_H
#define THREAD_ENDING_H

#include "thread/record.h"

/* Threads without a record, by heap modulo this. */
#define ENDING_VISITORS 64
extern HIDDEN _Atomic uint32_t ending_visitors[ENDING_VISITORS];

struct visit {
    struct thread *thread; /* NULL: it has no record */
    uint32_t heap, before; /* where it was inside before, as signal handlers and messages may come between */
};

/* Say that the calling thread is inside of a heap; the default one, which never ends, needs no word. */
static inline struct visit
visit_begin(uint32_t heap)
{
    struct visit v = { thread_get(), heap, 0 };
    if (heap == ALCOVE_HEAP_DEFAULT)
        return v;
    if (v.thread != NULL)
        v.before = atomic_exchange(&v.thread->inside, heap);
    else
        atomic_fetch_add(&ending_visitors[heap % ENDING_VISITORS], 1);
    return v;
}

static inline void
visit_end(struct visit v)
{
    if (v.heap == ALCOVE_HEAP_DEFAULT)
        return;
    if (v.thread != NULL)
        atomic_store_explicit(&v.thread->inside, v.before, memory_order_release);
    else
        atomic_fetch_sub_explicit(&ending_visitors[v.heap % ENDING_VISITORS], 1, memory_order_release);
}

/* Let a heap end, as soon as it can. Errors as heap_end()'s. */
int thread_end_heap(uint32_t heap);

/* Forget the heaps that are done and that no thread is inside of. Takes no time if there are none. */
void thread_forget_heaps(void);

void ending_fork_child(void);

#endif
