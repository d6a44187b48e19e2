/*
 * The table of works and the table of curves. A row's name is stable: baselines refer to it.
 * The targets are those of issues 3 and 8; where they name none, alcove must be at or ahead of the best peer.
 */
#include "works.h"

#include <string.h>

#define KIB 1024
#define MIB (1024 * 1024)
#define BEST {TARGET_BEST, 1.0}
/* A host that is linked with the loader; the loader loads the allocator. */
#define LOADER_WORK (WORK_TABLE_ONLY | WORK_LOADS_ITSELF | WORK_LOADER)
#define PAIR_TARGETS {BEST, {TARGET_FLOOR, 1.5}}

const struct work works[] = {
    {"empty", "pair", "ns", "two calls through pointers of functions that do nothing: the floor",
     work_empty, .flags = WORK_LIBC_ONLY},
    {"pair-16", "pair", "ns", "malloc(16)+free, nothing written", work_pair, .parameter = 16, .targets = PAIR_TARGETS},
    {"pair-64", "pair", "ns", "malloc(64)+free", work_pair, .parameter = 64, .targets = PAIR_TARGETS},
    {"pair-512", "pair", "ns", "malloc(512)+free", work_pair, .parameter = 512, .targets = PAIR_TARGETS},
    {"pair-8K", "pair", "ns", "malloc(8 KiB)+free", work_pair, .parameter = 8 * KIB, .targets = PAIR_TARGETS},
    {"pair-64K", "pair", "ns", "malloc(64 KiB)+free", work_pair, .parameter = 64 * KIB, .targets = PAIR_TARGETS},
    {"pair-1M", "pair", "ns", "malloc(1 MiB)+free", work_pair, .parameter = MIB, .targets = {BEST}},

    {"batch-in-order", "batch", "ns", "2,000 blocks of 16 to 512 bytes allocated, then freed in the same order; per malloc+free",
     work_batch, .parameter = BATCH_IN_ORDER, .targets = {BEST}},
    {"batch-reversed", "batch", "ns", "the same, freed from the last to the first",
     work_batch, .parameter = BATCH_REVERSED, .targets = {BEST}},
    {"batch-shuffled", "batch", "ns", "the same, freed in random order",
     work_batch, .parameter = BATCH_SHUFFLED, .targets = {BEST}},

    {"replace-1", "replace", "ns", "20,000 live blocks, 90 % to 512 B, 9 % to 8 KiB, 1 % to 64 KiB: free a random one, allocate another, write its two ends",
     work_replace, .parameter = 1, .targets = {BEST}},
    {"replace-2", "replace", "ns", "the same in two threads at once, each its own slots; per thread",
     work_replace, .parameter = 2, .targets = {BEST}},
    {"replace-wide", "replace", "ns", "one thread, the same with sizes log-uniform from 16 B to 64 KiB, 160 MB live",
     work_replace_wide, .parameter = 1, .targets = {BEST}},
    {"handover", "thread", "ns", "one thread allocates 16 to 512 bytes, another frees, parcels of 64 through a ring; per block",
     work_handover, .targets = {BEST}},
    {"handover-one", "thread", "ns", "the same, one block at a time through a ring of 4,096; per block",
     work_handover_one, .targets = {BEST}},
    {"thread-life", "thread", "us", "create a thread that allocates and frees 64 blocks, and join it",
     work_thread_life, .targets = {BEST}},

    {"calloc", "other", "ns", "calloc of 16 to 512 bytes + free", work_calloc, .targets = {BEST}},
    {"aligned", "other", "ns", "aligned_alloc at 64 B to 4 KiB, one to four times that size, + free", work_aligned, .targets = {BEST}},
    {"realloc-300K", "realloc", "ns", "a block grows to 300 KB by steps of 2,000 bytes, its last byte written; per step",
     work_realloc_small, .targets = {BEST}},
    {"realloc-300M", "realloc", "us", "a block grows from 300 KB to 300 MB by a quarter each time, its last byte written; per step",
     work_realloc_large, .targets = {BEST}},
    {"realloc-by-half", "realloc", "ns", "the first 2,000 blocks of a process, each grown by half from 16 B to 300 KB, its last byte written, and freed; per step",
     work_realloc_by_half, .targets = {{TARGET_BEST, 1.2}}},
    {"realloc-double", "realloc", "ns", "the same, to the double each time", work_realloc_double, .targets = {{TARGET_BEST, 1.2}}},
    {"grown", "realloc", "ns", "20,000 live vectors that grew by half to 64 B to 64 KiB as they were filled, 100,000 more in their places; per step",
     work_grown, .targets = {BEST}},

    {"large", "large", "us", "1 GiB live in 30 blocks of 4 to 64 MiB: free a random one, allocate another, write a byte in each page of it",
     work_large, .flags = WORK_NOT_QUICK, .targets = {BEST}},
    {"large-faults", "large", "pf", "minor page faults of one such replacement",
     work_large_faults, .flags = WORK_NOT_QUICK, .targets = {BEST}},

    {"load-time", "load", "us", "dlopen, first malloc and free", work_load_time,
     .flags = WORK_NOT_LIBC | WORK_LOADS_ITSELF, .targets = {BEST}},
    {"load-rss", "load", "KiB", "resident memory that this adds", work_load_memory,
     .flags = WORK_NOT_LIBC | WORK_LOADS_ITSELF, .targets = {BEST, {TARGET_VALUE, 250}}},
    {"load-rss-statm", "load", "KiB", "the same by statm, as top and ps show it",
     work_load_statm, .flags = WORK_NOT_LIBC | WORK_LOADS_ITSELF, .targets = {BEST}},

    {"load-10000th", "load", "us", "the 10,000th load by the loader in a process, first malloc and free; ref.: the first ones",
     work_late_load, .flags = LOADER_WORK | WORK_NOT_QUICK, .targets = {{TARGET_REFERENCE, 1.15}}},
    {"pair-10000th", "load", "ns", "pair-64 by the table's malloc and free in the 10,000th load; ref.: in the first",
     work_late_pair, .parameter = 64, .flags = LOADER_WORK | WORK_NOT_QUICK, .targets = {{TARGET_REFERENCE, 1.1}}},

    {"rss-peak", "memory", "%", "resident memory / bytes asked for, 600,000 live blocks of 16 to 1,000 bytes, all written",
     work_peak_memory, .flags = WORK_ONE_ROUND, .targets = {{TARGET_BEST, 1.02}}},
    {"rss-replaced", "memory", "%", "the same after 3 million random replacements",
     work_replaced_memory, .flags = WORK_ONE_ROUND, .targets = {{TARGET_BEST, 1.02}}},
    {"rss-grown", "memory", "%", "resident memory / bytes written, as in grown", work_grown_memory, .targets = {{TARGET_BEST, 1.1}}},
    {"rss-idle", "memory", "%", "resident memory / its peak after that, everything freed, 12 s of pause and 20,000 malloc+free",
     work_idle_memory, .flags = WORK_TOGETHER | WORK_NOT_QUICK, .targets = {{TARGET_VALUE, 5}}},

    {"routed-pair", "routed", "ns", "pair-64 through a heap's thunks; ref.: alcove_malloc and alcove_free",
     work_routed_pair, .parameter = 64, .flags = WORK_TABLE_ONLY, .targets = {{TARGET_REFERENCE, 1.15}}},
    {"routed-batch", "routed", "ns", "batch-shuffled through a heap's thunks; ref.: alcove_malloc and alcove_free",
     work_routed_batch, .parameter = BATCH_SHUFFLED, .flags = WORK_TABLE_ONLY, .targets = {{TARGET_REFERENCE, 1.15}}},
    {"module-pair", "routed", "ns", "pair-64 by a module's own malloc and free, routed; ref.: the table's malloc and free",
     work_module_pair, .parameter = 64, .flags = LOADER_WORK, .targets = {{TARGET_REFERENCE, 1.0}}},
    {"module-batch", "routed", "ns", "batch-shuffled by a module's own malloc and free, routed; ref.: the table's",
     work_module_batch, .parameter = BATCH_SHUFFLED, .flags = LOADER_WORK, .targets = {{TARGET_REFERENCE, 1.15}}},
    {"module-open", "routed", "us", "open a small module and close it; ref.: dlopen and dlclose of it without alcove",
     work_module_open, work_module_open_reference, .flags = LOADER_WORK},
    {"guarded-free", "routed", "ns", "free of 2,000 libc blocks of 64 bytes by a host that loaded alcove; ref.: by one that did not",
     work_guarded_free, work_own_free, .flags = LOADER_WORK, .targets = {{TARGET_REFERENCE, 1.1}}},
    {"guarded-pair", "routed", "ns", "the host's own malloc(64)+free; ref.: by one that did not load alcove",
     work_guarded_pair, work_own_pair, .flags = LOADER_WORK, .targets = {{TARGET_REFERENCE, 1.1}}},

    {"heaps-1", "heaps", "ns", "pairs of 64 bytes through one heap's thunks; ref.: itself",
     work_heaps_pair, .parameter = 1, .flags = WORK_TABLE_ONLY},
    {"heaps-16", "heaps", "ns", "pairs of 64 bytes, each on the next of 16 heaps; ref.: on one heap",
     work_heaps_pair, .parameter = 16, .flags = WORK_TABLE_ONLY},
    {"heaps-256", "heaps", "ns", "pairs of 64 bytes, each on the next of 256 heaps; ref.: on one heap",
     work_heaps_pair, .parameter = 256, .flags = WORK_TABLE_ONLY, .targets = {{TARGET_REFERENCE, 1.3}}},
    {"heaps-16-burst", "heaps", "ns", "16 blocks of 16 to 512 bytes allocated and freed on each of 16 heaps in turn; ref.: on one heap",
     work_heaps_burst, .parameter = 16, .flags = WORK_TABLE_ONLY},
    {"heaps-256-burst", "heaps", "ns", "the same on 256 heaps in turn; ref.: on one heap",
     work_heaps_burst, .parameter = 256, .flags = WORK_TABLE_ONLY, .targets = {{TARGET_REFERENCE, 1.3}}},
    {"heap-destroy", "heaps", "us", "drop a heap with a million live blocks of 16 to 256 bytes; ref.: free them one by one",
     work_destroy, work_destroy_reference, .flags = WORK_TABLE_ONLY, .targets = {{TARGET_REFERENCE, 0.02}}},

    {"owner", "owner", "ns", "table->owner of addresses in 100,000 live blocks",
     work_owner, .flags = WORK_TABLE_ONLY},
    {"owner-foreign", "owner", "ns", "table->owner of addresses on the stack, in libc's blocks, in text, and of none",
     work_owner_foreign, .flags = WORK_TABLE_ONLY},
};
const int work_count = sizeof works / sizeof *works;

const struct curve curves[] = {
    {"live", "ns", "live blocks", "replace a random block of 16 to 128 bytes; per free+malloc", curve_live, 0,
     {1000, 10000, 100000, 1000000, 10000000}},
    {"threads", "ns", "threads", "replace a random block of 16 to 128 bytes among a thread's 1,000; processor time per free+malloc", curve_threads,
     WORK_LOCKS,
     {1, 2, 4, 8, 16, 32, 64}},
    {"threads-mixed", "ns", "threads", "the same with the sizes of replace-1, to 64 KiB", curve_threads_mixed, WORK_LOCKS,
     {1, 2, 4, 8, 16, 32, 64}},
    {"heaps", "ns", "heaps", "pairs of 64 bytes, each on the next heap; per malloc+free", curve_heaps_pair, WORK_TABLE_ONLY,
     {1, 4, 16, 64, 256, 1024}},
    {"heaps-burst", "ns", "heaps", "16 blocks of 16 to 512 bytes allocated and freed on each heap in turn; per malloc+free", curve_heaps_burst,
     WORK_TABLE_ONLY, {1, 4, 16, 64, 256, 1024}},
};
const int curve_count = sizeof curves / sizeof *curves;

const struct work *work_find(const char *name)
{
    for (int i = 0; i < work_count; i++)
        if (strcmp(works[i].name, name) == 0)
            return &works[i];
    return NULL;
}
