/*
 * Many blocks at a time: batches of mixed sizes freed in order, reversed or shuffled, and random
 * replacement among many live blocks, by one thread or several.
 */
#define _GNU_SOURCE
#include "works.h"

#include <unistd.h>

/* ---- batches ---- */

void batch_prepare(struct batch *batch, uint64_t *seed, int order)
{
    for (uint32_t i = 0; i < BATCH; i++) {
        batch->size[i] = (uint32_t)random_between(seed, 16, 512);
        batch->order[i] = order == BATCH_REVERSED ? BATCH - 1 - i : i;
    }
    if (order == BATCH_SHUFFLED)
        random_shuffle(seed, batch->order, BATCH);
}

void body_batch(void *context, long count)
{
    struct batch *batch = context;
    void *(*allocate)(size_t) = LOAD(batch->malloc);
    void (*release)(void *) = LOAD(batch->free);
    for (long turn = 0; turn < count; turn++) {
        for (int i = 0; i < BATCH; i++)
            batch->block[i] = allocate(batch->size[i]);
        for (int i = 0; i < BATCH; i++)
            release(batch->block[batch->order[i]]);
    }
}

void work_batch(struct job *job)
{
    static struct batch batch;
    batch.malloc = job->api.malloc;
    batch.free = job->api.free;
    batch_prepare(&batch, &job->seed, (int)job->parameter);
    job->value = best_ns(job->seconds, body_batch, &batch, BATCH);
}

/* ---- random replacement ---- */

enum { DRAWS = 1 << 16 };

/* The slots and sizes of the next replacements, drawn beforehand, so that the loop times the
 * allocator and not the dice. Threads share them and start at different places. */
struct draws {
    uint32_t slot[DRAWS], size[DRAWS];
};

/* One thread's live blocks. */
struct slots {
    struct api *api;
    const struct draws *draws;
    size_t count;
    void **block;
    uint64_t at;
};

typedef size_t size_function(uint64_t *seed);

/* What programs ask for: mostly small blocks, 20 MB of them in 20,000 slots. */
static size_t size_mixed(uint64_t *seed)
{
    size_t percent = random_between(seed, 0, 99);
    return percent < 90 ? random_between(seed, 16, 512)
         : percent < 99 ? random_between(seed, 512, 8192)
                        : random_between(seed, 8192, 65536);
}

/* Every size class alike, 160 MB in 20,000 slots: caches miss whatever the allocator does. */
static size_t size_wide(uint64_t *seed)
{
    return random_log(seed, 16, 65536);
}

static size_t size_small(uint64_t *seed)
{
    return random_between(seed, 16, 128);
}

static const struct draws *draw(uint64_t seed, size_function *size)
{
    struct draws *draws = pages_get(sizeof *draws);
    for (size_t i = 0; i < DRAWS; i++) {
        draws->slot[i] = (uint32_t)(random_next(&seed) >> 32);
        draws->size[i] = (uint32_t)size(&seed);
    }
    return draws;
}

static void body_fill(void *context, long unused)
{
    struct slots *slots = context;
    (void)unused;
    for (size_t i = 0; i < slots->count; i++) {
        size_t size = slots->draws->size[(slots->at + i) % DRAWS];
        char *block = slots->api->malloc(size);
        block[0] = block[size - 1] = 1;
        slots->block[i] = block;
    }
}

static void body_replace(void *context, long count)
{
    struct slots *slots = context;
    const struct draws *draws = slots->draws;
    void *(*allocate)(size_t) = LOAD(slots->api->malloc);
    void (*release)(void *) = LOAD(slots->api->free);
    size_t slot_count = slots->count;
    uint64_t at = slots->at, end = at + (uint64_t)count;
    for (; at < end; at++) {
        size_t drawn = at % DRAWS;
        /* Other slots each time the draws are used up, or only DRAWS slots would be seen. */
        uint32_t mixed = draws->slot[drawn] + (uint32_t)(at / DRAWS) * 2654435761u;
        size_t slot = (size_t)(((uint64_t)mixed * slot_count) >> 32);
        size_t size = draws->size[drawn];
        release(slots->block[slot]);
        char *block = allocate(size);
        block[0] = 1;
        block[size - 1] = 1;
        slots->block[slot] = block;
    }
    slots->at = at;
}

enum { LOCKS_COUNTED_OVER = 100000 };

/* How many locks 1,000 replacements take, and wait for, once the caches are what they will be. */
static void count_locks(struct job *job, body_function *body, void *context, int threads)
{
    struct lock_counts *counts = job->api.lock_counts;
    double thousands = (double)threads * LOCKS_COUNTED_OVER / 1000;
    body(context, LOCKS_COUNTED_OVER);
    uint64_t takes = counts->takes, waits = counts->waits;
    body(context, LOCKS_COUNTED_OVER);
    job->value = (double)(counts->takes - takes) / thousands;
    job->lock_waits = (double)(counts->waits - waits) / thousands;
}

static void replace_with_threads(struct job *job, int threads, size_t count, size_function *size)
{
    const struct draws *draws = draw(job->seed, size);
    struct slots *slots = pages_get((size_t)threads * sizeof *slots);
    void **contexts = pages_get((size_t)threads * sizeof *contexts);
    for (int i = 0; i < threads; i++) {
        slots[i] = (struct slots){.api = &job->api, .draws = draws, .count = count,
                                  .block = pages_get(count * sizeof(void *)),
                                  .at = (uint64_t)i * DRAWS / (uint64_t)threads};
        contexts[i] = &slots[i];
    }
    if (threads == 1) {
        body_fill(slots, 0);
        if (job->locks)
            count_locks(job, body_replace, slots, 1);
        else
            job->value = best_ns(job->seconds, body_replace, slots, 1);
        return;
    }
    struct team team;
    team_start(&team, threads, contexts);
    /* Each thread fills its own slots, the way a program would. */
    team.body = body_fill;
    team_body(&team, 0);
    team.body = body_replace;
    if (job->locks)
        count_locks(job, team_body, &team, threads);
    else
        job->value = median_ns(job->seconds, team_body, &team, 1);
    team_stop(&team);
}

void work_replace(struct job *job)
{
    replace_with_threads(job, (int)job->parameter, 20000, size_mixed);
}

void work_replace_wide(struct job *job)
{
    replace_with_threads(job, (int)job->parameter, 20000, size_wide);
}

/* ---- curves ---- */

void curve_live(struct job *job)
{
    replace_with_threads(job, 1, (size_t)job->parameter, size_small);
}

static void replace_for_curve(struct job *job, size_function *size)
{
    long threads = job->parameter, cpus = sysconf(_SC_NPROCESSORS_ONLN);
    replace_with_threads(job, (int)threads, 1000, size);
    /* Time of one processor for one operation. */
    if (threads > cpus && !job->locks)
        job->value = job->value * (double)cpus / (double)threads;
}

void curve_threads(struct job *job)
{
    replace_for_curve(job, size_small);
}

void curve_threads_mixed(struct job *job)
{
    replace_for_curve(job, size_mixed);
}
