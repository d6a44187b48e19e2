/*
 * Large blocks that come and go: a gigabyte of blocks of 4 to 64 MiB is live, as in a program that works on
 * images or matrices. What a replacement takes is the page faults of the new block, if its pages came from the system.
 */
#define _GNU_SOURCE
#include "works.h"

#include <unistd.h>

#define LARGE_LOW ((size_t)4 << 20)
#define LARGE_HIGH ((size_t)64 << 20)
/* 34 MiB each on average, so 1 GiB in all. */
enum { LARGE_SLOTS = 30, LARGE_REPLACEMENTS = 60 };

struct large {
    struct api *api;
    uint64_t seed;
    size_t page;
    char *block[LARGE_SLOTS];
};

/* A byte in every page is written. */
static void large_put(struct large *large, size_t slot)
{
    size_t size = random_between(&large->seed, LARGE_LOW, LARGE_HIGH);
    char *block = large->api->malloc(size);
    for (size_t at = 0; at < size; at += large->page)
        block[at] = 1;
    large->block[slot] = block;
}

static void large_start(struct large *large, struct job *job)
{
    *large = (struct large){.api = &job->api, .seed = job->seed, .page = (size_t)sysconf(_SC_PAGESIZE)};
    for (size_t slot = 0; slot < LARGE_SLOTS; slot++)
        large_put(large, slot);
}

static void large_replace(struct large *large)
{
    for (int i = 0; i < LARGE_REPLACEMENTS; i++) {
        size_t slot = random_between(&large->seed, 0, LARGE_SLOTS - 1);
        large->api->free(large->block[slot]);
        large_put(large, slot);
    }
}

void work_large(struct job *job)
{
    struct large large;
    large_start(&large, job);
    double start = clock_ns();
    large_replace(&large);
    job->value = (clock_ns() - start) / 1e3 / LARGE_REPLACEMENTS;
}

void work_large_faults(struct job *job)
{
    struct large large;
    large_start(&large, job);
    double before = faults_so_far();
    large_replace(&large);
    job->value = (faults_so_far() - before) / LARGE_REPLACEMENTS;
}
