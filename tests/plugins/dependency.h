/* What the plugin `dependency` exports, which the plugin `constructing` needs: so it is there before, and is no module. */
#ifndef PLUGINS_DEPENDENCY_H
#define PLUGINS_DEPENDENCY_H

#include <stddef.h>

extern void *dependency_block; /* its constructor's */
void *dependency_make(size_t size);       /* by an address of malloc that its constructor has copied to its heap */
void *dependency_make_plain(size_t size); /* by a call of malloc */

#endif
