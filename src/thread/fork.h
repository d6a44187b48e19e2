/* Fork: the child gets the allocator as it stood between two operations, with one thread. */
#ifndef THREAD_FORK_H
#define THREAD_FORK_H

/* Register the handlers. libc drops them when the library is unloaded. */
void fork_init(void);

#endif
