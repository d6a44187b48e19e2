/*
 * A program with the allocator inside, whose compiler may see through every call. A fiber that
 * began in one thread goes on in another and must get that one's cache: the compiler may not
 * keep the address of a thread-local variable over the switch. test_fibers.sh builds it.
 */
#include <pthread.h>
#include <semaphore.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <ucontext.h>

#include "alcove/alcove.h"
#include "config.h"

#define SIZE 64
#define HOPS 4

static ucontext_t fiber, threads[HOPS];
static char stack[1 << 18];
static void *got[HOPS];

/* In each thread: allocate, free, and leave. Straight on, so that with the allocator's functions inlined
 * what they find out about the thread is there to be kept. */
static void
hop(void)
{
    got[0] = ALCOVE_PUBLIC(malloc)(SIZE);
    ALCOVE_PUBLIC(free)(got[0]);
    swapcontext(&fiber, &threads[0]);
    got[1] = ALCOVE_PUBLIC(malloc)(SIZE);
    ALCOVE_PUBLIC(free)(got[1]);
    swapcontext(&fiber, &threads[1]);
    got[2] = ALCOVE_PUBLIC(malloc)(SIZE);
    ALCOVE_PUBLIC(free)(got[2]);
    swapcontext(&fiber, &threads[2]);
    got[3] = ALCOVE_PUBLIC(malloc)(SIZE);
    ALCOVE_PUBLIC(free)(got[3]);
    swapcontext(&fiber, &threads[3]);
}

static bool right[HOPS];
static sem_t turns[HOPS + 1];
static pthread_barrier_t all;

/* What a thread frees is what it gets next: so it can tell whose cache the fiber used. All threads
 * live until the last has had its turn, and none can have inherited what was another's. */
static void *
run_fiber(void *argument)
{
    unsigned me = (unsigned)(uintptr_t)argument;
    void *volatile mine = ALCOVE_PUBLIC(malloc)(SIZE);
    pthread_barrier_wait(&all); /* each has a block of its own */
    ALCOVE_PUBLIC(free)(mine);
    sem_wait(&turns[me]);
    swapcontext(&threads[me], &fiber);
    void *volatile again = ALCOVE_PUBLIC(malloc)(SIZE);
    right[me] = got[me] == mine && again == mine;
    ALCOVE_PUBLIC(free)(again);
    sem_post(&turns[me + 1]);
    pthread_barrier_wait(&all);
    return NULL;
}

int
main(void)
{
    pthread_t running[HOPS];
    bool good = true;
    getcontext(&fiber);
    fiber.uc_stack.ss_sp = stack;
    fiber.uc_stack.ss_size = sizeof stack;
    makecontext(&fiber, hop, 0);
    pthread_barrier_init(&all, NULL, HOPS);
    for (unsigned i = 0; i <= HOPS; i++)
        sem_init(&turns[i], 0, 0);
    for (unsigned i = 0; i < HOPS; i++)
        if (pthread_create(&running[i], NULL, run_fiber, (void *)(uintptr_t)i) != 0)
            abort();
    sem_post(&turns[0]);
    for (unsigned i = 0; i < HOPS; i++)
        pthread_join(running[i], NULL);
    for (unsigned i = 0; i < HOPS; i++) {
        if (!right[i])
            printf("# thread %u: the fiber did not use its cache\n", i);
        good = good && right[i];
    }
    return !good;
}
