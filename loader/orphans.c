/*
 * Heaps of modules that were closed while blocks of theirs were still in others' hands. Each stays
 * until its last block is released, or the allocator goes. All under the loader's lock.
 */
#include "loader.h"

#include <stdlib.h>
#include <time.h>

/* The thread that released the last block may still be inside free when the figures show it, so an
 * empty heap is left alone for this long. */
#define REST_NS 100000000

struct orphan {
    struct orphan *next;
    uint32_t heap;
    int64_t empty_since; /* nanoseconds; 0: not empty yet */
};

static struct orphan *orphans;

static int64_t
now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

void
orphan_add(uint32_t heap)
{
    struct orphan *orphan = calloc(1, sizeof *orphan);
    if (orphan == NULL)
        return; /* then the heap stays until the allocator goes */
    orphan->heap = heap;
    orphan->next = orphans;
    orphans = orphan;
}

static bool
orphan_done(struct orphan *orphan)
{
    struct alcove_heap_stats stats;
    if (loader.table->heap_stats(orphan->heap, &stats) != 0)
        return true;
    if (stats.live_blocks != 0) {
        orphan->empty_since = 0;
        return false;
    }
    if (orphan->empty_since == 0) {
        orphan->empty_since = now();
        return false;
    }
    return now() - orphan->empty_since >= REST_NS && loader.table->heap_destroy(orphan->heap) == 0;
}

void
orphans_reap(void)
{
    for (struct orphan **link = &orphans; *link != NULL;) {
        struct orphan *orphan = *link;
        if (orphan_done(orphan)) {
            *link = orphan->next;
            free(orphan);
        } else {
            link = &orphan->next;
        }
    }
}

void
orphans_forget(void)
{
    while (orphans != NULL) {
        struct orphan *orphan = orphans;
        orphans = orphan->next;
        free(orphan);
    }
}
