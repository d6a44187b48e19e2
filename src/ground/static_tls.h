/*
 * Has libc placed a thread-local variable at a constant offset from the thread pointer? The allocator
 * asks it of its own variable, the loader of the one that it lends.
 *
 * A TLS descriptor is two words that a relocation makes the dynamic linker fill: a function, and what
 * that function works on. For a variable in static TLS the second word is the offset, in every libc
 * that has descriptors. They are only looked at, never called: before version 2.40 glibc's resolver of
 * a dynamic variable clobbers vector registers (its bug 31372).
 */
#ifndef GROUND_STATIC_TLS_H
#define GROUND_STATIC_TLS_H

#include <stdint.h>

#include "config.h"

/* Read anew each time, as the builtin is not: a fiber may go on in another thread, see tls_slot(). (gcc 12 has no
 * builtin for POWER, and x86-64 does not need it: there the hot path loads through %fs.) */
static inline char *
thread_pointer(void)
{
#if defined __aarch64__
    char *pointer;
    __asm__ volatile("mrs %0, tpidr_el0" : "=r"(pointer));
    return pointer;
#elif defined __powerpc64__
    char *pointer;
    __asm__ volatile("mr %0, 13" : "=r"(pointer));
    return pointer;
#else
    return __builtin_thread_pointer();
#endif
}

/* Put the address of a variable's descriptor in an intptr_t. Where the code becomes part of a program, the
 * linker turns these instructions into those that give the offset itself, which is why the register
 * is the one of the ABI, and the aarch64 load is there though nobody needs what it loads. */
#if !ALCOVE_HAVE_TLSDESC
#define TLS_DESCRIPTOR(variable, out) ((out) = 0)
#elif defined __x86_64__
#define TLS_DESCRIPTOR(variable, out) __asm__("leaq " #variable "@tlsdesc(%%rip), %0" : "=a"(out))
#elif defined __aarch64__
#define TLS_DESCRIPTOR(variable, out)                        \
    __asm__("adrp x0, :tlsdesc:" #variable "\n\t"            \
            "ldr x1, [x0, #:tlsdesc_lo12:" #variable "]\n\t" \
            "add x0, x0, #:tlsdesc_lo12:" #variable "\n\t"   \
            "mov %0, x0"                                     \
            : "=r"(out) : : "x0", "x1")
#endif

#define STATIC_TLS_MAX ((intptr_t)1 << 20) /* static TLS is near the thread pointer */

/* The offset, if it is constant: what the linker or the dynamic linker says must be what this thread
 * sees. 0: it is not, or nobody can tell. */
static inline intptr_t
static_tls_offset(intptr_t descriptor, const void *variable)
{
    intptr_t offset = (const char *)variable - thread_pointer();
    if (descriptor == 0 || offset > STATIC_TLS_MAX || offset < -STATIC_TLS_MAX)
        return 0;
    return descriptor == offset || ((const intptr_t *)descriptor)[1] == offset ? offset : 0;
}

#endif
