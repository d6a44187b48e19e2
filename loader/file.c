/*
 * Is this a library that the process can load? Asked before dlopen, whose own words for a wrong
 * file are few, and which maps a truncated one and dies of SIGBUS later.
 */
#include "loader.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PHDRS_MOST 256 /* more than any linker writes */

/* What this process is: the header of a file that fits. */
#if __SIZEOF_POINTER__ == 8
#define OWN_CLASS ELFCLASS64
#else
#define OWN_CLASS ELFCLASS32
#endif
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define OWN_DATA ELFDATA2LSB
#else
#define OWN_DATA ELFDATA2MSB
#endif
#if defined(__x86_64__)
#define OWN_MACHINE EM_X86_64
#elif defined(__aarch64__)
#define OWN_MACHINE EM_AARCH64
#elif defined(__powerpc64__)
#define OWN_MACHINE EM_PPC64
#elif defined(__riscv)
#define OWN_MACHINE EM_RISCV
#else
#error "say which ELF machine this is"
#endif

static const char *
machine_name(unsigned machine)
{
    switch (machine) {
    case EM_386: return "32-bit x86";
    case EM_X86_64: return "x86-64";
    case EM_ARM: return "32-bit ARM";
    case EM_AARCH64: return "AArch64";
    case EM_PPC64: return "64-bit POWER";
    case EM_S390: return "IBM S/390";
    case EM_RISCV: return "RISC-V";
    default: return "another kind of machine";
    }
}

static const char *
type_name(unsigned type)
{
    switch (type) {
    case ET_REL: return "an object file (.o)";
    case ET_EXEC: return "a program";
    case ET_CORE: return "a core dump";
    default: return "no shared library";
    }
}

/* The beginning of a file that is not ELF, so that the reader of the message recognises it. */
static void
beginning_show(char *out, size_t size, const unsigned char *bytes, size_t count)
{
    size_t used = 0;
    for (size_t i = 0; i < count && i < 24 && used + 5 < size; i++) {
        if (bytes[i] == '\n')
            break;
        used += (size_t)snprintf(out + used, size - used, isprint(bytes[i]) ? "%c" : "\\x%02x", bytes[i]);
    }
    out[used] = 0;
}

/* Here and below: the path as messages show it. */
static int
header_check(const char *path, const ElfW(Ehdr) *header, size_t have, uint64_t file_bytes)
{
    const unsigned char *ident = header->e_ident;
    if (have < SELFMAG || memcmp(ident, ELFMAG, SELFMAG) != 0) {
        char shown[128];
        beginning_show(shown, sizeof shown, ident, have < EI_NIDENT ? have : EI_NIDENT);
        return fail(ALCOVE_EFORMAT,
                    "%s is not an ELF file: it has %llu bytes and begins with \"%s\". Name a shared library (.so)",
                    path, (unsigned long long)file_bytes, shown);
    }
    if (have < sizeof *header)
        return fail(ALCOVE_EFORMAT, "%s is truncated: its ELF header needs %zu bytes, the file has %llu. Copy it again",
                    path, sizeof *header, (unsigned long long)file_bytes);
    if (ident[EI_CLASS] != OWN_CLASS)
        return fail(ALCOVE_EFORMAT, "%s is a %d-bit library, this process is a %d-bit one", path,
                    ident[EI_CLASS] == ELFCLASS64 ? 64 : 32, OWN_CLASS == ELFCLASS64 ? 64 : 32);
    if (ident[EI_DATA] != OWN_DATA)
        return fail(ALCOVE_EFORMAT, "%s is for machines of the other byte order", path);
    if (header->e_machine != OWN_MACHINE)
        return fail(ALCOVE_EFORMAT, "%s was built for %s (ELF machine %u), this process runs on %s (%u)", path,
                    machine_name(header->e_machine), (unsigned)header->e_machine, machine_name(OWN_MACHINE),
                    (unsigned)OWN_MACHINE);
    if (header->e_type != ET_DYN)
        return fail(ALCOVE_EFORMAT, "%s is %s, not a shared library (ELF type %u)", path, type_name(header->e_type),
                    (unsigned)header->e_type);
    if (header->e_phentsize != sizeof(ElfW(Phdr)) || header->e_phnum == 0 || header->e_phnum > PHDRS_MOST)
        return fail(ALCOVE_EFORMAT, "%s is damaged: %u program headers of %u bytes", path, (unsigned)header->e_phnum,
                    (unsigned)header->e_phentsize);
    return ALCOVE_OK;
}

/* Does the file hold all that its program headers say? */
static int
segments_check(const char *path, int fd, const ElfW(Ehdr) *header, uint64_t file_bytes)
{
    const size_t bytes = header->e_phnum * sizeof(ElfW(Phdr));
    if (header->e_phoff > file_bytes)
        return fail(ALCOVE_EFORMAT, "%s is damaged: its program headers begin at byte %llu, the file has %llu", path,
                    (unsigned long long)header->e_phoff, (unsigned long long)file_bytes);
    for (size_t i = 0; i < header->e_phnum; i++) { /* one by one: the thread's stack may be small */
        ElfW(Phdr) segment;
        ssize_t got = pread(fd, &segment, sizeof segment, (off_t)(header->e_phoff + i * sizeof segment));
        if (got < 0)
            return fail_errno(ALCOVE_ESYSTEM, errno, "cannot read %s", path);
        if ((size_t)got < sizeof segment)
            return fail(ALCOVE_EFORMAT, "%s is truncated: its program headers end at byte %llu, the file has %llu. Copy it again",
                        path, (unsigned long long)(header->e_phoff + bytes), (unsigned long long)file_bytes);
        uint64_t end = (uint64_t)segment.p_offset + segment.p_filesz;
        if (segment.p_type == PT_LOAD && (end > file_bytes || end < segment.p_offset))
            return fail(ALCOVE_EFORMAT, "%s is truncated: segment %zu ends at byte %llu, the file has %llu. Copy it again",
                        path, i, (unsigned long long)end, (unsigned long long)file_bytes);
    }
    return ALCOVE_OK;
}

static int
open_file_check(const char *path, int fd)
{
    struct stat file;
    if (fstat(fd, &file) != 0)
        return fail_errno(ALCOVE_ESYSTEM, errno, "cannot read %s", path);
    if (!S_ISREG(file.st_mode))
        return fail(ALCOVE_EFORMAT, "%s is %s, not a library", path,
                    S_ISDIR(file.st_mode) ? "a directory" : "a device, pipe or socket");

    ElfW(Ehdr) header;
    memset(&header, 0, sizeof header);
    ssize_t got = pread(fd, &header, sizeof header, 0);
    if (got < 0)
        return fail_errno(ALCOVE_ESYSTEM, errno, "cannot read %s", path);
    int code = header_check(path, &header, (size_t)got, (uint64_t)file.st_size);
    if (code == ALCOVE_OK)
        code = segments_check(path, fd, &header, (uint64_t)file.st_size);
    return code;
}

/* O_NONBLOCK: a named pipe is refused, not waited for. */
static int
file_open(const char *path)
{
    return open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
}

int
elf_file_check(const char *path)
{
    struct shown shown;
    text_show(&shown, path);
    int fd = file_open(path);
    if (fd < 0)
        return fail_errno(errno == ENOENT || errno == ENOTDIR ? ALCOVE_ENOENT : ALCOVE_ESYSTEM, errno, "cannot open %s",
                          shown.text);
    int code = open_file_check(shown.text, fd);
    close(fd);
    return code;
}

bool
elf_file_ends_search(const char *path)
{
    ElfW(Ehdr) header;
    int fd = file_open(path);
    if (fd < 0)
        return false;
    ssize_t got = pread(fd, &header, sizeof header, 0);
    close(fd);
    if (got < (ssize_t)sizeof header || memcmp(header.e_ident, ELFMAG, SELFMAG) != 0)
        return true;
    return header.e_ident[EI_CLASS] == OWN_CLASS && (header.e_ident[EI_DATA] != OWN_DATA || header.e_machine == OWN_MACHINE);
}
