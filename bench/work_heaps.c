/*
 * What only alcove can do, by its table: work on heaps of their own through the thunks that a
 * module's imports are rewritten to, dropping a heap, and finding the owner of an address. The
 * reference of each is alcove itself doing the plain thing.
 */
#define _GNU_SOURCE
#include "works.h"

#include "keeper/thunk_sizes.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_HEAPS = 1024, BURST = 16, DESTROYED_BLOCKS = 1000000 };

static int heap_make(struct job *job, uint32_t *heap)
{
    int error = job->api.table->heap_create(NULL, heap);
    if (error)
        snprintf(job->note, sizeof job->note, "heap_create: error %d", error);
    return error;
}

/* The loader's thunks, whose text is part of this program; one for each heap number below MOST_HEAPS. */
struct {
    uint64_t heap;
    void *function;
} thunk_ways[ALCOVE_ENTRY_COUNT][THUNKS] __attribute__((aligned(16), used, visibility("hidden")));
extern const char thunks_malloc[] __attribute__((visibility("hidden"))), thunks_free[] __attribute__((visibility("hidden")));

static void *thunk_make(const struct alcove_table *table, const char *text, enum alcove_entry which, uint32_t heap)
{
    thunk_ways[which][heap].heap = heap;
    thunk_ways[which][heap].function = table->entry(which);
    return (void *)(uintptr_t)(text + ((size_t)heap << THUNK_LG));
}

static void heap_thunks(const struct alcove_table *table, uint32_t heap, void *(**allocate)(size_t), void (**release)(void *))
{
    *(void **)allocate = thunk_make(table, thunks_malloc, ALCOVE_ENTRY_malloc, heap);
    *(void **)release = thunk_make(table, thunks_free, ALCOVE_ENTRY_free, heap);
}

/* ---- routed against direct ---- */

void work_routed_pair(struct job *job)
{
    struct pairs direct = {job->api.malloc, job->api.free, (size_t)job->parameter}, routed = direct;
    uint32_t heap;
    if (heap_make(job, &heap))
        return;
    heap_thunks(job->api.table, heap, &routed.malloc, &routed.free);
    double best[2];
    best_ns_of_two(job->seconds, (body_function *const[]){body_pairs, body_pairs}, (void *const[]){&routed, &direct}, 1, best);
    job->value = best[0];
    job->reference = best[1];
}

void work_routed_batch(struct job *job)
{
    static struct batch direct, routed;
    direct.malloc = job->api.malloc;
    direct.free = job->api.free;
    batch_prepare(&direct, &job->seed, (int)job->parameter);
    routed = direct;
    uint32_t heap;
    if (heap_make(job, &heap))
        return;
    heap_thunks(job->api.table, heap, &routed.malloc, &routed.free);
    double best[2];
    best_ns_of_two(job->seconds, (body_function *const[]){body_batch, body_batch}, (void *const[]){&routed, &direct}, BATCH, best);
    job->value = best[0];
    job->reference = best[1];
}

/* ---- many heaps ---- */

struct heaps {
    long count; /* a power of two */
    long next;
    void *(*malloc[MOST_HEAPS])(size_t);
    void (*free[MOST_HEAPS])(void *);
    uint32_t size[1024];
};

/* A module calls malloc and free from its own code, so that each of its call sites always goes to
 * the same heap; processors rely on that. So does this: SITES pieces of straight code, each with its own
 * two call sites, and four such functions for up to 1,024 heaps. */
enum { SITES = 256 };

static inline __attribute__((always_inline)) void pair_on(struct heaps *heaps, long heap)
{
    void *block = heaps->malloc[heap & (heaps->count - 1)](64);
    OPAQUE(block);
    heaps->free[heap & (heaps->count - 1)](block);
}

static inline __attribute__((always_inline)) void burst_on(struct heaps *heaps, long heap)
{
    void *block[BURST];
    heap &= heaps->count - 1;
    for (int k = 0; k < BURST; k++)
        block[k] = heaps->malloc[heap](heaps->size[(heaps->next + k) % 1024]);
    heaps->next += BURST;
    OPAQUE(heaps);
    for (int k = 0; k < BURST; k++)
        heaps->free[heap](block[k]);
}

#define SITES_4(on, heap) on(heaps, heap), on(heaps, (heap) + 1), on(heaps, (heap) + 2), on(heaps, (heap) + 3)
#define SITES_16(on, heap) SITES_4(on, heap), SITES_4(on, (heap) + 4), SITES_4(on, (heap) + 8), SITES_4(on, (heap) + 12)
#define SITES_64(on, heap) \
    SITES_16(on, heap), SITES_16(on, (heap) + 16), SITES_16(on, (heap) + 32), SITES_16(on, (heap) + 48)
#define SITES_256(on, heap) \
    SITES_64(on, heap), SITES_64(on, (heap) + 64), SITES_64(on, (heap) + 128), SITES_64(on, (heap) + 192)

#define SITES_FUNCTION(on, first)                                          \
    static __attribute__((noinline)) void on##_##first(struct heaps *heaps) \
    {                                                                      \
        SITES_256(on, first);                                              \
    }

SITES_FUNCTION(pair_on, 0)
SITES_FUNCTION(pair_on, 256)
SITES_FUNCTION(pair_on, 512)
SITES_FUNCTION(pair_on, 768)
SITES_FUNCTION(burst_on, 0)
SITES_FUNCTION(burst_on, 256)
SITES_FUNCTION(burst_on, 512)
SITES_FUNCTION(burst_on, 768)

typedef void sites_function(struct heaps *);

/* One operation is a turn of all sites of one of the functions. */
static void run_sites(struct heaps *heaps, sites_function *const sites[4], long count)
{
    long functions = heaps->count > SITES ? heaps->count / SITES : 1;
    for (long i = 0; i < count; i++)
        sites[i % functions](heaps);
}

static void body_heaps_pair(void *context, long count)
{
    run_sites(context, (sites_function *const[]){pair_on_0, pair_on_256, pair_on_512, pair_on_768}, count);
}

static void body_heaps_burst(void *context, long count)
{
    run_sites(context, (sites_function *const[]){burst_on_0, burst_on_256, burst_on_512, burst_on_768}, count);
}

/* many: count heaps; one: the first of them, always. */
static int heaps_prepare(struct job *job, struct heaps *many, struct heaps *one)
{
    many->count = job->parameter;
    for (long i = 0; i < many->count; i++) {
        uint32_t heap;
        if (heap_make(job, &heap))
            return -1;
        heap_thunks(job->api.table, heap, &many->malloc[i], &many->free[i]);
    }
    for (int i = 0; i < 1024; i++)
        many->size[i] = (uint32_t)random_between(&job->seed, 16, 512);
    *one = *many;
    one->count = 1;
    return 0;
}

static void measure_heaps(struct job *job, body_function *body, double operations, int with_reference)
{
    static struct heaps many, one;
    if (heaps_prepare(job, &many, &one))
        return;
    if (!with_reference) {
        job->value = best_ns(job->seconds, body, &many, operations);
        return;
    }
    double best[2];
    best_ns_of_two(job->seconds, (body_function *const[]){body, body}, (void *const[]){&many, &one}, operations, best);
    job->value = best[0];
    job->reference = best[1];
}

void work_heaps_pair(struct job *job)
{
    measure_heaps(job, body_heaps_pair, SITES, 1);
}

void work_heaps_burst(struct job *job)
{
    measure_heaps(job, body_heaps_burst, BURST * SITES, 1);
}

void curve_heaps_pair(struct job *job)
{
    measure_heaps(job, body_heaps_pair, SITES, 0);
}

void curve_heaps_burst(struct job *job)
{
    measure_heaps(job, body_heaps_burst, BURST * SITES, 0);
}

/* ---- dropping a heap ---- */

static void **million_blocks(struct job *job, uint32_t heap)
{
    void **block = pages_get(DESTROYED_BLOCKS * sizeof *block);
    for (int i = 0; i < DESTROYED_BLOCKS; i++) {
        char *one = job->api.table->heap_malloc(heap, random_between(&job->seed, 16, 256));
        one[0] = 1;
        block[i] = one;
    }
    return block;
}

void work_destroy(struct job *job)
{
    uint32_t heap;
    if (heap_make(job, &heap))
        return;
    million_blocks(job, heap);
    double start = clock_ns();
    int error = job->api.table->heap_destroy(heap);
    job->value = (clock_ns() - start) / 1e3;
    if (error)
        snprintf(job->note, sizeof job->note, "heap_destroy: error %d", error);
}

void work_destroy_reference(struct job *job)
{
    uint32_t heap;
    if (heap_make(job, &heap))
        return;
    void **block = million_blocks(job, heap);
    double start = clock_ns();
    for (int i = 0; i < DESTROYED_BLOCKS; i++)
        job->api.free(block[i]);
    job->value = (clock_ns() - start) / 1e3;
}

/* ---- whose is this address? ---- */

enum { OWNED_BLOCKS = 100000, ADDRESSES = 4096 };

struct addresses {
    const struct alcove_table *table;
    const void *address[ADDRESSES];
};

static void body_owner(void *context, long count)
{
    struct addresses *addresses = context;
    int (*find)(const void *, struct alcove_owner *) = LOAD(addresses->table->owner);
    struct alcove_owner owner;
    for (long i = 0; i < count; i++)
        find(addresses->address[i % ADDRESSES], &owner);
}

void work_owner(struct job *job)
{
    static struct addresses addresses;
    addresses.table = job->api.table;
    char **block = pages_get(OWNED_BLOCKS * sizeof *block);
    for (int i = 0; i < OWNED_BLOCKS; i++)
        block[i] = job->api.malloc(random_log(&job->seed, 16, 8192));
    for (int i = 0; i < ADDRESSES; i++)
        addresses.address[i] = block[random_between(&job->seed, 0, OWNED_BLOCKS - 1)] + random_between(&job->seed, 0, 15);

    struct alcove_owner owner;
    if (!job->api.table->owner(addresses.address[0], &owner)) {
        strcpy(job->note, "owner does not know a live block");
        return;
    }
    job->value = best_ns(job->seconds, body_owner, &addresses, 1);
}

void work_owner_foreign(struct job *job)
{
    static struct addresses addresses;
    addresses.table = job->api.table;
    char on_stack[64];
    for (int i = 0; i < ADDRESSES; i++) {
        switch (i % 4) {
        case 0: addresses.address[i] = on_stack + i % 64; break;
        case 1: addresses.address[i] = malloc(random_between(&job->seed, 16, 512)); break;
        case 2: addresses.address[i] = (const char *)(uintptr_t)&work_owner_foreign + i; break;
        default: addresses.address[i] = (const void *)(uintptr_t)(random_next(&job->seed) >> 16); break;
        }
    }
    struct alcove_owner owner;
    if (job->api.table->owner(addresses.address[0], &owner)) {
        strcpy(job->note, "owner takes the stack for its own");
        return;
    }
    job->value = best_ns(job->seconds, body_owner, &addresses, 1);
}
