/*
 * Walks the relocations of one mapped object. Keeps nothing; the caller sees to it that the object
 * stays mapped (it is inside dl_iterate_phdr, or holds a dlopen handle) and is fully relocated.
 */
#include "elf/imports.h"

#include "elf/writer.h"

/* By machine: the three relocations that put a function's plain address into a word, the one that copies a variable, and the one that puts
 * what a function returns into a word. */
#if defined(__x86_64__)
#define RELOCATION_CALL R_X86_64_JUMP_SLOT
#define RELOCATION_ADDRESS R_X86_64_GLOB_DAT
#define RELOCATION_DATA R_X86_64_64
#define RELOCATION_COPY R_X86_64_COPY
#define RELOCATION_CHOSEN R_X86_64_IRELATIVE
#elif defined(__aarch64__)
#define RELOCATION_CALL R_AARCH64_JUMP_SLOT
#define RELOCATION_ADDRESS R_AARCH64_GLOB_DAT
#define RELOCATION_DATA R_AARCH64_ABS64
#define RELOCATION_COPY R_AARCH64_COPY
#define RELOCATION_CHOSEN 1032 /* R_AARCH64_IRELATIVE, which musl doesn't name */
#elif defined(__powerpc64__) && _CALL_ELF == 2 /* the first ABI's function pointers point to descriptors */
#define RELOCATION_CALL R_PPC64_JMP_SLOT
#define RELOCATION_ADDRESS R_PPC64_GLOB_DAT
#define RELOCATION_DATA R_PPC64_ADDR64
#define RELOCATION_COPY R_PPC64_COPY
#define RELOCATION_CHOSEN 248 /* R_PPC64_IRELATIVE, which musl doesn't name */
#elif defined(__riscv) && __riscv_xlen == 64
#define RELOCATION_CALL R_RISCV_JUMP_SLOT
#define RELOCATION_ADDRESS R_RISCV_64 /* RISC-V has no kind of its own for this */
#define RELOCATION_DATA R_RISCV_64
#define RELOCATION_COPY R_RISCV_COPY
#define RELOCATION_CHOSEN 58 /* R_RISCV_IRELATIVE, which not every libc names */
#else
#error "name this machine's relocations"
#endif

/* All of these machines write relocations with addends (RELA), with a 64-bit r_info. */
#define RELOCATION_SYMBOL(info) ELF64_R_SYM(info)
#define RELOCATION_TYPE(info) ELF64_R_TYPE(info)

struct import_cursor
imports_of_kinds(const struct object *object, unsigned kinds)
{
    return (struct import_cursor){.object = object, .kinds = kinds};
}

struct import_cursor
imports_of(const struct object *object)
{
    return imports_of_kinds(object, IMPORTS_NAMED);
}

struct import_cursor
imports_beside_words(const struct object *object)
{
    struct import_cursor cursor = imports_of_kinds(object, IMPORTS_NAMED | IMPORTS_OF(IMPORT_COPY));
    cursor.beside_words = true;
    cursor.index = object->relative_count;
    return cursor;
}

/* Cheap, for each of many. */
static bool
is_beside_words(const struct object *object, const ElfW(Rela) *relocation)
{
    return object->text_relocations || (object->base + relocation->r_offset) % sizeof(uint32_t) != 0 ||
           RELOCATION_TYPE(relocation->r_info) == RELOCATION_COPY;
}

static bool
kind_of(const ElfW(Rela) *relocation, enum import_kind *kind)
{
    switch (RELOCATION_TYPE(relocation->r_info)) {
    case RELOCATION_CALL: *kind = IMPORT_CALL; return true;
#if RELOCATION_ADDRESS != RELOCATION_DATA
    case RELOCATION_ADDRESS: *kind = IMPORT_ADDRESS; return true;
#endif
    case RELOCATION_DATA: *kind = IMPORT_DATA; return relocation->r_addend == 0;
    case RELOCATION_COPY: *kind = IMPORT_COPY; return true;
    case RELOCATION_CHOSEN: *kind = IMPORT_CHOSEN; return true;
    default: return false;
    }
}

/* What the symbol of a relocation tells. False: it can't be read. */
static bool
symbol_read(const struct object *object, size_t index, struct import *out)
{
    if (index == 0 || index >= object->symbol_count)
        return false;
    const ElfW(Sym) *s = &object->symbols[index];
    out->name = object_string(object, s->st_name);
    if (out->name == NULL)
        return false;
    uintptr_t value = s->st_value != 0 ? object->base + s->st_value : 0;
    out->symbol = index;
    out->definition = s->st_shndx != SHN_UNDEF ? value : 0;
    out->stub = s->st_shndx == SHN_UNDEF ? value : 0;
    if (out->kind == IMPORT_COPY)
        out->bytes = s->st_size;
    return true;
}

static bool
relocation_read(const struct object *object, const ElfW(Rela) *relocation, struct import *out)
{
    out->slot = (void **)(object->base + relocation->r_offset);
    out->bytes = sizeof *out->slot;
    if (out->kind == IMPORT_CHOSEN) {
        out->name = "";
        out->symbol = 0;
        out->definition = object->base + (uintptr_t)relocation->r_addend;
        out->stub = 0;
    } else if (!symbol_read(object, RELOCATION_SYMBOL(relocation->r_info), out)) {
        return false;
    }
    const unsigned flags = object->text_relocations ? PF_R : PF_R | PF_W;
    return out->bytes != 0 && object_room(object, (uintptr_t)out->slot, flags) >= out->bytes;
}

bool
import_next(struct import_cursor *cursor, struct import *out)
{
    const struct object *object = cursor->object;
    for (; cursor->table < 2; cursor->table++, cursor->index = 0) {
        while (cursor->index < object->tables[cursor->table].count) {
            const ElfW(Rela) *relocation = &object->tables[cursor->table].first[cursor->index++];
            if (cursor->beside_words && !is_beside_words(object, relocation))
                continue;
            if (kind_of(relocation, &out->kind) && (cursor->kinds & IMPORTS_OF(out->kind)) != 0 &&
                relocation_read(object, relocation, out))
                return true;
        }
    }
    return false;
}

int
import_store(const struct object *object, const struct import *import, void *value)
{
    int error;
    do
        error = word_store(object, import->slot, import_value(import), value);
    while (error == WORD_CHANGED);
    return error < 0 ? -error : error;
}
