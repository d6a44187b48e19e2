/*
 * The dispatcher: what names that allocate lead to while a module is being opened (steering.h), so that what its constructors
 * allocate is its own. A call asks whose code is calling. A module in the making, whose heap is made before its constructors run, is led
 * then, as a whole, or called for each time if another thread has the loader's lock: nobody waits here, for the constructor may have a lock
 * of the dynamic linker's or of its own fork handlers, for which that thread waits. Imports of other objects are led to where they would
 * have led, so each comes by once. Addresses of dispatchers stay good for ever.
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
/* The name that it is about to give to dlopen. NULL: nobody wants to know. Else that one is to be told when dlopen is back. */
struct opening *opening_named(const char *name);
void opening_unnamed(struct opening *opening);

/* --- module.c: in the middle of its dlopen, and without the lock, a module's object is known. False: its calls are nobody's in particular. */
bool module_begins(struct module *module, const struct object *object);

#pragma GCC visibility pop
#endif
