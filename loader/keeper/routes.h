/*
 * The routed names (ALCOVE_ENTRIES), and where imports of them lead.
 *
 * An import is rewritten only when it leads where the process' own malloc family is, or not yet
 * anywhere (lazy binding), or to a guard. An object with a private malloc of its own keeps it.
 */
#ifndef LOADER_ROUTES_H
#define LOADER_ROUTES_H

#include "loader.h"

#include "elf/imports.h"

#pragma GCC visibility push(hidden)

/* One address for each routed name; NULL: imports of that name are left alone. */
typedef void *route_targets[ALCOVE_ENTRY_COUNT];

extern route_targets route_original; /* the process' own functions */
extern route_targets route_guard;    /* guards, for the names that release */
extern route_targets route_resting;  /* guard, or original where there is none */

/* An address in the C library, which may not be where malloc is. */
extern uintptr_t route_libc;

/* Is an allocator in this object? With the loader's lock held. */
bool object_is_allocator(const struct object *object);

/* Find the originals. Once, before anything is rewritten, without the lock. 0 or a code. */
int routes_start(void);

/* What dlsym gave for a name, or in place of the process' own function of the family one that takes any block. */
void *route_led(const char *name, void *address);

/* Lead the object's imports to `to`. *count is raised by the number of slots that do now; *addresses is set if one is such that code
 * reads it as an address. 0 or an errno value; some may have been rewritten then. */
int routes_claim(const struct object *object, const route_targets to, uint32_t *count, bool *addresses);

/* Lead back those that lead to `from`. 0 or an errno value. */
int routes_return(const struct object *object, const route_targets from, const route_targets to);

#pragma GCC visibility pop
#endif
