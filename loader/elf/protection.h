/*
 * What may be done with a page now. Program headers tell what was so when the object was loaded, or was to be; libraries
 * protect pages of theirs themselves. The system knows: whether a word may be read or written it says for a futex call,
 * and all that it allows, in /proc/self/maps, which takes longer the more is mapped.
 */
#ifndef LOADER_ELF_PROTECTION_H
#define LOADER_ELF_PROTECTION_H

#include "elf/object.h"

#pragma GCC visibility push(hidden)

/* A stretch of pages that are protected alike. One that is filled with zeros knows of none. */
struct protection {
    uintptr_t start, end;
    int bits; /* PROT_ */
};

/* PROT_ bits of the page with that address, or -1: nothing is mapped there. `object` may be NULL; it holds the address, and its program
 * headers are asked where /proc is not there. `known` may be NULL; else it is asked first, and holds the answer afterwards. It is good as
 * long as nobody changes what is mapped. */
int protection_of(struct protection *known, const struct object *object, uintptr_t address);

/* May the aligned word there be read, may it be written? Costs a futex call, or else what protection_of() costs. A page that may be written
 * is made the process' own, as by a store. */
bool word_readable(struct protection *known, const struct object *object, uintptr_t address);
bool word_writable(struct protection *known, const struct object *object, uintptr_t address);

/* In bytes. */
uintptr_t page_bytes(void);

#pragma GCC visibility pop
#endif
