/*
 * Walks the relocations of one mapped object. Keeps nothing; the caller sees to it that the object
 * stays mapped (it is inside dl_iterate_phdr, or holds a dlopen handle) and is fully relocated.
 */
#include "elf/imports.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* The three relocations that put a function's plain address into a word, by machine. */
#if defined(__x86_64__)
#define RELOCATION_CALL R_X86_64_JUMP_SLOT
#define RELOCATION_ADDRESS R_X86_64_GLOB_DAT
#define RELOCATION_DATA R_X86_64_64
#elif defined(__aarch64__)
#define RELOCATION_CALL R_AARCH64_JUMP_SLOT
#define RELOCATION_ADDRESS R_AARCH64_GLOB_DAT
#define RELOCATION_DATA R_AARCH64_ABS64
#elif defined(__powerpc64__) && _CALL_ELF == 2 /* the first ABI's function pointers point to descriptors */
#define RELOCATION_CALL R_PPC64_JMP_SLOT
#define RELOCATION_ADDRESS R_PPC64_GLOB_DAT
#define RELOCATION_DATA R_PPC64_ADDR64
#elif defined(__riscv) && __riscv_xlen == 64
#define RELOCATION_CALL R_RISCV_JUMP_SLOT
#define RELOCATION_ADDRESS R_RISCV_64 /* RISC-V has no kind of its own for this */
#define RELOCATION_DATA R_RISCV_64
#else
#error "name this machine's relocations"
#endif

/* All of these machines write relocations with addends (RELA), with a 64-bit r_info. */
#define RELOCATION_SYMBOL(info) ELF64_R_SYM(info)
#define RELOCATION_TYPE(info) ELF64_R_TYPE(info)

static uintptr_t
page_mask(void)
{
    return (uintptr_t)sysconf(_SC_PAGESIZE) - 1;
}

/* glibc adds the base to the pointers of the dynamic section when it loads an object; musl does
 * not, nor does glibc on machines where the section is read-only. */
static const void *
dynamic_pointer(const struct object *object, uintptr_t value)
{
    if (object_holds(object, value))
        return (const void *)value;
    if (object_holds(object, object->base + value))
        return (const void *)(object->base + value);
    return NULL;
}

static void
segments_read(struct object *object)
{
    for (size_t i = 0; i < object->segment_count; i++) {
        const ElfW(Phdr) *segment = &object->segments[i];
        uintptr_t start = object->base + segment->p_vaddr, end = start + segment->p_memsz;
        switch (segment->p_type) {
        case PT_LOAD:
            if (object->end == 0 || start < object->start)
                object->start = start;
            if (end > object->end)
                object->end = end;
            break;
        case PT_DYNAMIC:
            object->dynamic = (const ElfW(Dyn) *)start;
            break;
        case PT_GNU_RELRO: /* rounded as the dynamic linkers do: a last page in part stays writable */
            object->relro_start = start & ~page_mask();
            object->relro_end = end & ~page_mask();
            break;
        }
    }
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

    size_t bytes[2] = {0, 0};
    for (const ElfW(Dyn) *d = object->dynamic; d->d_tag != DT_NULL; d++) {
        uintptr_t value = d->d_un.d_ptr;
        switch (d->d_tag) {
        case DT_SYMTAB: object->symbols = dynamic_pointer(object, value); break;
        case DT_STRTAB: object->strings = dynamic_pointer(object, value); break;
        case DT_RELA: object->tables[0].first = dynamic_pointer(object, value); break;
        case DT_RELASZ: bytes[0] = value; break;
        case DT_JMPREL: object->tables[1].first = dynamic_pointer(object, value); break;
        case DT_PLTRELSZ: bytes[1] = value; break;
        }
    }
    if (object->symbols == NULL || object->strings == NULL)
        return true; /* nothing to look names up in: no imports */
    for (int t = 0; t < 2; t++)
        if (object->tables[t].first != NULL)
            object->tables[t].count = bytes[t] / sizeof(ElfW(Rela));
    return true;
}

struct import_cursor
imports_of(const struct object *object)
{
    return (struct import_cursor){.object = object};
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
    default: return false;
    }
}

bool
import_next(struct import_cursor *cursor, struct import *out)
{
    const struct object *object = cursor->object;
    for (; cursor->table < 2; cursor->table++, cursor->index = 0) {
        while (cursor->index < object->tables[cursor->table].count) {
            const ElfW(Rela) *relocation = &object->tables[cursor->table].first[cursor->index++];
            size_t symbol = RELOCATION_SYMBOL(relocation->r_info);
            uintptr_t slot = object->base + relocation->r_offset;
            if (symbol == 0 || !kind_of(relocation, &out->kind) || !object_holds(object, slot))
                continue;
            const ElfW(Sym) *s = &object->symbols[symbol];
            out->name = object->strings + s->st_name;
            out->slot = (void **)slot;
            uintptr_t value = s->st_value != 0 ? object->base + s->st_value : 0;
            out->definition = s->st_shndx != SHN_UNDEF ? value : 0;
            out->stub = s->st_shndx == SHN_UNDEF ? value : 0;
            return true;
        }
    }
    return false;
}

/* The protection that a slot's page has, now that its object is relocated. */
static int
slot_protection(const struct object *object, uintptr_t slot)
{
    if (slot >= object->relro_start && slot < object->relro_end)
        return PROT_READ;
    for (size_t i = 0; i < object->segment_count; i++) {
        const ElfW(Phdr) *segment = &object->segments[i];
        if (segment->p_type == PT_LOAD && slot - (object->base + segment->p_vaddr) < segment->p_memsz)
            return ((segment->p_flags & PF_R) ? PROT_READ : 0) | ((segment->p_flags & PF_W) ? PROT_WRITE : 0) |
                   ((segment->p_flags & PF_X) ? PROT_EXEC : 0);
    }
    return PROT_READ | PROT_WRITE;
}

int
import_store(const struct object *object, const struct import *import, void *value)
{
    uintptr_t slot = (uintptr_t)import->slot;
    int protection = slot_protection(object, slot);
    if (protection & PROT_WRITE) {
        __atomic_store_n(import->slot, value, __ATOMIC_RELEASE);
        return 0;
    }
    void *page = (void *)(slot & ~page_mask());
    size_t bytes = ((slot + sizeof value - 1) | page_mask()) + 1 - (uintptr_t)page; /* two pages if it straddles */
    if (mprotect(page, bytes, (protection & PROT_EXEC) ? protection | PROT_WRITE : PROT_READ | PROT_WRITE) != 0)
        return errno;
    __atomic_store_n(import->slot, value, __ATOMIC_RELEASE);
    return mprotect(page, bytes, protection) != 0 ? errno : 0;
}
