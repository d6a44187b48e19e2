/*
 * What tests of every kind ask of an allocator: does it work, in the thread that asks?
 */
#ifndef TESTS_WORK_H
#define TESTS_WORK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include "alcove/table.h"

#define WORK_BLOCKS 200

static inline size_t
work_size(unsigned i)
{
    return i % 40 == 39 ? i * 1000 : i * 17;
}

/* Every byte of a block tells which it is. */
static inline bool
work_is_intact(const unsigned char *block, unsigned i)
{
    for (size_t at = 0; at < work_size(i); at++)
        if (block[at] != (unsigned char)i)
            return false;
    return true;
}

/* Blocks of all kinds, in the default heap and in one made for it, written, read, grown and freed. */
static inline bool
allocator_works(const struct alcove_table *t)
{
    unsigned char *blocks[WORK_BLOCKS];
    uint32_t heap;
    struct alcove_heap_stats end;
    struct alcove_owner owner;
    bool good = true;
    if (t->heap_create(NULL, &heap) != 0)
        return false;
    for (unsigned i = 0; i < WORK_BLOCKS; i++) {
        blocks[i] = t->heap_malloc(i % 2 != 0 ? heap : ALCOVE_HEAP_DEFAULT, work_size(i));
        if (blocks[i] == NULL)
            return false;
        memset(blocks[i], (int)i, work_size(i));
    }
    for (unsigned i = 0; i < WORK_BLOCKS; i++) {
        if (i % 3 == 0)
            blocks[i] = t->realloc(blocks[i], work_size(i) * 2 + 1);
        good = good && blocks[i] != NULL && work_is_intact(blocks[i], i) && t->owner(blocks[i], &owner) == 1 &&
               owner.heap == (i % 2 != 0 ? heap : ALCOVE_HEAP_DEFAULT);
        t->free(blocks[i]);
    }
    return good && t->heap_stats(heap, &end) == 0 && end.live_blocks == 0 && t->heap_destroy(heap) == 0;
}

/* The same as a thread's body: returns its argument if all is well. */
static inline void *
allocator_works_in_thread(void *allocator)
{
    return allocator_works(allocator) ? allocator : NULL;
}

/* How many threads have a record, when it is `wanted` or has not become that for long: the system may know a
 * thread for a moment after it was joined. */
static inline unsigned
threads_settled(const struct alcove_table *t, unsigned wanted)
{
    struct alcove_info info;
    for (int i = 0; i < 2000; i++) {
        t->info(&info);
        if (info.threads == wanted)
            break;
        usleep(1000);
    }
    return info.threads;
}

#endif
