/*
 * Steering: the symbol tables in memory of the objects that define the originals are made to say that the functions are ours.
 * Every binding that the dynamic linker performs from then on leads to us: of objects that are loaded later, before their constructors run,
 * of imports that are bound at their first call, of dlsym. Nothing of what is bound already changes; that is scan.c's affair. All with the
 * loader's lock held.
 */
#ifndef KEEPER_STEERING_H
#define KEEPER_STEERING_H

#include "keeper/routes.h"

#pragma GCC visibility push(hidden)

/* Lead what releases to the guards. False: a table cannot be written, and objects that come later are guarded by scans alone. May be called
 * again. */
bool steering_begin(void);

/* After definers have come or gone: steer theirs, too. */
void steering_follow(void);

/* Have the tables say what they said before. */
void steering_end(void);

/* Is it on, for all that release? */
bool steering_is_on(void);

/* Lead what allocates to the dispatchers (true), or as it was. */
void steering_dispatch(bool on);

#pragma GCC visibility pop
#endif
