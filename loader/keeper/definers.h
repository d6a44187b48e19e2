/* Who defines the names that release, and comes or goes while we are here. */
#ifndef KEEPER_DEFINERS_H
#define KEEPER_DEFINERS_H

#include "keeper/routes.h"

#pragma GCC visibility push(hidden)

/* Look at all objects. True: functions are known now that were not, or are not any more: steering and what is bound are to follow. With the
 * loader's lock held. */
bool definers_look(void);

#pragma GCC visibility pop
#endif
