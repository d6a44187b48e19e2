/*
 * A thread's record: its caches, one for each heap it used. Records outlive their threads: a dead
 * thread's record, caches and all, is taken over by the next thread that starts; one that nobody
 * takes over is emptied.
 *
 * How the end of a thread is learnt: a loader that stays calls thread_exit(). Without one, the
 * destructor of a pthread key is a function of libc, sem_post, which marks the record as left;
 * no code of ours is called that could be gone by then. Destructors that run after that one may
 * still allocate, so the record is free only when the system no longer knows the thread.
 */
#ifndef THREAD_RECORD_H
#define THREAD_RECORD_H

#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "alcove/table.h"
#include "thread/cache.h"
#include "thread/lock.h"
#include "thread/tls.h"

enum thread_state { THREAD_LIVE, THREAD_IDLE };

struct thread {
    struct cache first;        /* of heap 0; first, so that finding it is adding nothing */
    struct lock lock;
    enum thread_state state;   /* guarded by the lock of the list of records */
    struct thread **slot;      /* the thread's pointer to this */
    struct thread *next;       /* of all records */
    struct thread *next_idle;
    uint64_t idle_since;       /* ms */
    uint64_t collected;        /* when its caches were last collected, ms */
    struct cache *caches_made; /* all but the first */
    sem_t left;                /* its thread is ending */
    int id;                    /* of its thread, in the system */
    _Atomic(struct cache *) caches[ALCOVE_HEAP_MAX]; /* by heap; last, for most of it is never touched */
};

/* This thread's cache for a heap where TLS is static and all is made already; else NULL: take the slow path. */
static inline __attribute__((always_inline)) struct cache *
cache_of(size_t heap)
{
    intptr_t offset = tls_offset;
    if (unlikely(offset == 0))
        return NULL;
    struct thread *t = tls_static(offset);
    return likely(t != NULL) ? atomic_load_explicit(&t->caches[heap], memory_order_relaxed) : NULL;
}

/* The same for the default heap, which every record has a cache of. */
static inline __attribute__((always_inline)) struct cache *
cache_of_default(void)
{
    intptr_t offset = tls_offset;
    if (unlikely(offset == 0))
        return NULL;
    struct thread *t = tls_static(offset);
    return likely(t != NULL) ? &t->first : NULL;
}

/* This thread's record, made if it has none. NULL: there is none to be had, do without caches. */
struct thread *thread_get(void);

/* This thread's cache for a heap, made if there is none. NULL: no memory. */
struct cache *thread_cache(struct thread *t, struct heap *h);

/* A turn of the slow path: collect garbage and let pages decay, when it is time. */
void thread_tick(struct thread *t);

/* Give back what this thread's caches hold, and those of records nobody uses. */
void thread_purge(void);

/* The calling thread ends. */
void thread_exit(void);

/* Drop every thread's cache of a heap that is going to be destroyed. */
void thread_drop_heap(uint32_t heap);

/* What all caches of a heap hold, and what was allocated through them; by bin. */
struct thread_sums {
    uint64_t cached[BINS], allocations[BINS];
};
void thread_sum(uint32_t heap, struct thread_sums *out);

/* How many threads have a record. */
uint32_t thread_count(void);

/* Does a thread other than the caller have a record? */
bool thread_others_live(void);

/* Let no thread's end be told to us any more. */
void thread_forget_key(void);

/* Take the records away from all threads and forget them. */
void thread_release_all(void);

void thread_fork_prepare(void);
void thread_fork_done(void);
void thread_fork_child(void);

#endif
