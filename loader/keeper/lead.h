/*
 * Leads words of mapped objects elsewhere: imports and whatever else of an object's data holds an address that we know. With the
 * loader's lock held, and never in a half-made object.
 */
#ifndef KEEPER_LEAD_H
#define KEEPER_LEAD_H

#include "keeper/routes.h"

#include "elf/writer.h"

#pragma GCC visibility push(hidden)

/* Where a word that leads to `route` is to lead. NULL: it stays. */
typedef void *lead_choice(struct route route, const void *context);

/* All words of an object's data that hold one of the values. *count, if it is not NULL, is raised by how many lead elsewhere now. 0 or the errno
 * value of the first that could not be written. */
int object_lead(const struct object *object, const struct values *values, lead_choice *choose, const void *context, unsigned *count);

/* The same for the calling thread's own variables of an object, as dl_iterate_phdr reports it. Other threads' are out of reach. How many lead
 * elsewhere now. */
struct dl_phdr_info;
unsigned thread_lead(const struct dl_phdr_info *info, const struct values *values, lead_choice *choose, const void *context);

/* For objects that are no modules: a guard for what releases, and the original for what allocates. */
lead_choice lead_to_rest;
/* The originals of all that is ours. */
lead_choice lead_to_original;

#pragma GCC visibility pop
#endif
