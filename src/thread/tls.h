/*
 * Where a thread's record is found: one pointer of thread-local storage. Where libc put the
 * variable in static TLS, or a loader lent a place there, it lies at a constant offset from the
 * thread pointer, and reaching it costs one load. Else tls_slot() asks __tls_get_addr.
 */
#ifndef THREAD_TLS_H
#define THREAD_TLS_H

#include <stdint.h>

#include "ground/attributes.h"
#include "ground/static_tls.h"

struct thread;

extern HIDDEN intptr_t tls_offset; /* 0: dynamic */

/* Find out where the variable lies. At load time, before any thread has a record. */
void tls_init(void);

/* Use a pointer that a loader lent instead, at this offset in every thread. */
void tls_lend(intptr_t offset);

/* This thread's pointer, by the ordinary dynamic way or the constant offset. Never inlined: with -flto
 * it could become part of a fiber, and compilers keep the address of a thread-local variable over a
 * call that comes back in another thread. */
__attribute__((noinline)) struct thread **tls_slot(void);

/* This thread's record if the offset is constant; the caller has seen that it is not 0. */
static inline struct thread *
tls_static(intptr_t offset)
{
#if defined __x86_64__ && defined __SEG_FS && !SANITIZED /* sanitizers cannot follow %fs */
    return *(struct thread *__seg_fs *)offset;
#else
    return *(struct thread **)(thread_pointer() + offset);
#endif
}

/* This thread's record; NULL if it has none. */
static inline struct thread *
tls_get(void)
{
    intptr_t offset = tls_offset;
    return likely(offset != 0) ? tls_static(offset) : *tls_slot();
}

#endif
