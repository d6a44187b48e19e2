/* Fork: the child gets the allocator as it stood between two operations, with one thread. */
#ifndef THREAD_FORK_H
#define THREAD_FORK_H

/* Register the handlers. libc drops them when the library is unloaded. */
void fork_init(void);

/* What a lender calls in their place (struct alcove_services, forks). */
void fork_prepare(void);
void fork_parent(void);
void fork_child(void);

#endif
