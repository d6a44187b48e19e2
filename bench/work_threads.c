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

enum { PARCEL = 64, PARCELS = 32, HAND_SIZES = 1024, SLOTS = 4096 };

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
static void produce(void *context, long count)
{
    struct ring *ring = context;
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

static void consume(void *context, long count)
{
    struct ring *ring = context;
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

/* A ring of single blocks. A slot itself tells whether it is full, so that no counter goes between the two for each block. */
struct slot_ring {
    struct api *api;
    uint32_t size[HAND_SIZES];
    _Alignas(64) long written;
    _Alignas(64) long read;
    _Alignas(64) void *_Atomic slot[SLOTS];
};

static void wait_for_slot(void *_Atomic *slot, int full)
{
    for (int turn = 0; (atomic_load_explicit(slot, memory_order_acquire) != NULL) != full; turn++) {
        if (turn < 200)
            __asm__ volatile("" : : : "memory");
        else
            sched_yield();
    }
}

/* Both count blocks. Between repetitions the ring is empty. */
static void produce_one_by_one(void *context, long count)
{
    struct slot_ring *ring = context;
    void *(*allocate)(size_t) = LOAD(ring->api->malloc);
    long at = ring->written;
    for (long end = at + count; at < end; at++) {
        void *_Atomic *slot = &ring->slot[at % SLOTS];
        char *block = allocate(ring->size[at % HAND_SIZES]);
        block[0] = 1;
        wait_for_slot(slot, 0);
        atomic_store_explicit(slot, block, memory_order_release);
    }
    ring->written = at;
}

static void consume_one_by_one(void *context, long count)
{
    struct slot_ring *ring = context;
    void (*release)(void *) = LOAD(ring->api->free);
    long at = ring->read;
    for (long end = at + count; at < end; at++) {
        void *_Atomic *slot = &ring->slot[at % SLOTS];
        wait_for_slot(slot, 1);
        void *block = atomic_load_explicit(slot, memory_order_relaxed);
        atomic_store_explicit(slot, NULL, memory_order_release);
        release(block);
    }
    ring->read = at;
}

struct hand {
    void *ring;
    body_function *side;
};

static void body_hand(void *context, long count)
{
    struct hand *hand = context;
    hand->side(hand->ring, count);
}

/* One thread for each side; the time of one block. */
static void hand_over(struct job *job, void *ring, body_function *producer, body_function *consumer, double blocks)
{
    struct hand hands[2] = {{ring, producer}, {ring, consumer}};
    void *contexts[2] = {&hands[0], &hands[1]};
    struct team team;
    team_start(&team, 2, contexts);
    team.body = body_hand;
    job->value = median_ns(job->seconds, team_body, &team, blocks);
    team_stop(&team);
}

static void draw_sizes(struct job *job, uint32_t size[HAND_SIZES])
{
    for (int i = 0; i < HAND_SIZES; i++)
        size[i] = (uint32_t)random_between(&job->seed, 16, 512);
}

void work_handover(struct job *job)
{
    static struct ring ring;
    ring.api = &job->api;
    draw_sizes(job, ring.size);
    hand_over(job, &ring, produce, consume, PARCEL);
}

void work_handover_one(struct job *job)
{
    static struct slot_ring ring;
    ring.api = &job->api;
    draw_sizes(job, ring.size);
    hand_over(job, &ring, produce_one_by_one, consume_one_by_one, 1);
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
