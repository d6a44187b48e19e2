/*
 * What the tests of loader/elf/ share: a small object made by hand, with pages around each segment that kill who reads them, to
 * be damaged field by field; and a walk over all that an object tells.
 */
#ifndef TESTS_UNIT_ELF_H
#define TESTS_UNIT_ELF_H

#include "elf/imports.h"
#include "elf/symbols.h"
#include "elf/words.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Its symbols, its strings, its slots. */
enum { FAKE_NULL, FAKE_MALLOC, FAKE_FREE, FAKE_VARIABLE, FAKE_WORK, FAKE_WORK_HIDDEN, FAKE_OTHER, FAKE_SYMBOLS };
#define FAKE_NAMES "\0malloc\0free\0variable\0work\0other\0ONE\0TWO\0NEEDED\0lib.so"
enum { NAME_MALLOC = 1, NAME_FREE = 8, NAME_VARIABLE = 13, NAME_WORK = 22, NAME_OTHER = 27, NAME_ONE = 33, NAME_TWO = 37, NAME_NEEDED = 41, NAME_LIB = 48 };
enum { SLOT_MALLOC, SLOT_FREE, SLOT_CHOSEN, SLOT_VARIABLE, SLOT_AFTER_VARIABLE, FAKE_SLOTS };
enum { FAKE_WORK_OFFSET = 64, FAKE_OTHER_OFFSET = 128, FAKE_VARIABLE_BYTES = 16 };

#if defined(__x86_64__)
enum { FAKE_CALL = R_X86_64_JUMP_SLOT, FAKE_DATA = R_X86_64_64, FAKE_COPY = R_X86_64_COPY, FAKE_CHOSEN = 37 };
#elif defined(__aarch64__)
enum { FAKE_CALL = R_AARCH64_JUMP_SLOT, FAKE_DATA = R_AARCH64_ABS64, FAKE_COPY = R_AARCH64_COPY, FAKE_CHOSEN = 1032 };
#elif defined(__powerpc64__)
enum { FAKE_CALL = R_PPC64_JMP_SLOT, FAKE_DATA = R_PPC64_ADDR64, FAKE_COPY = R_PPC64_COPY, FAKE_CHOSEN = 248 };
#elif defined(__riscv)
enum { FAKE_CALL = R_RISCV_JUMP_SLOT, FAKE_DATA = R_RISCV_64, FAKE_COPY = R_RISCV_COPY, FAKE_CHOSEN = 58 };
#endif

/* The segment of tables: all of them, and it ends with the strings. */
struct fake_tables {
    ElfW(Rela) data[3], calls[1];
    ElfW(Sym) symbols[FAKE_SYMBOLS];
    uint32_t gnu_hash[4 + 2 + 1 + FAKE_SYMBOLS - FAKE_WORK]; /* one bucket, after a word of the filter */
    uint32_t hash[2 + 1 + FAKE_SYMBOLS];                     /* one bucket */
    ElfW(Verdef) defined[2];
    ElfW(Verdaux) defined_names[2];
    ElfW(Verneed) needed;
    ElfW(Vernaux) needed_name;
    ElfW(Versym) versions[FAKE_SYMBOLS + 1];
    char strings[56];
};
_Static_assert(offsetof(struct fake_tables, strings) + 56 == sizeof(struct fake_tables) && sizeof FAKE_NAMES <= 56, "the strings are the end");

enum { DYN_SYMTAB, DYN_SYMENT, DYN_STRTAB, DYN_STRSZ, DYN_RELA, DYN_RELASZ, DYN_RELAENT, DYN_JMPREL, DYN_PLTRELSZ, DYN_PLTREL,
       DYN_GNU_HASH, DYN_HASH, DYN_VERSYM, DYN_VERDEF, DYN_VERNEED, DYN_NULL, DYN_COUNT };

/* The segment of data, which ends with the dynamic section. */
struct fake_data {
    void *slots[FAKE_SLOTS];
    ElfW(Dyn) dynamic[DYN_COUNT];
};

enum { HEADER_TABLES, HEADER_DATA, HEADER_DYNAMIC, HEADER_RELRO, FAKE_HEADERS };

struct fake {
    unsigned char *area; /* guard, tables, guard, data, guard: pages each */
    struct fake_tables *tables;
    struct fake_data *data;
    ElfW(Phdr) headers[FAKE_HEADERS];
    struct dl_phdr_info info;
};

static inline size_t
page(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

static inline uint32_t
gnu_hash_of(const char *name)
{
    uint32_t hash = 5381;
    while (*name != 0)
        hash = hash * 33 + (unsigned char)*name++;
    return hash;
}

static inline void
fake_symbol(struct fake *fake, size_t index, uint32_t name, unsigned type, bool defined, uintptr_t value, size_t size)
{
    fake->tables->symbols[index] = (ElfW(Sym)){.st_name = name, .st_info = ELF64_ST_INFO(STB_GLOBAL, type),
                                               .st_shndx = defined ? 1 : SHN_UNDEF, .st_value = value, .st_size = size};
}

static inline uintptr_t
fake_offset(const struct fake *fake, const void *place)
{
    return (uintptr_t)place - (uintptr_t)fake->area;
}

static inline void
fake_tables_fill(struct fake *fake)
{
    struct fake_tables *t = fake->tables;
    memcpy(t->strings, FAKE_NAMES, sizeof FAKE_NAMES);
    fake_symbol(fake, FAKE_MALLOC, NAME_MALLOC, STT_FUNC, false, 0, 0);
    fake_symbol(fake, FAKE_FREE, NAME_FREE, STT_FUNC, false, 0, 0);
    fake_symbol(fake, FAKE_VARIABLE, NAME_VARIABLE, STT_OBJECT, false, 0, FAKE_VARIABLE_BYTES);
    fake_symbol(fake, FAKE_WORK, NAME_WORK, STT_FUNC, true, FAKE_WORK_OFFSET, 0);
    fake_symbol(fake, FAKE_WORK_HIDDEN, NAME_WORK, STT_FUNC, true, FAKE_WORK_OFFSET + 1, 0);
    fake_symbol(fake, FAKE_OTHER, NAME_OTHER, STT_FUNC, true, FAKE_OTHER_OFFSET, 0);

    uint32_t work = gnu_hash_of("work") & ~1u;
    uint32_t gnu[] = {1, FAKE_WORK, 1, 0, ~0u, ~0u, FAKE_WORK, work, work, gnu_hash_of("other") | 1};
    memcpy(t->gnu_hash, gnu, sizeof gnu);
    uint32_t hash[] = {1, FAKE_SYMBOLS, FAKE_WORK, 0, 0, 0, 0, FAKE_WORK_HIDDEN, FAKE_OTHER, 0};
    memcpy(t->hash, hash, sizeof hash);

    ElfW(Versym) versions[FAKE_SYMBOLS] = {[FAKE_MALLOC] = 4, [FAKE_FREE] = 1, [FAKE_VARIABLE] = 0, [FAKE_WORK] = 3,
                                           [FAKE_WORK_HIDDEN] = 0x8000 | 2, [FAKE_OTHER] = 3};
    memcpy(t->versions, versions, sizeof versions);
    for (unsigned i = 0; i < 2; i++) {
        t->defined[i] = (ElfW(Verdef)){.vd_version = 1, .vd_ndx = (ElfW(Half))(2 + i), .vd_cnt = 1, .vd_next = i == 0 ? sizeof t->defined[0] : 0};
        t->defined[i].vd_aux = (ElfW(Word))((char *)&t->defined_names[i] - (char *)&t->defined[i]);
        t->defined_names[i].vda_name = i == 0 ? NAME_ONE : NAME_TWO;
    }
    t->needed = (ElfW(Verneed)){.vn_version = 1, .vn_cnt = 1, .vn_file = NAME_LIB};
    t->needed.vn_aux = (ElfW(Word))((char *)&t->needed_name - (char *)&t->needed);
    t->needed_name = (ElfW(Vernaux)){.vna_other = 4, .vna_name = NAME_NEEDED};

    const uintptr_t slots = fake_offset(fake, fake->data->slots);
    t->calls[0] = (ElfW(Rela)){.r_offset = slots + SLOT_MALLOC * sizeof(void *), .r_info = ELF64_R_INFO((uint64_t)FAKE_MALLOC, FAKE_CALL)};
    t->data[0] = (ElfW(Rela)){.r_offset = slots + SLOT_FREE * sizeof(void *), .r_info = ELF64_R_INFO((uint64_t)FAKE_FREE, FAKE_DATA)};
    t->data[1] = (ElfW(Rela)){.r_offset = slots + SLOT_CHOSEN * sizeof(void *), .r_info = ELF64_R_INFO((uint64_t)0, FAKE_CHOSEN), .r_addend = FAKE_WORK_OFFSET};
    t->data[2] = (ElfW(Rela)){.r_offset = slots + SLOT_VARIABLE * sizeof(void *), .r_info = ELF64_R_INFO((uint64_t)FAKE_VARIABLE, FAKE_COPY)};
}

/* A sound object, as musl leaves it: its pointers are without the base. */
static inline void
fake_make(struct fake *fake)
{
    memset(fake, 0, sizeof *fake);
    fake->area = mmap(NULL, 5 * page(), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(fake->area != MAP_FAILED);
    assert_int_equal(mprotect(fake->area + page(), page(), PROT_READ | PROT_WRITE), 0);
    assert_int_equal(mprotect(fake->area + 3 * page(), page(), PROT_READ | PROT_WRITE), 0);
    fake->tables = (struct fake_tables *)(fake->area + 2 * page() - sizeof *fake->tables);
    fake->data = (struct fake_data *)(fake->area + 4 * page() - sizeof *fake->data);
    fake_tables_fill(fake);

    struct fake_tables *t = fake->tables;
    ElfW(Dyn) dynamic[DYN_COUNT] = {
        [DYN_SYMTAB] = {DT_SYMTAB, {fake_offset(fake, t->symbols)}}, [DYN_SYMENT] = {DT_SYMENT, {sizeof(ElfW(Sym))}},
        [DYN_STRTAB] = {DT_STRTAB, {fake_offset(fake, t->strings)}}, [DYN_STRSZ] = {DT_STRSZ, {sizeof t->strings}},
        [DYN_RELA] = {DT_RELA, {fake_offset(fake, t->data)}}, [DYN_RELASZ] = {DT_RELASZ, {sizeof t->data}},
        [DYN_RELAENT] = {DT_RELAENT, {sizeof(ElfW(Rela))}}, [DYN_JMPREL] = {DT_JMPREL, {fake_offset(fake, t->calls)}},
        [DYN_PLTRELSZ] = {DT_PLTRELSZ, {sizeof t->calls}}, [DYN_PLTREL] = {DT_PLTREL, {DT_RELA}},
        [DYN_GNU_HASH] = {DT_GNU_HASH, {fake_offset(fake, t->gnu_hash)}}, [DYN_HASH] = {DT_HASH, {fake_offset(fake, t->hash)}},
        [DYN_VERSYM] = {DT_VERSYM, {fake_offset(fake, t->versions)}}, [DYN_VERDEF] = {DT_VERDEF, {fake_offset(fake, t->defined)}},
        [DYN_VERNEED] = {DT_VERNEED, {fake_offset(fake, &t->needed)}}, [DYN_NULL] = {DT_NULL, {0}},
    };
    memcpy(fake->data->dynamic, dynamic, sizeof dynamic);

    fake->headers[HEADER_TABLES] = (ElfW(Phdr)){.p_type = PT_LOAD, .p_flags = PF_R, .p_vaddr = page(), .p_filesz = page(), .p_memsz = page()};
    fake->headers[HEADER_DATA] = (ElfW(Phdr)){.p_type = PT_LOAD, .p_flags = PF_R | PF_W, .p_vaddr = 3 * page(), .p_filesz = page(), .p_memsz = page()};
    fake->headers[HEADER_DYNAMIC] = (ElfW(Phdr)){.p_type = PT_DYNAMIC, .p_flags = PF_R | PF_W, .p_vaddr = fake_offset(fake, fake->data->dynamic),
                                                 .p_filesz = sizeof dynamic, .p_memsz = sizeof dynamic};
    fake->headers[HEADER_RELRO] = (ElfW(Phdr)){.p_type = PT_GNU_RELRO, .p_flags = PF_R};
    fake->info = (struct dl_phdr_info){.dlpi_addr = (ElfW(Addr))fake->area, .dlpi_name = "fake", .dlpi_phdr = fake->headers, .dlpi_phnum = FAKE_HEADERS};
}

static inline void
fake_free(struct fake *fake)
{
    munmap(fake->area, 5 * page());
}

/* What one is worth that is read: whoever reads beyond what is there dies. */
struct told {
    size_t imports[IMPORT_CHOSEN + 1], symbols, versions, words;
};

static inline struct told
object_tell(const struct object *object)
{
    struct told told = {.symbols = 0};
    size_t letters = 0;
    struct import import;
    struct import_cursor imports = imports_of_kinds(object, IMPORTS_ALL);
    while (import_next(&imports, &import)) {
        told.imports[import.kind]++;
        letters += strlen(import.name);
        letters += import_value(&import) != NULL;
        letters += ((const volatile unsigned char *)import.slot)[import.bytes - 1];
        symbol_version(object, import.symbol);
    }
    struct symbol symbol, same;
    struct symbol_cursor symbols = symbols_of(object);
    while (symbol_next(&symbols, &symbol)) {
        told.symbols++;
        letters += strlen(symbol.name);
        const char *version = symbol_version(object, symbol.index);
        told.versions += version != NULL && strlen(version) > 0;
    }
    static const char *const names[] = {"work", "other", "malloc", "free", "none"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        symbols = symbols_named(object, names[i]);
        while (symbol_next(&symbols, &same))
            assert_string_equal(same.name, names[i]);
    }
    const uintptr_t values[] = {(uintptr_t)&told};
    struct word_cursor words = words_of(object, values, 1);
    void **word;
    while (word_next(&words, &word))
        told.words++;
    assert_true(letters < SIZE_MAX);
    return told;
}

#endif
