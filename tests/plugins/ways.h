/* What the plugins `ways`, `ways_lazy` and `ways_relro` export: a release by each way that the address of a function comes to a library. */
#ifndef PLUGINS_WAYS_H
#define PLUGINS_WAYS_H

#include <stdlib.h>

#if defined __x86_64__ || defined __aarch64__ /* elsewhere not every linker relocates what is not aligned */
#define WAYS_PACKED 1
#else
#define WAYS_PACKED 0
#endif

enum way {
    WAY_CALL,           /* through the procedure linkage table */
    WAY_ADDRESS,        /* taken by code */
    WAY_CONSTANT,       /* in constant data */
    WAY_DATA,           /* in data */
    WAY_STORED,         /* stored by a constructor */
    WAY_STORED_LATER,   /* stored by ways_store() */
    WAY_HALF_ALIGNED,   /* stored by ways_store(), at a multiple of 4 that is none of 8 */
#if WAYS_PACKED
    WAY_PACKED,         /* in data that is packed */
    WAY_PACKED_CONSTANT,
#endif
    WAY_THREAD,         /* in the initial data of a thread */
    WAY_REALLOC,        /* realloc to nothing */
    WAY_REALLOCARRAY,
    WAY_LOOKED_UP,      /* by dlsym(RTLD_DEFAULT) at every release */
    WAY_LOOKED_UP_NEXT,
#ifdef __GLIBC__ /* musl has no IFUNC, and one name of free */
    WAY_CHOSEN,         /* what an IFUNC of the library's own chose */
    WAY_CHOSEN_SYMBOL,  /* the same, exported */
    WAY_LIBC_FREE,      /* libc's other names */
    WAY_VERSION,        /* by dlvsym */
#endif
#if defined(__GLIBC__) && defined(__x86_64__)
    WAY_CFREE,
#endif
    WAYS
};

void ways_release(enum way way, void *block);

/* A block of the allocator whose free that way leads to, for ways_release(). NULL: it cannot be had. */
void *ways_make(enum way way);

void ways_store(void);

/* Words of its data that lead to free, in a fixed order. *count: how many. */
const void *const *ways_words(unsigned *count);

/* The library's constructor releases what the program has in host_block, if it has that. */

#endif
