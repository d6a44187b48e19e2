/* Threads that open modules, use them and close them. */
#include <dlfcn.h>
#include <sched.h>

#include "tests/plugins/blocks.h"
#include "tests/stress/loader/scenario.h"

#define TAKEN 10 /* blocks of a module */

atomic_uint tickets;
_Atomic(alcove_module *) open_modules[OPENERS];

/* The last two open the same library, which is one module while both have it open. */
static bool
is_shared(unsigned opener)
{
    return opener >= OPENERS - 2;
}

static alcove_module *
open_library(alcove_allocator *a, const char *kind, unsigned opener, unsigned ticket)
{
    struct alcove_module_options options = {.dlopen_flags = ticket % 2 == 0 ? 0 : RTLD_LAZY | RTLD_LOCAL};
    alcove_module *opened = NULL;
    int code = loader->module_open(a, file_of(kind, is_shared(opener) ? OPENERS - 1 : opener), &options, &opened);
    if (code == ALCOVE_EBUSY && is_shared(opener)) /* with another allocator */
        return NULL;
    HOLDS(code == ALCOVE_OK);
    atomic_store(&open_modules[opener], opened);
    return opened;
}

static void
close_library(alcove_module *opened, unsigned opener, unsigned flags)
{
    int code;
    atomic_store(&open_modules[opener], NULL);
    while ((code = loader->module_close(opened, flags, NULL)) == ALCOVE_EBUSY)
        sched_yield(); /* somebody looks a symbol of it up */
    HOLDS(code == ALCOVE_OK);
}

/* Take blocks, release some by each of three ways, and leave the rest to others. */
static void
module_use(alcove_module *opened, alcove_allocator *a, unsigned ticket, bool leave, bool alone)
{
    static const enum blocks_kind kinds[] = {BLOCKS_MALLOC, BLOCKS_CALLOC, BLOCKS_REALLOC, BLOCKS_ALIGNED_ALLOC, BLOCKS_POSIX_MEMALIGN};
    __typeof__(&blocks_make) make = (__typeof__(&blocks_make))loader->module_symbol(opened, "blocks_make");
    __typeof__(&blocks_release) release = (__typeof__(&blocks_release))loader->module_symbol(opened, "blocks_release");
    const struct alcove_table *table_now = loader->table_of(a);
    uint32_t heap = loader->module_heap(opened);
    struct alcove_module_stats stats;
    for (unsigned i = 0; i < TAKEN; i++) {
        size_t size = 64 + (ticket * 31 + i * 97) % 3000;
        struct alcove_owner owner = {.heap = ALCOVE_HEAP_NONE};
        struct parcel *parcel = parcel_pack(make(kinds[i % 5], size), size);
        HOLDS(table_now->owner(parcel, &owner) && owner.heap == heap);
        if (leave)
            stall_fill((ticket * 7 + i) % STALLS, parcel);
        else
            parcel_release(parcel, i % 2 == 0 ? free : release);
        parcel_release(parcel_take(ticket * 5 + i), i % 2 == 0 ? free : release);
    }
    HOLDS(loader->module_stats(opened, &stats) == ALCOVE_OK && stats.heap.total_allocs >= TAKEN);
    HOLDS(!alone || stats.heap.total_allocs == TAKEN);
    HOLDS(!alone || leave || stats.heap.live_blocks == 0);
}

void *
open_blocks(void *argument)
{
    unsigned opener = (unsigned)(uintptr_t)argument, ticket;
    while ((ticket = atomic_fetch_add(&tickets, 1)) < cycles) {
        struct lease lease = borrow(opener, ticket);
        alcove_module *opened = open_library(lease.allocator, "blocks", opener, ticket);
        if (opened != NULL) {
            bool leave = ticket % 4 != 0;
            module_use(opened, lease.allocator, ticket, leave, !is_shared(opener));
            close_library(opened, opener, leave || is_shared(opener) ? 0 : ticket % 8 == 0 ? ALCOVE_CLOSE_DROP : 0);
        }
        give_back(&lease);
    }
    return NULL;
}

/* Of a library whose constructor allocates one block. */
void *
open_keeper(void *argument)
{
    unsigned opener = (unsigned)(uintptr_t)argument, ticket;
    while ((ticket = atomic_fetch_add(&tickets, 1)) < cycles) {
        struct alcove_module_stats stats;
        struct lease lease = borrow(opener, ticket);
        alcove_module *opened = open_library(lease.allocator, "keeper", opener, ticket);
        if (opened != NULL) {
            HOLDS(loader->module_stats(opened, &stats) == ALCOVE_OK && stats.heap.live_blocks == stats.heap.total_allocs);
            /* Of a library that two open the constructor may have run in the other one's call, which came too late. */
            HOLDS(stats.heap.total_allocs == 1 || (stats.heap.total_allocs == 0 && is_shared(opener)));
            close_library(opened, opener, 0);
        }
        give_back(&lease);
    }
    return NULL;
}

/* Of a library whose constructor allocates in a walk over all objects: its block is its own, though others wait for it with the loader's lock. */
void *
open_walker(void *argument)
{
    unsigned opener = (unsigned)(uintptr_t)argument, ticket;
    while ((ticket = atomic_fetch_add(&tickets, 1)) < cycles) {
        struct alcove_module_stats stats;
        alcove_module *opened = open_library(loaded[0], "walker", opener, ticket);
        if (opened == NULL)
            continue;
        HOLDS(loader->module_stats(opened, &stats) == ALCOVE_OK);
        HOLDS(stats.heap.total_allocs == 1 || (stats.heap.total_allocs == 0 && is_shared(opener)));
        close_library(opened, opener, 0);
    }
    return NULL;
}
