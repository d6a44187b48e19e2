/* Allocators are loaded all the time, or by whoever wants them. */
#include <sched.h>

#include "tests/stress/loader/scenario.h"

alcove_allocator *loaded[ALLOCATORS];

alcove_allocator *
load(unsigned number)
{
    struct alcove_load_options options = {.path = file_of("allocator", number)};
    alcove_allocator *a = NULL;
    int code;
    while ((code = alcove_load(&a, &options)) == ALCOVE_EBUSY)
        sched_yield();
    HOLDS(code == ALCOVE_OK);
    return a;
}

alcove_allocator *
borrow(unsigned number)
{
    return now.load_each ? load(number) : loaded[number];
}

void
unload(alcove_allocator *a)
{
    int code;
    for (unsigned i = 0; (code = alcove_unload(a, 0)) == ALCOVE_EBUSY; i++) {
        stall_clear(i % STALLS); /* a block there keeps it */
        sched_yield();
    }
    HOLDS(code == ALCOVE_OK);
}

void
give_back(alcove_allocator *a)
{
    if (now.load_each)
        unload(a);
}
