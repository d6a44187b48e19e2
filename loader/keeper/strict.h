/* The end of a process in which a strict module's rules were broken. */
#ifndef KEEPER_STRICT_H
#define KEEPER_STRICT_H

#include "loader.h"

#pragma GCC visibility push(hidden)

struct violation {
    const char *releaser; /* name of a module; NULL: the host */
    const char *owner;    /* name of a module */
    const void *block;
    size_t usable;
    const void *caller;   /* an address in the code that released it; NULL: it is behind an allocator on the stack */
};

/* Before a module becomes strict, without a lock: what is needed to look through a stack. Without it messages don't name a module's code. */
void strict_prepare(void);

/* Is it libc that releases? Somebody gave it the block for that: argz_delete, regfree. In any state, as below. */
bool strict_is_libcs(const void *caller);

/* Say what happened on standard error, and abort. In any state: takes no memory, and no lock but that of dl_iterate_phdr. */
void strict_abort(const struct violation *violation) __attribute__((noreturn, cold));

#pragma GCC visibility pop
#endif
