/*
 * What stress tests share. They link the allocator's objects, so that ThreadSanitizer sees all of it. How long they run:
 * the first argument, or ALCOVE_STRESS_ROUNDS, times what takes about a second.
 */
#ifndef TESTS_STRESS_H
#define TESTS_STRESS_H

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "alcove/alcove.h"
#include "config.h"
#include "tests/process.h"

#if defined __SANITIZE_THREAD__ || defined __SANITIZE_ADDRESS__
#define UNDER_SANITIZER 1
#elif defined __has_feature
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer)
#define UNDER_SANITIZER 1
#endif
#endif

static const struct alcove_table *const table = &ALCOVE_PUBLIC(table);

/* The last thing that a thread does. What it leaves is taken over when the system no longer knows it, an order of things
 * that ThreadSanitizer cannot see: there the end is told. */
static inline void
thread_ends(void)
{
    if (UNDER_TSAN)
        table->thread_exit();
}

static unsigned rounds = 2;

static void
rounds_read(int argc, char **argv)
{
    const char *text = argc > 1 ? argv[1] : getenv("ALCOVE_STRESS_ROUNDS");
    if (text != NULL && atoi(text) > 0)
        rounds = (unsigned)atoi(text);
}

/* A generator for each thread: the same numbers in every run. */
struct dice {
    uint64_t state;
};

static inline uint32_t
roll(struct dice *d, uint32_t below)
{
    d->state = d->state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(d->state >> 33) % below;
}

/* Mostly small, now and then of the other kinds. */
static inline size_t
roll_size(struct dice *d)
{
    uint32_t kind = roll(d, 1000);
    if (kind < 800)
        return roll(d, 512);
    if (kind < 970)
        return roll(d, 16384);
    if (kind < 995)
        return roll(d, 300000);
    return roll(d, 5000000);
}

/* A pattern at both ends of a block that only its owner's seed gives; blocks of less than 16 bytes have none. */
struct mark {
    uint64_t size, seed;
};

static inline void
mark_write(void *block, size_t size, uint64_t seed)
{
    struct mark m = { size, seed * 0x9e3779b97f4a7c15u };
    if (size < sizeof m) {
        memset(block, (int)seed, size);
        return;
    }
    memcpy(block, &m, sizeof m);
    memcpy((char *)block + size - sizeof m, &m, sizeof m);
}

static inline bool
mark_holds(const void *block, size_t size, uint64_t seed)
{
    struct mark m = { size, seed * 0x9e3779b97f4a7c15u };
    if (size < sizeof m) {
        for (size_t i = 0; i < size; i++)
            if (((const unsigned char *)block)[i] != (unsigned char)seed)
                return false;
        return true;
    }
    /* Where both overlap, the later one was written last. */
    return (size < 2 * sizeof m || memcmp(block, &m, sizeof m) == 0) &&
           memcmp((const char *)block + size - sizeof m, &m, sizeof m) == 0;
}

static _Atomic unsigned message_count;

static void
messages_count(void *unused, const char *line)
{
    (void)unused;
    if (atomic_fetch_add(&message_count, 1) < 5)
        print_error("%s", line);
}

struct body {
    void *(*function)(void *);
    unsigned number;
};

static inline void *
body_run(void *argument)
{
    const struct body *b = argument;
    void *result = b->function((void *)(uintptr_t)b->number);
    thread_ends();
    return result;
}

/* Run a function in n threads, each with its number; fails if one returns other than NULL. */
static inline void
in_threads(unsigned n, void *(*body)(void *))
{
    pthread_t threads[64];
    struct body bodies[64];
    unsigned failed = 0;
    for (unsigned i = 0; i < n; i++) {
        bodies[i] = (struct body){ body, i };
        assert_int_equal(pthread_create(&threads[i], NULL, body_run, &bodies[i]), 0);
    }
    for (unsigned i = 0; i < n; i++) {
        void *result;
        pthread_join(threads[i], &result);
        failed += result != NULL;
    }
    assert_int_equal(failed, 0);
}

/* Who reads figures does not wait for a thread that is stopped while it moves blocks: they are right when that goes on. */
static inline bool
figures_become(uint32_t heap, uint64_t live_blocks, uint64_t total_allocs)
{
    enum { WAITS = 10000 };
    struct alcove_heap_stats stats;
    for (unsigned i = 0; i < WAITS && table->heap_stats(heap, &stats) == 0; i++) {
        if (stats.live_blocks == live_blocks && stats.total_allocs == total_allocs)
            return true;
        nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
    }
    return false;
}

#define FAILED ((void *)1)

#endif
