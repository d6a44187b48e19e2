/* What the two halves of modules say to each other: their life (module.c) and how they are led (module_route.c). */
#ifndef LOADER_MODULE_H
#define LOADER_MODULE_H

#include "loader.h"

#include "elf/object.h"

#pragma GCC visibility push(hidden)

/* Find out what an object that is not bound yet will be bound to, and where this thread's variables of it are. Without the lock, while its handle is held. */
void module_look(struct module *module);

/* Its object is known: what that calls by dispatchers is its own. By the thread that opens it, with the lock or without. */
void module_code(const struct module *module, const struct object *object);

/* In a forked child, with the lock held: end the modules that other threads were closing. */
void modules_settle_forked(void);

/* In a forked child, with the lock held: one that another thread was opening. */
void module_forsake(struct module *module);

/* May its object become a module? `path` is for messages. 0 or a code with its message set. */
int module_check(struct module *module, const char *path);

/* Lead all of its imports to its thunks. `accept`: also if some lead to nothing that we know. 0 or a code with its message set; some may have been
 * led then. */
int module_lead(struct module *module, bool accept);

/* Do some no longer lead there? Then somebody has put another function in its place, and calls it by the address that he found. */
bool module_is_hooked(const struct module *module);

/* After dlclose: is it still mapped? Another thread may have opened the same library anew meanwhile, and that may lie where it was: none of its imports
 * leads to this one's thunks. */
bool module_stays(const struct module *module);

/* Lead them back where everyone's lead, if its object is still mapped. 0 or an errno value. */
int module_unlead(struct module *module);

#pragma GCC visibility pop
#endif
