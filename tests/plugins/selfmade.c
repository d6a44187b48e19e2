/* A library that makes its own relocated pages read-only in its constructor, as those do whose PT_GNU_RELRO was taken away. */
#include <link.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

void *selfmade_make(size_t size);
void selfmade_release(void *block);
const void *selfmade_slot(void);

static const struct {
    void *(*make)(size_t);
    void (*release)(void *);
} pointers = {malloc, free};

static void
protect(int bits)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), start = (uintptr_t)&pointers & ~(page - 1);
    mprotect((void *)start, page, bits);
}

__attribute__((constructor)) static void
begin(void)
{
    protect(PROT_READ);
}

__attribute__((destructor)) static void
end(void)
{
    protect(PROT_READ | PROT_WRITE);
}

const void *
selfmade_slot(void)
{
    return &pointers;
}

void *
selfmade_make(size_t size)
{
    return (*(void *(*const volatile *)(size_t))&pointers.make)(size);
}

void
selfmade_release(void *block)
{
    (*(void (*const volatile *)(void *))&pointers.release)(block);
}
