/*
 * Threads: a team that repeats a loop together, blocks handed from the thread that allocates to
 * one that frees, and threads that live only shortly.
 */
#define _GNU_SOURCE
#include "works.h"

#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

/* ---- the team ---- */

struct member {
    struct team *team;
    int place;
};

static void *member_main(void *argument)
{
    struct member *member = argument;
    struct team *team = member->team;
    for (;;) {
        pthread_barrier_wait(&team->begin);
        if (!team->body)
            return NULL;
        team->body(team->contexts[member->place], team->count);
        pthread_barrier_wait(&team->end);
    }
}

static void thread_start(pthread_t *thread, void *(*function)(void *), void *argument)
{
    int error = pthread_create(thread, NULL, function, argument);
    if (error) {
        fprintf(stderr, "alcove-bench: pthread_create: error %d\n", error);
        exit(1);
    }
}

void team_start(struct team *team, int threads, void **contexts)
{
    struct member *members = pages_get((size_t)threads * sizeof *members);
    team->threads = threads;
    team->contexts = contexts;
    pthread_barrier_init(&team->begin, NULL, (unsigned)threads + 1);
    pthread_barrier_init(&team->end, NULL, (unsigned)threads + 1);
    for (int i = 0; i < threads; i++) {
        members[i] = (struct member){team, i};
        thread_start(&team->thread[i], member_main, &members[i]);
    }
}

void team_body(void *context, long count)
{
    struct team *team = context;
    team->count = count;
    pthread_barrier_wait(&team->begin);
    pthread_barrier_wait(&team->end);
}

void team_stop(struct team *team)
{
    team->body = NULL;
    pthread_barrier_wait(&team->begin);
    for (int i = 0; i < team->threads; i++)
        pthread_join(team->thread[i], NULL);
}

/* ---- freed by another thread ---- */

enum { PARCEL = 64, PARCELS = 32, HAND_SIZES = 1024 };

/* A ring of parcels of blocks, one writer, one reader. */
struct ring {
    struct api *api;
    uint32_t size[HAND_SIZES];
    _Alignas(64) _Atomic long written;
    _Alignas(64) _Atomic long read;
    _Alignas(64) void *parcel[PARCELS][PARCEL];
};

static void wait_until_at_least(_Atomic long *counter, long wanted)
{
    for (int turn = 0; atomic_load_explicit(counter, memory_order_acquire) < wanted; turn++) {
        if (turn < 200)
            __asm__ volatile("" : : : "memory");
        else
            sched_yield();
    }
}

/* Both count parcels. The counters go on over repetitions and are equal between them. */
static void produce(struct ring *ring, long count)
{
    void *(*allocate)(size_t) = LOAD(ring->api->malloc);
    long at = atomic_load_explicit(&ring->written, memory_order_relaxed);
    for (long end = at + count; at < end; at++) {
        wait_until_at_least(&ring->read, at - PARCELS + 1);
        void **parcel = ring->parcel[at % PARCELS];
        for (int i = 0; i < PARCEL; i++) {
            char *block = allocate(ring->size[(at * PARCEL + i) % HAND_SIZES]);
            block[0] = 1;
            parcel[i] = block;
        }
        atomic_store_explicit(&ring->written, at + 1, memory_order_release);
    }
}

static void consume(struct ring *ring, long count)
{
    void (*release)(void *) = LOAD(ring->api->free);
    long at = atomic_load_explicit(&ring->read, memory_order_relaxed);
    for (long end = at + count; at < end; at++) {
        wait_until_at_least(&ring->written, at + 1);
        void **parcel = ring->parcel[at % PARCELS];
        for (int i = 0; i < PARCEL; i++)
            release(parcel[i]);
        atomic_store_explicit(&ring->read, at + 1, memory_order_release);
    }
}

struct hand {
    struct ring *ring;
    void (*side)(struct ring *, long);
};

static void body_hand(void *context, long count)
{
    struct hand *hand = context;
    hand->side(hand->ring, count);
}

void work_handover(struct job *job)
{
    static struct ring ring;
    ring.api = &job->api;
    for (int i = 0; i < HAND_SIZES; i++)
        ring.size[i] = (uint32_t)random_between(&job->seed, 16, 512);
    struct hand hands[2] = {{&ring, produce}, {&ring, consume}};
    void *contexts[2] = {&hands[0], &hands[1]};
    struct team team;
    team_start(&team, 2, contexts);
    team.body = body_hand;
    job->value = median_ns(job->seconds, team_body, &team, PARCEL);
    team_stop(&team);
}

/* ---- short lives ---- */

enum { LIFE_BLOCKS = 64 };

static void *short_life(void *argument)
{
    struct api *api = argument;
    void *block[LIFE_BLOCKS];
    for (int i = 0; i < LIFE_BLOCKS; i++)
        block[i] = api->malloc(16 + 8 * (size_t)i);
    for (int i = 0; i < LIFE_BLOCKS; i++)
        api->free(block[i]);
    return NULL;
}

static void body_life(void *context, long count)
{
    for (long i = 0; i < count; i++) {
        pthread_t thread;
        thread_start(&thread, short_life, context);
        pthread_join(thread, NULL);
    }
}

void work_thread_life(struct job *job)
{
    job->value = best_ns(job->seconds, body_life, &job->api, 1) / 1e3;
}
