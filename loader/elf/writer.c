/*
 * Opens pages for stores, and closes them. All that it knows is in the struct.
 */
#include "elf/writer.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "ground/attributes.h"

#define OPENED_MOST (sizeof((struct writer *)0)->opened / sizeof(struct protection))

/* Words are pointers to some, numbers to others. */
typedef void *__attribute__((may_alias)) word;

struct writer
writer_of(const struct object *object)
{
    return (struct writer){.object = object};
}

/* A page of RELRO that is not writable is what the dynamic linker left. Of others the system is asked. -1: nothing is there. */
static int
page_protection(struct writer *writer, uintptr_t page)
{
    const struct object *object = writer->object;
    if (page >= object->relro_start && page < object->relro_end)
        return PROT_READ;
    return protection_of(&writer->known, object, page);
}

/* Make a page writable if it is not. `address` is of a word in it. 0 or an errno value. */
static int
page_open(struct writer *writer, uintptr_t page, uintptr_t address)
{
    if (page == writer->writable)
        return 0;
    struct protection *unused = NULL;
    for (size_t i = 0; i < OPENED_MOST; i++) {
        if (writer->opened[i].start == page)
            return 0;
        if (writer->opened[i].start == 0)
            unused = &writer->opened[i];
    }
    if (word_writable(&writer->known, writer->object, address)) {
        writer->writable = page;
        return 0;
    }
    int bits = page_protection(writer, page);
    if (bits < 0)
        return EFAULT;
    uintptr_t bytes = page_bytes();
    int saved = errno, error = 0;
    if ((bits & PROT_WRITE) == 0) { /* else who refused was an emulator */
        error = mprotect((void *)page, bytes, bits | PROT_READ | PROT_WRITE) == 0 ? 0 : errno;
        if (error == 0)
            *unused = (struct protection){.start = page, .end = page + bytes, .bits = bits};
    }
    errno = saved;
    return error;
}

/* Give back the pages that are none of these two. */
static void
pages_close(struct writer *writer, uintptr_t first, uintptr_t last)
{
    int saved = errno;
    for (size_t i = 0; i < OPENED_MOST; i++) {
        struct protection *opened = &writer->opened[i];
        if (opened->start == 0 || opened->start == first || opened->start == last)
            continue;
        if (mprotect((void *)opened->start, opened->end - opened->start, opened->bits) != 0 && writer->error == 0)
            writer->error = errno;
        opened->start = 0;
    }
    errno = saved;
}

/* What ThreadSanitizer knows of the address may be about an object that the dynamic linker has unmapped since. */
UNSEEN_BY_TSAN static int
word_exchange(word *where, void *expected, void *value)
{
    if ((uintptr_t)where % sizeof value == 0)
        return __atomic_compare_exchange_n(where, &expected, value, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED) ? 0 : WORD_CHANGED;
    if (memcmp(where, &expected, sizeof value) != 0)
        return WORD_CHANGED;
    memcpy(where, &value, sizeof value);
    return 0;
}

int
writer_store(struct writer *writer, void *where, void *expected, void *value)
{
    const uintptr_t address = (uintptr_t)where, page_mask = page_bytes() - 1;
    const uintptr_t first = address & ~page_mask, last = (address + sizeof value - 1) & ~page_mask;
    pages_close(writer, first, last);
    int error = page_open(writer, first, address);
    if (error == 0 && last != first)
        error = page_open(writer, last, last);
    return error != 0 ? error : word_exchange(where, expected, value);
}

int
writer_end(struct writer *writer)
{
    pages_close(writer, 0, 0);
    return writer->error;
}

int
word_store(const struct object *object, void *where, void *expected, void *value)
{
    struct writer writer = writer_of(object);
    int error = writer_store(&writer, where, expected, value);
    int left_open = writer_end(&writer);
    return error != 0 ? error : -left_open;
}
