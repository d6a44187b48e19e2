/*
 * One block that grows: to 300 KB by small steps, as a string or an array does that is appended
 * to, and to 300 MB by a quarter each time.
 */
#define _GNU_SOURCE
#include "works.h"

enum { SMALL_STEP = 2000, SMALL_END = 300000 };
static const size_t large_start = 300000, large_end = 300000000;

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
