/*
 * One block that grows: to 300 KB by small steps, as a string or an array does that is appended
 * to, to 300 MB by a quarter each time, and from nearly nothing by half, by an allocator that has done nothing yet.
 */
#define _GNU_SOURCE
#include "works.h"

enum { SMALL_STEP = 2000, SMALL_END = 300000 };
static const size_t large_start = 300000, large_end = 300000000;
enum { HALF_START = 16, HALF_END = 300000, HALF_BLOCKS = 2000 };

static void body_grow_small(void *context, long count)
{
    struct api *api = context;
    void *(*grow)(void *, size_t) = LOAD(api->realloc);
    for (long turn = 0; turn < count; turn++) {
        char *block = NULL;
        for (size_t size = SMALL_STEP; size <= SMALL_END; size += SMALL_STEP) {
            block = grow(block, size);
            block[size - 1] = 1;
        }
        api->free(block);
    }
}

static void body_grow_large(void *context, long count)
{
    struct api *api = context;
    void *(*grow)(void *, size_t) = LOAD(api->realloc);
    for (long turn = 0; turn < count; turn++) {
        char *block = NULL;
        for (size_t size = large_start; size <= large_end; size += size / 4) {
            block = grow(block, size);
            block[size - 1] = 1;
        }
        api->free(block);
    }
}

void work_realloc_small(struct job *job)
{
    job->value = best_ns(job->seconds, body_grow_small, &job->api, SMALL_END / SMALL_STEP);
}

void work_realloc_large(struct job *job)
{
    int steps = 0;
    for (size_t size = large_start; size <= large_end; size += size / 4)
        steps++;
    job->value = best_ns(job->seconds, body_grow_large, &job->api, steps) / 1e3;
}

/* Timed once: the first 2,000 blocks of a process are what is asked about. */
void work_realloc_by_half(struct job *job)
{
    void *(*grow)(void *, size_t) = LOAD(job->api.realloc);
    long steps = 0;
    double start = clock_ns();
    for (int i = 0; i < HALF_BLOCKS; i++) {
        char *block = NULL;
        for (size_t size = HALF_START; size <= HALF_END; size += size / 2, steps++) {
            block = grow(block, size);
            block[size - 1] = 1;
        }
        job->api.free(block);
    }
    job->value = (clock_ns() - start) / (double)steps;
}
