/*
 * A thread's record: its caches, one for each heap it used. Records outlive their threads: a dead
 * thread's record, caches and all, is taken over by the next thread that starts; one that nobody
 * takes over is emptied, and its pages are given back. What lists say of it is apart, in its head.
 *
 * How the end of a thread is learnt: a loader that stays calls thread_exit(). Without one nothing of ours
 * is called when a thread ends, for it could be gone by then, and nothing of ours is written to: the
 * system is asked whether it still knows the thread, a few records at a time.
 */
#ifndef THREAD_RECORD_H
#define THREAD_RECORD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "alcove/table.h"
#include "thread/cache_set.h"
#include "thread/tls.h"

enum thread_state {
    THREAD_LIVE,
    THREAD_RESTING, /* its thread has ended; its caches wait for an heir */
    THREAD_EMPTY,   /* they hold nothing any more */
    THREAD_BARE,    /* there are none: the record is purged, and made anew when a thread takes it */
    THREAD_STATES
};

/* Many to a page, and there for good. Guarded by the lock of the list of records, but for the first two, which stay. */
struct record_head {
    struct record_head *next;  /* of all */
    struct thread *record;
    _Atomic(enum thread_state) state; /* read without the lock */
    int id;                    /* of its thread, in the system */
    uint64_t since;            /* when it came into its state, ms */
    struct record_head *newer, *older; /* of those in its state */
    tls_word *slot;            /* the thread's, which speaks of the record */
    _Atomic(struct cache *) *guarded; /* the table of the record's set, while it is bare */
};

/* The record itself. Who looks at one without a lock may find it purged: then it has no cache, and its thread is in no heap. */
struct thread {
    struct cache_set set;      /* first, so that finding the cache of heap 0 is adding nothing */
    struct record_head *head;
    uint64_t collected;        /* when its caches were last collected, ms */
    _Atomic uint32_t inside;   /* the heap in whose slow path it is, thread/ending.h; 0: in none */
    /* The set's, by heap, at a constant place for the hot path. At the end of the record, for most of it is never touched. */
    _Atomic(struct cache *) caches[CACHE_SET_HEAPS];
    char arrays[]; /* the set's, up to THREAD_RECORD_BYTES */
};

#define THREAD_RECORD_BYTES ((size_t)160 << 10)

/* This thread's cache for a heap where TLS is static and all is made already; else NULL: take the slow path. Every record
 * has one of the default heap, so where it is known that this is asked for, there is nothing more to look at. */
static inline __attribute__((always_inline)) struct cache *
cache_of(size_t heap)
{
    struct thread *t = tls_static();
    if (unlikely(t == NULL))
        return NULL;
    if (__builtin_constant_p(heap) && heap == ALCOVE_HEAP_DEFAULT)
        return &t->set.first;
    return atomic_load_explicit(&t->caches[heap], memory_order_relaxed);
}

/* This thread's guarded cache for a heap; NULL if it has none. */
static inline struct cache *
thread_guarded(size_t heap)
{
    const struct thread *t = tls_get();
    const struct cache *c = t != NULL ? atomic_load_explicit(&t->caches[heap], memory_order_relaxed) : NULL;
    return c != NULL && cache_is_closed(c) ? cache_set_guarded(&t->set, (uint32_t)heap) : NULL;
}

/* Threads without a record share these. */
#define THREAD_SHARED_LG 4
#define THREAD_SHARED_LOCKS (1 << THREAD_SHARED_LG)
extern HIDDEN struct lock thread_shared_locks[THREAD_SHARED_LOCKS];

/* What a thread holds while it changes in turn what a fork must not see half changed: what a heap has, is charged and counts, and what
 * its own caches and the pool have. `t`: the calling thread's record, or NULL. */
static inline struct lock *
thread_lock(struct thread *t)
{
    return t != NULL ? &t->set.lock : &thread_shared_locks[lock_self() * 0x9e3779b1u >> (32 - THREAD_SHARED_LG)];
}

/* This thread's record, made if it has none. NULL: there is none to be had, do without caches. */
struct thread *thread_get(void);

/* A turn of the slow path: collect garbage and let pages decay, when it is time. `t`: the calling thread's record; NULL: only
 * what is nobody's own, by a thread that has none, and is not to get one for that, or wants its caches as they are. */
void thread_tick(struct thread *t);

/* Give back what this thread's caches hold, and those of records nobody uses. */
void thread_purge(void);

/* The calling thread ends. */
void thread_exit(void);

/* Drop every thread's cache of a heap that is going to be destroyed. */
void thread_drop_heap(uint32_t heap);

/* Give back what threads keep free of a guarded heap, sleeping ones too. Takes no lock where none keeps anything. */
void thread_empty_caches(struct heap *h);

/* What all caches of a heap hold, and what was allocated through them; by bin. */
struct thread_sums {
    uint64_t cached[BINS], allocations[BINS];
};
/* For one of the heap's lookers. False: blocks are just moving between one of them and the heap, or counts are. */
bool thread_sum(uint32_t heap, struct thread_sums *out);

/* How many threads have a record. Waits for nobody: without a loader, some that have ended may still count, if others start or
 * end just now. */
uint32_t thread_count(void);

/* Does a thread other than the caller have a record? */
bool thread_others_live(void);

/* Take the records away from all threads and forget them. What their caches hold goes back to the heaps if `give_back`. */
void thread_release_all(bool give_back);

bool thread_fork_holds(void); /* does this thread, in the middle of something? */
void thread_fork_prepare(void);
void thread_fork_done(void);
void thread_fork_child(void);

#endif
