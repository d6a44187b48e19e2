/*
 * The dynamic symbols of one object: those that it defines, of one name or all, and the versions of any.
 */
#ifndef LOADER_ELF_SYMBOLS_H
#define LOADER_ELF_SYMBOLS_H

#include "elf/object.h"

#pragma GCC visibility push(hidden)

struct symbol {
    const ElfW(Sym) *entry;
    size_t index;
    const char *name;
    uintptr_t address; /* what it is worth: for an IFUNC its resolver, for a thread-local one 0 */
    bool hidden;       /* by its version */
};

struct symbol_cursor {
    const struct object *object;
    const char *name; /* NULL: all */
    uint32_t hash;
    size_t next, end; /* indices; with `end` unused in a chain */
    size_t steps;     /* left to go in a chain, which may be a ring */
    enum { SYMBOLS_ONE_BY_ONE, SYMBOLS_BY_HASH, SYMBOLS_BY_GNU_HASH } way;
};

/* All symbols that the object defines, in the order of the table. */
struct symbol_cursor symbols_of(const struct object *object);
/* Those of a name: there is one for each version. What its hash table doesn't lead to is not found, by the dynamic linker neither. */
struct symbol_cursor symbols_named(const struct object *object, const char *name);
/* The next one. False: no more. */
bool symbol_next(struct symbol_cursor *cursor, struct symbol *out);

/* The version of a symbol, defined or wanted. NULL: it has none. */
const char *symbol_version(const struct object *object, size_t index);

#pragma GCC visibility pop
#endif
