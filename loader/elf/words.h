/*
 * Words of one object's data that hold one of a few addresses, whatever put them there: all words of its writable segments that lie at a multiple
 * of 4 are looked at, RELRO and the initial data of threads included. What lies elsewhere only relocations tell (imports.h).
 */
#ifndef LOADER_ELF_WORDS_H
#define LOADER_ELF_WORDS_H

#include "elf/protection.h"

#pragma GCC visibility push(hidden)

#define WORDS_LOOKED_UP 256 /* pages whose residence is asked for at a time */

struct word_cursor {
    const struct object *object;
    const uintptr_t *values;
    size_t value_count;
    uintptr_t range;     /* from the least value to the greatest */
    size_t segment;      /* the next one to read */
    uintptr_t at, stop;  /* words of the page that is being read */
    uintptr_t segment_end; /* rounded up to a word */
    uintptr_t segment_start, segment_stop;
    uintptr_t read_start, read_stop; /* pages that follow each other and have been read, or are being */
    bool large;          /* a segment of which pages that are not resident are skipped */
    uintptr_t resident_start, resident_end; /* pages that `resident` is about */
    unsigned char resident[WORDS_LOOKED_UP];
    struct protection known;
};

/* The words that hold one of the values, which are in rising order and stay the caller's. Of segments above 1 MiB, pages that are not resident
 * are skipped: nobody has stored into them, or else they were swapped out. Pages that may not be read are, too. */
struct word_cursor words_of(const struct object *object, const uintptr_t *values, size_t count);
/* The next one, which need not be aligned. False: no more. Others may store into it meanwhile. */
bool word_next(struct word_cursor *cursor, void ***out);

/* Is it one of the values, which are in rising order? */
bool value_among(const uintptr_t *values, size_t count, uintptr_t value);

#pragma GCC visibility pop
#endif
