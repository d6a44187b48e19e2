/*
 * Memory for the arrays of a cache set's bins: whole pages of whose set it is, which go back to the system when
 * nothing is cached. What finds no room there comes from base. The set's lock guards it.
 */
#ifndef THREAD_ARRAYS_H
#define THREAD_ARRAYS_H

#include <stddef.h>

#define ARRAYS_LG_LEAST 4 /* arrays have sizes of powers of two, from 16 bytes up */
#define ARRAYS_SIZES 10

struct arrays_spare {
    struct arrays_spare *next;
};

struct arrays {
    char *begin, *next, *end; /* from `next` on it was never used */
    struct arrays_spare *spares[ARRAYS_SIZES];
};

/* Use the whole pages among `size` bytes that were never touched. */
void arrays_init(struct arrays *a, void *memory, size_t size);

/* An array of `size` bytes. NULL: no memory. `a` may be NULL: then it comes from base. */
void *arrays_take(struct arrays *a, size_t size);

void arrays_give(struct arrays *a, void *array, size_t size);

/* All are given: give the pages back. */
void arrays_purge(struct arrays *a);

#endif
