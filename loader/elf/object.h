/*
 * What the dynamic linker has mapped, one object at a time, and where its tables are. A table is here only if
 * all of it lies in memory that the object's own program headers map readable: who lies has no tables.
 * This folder stands on libc alone, takes no lock, allocates nothing, and leaves errno as it was.
 *
 * Glossary
 *   object      what dl_iterate_phdr reports: segments at a base address, and a dynamic section. It is read
 *               within that call, or while its caller holds it open
 *   segment     a stretch of the file as it is mapped (PT_LOAD)
 *   RELRO       pages that the dynamic linker makes read-only once it has filled them
 *   relocation  an order of the static linker to the dynamic one: put the address of this symbol
 *               into that word
 *   slot        that word
 *   version     what tells apart several symbols of a name in an object; a hidden one is found by those alone
 *               that ask for its version
 */
#ifndef LOADER_ELF_OBJECT_H
#define LOADER_ELF_OBJECT_H

#include "config.h"

#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif

#include "ground/attributes.h"

#include <link.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#pragma GCC visibility push(hidden)

struct object {
    const char *name;     /* "" for the program */
    uintptr_t base;       /* what is added to the file's addresses */
    uintptr_t start, end; /* from its first segment to its last; between them others' may lie */
    uintptr_t relro_start, relro_end;
    const ElfW(Phdr) *segments; /* program headers of any kind */
    size_t segment_count;
    bool text_relocations; /* slots may lie in read-only segments */
    const ElfW(Dyn) *dynamic;

    const ElfW(Sym) *symbols;
    size_t symbol_count; /* entries that may be read; so many there are, or a few less */
    const char *strings; /* the last byte is 0 */
    size_t strings_bytes;
    struct {
        const ElfW(Rela) *first;
        size_t count;
    } tables[2]; /* DT_RELA and DT_JMPREL */
    size_t relative_count; /* so many relocations of the first table, from its beginning, name no symbol */

    struct { /* DT_HASH; no buckets: it has none */
        const uint32_t *buckets, *chains;
        size_t bucket_count, chain_count;
    } hash;
    struct { /* DT_GNU_HASH: chains of the symbols from `first` on, and there may be fewer than chain_count */
        const uint32_t *buckets, *chains;
        size_t bucket_count, chain_count;
        size_t first;
    } gnu_hash;

    const ElfW(Versym) *versions; /* of the first version_count symbols */
    size_t version_count;
    uintptr_t defined_versions, needed_versions; /* lists that are checked as they are read; 0: none */
};

/* Read an object's headers. False: it has no dynamic section, and segments are all that is known of it. */
bool object_read(struct object *object, const struct dl_phdr_info *info);

/* How many bytes, from an address on, are in one segment that has all of these PF_ flags. 0: none. */
size_t object_room(const struct object *object, uintptr_t address, unsigned flags);

/* Is there a byte of the object? */
static inline bool
object_holds(const struct object *object, uintptr_t address)
{
    return address >= object->start && address < object->end && object_room(object, address, 0) != 0;
}

/* A word of an object, which need not be aligned: in packed structs it is not. Others may store into it meanwhile. */
UNSEEN_BY_TSAN __attribute__((no_sanitize_address)) static inline void *
word_load(const void *word)
{
    void *value;
    if ((uintptr_t)word % sizeof value == 0)
        return __atomic_load_n((void *const *)word, __ATOMIC_RELAXED);
    memcpy(&value, word, sizeof value);
    return value;
}

/* A name in the table of strings. NULL: beyond it. */
static inline const char *
object_string(const struct object *object, size_t offset)
{
    return offset < object->strings_bytes ? object->strings + offset : NULL;
}

#pragma GCC visibility pop
#endif
