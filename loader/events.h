/* What a host is told of, if it asked for it. Calling nobody costs one load. */
#ifndef LOADER_EVENTS_H
#define LOADER_EVENTS_H

#include "loader.h"

#pragma GCC visibility push(hidden)

#define EVENTS 3

extern _Atomic bool event_wanted[EVENTS];

/* Tell the host of an event, unless this thread is in the middle of one, or has the lock: then it is counted. *missed: set
 * to how many were only counted before. Keeps errno. False: nobody took it. */
bool event_tell(enum alcove_event event, void *what, uint64_t *missed);

/* In a forked child. */
void events_forked(void);

#pragma GCC visibility pop
#endif
