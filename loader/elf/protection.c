/*
 * Asks the system what may be done with a page. Keeps nothing.
 */
#include "elf/protection.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

uintptr_t
page_bytes(void)
{
    return (uintptr_t)sysconf(_SC_PAGESIZE);
}

/* /proc/self/maps, read piece by piece through system calls themselves: libc's functions are others' to replace, and a thread may be
 * cancelled in them. */
struct maps {
    int file;
    size_t count, next;
    char bytes[512];
};

static bool
maps_open(struct maps *maps)
{
    do
        maps->file = (int)syscall(SYS_openat, AT_FDCWD, "/proc/self/maps", O_RDONLY | O_CLOEXEC);
    while (maps->file < 0 && errno == EINTR);
    maps->count = maps->next = 0;
    return maps->file >= 0;
}

/* The next character; -1: there is none. */
static int
maps_take(struct maps *maps)
{
    if (maps->next == maps->count) {
        long got;
        do
            got = syscall(SYS_read, maps->file, maps->bytes, sizeof maps->bytes);
        while (got < 0 && errno == EINTR);
        if (got <= 0)
            return -1;
        maps->count = (size_t)got;
        maps->next = 0;
    }
    return (unsigned char)maps->bytes[maps->next++];
}

/* A number up to `end`. False: there is none. */
static bool
maps_number(struct maps *maps, int end, uintptr_t *out)
{
    *out = 0;
    for (int c; (c = maps_take(maps)) != end;) {
        unsigned digit = c >= '0' && c <= '9' ? (unsigned)c - '0' : c >= 'a' && c <= 'f' ? (unsigned)c - 'a' + 10 : 16;
        if (digit == 16)
            return false;
        *out = *out << 4 | digit;
    }
    return true;
}

/* A line begins as "7f0000000000-7f0000001000 r-xp " does. */
static bool
maps_line(struct maps *maps, struct protection *out)
{
    if (!maps_number(maps, '-', &out->start) || !maps_number(maps, ' ', &out->end))
        return false;
    out->bits = PROT_NONE;
    int c = 0;
    for (int i = 0; i < 3 && (c = maps_take(maps)) >= 0; i++)
        out->bits |= c == 'r' ? PROT_READ : c == 'w' ? PROT_WRITE : c == 'x' ? PROT_EXEC : 0;
    while (c >= 0 && c != '\n')
        c = maps_take(maps);
    return c == '\n';
}

enum answer { NO, YES, UNKNOWN };

static enum answer
maps_find(uintptr_t address, struct protection *out)
{
    struct maps maps;
    if (!maps_open(&maps))
        return UNKNOWN;
    enum answer found = UNKNOWN; /* if it ends before the address: there is always more above an object, the stack at the least */
    while (found == UNKNOWN && maps_line(&maps, out))
        if (address < out->end)
            found = address >= out->start ? YES : NO;
    syscall(SYS_close, maps.file);
    return found;
}

/* What the program headers promise. */
static enum answer
headers_find(const struct object *object, uintptr_t address, struct protection *out)
{
    const uintptr_t page = page_bytes(), start = address & ~(page - 1);
    *out = (struct protection){.start = start, .end = start + page};
    if (address >= object->relro_start && address < object->relro_end) {
        out->bits = PROT_READ;
        return YES;
    }
    static const struct {
        unsigned flag;
        int bit;
    } bits[] = {{PF_R, PROT_READ}, {PF_W, PROT_WRITE}, {PF_X, PROT_EXEC}};
    for (size_t i = 0; i < sizeof bits / sizeof bits[0]; i++)
        if (object_room(object, address, bits[i].flag) != 0)
            out->bits |= bits[i].bit;
    return object_room(object, address, 0) != 0 ? YES : NO;
}

int
protection_of(struct protection *known, const struct object *object, uintptr_t address)
{
    if (known != NULL && address >= known->start && address < known->end)
        return known->bits;
    int saved = errno;
    struct protection found;
    enum answer answer = maps_find(address, &found);
    if (answer == UNKNOWN && object != NULL)
        answer = headers_find(object, address, &found);
    errno = saved;
    if (answer != YES)
        return -1;
    if (known != NULL)
        *known = found;
    return found.bits;
}

/* As in <linux/futex.h>, which a libc does not come with. */
enum { FUTEX_CMP_REQUEUE_PRIVATE = 128 | 4, FUTEX_WAKE_OP_PRIVATE = 128 | 5, FUTEX_OP_OR_0 = 2 << 28 };

/* Two operations of futex touch a word and do nothing else: one compares it with 0, to move as many as none of those who wait there, the
 * other sets none of its bits. EFAULT is the answer in both when they may not. */
static enum answer
word_ask(uintptr_t address, int bit)
{
    static uint32_t nobody; /* waits here */
    int saved = errno;
    long result = bit == PROT_READ ? syscall(SYS_futex, address, FUTEX_CMP_REQUEUE_PRIVATE, 0, 0, &nobody, 0)
                                   : syscall(SYS_futex, &nobody, FUTEX_WAKE_OP_PRIVATE, 0, 0, address, FUTEX_OP_OR_0);
    int error = result < 0 ? errno : 0;
    errno = saved;
    if (error == EFAULT)
        return NO;
    return error == 0 || (error == EAGAIN && bit == PROT_READ) ? YES : UNKNOWN;
}

static bool
word_allows(struct protection *known, const struct object *object, uintptr_t address, int bit)
{
    enum answer answer = word_ask(address & ~(uintptr_t)(sizeof(uint32_t) - 1), bit);
    if (answer != UNKNOWN)
        return answer == YES;
    int bits = protection_of(known, object, address);
    return bits >= 0 && (bits & bit) != 0;
}

bool
word_readable(struct protection *known, const struct object *object, uintptr_t address)
{
    return word_allows(known, object, address, PROT_READ);
}

bool
word_writable(struct protection *known, const struct object *object, uintptr_t address)
{
    return word_allows(known, object, address, PROT_WRITE);
}
