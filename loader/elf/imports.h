/*
 * The imports of one mapped object: found, read, and rewritten one by one. What they are rewritten
 * to is keeper/routes.c's affair.
 *
 * Glossary
 *   object      what dl_iterate_phdr reports: segments at a base address, and a dynamic section
 *   relocation  an order of the static linker to the dynamic one: put the address of this symbol
 *               into that word
 *   slot        that word
 *   RELRO       pages with slots that the dynamic linker makes read-only once they are filled
 */
#ifndef LOADER_IMPORTS_H
#define LOADER_IMPORTS_H

#include "loader.h"

#include <link.h>

#pragma GCC visibility push(hidden)

/* Which relocation filled a slot. */
enum import_kind {
    IMPORT_CALL,    /* JUMP_SLOT: calls through the procedure linkage table; may be bound lazily */
    IMPORT_ADDRESS, /* GLOB_DAT: the address as code takes it, and calls built with -fno-plt */
    IMPORT_DATA     /* absolute, pointer-sized: a function pointer in initialised data */
};

struct object {
    const char *name; /* "" for the program */
    uintptr_t base;   /* what is added to the file's addresses */
    uintptr_t start, end; /* of all its segments */
    uintptr_t relro_start, relro_end;
    const ElfW(Phdr) *segments;
    size_t segment_count;
    const ElfW(Dyn) *dynamic;
    const ElfW(Sym) *symbols;
    const char *strings;
    struct {
        const ElfW(Rela) *first;
        size_t count;
    } tables[2]; /* DT_RELA and DT_JMPREL */
};

struct import {
    const char *name;
    void **slot;
    enum import_kind kind;
    uintptr_t definition; /* the object's own function of that name; 0: it has none */
    uintptr_t stub; /* what a program shows as the address of a function that is not its own; or 0 */
};

struct import_cursor {
    const struct object *object;
    unsigned table;
    size_t index;
};

/* Read an object's headers. False: it has no dynamic section. */
bool object_read(struct object *object, const struct dl_phdr_info *info);

static inline bool
object_holds(const struct object *object, uintptr_t address)
{
    return address >= object->start && address < object->end;
}

/* The imports, one after the other. A slot may come up twice. False: no more. */
struct import_cursor imports_of(const struct object *object);
bool import_next(struct import_cursor *cursor, struct import *out);

static inline void *
import_value(const struct import *import)
{
    return __atomic_load_n(import->slot, __ATOMIC_RELAXED);
}

/* Store into a slot. Pages that are not writable are so for the store only. 0 or an errno value. */
int import_store(const struct object *object, const struct import *import, void *value);

#pragma GCC visibility pop
#endif
