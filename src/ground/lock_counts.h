/* What a debug build counts of all its locks together, and exports as <prefix>lock_counts for the benchmark. */
#ifndef GROUND_LOCK_COUNTS_H
#define GROUND_LOCK_COUNTS_H

#include <stdatomic.h>
#include <stdint.h>

struct lock_counts {
    _Atomic uint64_t takes; /* a lock was taken, tries that succeeded included */
    _Atomic uint64_t waits; /* it was held by another thread first */
};

#endif
