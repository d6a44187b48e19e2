/*
 * Where a thread's record is found: one word of thread-local storage, the slot. Where libc put the
 * variable in static TLS, or a loader lent a place there, it lies at a constant offset from the
 * thread pointer, and reaching it costs one load. Else tls_slot() asks __tls_get_addr.
 */
#ifndef THREAD_TLS_H
#define THREAD_TLS_H

#include <stddef.h>
#include <stdint.h>

#include "ground/attributes.h"
#include "ground/static_tls.h"

struct thread;

/* What a slot holds: 0, or a record's address and this bit. So one test tells a record from none, and from what
 * lies at TLS_DYNAMIC, too. */
typedef uintptr_t tls_word;
#define TLS_HAS_RECORD ((tls_word)1)

/* The offset where none is constant: there lies, in every thread, a pointer of libc's to one of its own structs (the
 * thread itself or its table of TLS blocks; a word that is unused on aarch64 with musl), hence no odd number. */
#if defined __powerpc64__
#define TLS_DYNAMIC ((intptr_t)-0x7000 - 8)
#else
#define TLS_DYNAMIC ((intptr_t)0)
#endif

extern HIDDEN intptr_t tls_offset;

/* Find out where the variable lies. At load time, before any thread has a record. */
void tls_init(void);

/* Use a word that a loader lent instead, at this offset in every thread. */
void tls_lend(intptr_t offset);

/* This thread's slot, by the ordinary dynamic way or the constant offset. Never inlined: with -flto
 * it could become part of a fiber, and compilers keep the address of a thread-local variable over a
 * call that comes back in another thread. */
__attribute__((noinline)) tls_word *tls_slot(void);

/* The record that a slot's word speaks of; NULL: none. */
static inline __attribute__((always_inline)) struct thread *
tls_record_of(tls_word word)
{
    if (unlikely((word & TLS_HAS_RECORD) == 0))
        return NULL;
    if (word == TLS_HAS_RECORD)
        __builtin_unreachable(); /* no record lies at 0: spares the caller a second test */
    return (struct thread *)(word - TLS_HAS_RECORD);
}

/* This thread's record, where the offset is constant and there is one; else NULL. */
static inline __attribute__((always_inline)) struct thread *
tls_static(void)
{
#if defined __x86_64__ && defined __SEG_FS && !SANITIZED /* sanitizers cannot follow %fs */
    return tls_record_of(*(tls_word __seg_fs *)tls_offset);
#else
    return tls_record_of(*(tls_word *)(thread_pointer() + tls_offset));
#endif
}

/* This thread's record; NULL if it has none. */
static inline struct thread *
tls_get(void)
{
    return tls_record_of(*tls_slot());
}

#endif
