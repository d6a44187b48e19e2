/*
 * Walks the symbols of an object, by its hash tables if it has any. These are checked step by step.
 */
#include "elf/symbols.h"

#include <string.h>

#define VERSION_NUMBER 0x7fff /* the bits of a symbol's version; the one above hides it */
#define VERSIONS_NAMED 2      /* 0: local to the object; 1: the object's own, without a name */

/* The functions that the hash tables are made with (System V gABI; dl-hash.h of glibc). */
static uint32_t
name_hash(const char *name)
{
    uint32_t hash = 0;
    for (const unsigned char *c = (const unsigned char *)name; *c != 0; c++) {
        hash = (hash << 4) + *c;
        hash ^= (hash & 0xf0000000) >> 24;
        hash &= 0x0fffffff;
    }
    return hash;
}

static uint32_t
name_gnu_hash(const char *name)
{
    uint32_t hash = 5381;
    for (const unsigned char *c = (const unsigned char *)name; *c != 0; c++)
        hash = hash * 33 + *c;
    return hash;
}

/* One past the last symbol that DT_GNU_HASH knows: the end of the chain that begins last. */
static size_t
gnu_hash_end(const struct object *object)
{
    size_t last = 0, first = object->gnu_hash.first;
    for (size_t i = 0; i < object->gnu_hash.bucket_count; i++)
        if (object->gnu_hash.buckets[i] > last)
            last = object->gnu_hash.buckets[i];
    while (last - first < object->gnu_hash.chain_count && (object->gnu_hash.chains[last - first] & 1) == 0)
        last++;
    return last + 1;
}

struct symbol_cursor
symbols_of(const struct object *object)
{
    size_t end = object->symbol_count;
    if (object->hash.bucket_count == 0 && object->gnu_hash.bucket_count != 0) {
        size_t known = gnu_hash_end(object);
        end = known < end ? known : end;
    }
    return (struct symbol_cursor){.object = object, .next = 1, .end = end, .way = SYMBOLS_ONE_BY_ONE};
}

struct symbol_cursor
symbols_named(const struct object *object, const char *name)
{
    struct symbol_cursor cursor = {.object = object, .name = name, .next = 1, .end = object->symbol_count};
    if (object->gnu_hash.bucket_count != 0) {
        cursor.way = SYMBOLS_BY_GNU_HASH;
        cursor.hash = name_gnu_hash(name);
        cursor.next = object->gnu_hash.buckets[cursor.hash % object->gnu_hash.bucket_count];
    } else if (object->hash.bucket_count != 0) {
        cursor.way = SYMBOLS_BY_HASH;
        cursor.next = object->hash.buckets[name_hash(name) % object->hash.bucket_count];
        cursor.steps = object->hash.chain_count;
    }
    return cursor;
}

/* The next index that may be one; 0: no more. */
static size_t
candidate_next(struct symbol_cursor *cursor)
{
    const struct object *object = cursor->object;
    size_t index = cursor->next;
    switch (cursor->way) {
    case SYMBOLS_ONE_BY_ONE:
        cursor->next++;
        return index < cursor->end ? index : 0;
    case SYMBOLS_BY_HASH:
        if (index >= object->hash.chain_count || cursor->steps == 0)
            return 0;
        cursor->steps--;
        cursor->next = object->hash.chains[index];
        return index;
    case SYMBOLS_BY_GNU_HASH:
        while (index != 0 && index - object->gnu_hash.first < object->gnu_hash.chain_count) { /* one before the first is far beyond the last */
            uint32_t chain = object->gnu_hash.chains[index - object->gnu_hash.first];
            cursor->next = (chain & 1) != 0 ? 0 : index + 1;
            if ((chain | 1) == (cursor->hash | 1))
                return index;
            index = cursor->next;
        }
        return 0;
    }
    return 0;
}

/* The value of an absolute symbol is no address of a file. A thread-local one has an address in each thread. */
static uintptr_t
symbol_address(const struct object *object, const ElfW(Sym) *entry)
{
    if (ELF64_ST_TYPE(entry->st_info) == STT_TLS)
        return 0;
    return entry->st_shndx == SHN_ABS ? entry->st_value : object->base + entry->st_value;
}

bool
symbol_next(struct symbol_cursor *cursor, struct symbol *out)
{
    const struct object *object = cursor->object;
    for (size_t index; (index = candidate_next(cursor)) != 0;) {
        if (index >= object->symbol_count)
            continue;
        const ElfW(Sym) *entry = &object->symbols[index];
        const char *name = object_string(object, entry->st_name);
        if (entry->st_shndx == SHN_UNDEF || name == NULL || (cursor->name != NULL && strcmp(name, cursor->name) != 0))
            continue;
        out->entry = entry;
        out->index = index;
        out->name = name;
        out->address = symbol_address(object, entry);
        out->hidden = index < object->version_count && (object->versions[index] & ~VERSION_NUMBER) != 0;
        return true;
    }
    return false;
}

/* An entry of the lists of versions, which are chained by distances. NULL: it can't be read. */
static const void *
version_entry(const struct object *object, uintptr_t at, size_t bytes)
{
    return at % _Alignof(uint32_t) == 0 && object_room(object, at, PF_R) >= bytes ? (const void *)at : NULL;
}

static const char *
version_defined(const struct object *object, unsigned number)
{
    const ElfW(Verdef) *definition;
    const ElfW(Verdaux) *name;
    uintptr_t at = object->defined_versions;
    for (unsigned steps = 0; steps <= VERSION_NUMBER; steps++, at += definition->vd_next) {
        if ((definition = version_entry(object, at, sizeof *definition)) == NULL)
            return NULL;
        if ((definition->vd_ndx & VERSION_NUMBER) == number) {
            name = version_entry(object, at + definition->vd_aux, sizeof *name);
            return name != NULL ? object_string(object, name->vda_name) : NULL;
        }
        if (definition->vd_next == 0)
            return NULL;
    }
    return NULL;
}

static const char *
version_needed(const struct object *object, unsigned number)
{
    const ElfW(Verneed) *file;
    const ElfW(Vernaux) *version;
    uintptr_t at = object->needed_versions;
    for (unsigned steps = 0; steps <= VERSION_NUMBER; at += file->vn_next) {
        if ((file = version_entry(object, at, sizeof *file)) == NULL)
            return NULL;
        uintptr_t inner = at + file->vn_aux;
        for (; steps <= VERSION_NUMBER; steps++, inner += version->vna_next) {
            if ((version = version_entry(object, inner, sizeof *version)) == NULL)
                return NULL;
            if ((version->vna_other & VERSION_NUMBER) == number)
                return object_string(object, version->vna_name);
            if (version->vna_next == 0)
                break;
        }
        steps++;
        if (file->vn_next == 0)
            return NULL;
    }
    return NULL;
}

const char *
symbol_version(const struct object *object, size_t index)
{
    if (index >= object->version_count || index >= object->symbol_count)
        return NULL;
    unsigned number = object->versions[index] & VERSION_NUMBER;
    if (number < VERSIONS_NAMED)
        return NULL;
    const char *defined = object->defined_versions != 0 ? version_defined(object, number) : NULL;
    return defined != NULL || object->needed_versions == 0 ? defined : version_needed(object, number);
}
