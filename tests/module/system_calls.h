/*
 * The system's calls for memory, interposed: an allocator that a program loads calls the program's functions of these names.
 * amid_system_call, which the test defines, runs before each of them, in whatever thread and under whatever locks the call comes.
 */
#ifndef TESTS_MODULE_SYSTEM_CALLS_H
#define TESTS_MODULE_SYSTEM_CALLS_H

#include <stdarg.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static void amid_system_call(void);

void *
mmap(void *address, size_t size, int protection, int flags, int file, off_t offset)
{
    amid_system_call();
    return (void *)syscall(SYS_mmap, address, size, protection, flags, file, offset);
}

int
munmap(void *address, size_t size)
{
    amid_system_call();
    return (int)syscall(SYS_munmap, address, size);
}

int
madvise(void *address, size_t size, int advice)
{
    amid_system_call();
    return (int)syscall(SYS_madvise, address, size, advice);
}

void *
mremap(void *address, size_t size, size_t new_size, int flags, ...)
{
    va_list rest;
    va_start(rest, flags);
    void *to = (flags & MREMAP_FIXED) != 0 ? va_arg(rest, void *) : NULL;
    va_end(rest);
    amid_system_call();
    return (void *)syscall(SYS_mremap, address, size, new_size, flags, to);
}

#endif
