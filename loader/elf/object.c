/*
 * Reads an object's program headers and dynamic section, and keeps of the tables that they name what can be read.
 */
#include "elf/object.h"

#include <string.h>
#include <unistd.h>

/* Where a segment lies. False: nowhere, for it is empty or wraps around. */
static bool
segment_span(const struct object *object, const ElfW(Phdr) *segment, uintptr_t *start, uintptr_t *end)
{
    *start = object->base + segment->p_vaddr;
    *end = *start + segment->p_memsz;
    return *end > *start;
}

size_t
object_room(const struct object *object, uintptr_t address, unsigned flags)
{
    for (size_t i = 0; i < object->segment_count; i++) {
        const ElfW(Phdr) *segment = &object->segments[i];
        uintptr_t start, end;
        if (segment->p_type == PT_LOAD && (segment->p_flags & flags) == flags && segment_span(object, segment, &start, &end) &&
            address >= start && address < end)
            return end - address;
    }
    return 0;
}

static void
segments_read(struct object *object)
{
    const uintptr_t page_mask = (uintptr_t)sysconf(_SC_PAGESIZE) - 1;
    for (size_t i = 0; i < object->segment_count; i++) {
        const ElfW(Phdr) *segment = &object->segments[i];
        uintptr_t start, end;
        bool somewhere = segment_span(object, segment, &start, &end);
        switch (segment->p_type) {
        case PT_LOAD:
            if (!somewhere)
                break;
            if (object->end == 0 || start < object->start)
                object->start = start;
            if (end > object->end)
                object->end = end;
            break;
        case PT_DYNAMIC:
            object->dynamic = (const ElfW(Dyn) *)start;
            break;
        case PT_GNU_RELRO: /* rounded as the dynamic linkers do: a last page in part stays writable */
            object->relro_start = start & ~page_mask;
            object->relro_end = end & ~page_mask;
            break;
        }
    }
}

/* What is wanted of the dynamic section. 0 stands for what isn't there: no pointer or size that is worth having is 0. */
enum {
    SYMTAB, SYMENT, STRTAB, STRSZ, HASH, GNU_HASH, VERSYM, VERDEF, VERNEED,
    RELA, RELASZ, RELAENT, RELACOUNT, JMPREL, PLTRELSZ, PLTREL, TEXTREL, FLAGS, WANTED
};
static const ElfW(Sxword) tags[WANTED] = {
    [SYMTAB] = DT_SYMTAB, [SYMENT] = DT_SYMENT, [STRTAB] = DT_STRTAB, [STRSZ] = DT_STRSZ,
    [HASH] = DT_HASH, [GNU_HASH] = DT_GNU_HASH, [VERSYM] = DT_VERSYM, [VERDEF] = DT_VERDEF, [VERNEED] = DT_VERNEED,
    [RELA] = DT_RELA, [RELASZ] = DT_RELASZ, [RELAENT] = DT_RELAENT, [RELACOUNT] = DT_RELACOUNT,
    [JMPREL] = DT_JMPREL, [PLTRELSZ] = DT_PLTRELSZ, [PLTREL] = DT_PLTREL, [TEXTREL] = DT_TEXTREL, [FLAGS] = DT_FLAGS,
};

/* The section ends with its segment, if not before: the dynamic linker doesn't ask how long its own header says it is. */
static void
dynamic_read(const struct object *object, uintptr_t found[WANTED])
{
    uintptr_t at = (uintptr_t)object->dynamic;
    if (at % _Alignof(ElfW(Dyn)) != 0)
        return;
    size_t count = object_room(object, at, PF_R) / sizeof(ElfW(Dyn));
    for (const ElfW(Dyn) *d = object->dynamic; count > 0 && d->d_tag != DT_NULL; d++, count--)
        for (size_t i = 0; i < WANTED; i++)
            if (tags[i] == (ElfW(Sxword))d->d_tag) {
                found[i] = tags[i] == DT_TEXTREL ? 1 : d->d_un.d_val;
                break;
            }
}

/* A pointer of the dynamic section, with so much that may be read from there on. glibc adds the base to these pointers when it loads
 * an object; musl does not, nor does glibc where the section is read-only. NULL: it leads nowhere. */
static const void *
dynamic_pointer(const struct object *object, uintptr_t value, size_t alignment, size_t *room)
{
    *room = 0;
    if (value == 0)
        return NULL;
    uintptr_t address = value;
    *room = object_room(object, address, PF_R);
    if (*room == 0) {
        address += object->base;
        *room = object_room(object, address, PF_R);
    }
    if (address % alignment != 0)
        *room = 0;
    return *room != 0 ? (const void *)address : NULL;
}

/* Only as far as the last 0, so that every name in it ends in it. */
static void
strings_read(struct object *object, const uintptr_t found[WANTED])
{
    size_t room;
    object->strings = dynamic_pointer(object, found[STRTAB], 1, &room);
    if (found[STRSZ] < room)
        room = found[STRSZ];
    while (room > 0 && object->strings[room - 1] != 0)
        room--;
    object->strings_bytes = room;
}

static void
hash_read(struct object *object, const uintptr_t found[WANTED])
{
    size_t room;
    const uint32_t *table = dynamic_pointer(object, found[HASH], sizeof *table, &room);
    size_t words = room / sizeof *table;
    if (words < 2 || table[0] == 0 || (uint64_t)table[0] + table[1] > words - 2)
        return;
    object->hash.bucket_count = table[0];
    object->hash.chain_count = table[1];
    object->hash.buckets = table + 2;
    object->hash.chains = table + 2 + table[0];
}

static void
gnu_hash_read(struct object *object, const uintptr_t found[WANTED])
{
    size_t room;
    const uint32_t *table = dynamic_pointer(object, found[GNU_HASH], sizeof *table, &room);
    uint64_t words = room / sizeof *table;
    if (words < 4 || table[0] == 0)
        return;
    uint64_t buckets = 4 + (uint64_t)table[2] * (sizeof(ElfW(Addr)) / sizeof *table), chains = buckets + table[0];
    if (chains > words)
        return;
    object->gnu_hash.bucket_count = table[0];
    object->gnu_hash.chain_count = words - chains;
    object->gnu_hash.first = table[1];
    object->gnu_hash.buckets = table + buckets;
    object->gnu_hash.chains = table + chains;
}

/* No header says how long the table of symbols is. DT_HASH has as many chains; and it ends where another table begins. */
static void
symbols_read(struct object *object, const uintptr_t found[WANTED])
{
    size_t room;
    const ElfW(Sym) *symbols = dynamic_pointer(object, found[SYMTAB], _Alignof(ElfW(Sym)), &room);
    if (found[SYMENT] != 0 && found[SYMENT] != sizeof *symbols)
        return;
    static const int others[] = {STRTAB, HASH, GNU_HASH, VERSYM, VERDEF, VERNEED, RELA, JMPREL};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        size_t unused;
        uintptr_t other = (uintptr_t)dynamic_pointer(object, found[others[i]], 1, &unused);
        if (other > (uintptr_t)symbols && other - (uintptr_t)symbols < room)
            room = other - (uintptr_t)symbols;
    }
    object->symbols = symbols;
    object->symbol_count = room / sizeof *symbols;
    if (object->hash.bucket_count != 0 && object->hash.chain_count < object->symbol_count)
        object->symbol_count = object->hash.chain_count;
}

static void
versions_read(struct object *object, const uintptr_t found[WANTED])
{
    size_t room;
    object->versions = dynamic_pointer(object, found[VERSYM], _Alignof(ElfW(Versym)), &room);
    object->version_count = room / sizeof(ElfW(Versym));
    object->defined_versions = (uintptr_t)dynamic_pointer(object, found[VERDEF], _Alignof(ElfW(Verdef)), &room);
    object->needed_versions = (uintptr_t)dynamic_pointer(object, found[VERNEED], _Alignof(ElfW(Verneed)), &room);
}

static void
relocations_read(struct object *object, unsigned table, uintptr_t pointer, size_t bytes)
{
    size_t room;
    const ElfW(Rela) *first = dynamic_pointer(object, pointer, _Alignof(ElfW(Rela)), &room);
    if (first == NULL || bytes > room)
        return;
    object->tables[table].first = first;
    object->tables[table].count = bytes / sizeof *first;
}

bool
object_read(struct object *object, const struct dl_phdr_info *info)
{
    memset(object, 0, sizeof *object);
    object->name = info->dlpi_name != NULL ? info->dlpi_name : "";
    object->base = info->dlpi_addr;
    object->segments = info->dlpi_phdr;
    object->segment_count = info->dlpi_phnum;
    segments_read(object);
    if (object->dynamic == NULL)
        return false;

    uintptr_t found[WANTED] = {0};
    dynamic_read(object, found);
    object->text_relocations = found[TEXTREL] != 0 || (found[FLAGS] & DF_TEXTREL) != 0;
    strings_read(object, found);
    hash_read(object, found);
    gnu_hash_read(object, found);
    symbols_read(object, found);
    versions_read(object, found);
    if (found[RELAENT] == 0 || found[RELAENT] == sizeof(ElfW(Rela)))
        relocations_read(object, 0, found[RELA], found[RELASZ]);
    object->relative_count = found[RELACOUNT] < object->tables[0].count ? found[RELACOUNT] : 0;
    if (found[PLTREL] == 0 || found[PLTREL] == DT_RELA)
        relocations_read(object, 1, found[JMPREL], found[PLTRELSZ]);
    return true;
}
