/*
 * Faults: in a build with --enable-fault-injection a test says which of the system's calls are refused, and when. In others
 * nothing is: fault() is false, and there is no plan.
 */
#ifndef GROUND_FAULT_H
#define GROUND_FAULT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "ground/attributes.h"

/* Calls that the system may refuse: one for each place in os/ where it can. */
enum fault_call {
    FAULT_MAP,       /* mmap, anywhere */
    FAULT_MAP_AT,    /* mmap, at an address */
    FAULT_UNMAP,     /* munmap */
    FAULT_PURGE,     /* madvise that drops contents */
    FAULT_HINT,      /* madvise that need not be heeded */
    FAULT_RESIZE,    /* mremap, in place */
    FAULT_MOVE,      /* mremap, to other addresses */
    FAULT_MOVE_LATE, /* the same, after what was there has been unmapped, as the system does it */
    FAULT_THREAD,    /* tgkill */
    FAULT_CALLS
};

struct fault_plan {
    uint32_t calls;        /* a bit for each that the plan is for */
    uint64_t first, count; /* of those calls the first that is refused, from 1 on; and how many are */
    _Atomic uint64_t seen; /* how many there were */
    _Atomic uint64_t refused;
};

#if ALCOVE_FAULT_INJECTION
extern struct fault_plan ALCOVE_PUBLIC(fault_plan);
/* Is this call to be refused? errno is then as the system would set it. */
bool fault(enum fault_call call);
#else
#define fault(call) ((void)(call), false)
#endif

#endif
