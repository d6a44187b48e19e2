/*
 * Misuses that are found where locks are held. They are noted there and told when the thread holds none any more: who takes
 * messages, or handles SIGABRT, may allocate and free.
 */
#ifndef GROUND_MISUSE_H
#define GROUND_MISUSE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ground/attributes.h"

extern HIDDEN _Atomic uint32_t misuse_noted; /* by all threads, and not told yet */

/* Note "`what` of `address`, `where` of `size` bytes of heap ...", of which the first two are literals. */
void misuse_note(const char *what, const char *where, const void *address, size_t size, const char *heap)
    __attribute__((cold));

/* What misuse_tell() does if there are notes. */
bool misuse_tell_noted(void) __attribute__((cold));

/* Tell what was noted, and abort then if the option abort is set. No lock is held. Keeps errno. False: there was nothing. */
static inline bool
misuse_tell(void)
{
    return unlikely(atomic_load_explicit(&misuse_noted, memory_order_relaxed) != 0) && misuse_tell_noted();
}

/* In a forked child: what was noted before is the parent's to tell. */
void misuse_fork_child(void);

#endif
