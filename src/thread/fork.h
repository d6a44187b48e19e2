/* Fork: the child gets the allocator as it stood between two operations, with one thread. */
#ifndef THREAD_FORK_H
#define THREAD_FORK_H

/* Register our handlers, and drop them: when a lender calls us, and before the library is unmapped. */
void fork_watch(void);
void fork_ignore(void);

/* What a lender calls in their place (struct alcove_services, forks). */
void fork_prepare(void);
void fork_parent(void);
void fork_child(void);

#endif
