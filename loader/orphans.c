/*
 * Heaps of modules that were closed. Each stays until its last block has been released for a while, or
 * the allocator goes. All under the loader's lock.
 */
#include "loader.h"

#include <stdlib.h>
#include <time.h>

/* A thread may still be inside malloc or free of the heap when the figures show that it is empty: one
 * that released the last block, or one of a module that stays mapped. So an empty heap is left alone
 * for this long. */
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

/* Has its heap been empty for long enough? */
static bool
orphan_has_rested(struct orphan *orphan, int64_t time)
{
    struct alcove_heap_stats stats;
    if (orphan->empty_since != 0 && time - orphan->empty_since < REST_NS)
        return false; /* and its figures need not be read, which costs more than all the rest */
    if (loader.table->heap_stats(orphan->heap, &stats) != 0)
        return true;
    if (stats.live_blocks == 0 && orphan->empty_since != 0)
        return true;
    orphan->empty_since = stats.live_blocks == 0 ? time : 0;
    return false;
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
    orphan_has_rested(orphan, now()); /* the rest of one that is empty begins now */
}

void
orphans_reap(void)
{
    int64_t time = orphans != NULL ? now() : 0;
    for (struct orphan **link = &orphans; *link != NULL;) {
        struct orphan *orphan = *link;
        if (orphan_has_rested(orphan, time)) {
            loader.table->heap_destroy(orphan->heap);
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
