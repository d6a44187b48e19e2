/*
 * Variants of a library: which tables a dynamic linker reads of it, and what is told wrongly there.
 */
#include "tests/fuzz/fuzz.h"

#include <inttypes.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Fields that are worth a lie, by kind of table. */
struct field {
    unsigned char offset, width;
};
#define FIELD(type, member) {offsetof(type, member), sizeof ((type *)NULL)->member}
#define FIELDS_MOST 16

struct shape {
    uint32_t section; /* type of the sections that look so; SHT_NULL: found otherwise */
    unsigned entry;   /* bytes */
    struct field fields[FIELDS_MOST];
};

static const struct shape header_shape = {SHT_NULL, sizeof(ElfW(Ehdr)), {
    {EI_CLASS, 1}, {EI_DATA, 1}, {EI_VERSION, 1}, {EI_OSABI, 1}, FIELD(ElfW(Ehdr), e_type), FIELD(ElfW(Ehdr), e_machine),
    FIELD(ElfW(Ehdr), e_version), FIELD(ElfW(Ehdr), e_entry), FIELD(ElfW(Ehdr), e_phoff), FIELD(ElfW(Ehdr), e_shoff),
    FIELD(ElfW(Ehdr), e_phentsize), FIELD(ElfW(Ehdr), e_phnum), FIELD(ElfW(Ehdr), e_shnum), FIELD(ElfW(Ehdr), e_shentsize)}};
static const struct shape segment_shape = {SHT_NULL, sizeof(ElfW(Phdr)), {
    FIELD(ElfW(Phdr), p_type), FIELD(ElfW(Phdr), p_flags), FIELD(ElfW(Phdr), p_offset), FIELD(ElfW(Phdr), p_vaddr),
    FIELD(ElfW(Phdr), p_filesz), FIELD(ElfW(Phdr), p_memsz), FIELD(ElfW(Phdr), p_align)}};
static const struct shape section_shape = {SHT_NULL, sizeof(ElfW(Shdr)), {
    FIELD(ElfW(Shdr), sh_type), FIELD(ElfW(Shdr), sh_addr), FIELD(ElfW(Shdr), sh_offset), FIELD(ElfW(Shdr), sh_size),
    FIELD(ElfW(Shdr), sh_link), FIELD(ElfW(Shdr), sh_entsize)}};
static const struct shape file_shape = {SHT_NULL, 1, {{0, 1}}};
static const struct shape shapes[] = {
    {SHT_DYNAMIC, sizeof(ElfW(Dyn)), {FIELD(ElfW(Dyn), d_tag), FIELD(ElfW(Dyn), d_un), FIELD(ElfW(Dyn), d_un)}},
    {SHT_DYNSYM, sizeof(ElfW(Sym)), {FIELD(ElfW(Sym), st_name), FIELD(ElfW(Sym), st_info), FIELD(ElfW(Sym), st_other),
                                     FIELD(ElfW(Sym), st_shndx), FIELD(ElfW(Sym), st_value), FIELD(ElfW(Sym), st_size)}},
    /* The two halves of r_info are the symbol and the type. */
    {SHT_RELA, sizeof(ElfW(Rela)), {FIELD(ElfW(Rela), r_offset), FIELD(ElfW(Rela), r_info), {offsetof(ElfW(Rela), r_info), 4},
                                    {offsetof(ElfW(Rela), r_info) + 4, 4}, FIELD(ElfW(Rela), r_addend)}},
    {19 /* SHT_RELR */, sizeof(ElfW(Addr)), {{0, sizeof(ElfW(Addr))}}},
    {SHT_HASH, 4, {{0, 4}}},
    {SHT_GNU_HASH, 4, {{0, 4}}},
    {SHT_GNU_versym, 2, {{0, 2}}},
    {SHT_GNU_verneed, 4, {{0, 4}, {0, 2}, {2, 2}}},
    {SHT_GNU_verdef, 4, {{0, 4}, {0, 2}, {2, 2}}},
    {SHT_INIT_ARRAY, sizeof(ElfW(Addr)), {{0, sizeof(ElfW(Addr))}}},
    {SHT_FINI_ARRAY, sizeof(ElfW(Addr)), {{0, sizeof(ElfW(Addr))}}},
    {SHT_STRTAB, 1, {{0, 1}}},
    {SHT_NOTE, 4, {{0, 4}}},
};
#define SHAPES (sizeof shapes / sizeof *shapes)

static void
give_up(const char *path, const char *why)
{
    fprintf(stderr, "fuzz_elf: %s: %s\n", path, why);
    exit(2);
}

static void
table_add(struct library *library, const char *name, size_t offset, size_t bytes, const struct shape *shape)
{
    if (library->table_count < TABLES_MOST && bytes >= shape->entry && bytes <= library->size && offset <= library->size - bytes)
        library->tables[library->table_count++] = (struct table){name, offset, bytes, shape};
}

static void
tables_find(struct library *library)
{
    const ElfW(Ehdr) *header = (const void *)library->bytes;
    const ElfW(Shdr) *sections = (const void *)(library->bytes + header->e_shoff);
    const char *names = (const char *)library->bytes + sections[header->e_shstrndx].sh_offset;
    table_add(library, "file", 0, library->size, &file_shape);
    table_add(library, "header", 0, sizeof *header, &header_shape);
    table_add(library, "segments", header->e_phoff, header->e_phnum * sizeof(ElfW(Phdr)), &segment_shape);
    table_add(library, "sections", header->e_shoff, header->e_shnum * sizeof(ElfW(Shdr)), &section_shape);
    for (unsigned i = 0; i < header->e_shnum; i++)
        for (size_t s = 0; s < SHAPES; s++)
            if (sections[i].sh_type == shapes[s].section && (sections[i].sh_flags & SHF_ALLOC))
                table_add(library, names + sections[i].sh_name, sections[i].sh_offset, sections[i].sh_size, &shapes[s]);
}

void
library_read(struct library *library, const char *path)
{
    const char *slash = strrchr(path, '/');
    *library = (struct library){.path = path, .name = slash != NULL ? slash + 1 : path};
    FILE *file = fopen(path, "r");
    if (file == NULL)
        give_up(path, "cannot be read");
    fseek(file, 0, SEEK_END);
    library->size = (size_t)ftell(file);
    rewind(file);
    library->bytes = malloc(library->size);
    if (library->bytes == NULL || fread(library->bytes, 1, library->size, file) != library->size)
        give_up(path, "cannot be read whole");
    fclose(file);
    const ElfW(Ehdr) *header = (const void *)library->bytes;
    if (library->size < sizeof *header || memcmp(library->bytes, ELFMAG, SELFMAG) != 0 || header->e_shnum == 0 ||
        header->e_shoff + header->e_shnum * sizeof(ElfW(Shdr)) > library->size)
        give_up(path, "is no whole library with section headers, to begin with");
    tables_find(library);
}

/* --- Chance: splitmix64, the same on every machine. */
static uint64_t chance_state;

static uint64_t
chance(void)
{
    uint64_t z = chance_state += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

static size_t
one_of(size_t count)
{
    return (size_t)(chance() % count);
}

/* --- Reading and writing. */
static uint64_t
bytes_read(const unsigned char *bytes, unsigned width)
{
    uint8_t one;
    uint16_t two;
    uint32_t four;
    uint64_t eight;
    switch (width) {
    case 1: memcpy(&one, bytes, 1); return one;
    case 2: memcpy(&two, bytes, 2); return two;
    case 4: memcpy(&four, bytes, 4); return four;
    default: memcpy(&eight, bytes, 8); return eight;
    }
}

static void
bytes_write(unsigned char *bytes, unsigned width, uint64_t value)
{
    switch (width) {
    case 1: memcpy(bytes, &(uint8_t){(uint8_t)value}, 1); break;
    case 2: memcpy(bytes, &(uint16_t){(uint16_t)value}, 2); break;
    case 4: memcpy(bytes, &(uint32_t){(uint32_t)value}, 4); break;
    default: memcpy(bytes, &value, 8); break;
    }
}

static const unsigned char *
table_bytes(const struct variant *variant, unsigned table)
{
    return variant->library->bytes + variant->library->tables[table].offset;
}

/* False: it is not in the table, or there are too many. */
static bool
write_add(struct variant *variant, unsigned table, size_t offset, unsigned width, uint64_t value)
{
    const size_t bytes = variant->library->tables[table].bytes;
    if (variant->count == WRITES_MOST || width > bytes || offset > bytes - width)
        return false;
    if (width < 8)
        value &= ((uint64_t)1 << (8 * width)) - 1;
    variant->writes[variant->count++] = (struct write){table, width, offset, value};
    return true;
}

/* An entry becomes as another was; with from >= entries, zero. */
static void
entry_copy(struct variant *variant, unsigned table, size_t from, size_t to)
{
    const unsigned entry = variant->library->tables[table].shape->entry;
    const bool is_there = (from + 1) * entry <= variant->library->tables[table].bytes;
    for (unsigned at = 0; at < entry; at += 8) {
        unsigned width = entry - at >= 8 ? 8 : entry - at >= 4 ? 4 : entry - at >= 2 ? 2 : 1;
        write_add(variant, table, to * entry + at, width,
                  is_there ? bytes_read(table_bytes(variant, table) + from * entry + at, width) : 0);
    }
}

/* --- Mutations. */

/* What a number may say instead of the truth. */
static uint64_t
lie(const struct library *library, uint64_t truth, unsigned width)
{
    const uint64_t top = (uint64_t)1 << (8 * width - 1);
    switch (one_of(16)) {
    case 0: return 0;
    case 1: return 1;
    case 2: return UINT64_MAX;
    case 3: return top;
    case 4: return top - 1;
    case 5: return truth + 1;
    case 6: return truth - 1;
    case 7: return truth + ((uint64_t)8 << one_of(20));
    case 8: return truth - ((uint64_t)8 << one_of(20));
    case 9: return truth * 2;
    case 10: return truth / 2;
    case 11: return truth ^ ((uint64_t)1 << one_of(8 * width));
    case 12: return library->size + one_of(17) - 8;
    case 13: return library->tables[one_of(library->table_count)].offset;
    case 14: return one_of(64);
    default: return chance();
    }
}

static unsigned
any_table(const struct library *library)
{
    return (unsigned)(1 + one_of(library->table_count - 1)); /* not "file" */
}

/* The first entries are the most telling in many tables: the counts of a hash table, the first version. */
static size_t
any_entry(const struct table *table)
{
    size_t entries = table->bytes / table->shape->entry;
    return one_of(4) == 0 && entries > 4 ? one_of(4) : one_of(entries);
}

static void
field_lie(struct variant *variant, unsigned table)
{
    const struct shape *shape = variant->library->tables[table].shape;
    unsigned fields = 0;
    while (fields < FIELDS_MOST && shape->fields[fields].width != 0)
        fields++;
    const struct field field = shape->fields[one_of(fields)];
    size_t offset = any_entry(&variant->library->tables[table]) * shape->entry + field.offset;
    write_add(variant, table, offset, field.width,
              lie(variant->library, bytes_read(table_bytes(variant, table) + offset, field.width), field.width));
}

static void
bit_flip(struct variant *variant, unsigned table)
{
    size_t offset = one_of(variant->library->tables[table].bytes);
    write_add(variant, table, offset, 1, table_bytes(variant, table)[offset] ^ (1u << one_of(8)));
}

/* Entries swapped, doubled, emptied, or taken out so that the later ones move up. */
static void
entries_mix(struct variant *variant, unsigned table)
{
    const struct table *mixed = &variant->library->tables[table];
    const size_t entries = mixed->bytes / mixed->shape->entry;
    const size_t one = any_entry(mixed), other = one_of(entries);
    switch (one_of(entries <= 48 ? 4 : 3)) {
    case 0:
        entry_copy(variant, table, one, other);
        entry_copy(variant, table, other, one);
        break;
    case 1: entry_copy(variant, table, one, other); break;
    case 2: entry_copy(variant, table, entries, one); break;
    default:
        for (size_t i = one; i < entries; i++)
            entry_copy(variant, table, i + 1, i);
        break;
    }
}

/* The dynamic section has no end, or a later one. */
static void
end_remove(struct variant *variant)
{
    for (unsigned t = 0; t < variant->library->table_count; t++) {
        const struct table *table = &variant->library->tables[t];
        if (table->shape->section != SHT_DYNAMIC)
            continue;
        const size_t entries = table->bytes / table->shape->entry, other = one_of(entries), keep = one_of(3);
        for (size_t i = 0; i + keep < entries; i++)
            if (bytes_read(table_bytes(variant, t) + i * table->shape->entry, sizeof(ElfW(Addr))) == DT_NULL)
                entry_copy(variant, t, other, i);
    }
}

/* The file ends where a table begins, ends, or amid it, or at a page, or anywhere; or a little beside. */
static void
cut(struct variant *variant)
{
    const struct library *library = variant->library;
    const struct table *table = &library->tables[any_table(library)];
    size_t size = 0;
    switch (one_of(5)) {
    case 0: size = table->offset; break;
    case 1: size = table->offset + table->bytes; break;
    case 2: size = table->offset + any_entry(table) * table->shape->entry; break;
    case 3: size = one_of(library->size / 4096 + 1) * 4096; break;
    default: size = one_of(library->size); break;
    }
    static const int beside[] = {0, 0, 0, -1, 1, -8, 8};
    size += (size_t)beside[one_of(sizeof beside / sizeof *beside)];
    if (size < variant->size)
        variant->size = size;
}

void
variant_make(struct variant *variant, const struct library *library, uint64_t seed, uint64_t number)
{
    chance_state = seed * 0x2545f4914f6cdd1d + number;
    variant->library = library;
    variant->size = library->size;
    variant->count = 0;
    for (size_t mutations = one_of(5) < 3 ? 1 : 1 + one_of(4); mutations > 0; mutations--)
        switch (one_of(20)) {
        case 0: bit_flip(variant, 0); break;
        case 1: case 2: case 3: bit_flip(variant, any_table(library)); break;
        case 4: case 5: case 6: entries_mix(variant, any_table(library)); break;
        case 7: cut(variant); break;
        case 8: end_remove(variant); break;
        default: field_lie(variant, any_table(library)); break;
        }
}

const unsigned char *
variant_bytes(const struct variant *variant)
{
    static unsigned char *bytes;
    static size_t room;
    const struct library *library = variant->library;
    if (room < library->size) {
        free(bytes);
        bytes = malloc(room = library->size);
        if (bytes == NULL)
            give_up(library->path, "no memory for a copy");
    }
    memcpy(bytes, library->bytes, library->size);
    for (unsigned i = 0; i < variant->count; i++) {
        const struct write *w = &variant->writes[i];
        bytes_write(bytes + library->tables[w->table].offset + w->offset, w->width, w->value);
    }
    return bytes;
}

void
variant_print(const struct variant *variant, char *text)
{
    text += sprintf(text, "%s:", variant->library->name);
    for (unsigned i = 0; i < variant->count; i++) {
        const struct write *w = &variant->writes[i];
        text += sprintf(text, " %.20s+0x%zx:%u=0x%" PRIx64, variant->library->tables[w->table].name, w->offset, w->width, w->value);
    }
    if (variant->size != variant->library->size)
        sprintf(text, " size=0x%zx", variant->size);
}

static bool
write_parse(struct variant *variant, const char *word)
{
    char name[32];
    size_t offset;
    unsigned width;
    uint64_t value;
    if (sscanf(word, "size=%zx", &variant->size) == 1)
        return variant->size <= variant->library->size;
    if (sscanf(word, "%31[^+]+%zx:%u=%" SCNx64, name, &offset, &width, &value) != 4)
        return false;
    for (unsigned t = 0; t < variant->library->table_count; t++)
        if (strcmp(variant->library->tables[t].name, name) == 0)
            return write_add(variant, t, offset, width, value);
    return false;
}

bool
variant_parse(struct variant *variant, const struct library *library, const char *text)
{
    char word[128];
    int used;
    variant->library = library;
    variant->size = library->size;
    variant->count = 0;
    for (text += strcspn(text, ":") + 1; sscanf(text, "%127s%n", word, &used) == 1; text += used)
        if (!write_parse(variant, word))
            return false;
    return true;
}
