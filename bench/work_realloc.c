/*
 * One block that grows: to 300 KB by small steps, as a string or an array does that is appended
 * to, to 300 MB by a quarter each time, and from nearly nothing by half or to the double, by an allocator that has done nothing yet.
 * And many that stay when they have grown.
 */
#define _GNU_SOURCE
#include "works.h"

#include <string.h>

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

/* Timed once: the first 2,000 blocks of a process are what is asked about. In each step a block grows by its part/2. */
static void grow_many(struct job *job, size_t part)
{
    void *(*grow)(void *, size_t) = LOAD(job->api.realloc);
    long steps = 0;
    double start = clock_ns();
    for (int i = 0; i < HALF_BLOCKS; i++) {
        char *block = NULL;
        for (size_t size = HALF_START; size <= HALF_END; size += size * part / 2, steps++) {
            block = grow(block, size);
            block[size - 1] = 1;
        }
        job->api.free(block);
    }
    job->value = (clock_ns() - start) / (double)steps;
}

void work_realloc_by_half(struct job *job)
{
    grow_many(job, 1);
}

void work_realloc_double(struct job *job)
{
    grow_many(job, 2);
}

/* ---- blocks that stay ---- */

enum { GROWN = 20000, GROWN_TURNS = 6, GROWN_START = 96, GROWN_LEAST = 64, GROWN_MOST = 65536 };

struct grown {
    char *block[GROWN];
    size_t size[GROWN];
    size_t live; /* bytes written */
    double steps;
};

/* A vector is filled, byte by byte, to a size of 64 B to 64 KiB (log-uniform), and grows by half whenever it is full. */
static void grown_put(struct grown *grown, struct api *api, size_t place, size_t size)
{
    size_t room = GROWN_START, used = 0;
    char *block = api->malloc(room);
    for (;;) {
        size_t next = room < size ? room : size;
        memset(block + used, 1, next - used);
        used = next;
        if (used == size)
            break;
        room += room / 2;
        block = api->realloc(block, room);
        grown->steps++;
    }
    grown->block[place] = block;
    grown->size[place] = size;
    grown->live += size;
}

/* 20,000, and five times as many that take the place of one at random. */
static struct grown *grow_and_stay(struct job *job)
{
    struct grown *grown = pages_get(sizeof *grown);
    for (size_t i = 0; i < (size_t)GROWN * GROWN_TURNS; i++) {
        size_t place = i < GROWN ? i : random_between(&job->seed, 0, GROWN - 1);
        if (i >= GROWN) {
            job->api.free(grown->block[place]);
            grown->live -= grown->size[place];
        }
        grown_put(grown, &job->api, place, random_log(&job->seed, GROWN_LEAST, GROWN_MOST));
    }
    return grown;
}

void work_grown(struct job *job)
{
    double start = clock_ns();
    struct grown *grown = grow_and_stay(job);
    job->value = (clock_ns() - start) / grown->steps;
}

void work_grown_memory(struct job *job)
{
    resident_bytes();
    size_t before = resident_bytes() + sizeof(struct grown);
    struct grown *grown = grow_and_stay(job);
    job->value = 100 * (double)(resident_bytes() - before) / (double)grown->live;
}
