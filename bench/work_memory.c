/*
 * Memory: what loading costs, how much is resident for what the program asked for, and what is
 * kept after everything was freed. Resident memory is exact (smaps_rollup); the program's own
 * arrays come from pages_get and are resident before the first reading.
 */
#define _GNU_SOURCE
#include "works.h"

#include <string.h>
#include <unistd.h>

/* ---- loading ---- */

static int load_and_use(struct job *job)
{
    if (peer_load(job->peer, &job->api, job->note, sizeof job->note))
        return -1;
    api_use_once(&job->api);
    return 0;
}

void work_load_time(struct job *job)
{
    double start = clock_ns();
    if (load_and_use(job) == 0)
        job->value = (clock_ns() - start) / 1e3;
}

static void load_memory(struct job *job, size_t (*resident)(void))
{
    resident(); /* the reading's own pages */
    size_t before = resident();
    if (load_and_use(job) == 0)
        job->value = (double)(resident() - before) / 1024;
}

void work_load_memory(struct job *job)
{
    load_memory(job, resident_bytes);
}

void work_load_statm(struct job *job)
{
    load_memory(job, statm_bytes);
}

/* ---- live blocks ---- */

enum { CROWD = 600000, CROWD_LOW = 16, CROWD_HIGH = 1000, CROWD_REPLACEMENTS = 3000000, PAUSE_SECONDS = 12,
       PAIRS_AFTER_PAUSE = 20000 };

struct crowd {
    struct api *api;
    char **block;
    uint32_t *size;
    size_t live;   /* bytes asked for */
    size_t before; /* resident bytes before the first block */
    uint64_t seed;
};

static void crowd_put(struct crowd *crowd, size_t place)
{
    size_t size = random_between(&crowd->seed, CROWD_LOW, CROWD_HIGH);
    crowd->block[place] = crowd->api->malloc(size);
    memset(crowd->block[place], 1, size);
    crowd->size[place] = (uint32_t)size;
    crowd->live += size;
}

static void crowd_start(struct crowd *crowd, struct job *job)
{
    crowd->api = &job->api;
    crowd->block = pages_get(CROWD * sizeof *crowd->block);
    crowd->size = pages_get(CROWD * sizeof *crowd->size);
    crowd->live = 0;
    crowd->seed = job->seed;
    resident_bytes();
    crowd->before = resident_bytes();
    for (size_t i = 0; i < CROWD; i++)
        crowd_put(crowd, i);
}

static void crowd_replace(struct crowd *crowd)
{
    for (int i = 0; i < CROWD_REPLACEMENTS; i++) {
        size_t place = random_between(&crowd->seed, 0, CROWD - 1);
        crowd->api->free(crowd->block[place]);
        crowd->live -= crowd->size[place];
        crowd_put(crowd, place);
    }
}

static double crowd_resident(const struct crowd *crowd)
{
    size_t now = resident_bytes();
    return now > crowd->before ? (double)(now - crowd->before) : 0;
}

void work_peak_memory(struct job *job)
{
    struct crowd crowd;
    crowd_start(&crowd, job);
    job->value = 100 * crowd_resident(&crowd) / (double)crowd.live;
}

void work_replaced_memory(struct job *job)
{
    struct crowd crowd;
    crowd_start(&crowd, job);
    crowd_replace(&crowd);
    job->value = 100 * crowd_resident(&crowd) / (double)crowd.live;
}

void work_idle_memory(struct job *job)
{
    struct crowd crowd;
    crowd_start(&crowd, job);
    crowd_replace(&crowd);
    double peak = crowd_resident(&crowd);
    for (size_t i = 0; i < CROWD; i++)
        crowd.api->free(crowd.block[i]);
    sleep(PAUSE_SECONDS);
    for (int i = 0; i < PAIRS_AFTER_PAUSE; i++) {
        void *block = crowd.api->malloc(random_between(&crowd.seed, CROWD_LOW, CROWD_HIGH));
        OPAQUE(block);
        crowd.api->free(block);
    }
    job->value = 100 * crowd_resident(&crowd) / peak;
}
