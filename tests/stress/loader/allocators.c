/*
 * Allocators are loaded all the time, or by whoever wants them. Of several loaders each has its own, or they share one.
 *
 * Whoever releases a block must have the block's allocator loaded. So where allocators come and go each has a market of its own, and a thread
 * has two of them: it opens modules in one, and takes blocks from both.
 */
#include <sched.h>

#include "tests/stress/loader/scenario.h"

alcove_allocator *loaded[ALLOCATORS];

static unsigned
market_of(unsigned number)
{
    return now.load_each && !now.share ? number : 0;
}

alcove_allocator *
load(unsigned number)
{
    struct alcove_load_options options = {.path = file_of("allocator", number)};
    alcove_allocator *a = NULL;
    int code;
    if (now.share)
        options.flags = ALCOVE_LOAD_SHARE;
    while ((code = loader->load(&a, &options)) == ALCOVE_EBUSY)
        sched_yield();
    HOLDS(code == ALCOVE_OK);
    return a;
}

void
unload(alcove_allocator *a, unsigned number)
{
    int code;
    for (unsigned i = 0; (code = loader->unload(a, 0)) == ALCOVE_EBUSY; i++) {
        stall_clear(market_of(number), i % STALLS); /* a block there keeps it */
        sched_yield();
    }
    HOLDS(code == ALCOVE_OK);
}

struct lease
borrow(unsigned thread, unsigned turn)
{
    struct lease lease;
    bool several = now.loaders > 1; /* then it is the loader's own, and another one's */
    loader_take(thread % now.loaders);
    lease.number = several ? thread % now.loaders : turn % now.allocators;
    lease.other_number = several ? (lease.number + 1 + turn % (now.loaders - 1)) % now.loaders : lease.number;
    lease.allocator = now.load_each ? load(lease.number) : loaded[lease.number];
    lease.other = now.load_each && several ? load(lease.other_number) : loaded[lease.other_number];
    HOLDS(!now.share || lease.other == lease.allocator);
    market_enter(market_of(lease.number), market_of(lease.other_number));
    return lease;
}

void
give_back(const struct lease *lease)
{
    if (now.load_each && now.loaders > 1)
        unload(lease->other, lease->other_number);
    if (now.load_each)
        unload(lease->allocator, lease->number);
    loader_give_back();
}
