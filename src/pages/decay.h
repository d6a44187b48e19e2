/*
 * Decay: how many free pages may stay resident, given when they became free. All of them at
 * first, none after `ms` milliseconds, and in between along the smoothstep curve
 * 6x^5 - 15x^4 + 10x^3, so that a program which frees and allocates in waves keeps its pages.
 * Pure arithmetic: no clock, no lock; the caller has both.
 */
#ifndef PAGES_DECAY_H
#define PAGES_DECAY_H

#include <stddef.h>
#include <stdint.h>

#define DECAY_EPOCHS 200 /* steps of the curve */

struct decay {
    int64_t ms;         /* time to decay; 0: at once; -1: never */
    uint64_t epoch;     /* clock at which the present epoch began, ms */
    size_t seen;        /* pages that were free and resident when it began */
    size_t limit;       /* how many may stay */
    size_t backlog[DECAY_EPOCHS]; /* pages that became free in each of the last epochs, the newest last */
};

void decay_init(struct decay *d, int64_t ms, uint64_t now);

/* Length of an epoch, ms, at least 1. */
uint64_t decay_epoch_ms(const struct decay *d);

/* Has the clock gone back? `now` may have been read a little before somebody else advanced, but not a second. */
static inline int
decay_clock_went_back(const struct decay *d, uint64_t now)
{
    uint64_t epoch = __atomic_load_n(&d->epoch, __ATOMIC_RELAXED);
    return now < epoch && epoch - now > 1000;
}

/* Has an epoch gone by? May be asked without the lock. Where the clock has gone back there is something to do, too. */
static inline int
decay_is_due(const struct decay *d, uint64_t now)
{
    return d->ms > 0 && (now >= __atomic_load_n(&d->epoch, __ATOMIC_RELAXED) + decay_epoch_ms(d) || decay_clock_went_back(d, now));
}

/* Advance to `now`, with `pages` free and resident, and return how many may stay. */
size_t decay_advance(struct decay *d, uint64_t now, size_t pages);

/* 2^24 times the curve at i / DECAY_EPOCHS. */
uint32_t decay_curve(unsigned i);

#endif
