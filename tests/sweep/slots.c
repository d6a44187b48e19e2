/* Walks relocation tables, by the ELF specification alone. Used by one thread; keeps only where the family is. */
#include "slots.h"

#include <dlfcn.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if __ELF_NATIVE_CLASS == 64 || UINTPTR_MAX > 0xffffffffu
#define RELOCATION_SYMBOL(info) ((size_t)ELF64_R_SYM(info))
#else
#define RELOCATION_SYMBOL(info) ((size_t)ELF32_R_SYM(info))
#endif

static const struct {
    const char *name;
    enum alcove_entry which;
} family[] = {
#define ITSELF(name) {#name, ALCOVE_ENTRY_##name},
    ALCOVE_ENTRIES(ITSELF)
#undef ITSELF
    {"cfree", ALCOVE_ENTRY_free},
    {"__libc_free", ALCOVE_ENTRY_free},
    {"__libc_malloc", ALCOVE_ENTRY_malloc},
    {"__libc_calloc", ALCOVE_ENTRY_calloc},
    {"__libc_realloc", ALCOVE_ENTRY_realloc},
    {"__libc_reallocarray", ALCOVE_ENTRY_reallocarray},
    {"__libc_memalign", ALCOVE_ENTRY_memalign},
    {"__libc_valloc", ALCOVE_ENTRY_valloc},
    {"__libc_pvalloc", ALCOVE_ENTRY_pvalloc},
    {"__posix_memalign", ALCOVE_ENTRY_posix_memalign},
    {"__strdup", ALCOVE_ENTRY_strdup},
    {"__strndup", ALCOVE_ENTRY_strndup},
};
#define FAMILY_COUNT (sizeof family / sizeof family[0])

static void *addresses[FAMILY_COUNT]; /* NULL: this libc does not have that name */

void
family_find(void)
{
    for (size_t i = 0; i < FAMILY_COUNT; i++) {
        addresses[i] = dlsym(RTLD_DEFAULT, family[i].name);
#ifdef __GLIBC__
        if (addresses[i] == NULL) /* names that are kept for old programs have a version only */
            addresses[i] = dlvsym(RTLD_DEFAULT, family[i].name, "GLIBC_2.2.5");
        if (addresses[i] == NULL)
            addresses[i] = dlvsym(RTLD_DEFAULT, family[i].name, "GLIBC_2.17");
#endif
    }
}

int
family_name(const char *name)
{
    for (size_t i = 0; i < FAMILY_COUNT; i++)
        if (strcmp(family[i].name, name) == 0)
            return (int)family[i].which;
    return -1;
}

const char *
family_text(int which)
{
    return which >= 0 ? family[which].name : "-"; /* the routed names come first, in their order */
}

/* The routed name of the function at an address; of two for one function, that which the symbol has. -1: none. */
static int
family_member(const void *address, const char *symbol)
{
    int which = -1;
    for (size_t i = 0; i < FAMILY_COUNT; i++) {
        if (address == NULL || addresses[i] != address)
            continue;
        if (which < 0 || strcmp(family[i].name, symbol) == 0)
            which = (int)family[i].which;
    }
    return which;
}

/* An object while its tables are read. */
struct walked {
    const struct dl_phdr_info *info;
    const ElfW(Dyn) *dynamic;
    const ElfW(Sym) *symbols;
    const char *strings;
    size_t string_bytes;
    struct slots *slots;
    size_t first; /* of its slots in the list */
};

/* Is [address, address + bytes) in one of its segments? */
static bool
mapped(const struct dl_phdr_info *info, uintptr_t address, size_t bytes)
{
    for (size_t i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *segment = &info->dlpi_phdr[i];
        uintptr_t from = address - (info->dlpi_addr + segment->p_vaddr);
        if (segment->p_type == PT_LOAD && from < segment->p_memsz && bytes <= segment->p_memsz - from)
            return true;
    }
    return false;
}

/* A pointer of the dynamic section: some dynamic linkers have added the base to it, some not. */
static uintptr_t
dynamic_address(const struct dl_phdr_info *info, uintptr_t value)
{
    return mapped(info, value, 1) ? value : mapped(info, info->dlpi_addr + value, 1) ? info->dlpi_addr + value : 0;
}

static const ElfW(Dyn) *
dynamic_of(const struct dl_phdr_info *info)
{
    for (size_t i = 0; i < info->dlpi_phnum; i++)
        if (info->dlpi_phdr[i].p_type == PT_DYNAMIC)
            return (const ElfW(Dyn) *)(info->dlpi_addr + info->dlpi_phdr[i].p_vaddr);
    return NULL;
}

static void
copy_text(char out[static SLOT_TEXT], const char *text)
{
    size_t length = strnlen(text, SLOT_TEXT - 1);
    memcpy(out, text, length);
    out[length] = 0;
}

void *
word_value(uintptr_t address)
{
    void *value;
    memcpy(&value, (void *)address, sizeof value); /* nothing says that it is aligned */
    return value;
}

static void
relocation_take(struct walked *object, uintptr_t offset, size_t symbol)
{
    uintptr_t word = object->info->dlpi_addr + offset;
    const char *name = "";
    if (!mapped(object->info, word, sizeof(void *)))
        return;
    if (symbol != 0 && object->symbols != NULL && mapped(object->info, (uintptr_t)&object->symbols[symbol], sizeof(ElfW(Sym))) &&
        object->symbols[symbol].st_name < object->string_bytes)
        name = object->strings + object->symbols[symbol].st_name;
    int member = family_member(word_value(word), name);
    if (member < 0 && family_name(name) < 0)
        return;
    struct slots *slots = object->slots;
    for (size_t i = object->first; i < slots->count; i++)
        if (slots->list[i].offset == offset)
            return;
    if ((slots->count & (slots->count - 1)) == 0) {
        size_t room = slots->count == 0 ? 1 : 2 * slots->count;
        slots->list = realloc(slots->list, room * sizeof slots->list[0]);
        if (slots->list == NULL)
            abort();
    }
    struct slot *slot = &slots->list[slots->count++];
    *slot = (struct slot){.dynamic = object->dynamic, .base = object->info->dlpi_addr, .offset = offset, .which = member};
    copy_text(slot->object, object->info->dlpi_name != NULL ? object->info->dlpi_name : "");
    copy_text(slot->name, name);
}

/* Every kind of relocation counts: what matters is the word that it left. */
static void
table_read(struct walked *object, uintptr_t table, size_t bytes, bool addends)
{
    size_t stride = addends ? sizeof(ElfW(Rela)) : sizeof(ElfW(Rel));
    if (table == 0 || !mapped(object->info, table, bytes))
        return;
    for (size_t at = 0; at + stride <= bytes; at += stride) {
        const ElfW(Rel) *relocation = (const ElfW(Rel) *)(table + at); /* both kinds begin alike */
        relocation_take(object, relocation->r_offset, RELOCATION_SYMBOL(relocation->r_info));
    }
}

static int
object_read(struct dl_phdr_info *info, size_t size, void *slots)
{
    (void)size;
    struct walked object = {.info = info, .dynamic = dynamic_of(info), .slots = slots};
    uintptr_t rela = 0, rel = 0, calls = 0;
    size_t rela_bytes = 0, rel_bytes = 0, call_bytes = 0;
    bool call_addends = true;
    if (object.dynamic == NULL)
        return 0;
    object.first = object.slots->count;
    for (const ElfW(Dyn) *d = object.dynamic; d->d_tag != DT_NULL; d++)
        switch (d->d_tag) {
        case DT_SYMTAB: object.symbols = (const void *)dynamic_address(info, d->d_un.d_ptr); break;
        case DT_STRTAB: object.strings = (const void *)dynamic_address(info, d->d_un.d_ptr); break;
        case DT_STRSZ: object.string_bytes = d->d_un.d_val; break;
        case DT_RELA: rela = dynamic_address(info, d->d_un.d_ptr); break;
        case DT_RELASZ: rela_bytes = d->d_un.d_val; break;
        case DT_REL: rel = dynamic_address(info, d->d_un.d_ptr); break;
        case DT_RELSZ: rel_bytes = d->d_un.d_val; break;
        case DT_JMPREL: calls = dynamic_address(info, d->d_un.d_ptr); break;
        case DT_PLTRELSZ: call_bytes = d->d_un.d_val; break;
        case DT_PLTREL: call_addends = d->d_un.d_val == DT_RELA; break;
        }
    if (object.strings == NULL || !mapped(info, (uintptr_t)object.strings, object.string_bytes))
        object.symbols = NULL;
    table_read(&object, rela, rela_bytes, true);
    table_read(&object, rel, rel_bytes, false);
    table_read(&object, calls, call_bytes, call_addends);
    return 0;
}

struct slots
slots_collect(void)
{
    struct slots slots = {NULL, 0};
    dl_iterate_phdr(object_read, &slots);
    return slots;
}

void
slots_free(struct slots *slots)
{
    free(slots->list);
    *slots = (struct slots){NULL, 0};
}

struct place {
    uintptr_t address;
    uintptr_t base;
    const void *dynamic;
    char path[SLOT_TEXT];
};

static int
place_look(struct dl_phdr_info *info, size_t size, void *argument)
{
    (void)size;
    struct place *place = argument;
    if (!mapped(info, place->address, 1))
        return 0;
    place->base = info->dlpi_addr;
    place->dynamic = dynamic_of(info);
    copy_text(place->path, info->dlpi_name != NULL ? info->dlpi_name : "");
    return 1;
}

const char *
place_text(char out[static 2 * SLOT_TEXT], const void *address)
{
    struct place place = {.address = (uintptr_t)address};
    if (dl_iterate_phdr(place_look, &place) == 0)
        return address == NULL ? "null" : "nowhere";
    snprintf(out, 2 * SLOT_TEXT, "%s+0x%zx", place.path[0] != 0 ? place.path : "the program", (size_t)(place.address - place.base));
    return out;
}

const void *
place_object(const void *address)
{
    struct place place = {.address = (uintptr_t)address};
    dl_iterate_phdr(place_look, &place);
    return place.dynamic;
}

struct listing {
    void (*each)(const char *path, void *context);
    void *context;
};

static int
object_list(struct dl_phdr_info *info, size_t size, void *argument)
{
    (void)size;
    struct listing *listing = argument;
    listing->each(info->dlpi_name != NULL ? info->dlpi_name : "", listing->context);
    return 0;
}

void
objects_list(void (*each)(const char *path, void *context), void *context)
{
    dl_iterate_phdr(object_list, &(struct listing){each, context});
}

struct search {
    const char *path;
    uintptr_t base;
};

static int
object_match(struct dl_phdr_info *info, size_t size, void *argument)
{
    (void)size;
    struct search *search = argument;
    if (strncmp(info->dlpi_name != NULL ? info->dlpi_name : "", search->path, SLOT_TEXT - 1) != 0)
        return 0;
    search->base = info->dlpi_addr;
    return 1;
}

bool
object_base(const char *path, uintptr_t *base)
{
    struct search search = {.path = path};
    bool found = dl_iterate_phdr(object_match, &search) != 0;
    *base = search.base;
    return found;
}
