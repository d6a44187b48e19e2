/* The notes of one mapped object (PT_NOTE): what its makers wrote down for others to find, under a name and a type. */
#ifndef LOADER_ELF_NOTES_H
#define LOADER_ELF_NOTES_H

#include "elf/object.h"

#pragma GCC visibility push(hidden)

struct note {
    const char *name; /* of name_bytes, with the 0 that should be the last */
    size_t name_bytes;
    uint32_t type;
    const void *text; /* of `bytes`; aligned to nothing */
    size_t bytes;
};

struct note_cursor {
    const struct object *object;
    size_t segment;  /* the next one to look at */
    uintptr_t at;    /* in the one before */
    size_t left;     /* bytes, from there on */
    size_t alignment;
};

/* The notes, one after the other. What lies about its length ends its segment. False: no more. */
struct note_cursor notes_of(const struct object *object);
bool note_next(struct note_cursor *cursor, struct note *out);

#pragma GCC visibility pop
#endif
