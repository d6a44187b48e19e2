/* Decay arithmetic. */
#include "pages/decay.h"

#include <string.h>

void
decay_init(struct decay *d, int64_t ms, uint64_t now)
{
    memset(d, 0, sizeof *d);
    d->ms = ms;
    d->epoch = now;
}

uint64_t
decay_epoch_ms(const struct decay *d)
{
    return d->ms > DECAY_EPOCHS ? (uint64_t)d->ms / DECAY_EPOCHS : 1;
}

uint32_t
decay_curve(unsigned i)
{
    const uint64_t n = DECAY_EPOCHS, x = i;
    /* x^3 (6x^2 - 15nx + 10n^2) / n^5; the bracket is positive for x <= n. */
    uint64_t cube = x * x * x, bracket = 6 * x * x + 10 * n * n - 15 * n * x;
    return (uint32_t)(((cube * bracket / n) << 24) / (n * n * n * n));
}

static size_t
backlog_limit(const struct decay *d)
{
    unsigned __int128 sum = 0;
    /* The newest epoch is at the end and may stay whole. */
    for (unsigned i = 0; i < DECAY_EPOCHS; i++)
        if (d->backlog[i] != 0)
            sum += (unsigned __int128)d->backlog[i] * decay_curve(i + 1);
    return (size_t)(sum >> 24);
}

size_t
decay_advance(struct decay *d, uint64_t now, size_t pages)
{
    if (decay_clock_went_back(d, now)) /* pages are as old as they were, from now on */
        __atomic_store_n(&d->epoch, now, __ATOMIC_RELAXED);
    uint64_t epochs = now > d->epoch ? (now - d->epoch) / decay_epoch_ms(d) : 0;
    if (epochs == 0)
        return d->limit;
    /* What became free since the epoch began counts for that epoch, however long ago it was. */
    size_t fresh = pages > d->seen ? pages - d->seen : 0;
    d->backlog[DECAY_EPOCHS - 1] += fresh;
    if (epochs >= DECAY_EPOCHS) {
        memset(d->backlog, 0, sizeof d->backlog);
    } else {
        memmove(d->backlog, d->backlog + epochs, (DECAY_EPOCHS - epochs) * sizeof d->backlog[0]);
        memset(d->backlog + DECAY_EPOCHS - epochs, 0, epochs * sizeof d->backlog[0]);
    }
    __atomic_store_n(&d->epoch, d->epoch + epochs * decay_epoch_ms(d), __ATOMIC_RELAXED);
    d->limit = backlog_limit(d);
    d->seen = pages < d->limit ? pages : d->limit;
    return d->limit;
}
