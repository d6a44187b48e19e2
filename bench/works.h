/*
 * The works' functions, and the loops that several of them share.
 */
#ifndef BENCH_WORKS_H
#define BENCH_WORKS_H

#include "bench.h"

#include <pthread.h>

#include <alcove/loader.h>

/* ---- work_small.c ---- */

struct pairs {
    void *(*malloc)(size_t);
    void (*free)(void *);
    size_t size;
};

body_function body_pairs;
work_function work_empty, work_pair, work_calloc, work_aligned;

/* ---- work_batch.c ---- */

enum { BATCH = 2000 };
enum { BATCH_IN_ORDER, BATCH_REVERSED, BATCH_SHUFFLED };

struct batch {
    void *(*malloc)(size_t);
    void (*free)(void *);
    void *block[BATCH];
    uint32_t size[BATCH], order[BATCH];
};

void batch_prepare(struct batch *batch, uint64_t *seed, int order);
body_function body_batch;
work_function work_batch, work_replace, work_replace_wide, curve_live, curve_threads, curve_threads_mixed;

/* ---- work_threads.c ---- */

/* Threads that live on between repetitions and start each together. team_body runs `body` in all
 * of them, each with its own context, and returns when the last is done. */
struct team {
    int threads;
    void **contexts;
    body_function *body; /* NULL: end */
    long count;
    pthread_barrier_t begin, end;
    pthread_t thread[64];
};

void team_start(struct team *team, int threads, void **contexts);
body_function team_body;
void team_stop(struct team *team);
work_function work_handover, work_handover_one, work_thread_life;

/* ---- work_realloc.c ---- */
work_function work_realloc_small, work_realloc_large, work_realloc_by_half, work_realloc_double, work_grown, work_grown_memory;

/* ---- work_large.c ---- */
work_function work_large, work_large_faults;

/* ---- work_memory.c ---- */
work_function work_load_time, work_load_memory, work_load_statm, work_peak_memory, work_replaced_memory,
    work_idle_memory;

/* ---- work_heaps.c ---- */
work_function work_owner, work_owner_foreign, work_routed_pair, work_routed_batch, work_heaps_pair, work_heaps_burst,
    work_destroy, work_destroy_reference, curve_heaps_pair, curve_heaps_burst;

/* ---- work_unload.c ---- */
work_function cycles_by_dlopen, cycles_by_loader, work_late_load, work_late_pair;

/* ---- work_loader.c ---- */

/* The loader's functions, by the prefix they have, and what it has loaded. */
struct loader {
    __typeof__(int(alcove_allocator **, const struct alcove_load_options *)) *load;
    __typeof__(int(alcove_allocator *, unsigned)) *unload;
    __typeof__(const struct alcove_table *(alcove_allocator *)) *table_of;
    __typeof__(int(alcove_allocator *, const char *, const struct alcove_module_options *, alcove_module **)) *module_open;
    __typeof__(void *(alcove_module *, const char *)) *module_symbol;
    __typeof__(int(alcove_module *, unsigned, struct alcove_report *)) *module_close;
    __typeof__(const char *(void)) *error_message;
    alcove_allocator *allocator;
    const struct alcove_table *table;
};

/* Find its functions in this process; load the allocator. 0, or -1 with a note. */
int loader_find(struct job *job, struct loader *loader);
int loader_load(struct job *job, struct loader *loader);
work_function work_guarded_free, work_guarded_pair, work_own_free, work_own_pair, work_module_open,
    work_module_open_reference, work_module_pair, work_module_batch;

/* ---- plugin.c, opened as a module ---- */
typedef void plugin_pairs_function(size_t size, long count);
typedef void plugin_batch_function(struct batch *batch, long count);

#endif
