/* Fork: the child gets the allocator as it stood between two operations, with one thread. */
#ifndef THREAD_FORK_H
#define THREAD_FORK_H

#include <stdbool.h>

/* Register our handlers, and drop them: when a lender calls us, and before the library is unmapped. False: they stay, for a fork has come
 * by the first of them. */
void fork_watch(void);
bool fork_ignore(void);

/* What a lender calls in their place (struct alcove_services, forks). */
void fork_prepare(void);
void fork_parent(void);
void fork_child(void);

#endif
