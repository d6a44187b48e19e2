/*
 * The imports of one mapped object: found, read, and rewritten one by one. What they are rewritten
 * to is keeper/routes.c's affair.
 */
#ifndef LOADER_ELF_IMPORTS_H
#define LOADER_ELF_IMPORTS_H

#include "elf/object.h"

#include "ground/attributes.h"

#include <string.h>

#pragma GCC visibility push(hidden)

/* Which relocation filled a slot. */
enum import_kind {
    IMPORT_CALL,    /* JUMP_SLOT: calls through the procedure linkage table; may be bound lazily */
    IMPORT_ADDRESS, /* GLOB_DAT: the address as code takes it, and calls built with -fno-plt */
    IMPORT_DATA,    /* absolute, pointer-sized: a function pointer in initialised data, or in a thread's initial data */
    IMPORT_COPY,    /* COPY: a program's copy of a library's variable. `bytes` long; any word of it may be an address */
    IMPORT_CHOSEN   /* IRELATIVE: what a function of the object's own chose; `definition` is that function, and there is no name */
};

/* Sets of kinds. */
#define IMPORTS_OF(kind) (1u << (kind))
#define IMPORTS_NAMED (IMPORTS_OF(IMPORT_CALL) | IMPORTS_OF(IMPORT_ADDRESS) | IMPORTS_OF(IMPORT_DATA))
#define IMPORTS_ALL (IMPORTS_NAMED | IMPORTS_OF(IMPORT_COPY) | IMPORTS_OF(IMPORT_CHOSEN))

struct import {
    const char *name; /* "" if it has none */
    void **slot;      /* in memory that the object may write. It need not be aligned, as in packed structs */
    size_t bytes;     /* from there on */
    enum import_kind kind;
    size_t symbol;        /* its index, for symbol_version(); 0: it has none */
    uintptr_t definition; /* the object's own function of that name, as the symbol table says now; 0: it has none */
    uintptr_t stub; /* what a program shows as the address of a function that is not its own; or 0 */
};

struct import_cursor {
    const struct object *object;
    unsigned kinds;
    bool beside_words;
    unsigned table;
    size_t index;
};

/* The imports of IMPORTS_NAMED, one after the other, or of the kinds asked for. A slot may come up twice. False: no more. */
struct import_cursor imports_of(const struct object *object);
struct import_cursor imports_of_kinds(const struct object *object, unsigned kinds);
bool import_next(struct import_cursor *cursor, struct import *out);

/* Those that words_of() does not come to, or not to all words of. */
struct import_cursor imports_beside_words(const struct object *object);

static inline void *
import_value(const struct import *import)
{
    return word_load(import->slot);
}

/* Store into a slot, whatever it holds. Pages that are not writable are so for the store only. 0 or an errno value. Under the lock that
 * elf/writer.h asks for. */
int import_store(const struct object *object, const struct import *import, void *value);

#pragma GCC visibility pop
#endif
