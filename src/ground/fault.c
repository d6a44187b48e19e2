/* The plan, and what the system says when it refuses. In most builds nothing is here. */
#include "ground/fault.h"

#if ALCOVE_FAULT_INJECTION

#include <errno.h>

API struct fault_plan ALCOVE_PUBLIC(fault_plan);

static const int errors[FAULT_CALLS] = {
    [FAULT_MAP] = ENOMEM,    [FAULT_MAP_AT] = EEXIST, [FAULT_UNMAP] = ENOMEM,     [FAULT_PURGE] = EINVAL, [FAULT_HINT] = EINVAL,
    [FAULT_RESIZE] = ENOMEM, [FAULT_MOVE] = ENOMEM,   [FAULT_MOVE_LATE] = ENOMEM, [FAULT_THREAD] = EPERM,
};

bool
fault(enum fault_call call)
{
    struct fault_plan *plan = &ALCOVE_PUBLIC(fault_plan);
    if ((plan->calls >> call & 1) == 0)
        return false;
    uint64_t number = atomic_fetch_add(&plan->seen, 1) + 1;
    if (number < plan->first || number - plan->first >= plan->count)
        return false;
    atomic_fetch_add(&plan->refused, 1);
    errno = errors[call];
    return true;
}

#endif
