/* Fork: the child gets the allocator as it stood between two operations, with one thread. */
#ifndef THREAD_FORK_H
#define THREAD_FORK_H

#include <stdatomic.h>
#include <stdbool.h>

#include "ground/attributes.h"

/* Register our handlers, and drop them before the library is unmapped. */
void fork_watch(void);
void fork_ignore(void);

/* Has a fork come by the first of them, and is not over? Asked when a lender has come, who does their work from now on. */
bool fork_is_here(void);

extern HIDDEN atomic_bool fork_is_watched; /* by our handlers, or by a lender */

/* Before the first lock is taken, and with none held. */
static inline void
fork_first_use(void)
{
    if (unlikely(!atomic_load_explicit(&fork_is_watched, memory_order_relaxed)))
        fork_watch();
}

/* What a lender calls in their place (struct alcove_services, forks). */
void fork_prepare(void);
void fork_parent(void);
void fork_child(void);

#endif
