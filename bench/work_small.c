/*
 * One block at a time: malloc+free pairs, calloc, aligned allocation; and what a pair of calls
 * costs when nothing is done, the floor.
 */
#define _GNU_SOURCE
#include "works.h"

#include <string.h>

static __attribute__((noinline)) void *empty_malloc(size_t size)
{
    __asm__ volatile("" : : "r"(size));
    return NULL;
}

static __attribute__((noinline)) void empty_free(void *block)
{
    __asm__ volatile("" : : "r"(block));
}

void body_pairs(void *context, long count)
{
    struct pairs *pairs = context;
    void *(*allocate)(size_t) = LOAD(pairs->malloc);
    void (*release)(void *) = LOAD(pairs->free);
    size_t size = pairs->size;
    for (long i = 0; i < count; i++) {
        void *block = allocate(size);
        OPAQUE(block);
        release(block);
    }
}

void work_empty(struct job *job)
{
    struct pairs pairs = {empty_malloc, empty_free, 64};
    job->value = best_ns(job->seconds, body_pairs, &pairs, 1);
}

void work_pair(struct job *job)
{
    struct pairs pairs = {job->api.malloc, job->api.free, (size_t)job->parameter};
    job->value = best_ns(job->seconds, body_pairs, &pairs, 1);
}

/* Sizes (and alignments) in a row that every peer gets alike. */
enum { SIZES = 1024 };

struct many {
    struct api *api;
    uint32_t size[SIZES], alignment[SIZES];
};

static void body_calloc(void *context, long count)
{
    struct many *many = context;
    void *(*allocate)(size_t, size_t) = LOAD(many->api->calloc);
    void (*release)(void *) = LOAD(many->api->free);
    for (long i = 0; i < count; i++) {
        void *block = allocate(1, many->size[i % SIZES]);
        OPAQUE(block);
        release(block);
    }
}

static void body_aligned(void *context, long count)
{
    struct many *many = context;
    void *(*allocate)(size_t, size_t) = LOAD(many->api->aligned_alloc);
    void (*release)(void *) = LOAD(many->api->free);
    for (long i = 0; i < count; i++) {
        void *block = allocate(many->alignment[i % SIZES], many->size[i % SIZES]);
        OPAQUE(block);
        release(block);
    }
}

void work_calloc(struct job *job)
{
    static struct many many;
    many.api = &job->api;
    for (int i = 0; i < SIZES; i++)
        many.size[i] = (uint32_t)random_between(&job->seed, 16, 512);
    job->value = best_ns(job->seconds, body_calloc, &many, 1);
}

void work_aligned(struct job *job)
{
    if (!job->api.aligned_alloc) {
        strcpy(job->note, "has no aligned_alloc");
        return;
    }
    static struct many many;
    many.api = &job->api;
    for (int i = 0; i < SIZES; i++) {
        many.alignment[i] = 64u << random_between(&job->seed, 0, 6);
        many.size[i] = many.alignment[i] * (uint32_t)random_between(&job->seed, 1, 4);
    }
    job->value = best_ns(job->seconds, body_aligned, &many, 1);
}
