/*
 * Loading and unloading over and over: what a cycle leaves behind, with any allocator, and whether
 * the loader's 10,000th load is as fast as its first.
 */
#define _GNU_SOURCE
#include "works.h"

#include <dlfcn.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- the two ways ---- */

/* Each function: 0, or -1 with a note. After load, job->api has malloc and free. */
struct way {
    int (*load)(struct job *job);
    int (*unload)(struct job *job);
};

static int dlopen_load(struct job *job)
{
    return peer_load(job->peer, &job->api, job->note, sizeof job->note);
}

static int dlopen_unload(struct job *job)
{
    if (dlclose(job->api.handle) == 0)
        return 0;
    snprintf(job->note, sizeof job->note, "%s", dlerror());
    return -1;
}

static struct loader loader;

static int lent_load(struct job *job)
{
    if (loader_load(job, &loader))
        return -1;
    job->api.malloc = loader.table->malloc;
    job->api.free = loader.table->free;
    return 0;
}

static int lent_unload(struct job *job)
{
    if (loader.unload(loader.allocator, 0) == 0)
        return 0;
    snprintf(job->note, sizeof job->note, "%s", loader.error_message());
    return -1;
}

/* ---- crashes ---- */

enum { SIGNAL_STACK = 64 << 10 };

static struct job *crashing;

/* The parent learns in which cycle. Of two threads that crash at once, it reads the first answer. */
static void crash(int signal)
{
    crashing->growth.signal = signal;
    child_answer(crashing, 0);
    _exit(0);
}

/* For the calling thread, whose own stack may be what is gone. */
static void crash_stack(char stack[SIGNAL_STACK])
{
    sigaltstack(&(stack_t){.ss_sp = stack, .ss_size = SIGNAL_STACK}, NULL);
}

static void crash_report(struct job *job)
{
    static char stack[SIGNAL_STACK];
    static const int signals[] = {SIGSEGV, SIGBUS, SIGABRT, SIGILL};
    struct sigaction action = {.sa_handler = crash, .sa_flags = SA_ONSTACK};
    crashing = job;
    crash_stack(stack);
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        sigaction(signals[i], &action, NULL);
}

/* ---- cycles ---- */

enum { USERS = 2, USER_BLOCKS = 300, USER_LOW = 16, USER_HIGH = 32 << 10 };

static struct user {
    const struct api *api;
    uint64_t seed;
    char stack[SIGNAL_STACK];
} users[USERS];

static pthread_barrier_t used, unloaded;

static void *user_live(void *context)
{
    struct user *user = context;
    void *block[USER_BLOCKS];
    crash_stack(user->stack);
    /* libc reserves 64 MiB when a thread first calls its malloc: now, not when dynamic TLS makes it. */
    void *arena = malloc(1);
    OPAQUE(arena);
    free(arena);
    for (int i = 0; i < USER_BLOCKS; i++) {
        size_t size = random_log(&user->seed, USER_LOW, USER_HIGH);
        block[i] = user->api->malloc(size);
        if (block[i])
            memset(block[i], 1, size);
    }
    for (int i = 0; i < USER_BLOCKS; i++)
        user->api->free(block[i]);
    pthread_barrier_wait(&used);
    pthread_barrier_wait(&unloaded);
    return NULL;
}

static int cycle_once(struct job *job, const struct way *way)
{
    pthread_t thread[USERS];
    Dl_info library;
    if (way->load(job))
        return -1;
    for (int i = 0; i < USERS; i++) {
        users[i].api = &job->api;
        users[i].seed = job->seed++;
        if (pthread_create(&thread[i], NULL, user_live, &users[i])) {
            snprintf(job->note, sizeof job->note, "cannot start a thread");
            return -1;
        }
    }
    pthread_barrier_wait(&used);
    int failed = way->unload(job);
    if (!failed)
        job->growth.after = dladdr(*(void **)&job->api.malloc, &library) ? AFTER_LOADED : AFTER_GONE;
    pthread_barrier_wait(&unloaded);
    for (int i = 0; i < USERS; i++)
        pthread_join(thread[i], NULL);
    return failed;
}

struct reading {
    size_t resident, mappings, mapped;
    int keys;
};

static struct reading reading_take(void)
{
    struct reading now = {.keys = thread_keys()};
    mappings_count(&now.mappings, &now.mapped);
    now.resident = resident_bytes();
    return now;
}

static double growth_each(size_t before, size_t after, int cycles)
{
    return ((double)after - (double)before) / cycles;
}

static void cycles(struct job *job, const struct way *way)
{
    struct growth *growth = &job->growth;
    struct reading early = reading_take(); /* the reading's own pages */
    pthread_barrier_init(&used, NULL, USERS + 1);
    pthread_barrier_init(&unloaded, NULL, USERS + 1);
    crash_report(job);
    for (growth->cycle = 1; growth->cycle <= job->parameter; growth->cycle++) {
        if (cycle_once(job, way))
            return;
        if (growth->cycle == CYCLES_BEFORE)
            early = reading_take();
    }
    struct reading late = reading_take();
    int counted = (int)job->parameter - CYCLES_BEFORE;
    growth->resident = growth_each(early.resident, late.resident, counted);
    growth->mapped = growth_each(early.mapped, late.mapped, counted);
    growth->mappings = growth_each(early.mappings, late.mappings, counted);
    growth->keys = growth_each((size_t)early.keys, (size_t)late.keys, counted);
}

void cycles_by_dlopen(struct job *job)
{
    cycles(job, &(struct way){dlopen_load, dlopen_unload});
}

void cycles_by_loader(struct job *job)
{
    if (loader_find(job, &loader) == 0)
        cycles(job, &(struct way){lent_load, lent_unload});
}

/* ---- the 10,000th load ---- */

enum { LOADS = 10000, LOADS_TIMED = 100 };

static int load_and_use(struct job *job)
{
    if (lent_load(job))
        return -1;
    api_use_once(&job->api);
    return 0;
}

void work_late_load(struct job *job)
{
    double first[LOADS_TIMED], last[LOADS_TIMED];
    if (loader_find(job, &loader))
        return;
    for (int i = 0; i < LOADS; i++) {
        double start = clock_ns();
        if (load_and_use(job))
            return;
        double took = clock_ns() - start;
        if (i >= 1 && i <= LOADS_TIMED) /* the very first finds files and pages cold */
            first[i - 1] = took;
        if (i >= LOADS - LOADS_TIMED)
            last[i - (LOADS - LOADS_TIMED)] = took;
        if (lent_unload(job))
            return;
    }
    job->value = median_of(last, LOADS_TIMED) / 1e3;
    job->reference = median_of(first, LOADS_TIMED) / 1e3;
}

/* A pair's time in the allocator that is loaded now, and whether its TLS is static. */
static double pair_time(const struct job *job, int *is_static)
{
    struct pairs pairs = {job->api.malloc, job->api.free, (size_t)job->parameter};
    struct alcove_info info;
    loader.table->info(&info);
    *is_static = strcmp(info.tls, "static") == 0;
    return best_ns(job->seconds, body_pairs, &pairs, 1);
}

void work_late_pair(struct job *job)
{
    int first_static, last_static;
    if (loader_find(job, &loader) || load_and_use(job))
        return;
    job->reference = pair_time(job, &first_static);
    for (int i = 1; i < LOADS; i++)
        if (lent_unload(job) || load_and_use(job))
            return;
    job->value = pair_time(job, &last_static);
    if (first_static && !last_static)
        snprintf(job->note, sizeof job->note, "TLS is static in the first load, dynamic in the %dth", LOADS);
}
