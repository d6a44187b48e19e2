/*
 * The dispatcher: what names that allocate lead to while a module is being opened (steering.h), so that what its constructors
 * allocate is its own. A call asks whose code is calling. A module in the making is routed then, as a whole; imports of other
 * objects are led to where they would have led, so each comes by once. Addresses of dispatchers stay good for ever.
 */
#ifndef KEEPER_DISPATCH_H
#define KEEPER_DISPATCH_H

#include "keeper/routes.h"

#pragma GCC visibility push(hidden)

#define OPENINGS_MOST 16 /* at a time that have dispatchers; what is opened besides is routed when its constructors have run */

/* The calling thread is opening this module. NULL: there is no place. Without the lock. */
struct opening *opening_begin(struct module *module);
void opening_end(struct opening *opening);
/* In a forked child, when the lock is free. */
void openings_fork_child(void);
/* What that left to do, for it takes a walk, and the dynamic linker may be in the middle of something there. With the lock held. */
void openings_settle(void);
/* The name that it is about to give to dlopen. Kept until the end of the opening, if there is one. */
void opening_named(const char *name);

/* --- module.c: with the lock held, in the middle of its dlopen: lead a module's imports to a heap of its own. False: that failed; module_open
 * will say why. */
bool module_route_early(struct module *module);

#pragma GCC visibility pop
#endif
