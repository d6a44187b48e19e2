/*
 * The thread-local variable, and how to find out where it is. A TLSDESC relocation makes glibc
 * try to place a small variable in its optional static TLS, silently doing without when that is
 * used up; static_tls.h tells how the outcome is seen.
 */
#include "thread/tls.h"

/* Not static: the assembler text below names it, and with -flto may be in another object. */
__thread tls_word tls_record __attribute__((visibility("hidden"), used));

intptr_t tls_offset = TLS_DYNAMIC;

void
tls_init(void)
{
    intptr_t descriptor = 0;
    if (!ALCOVE_FORCE_DYNAMIC_TLS)
        TLS_DESCRIPTOR(tls_record, descriptor);
    tls_lend(static_tls_offset(descriptor, &tls_record));
}

void
tls_lend(intptr_t offset)
{
    tls_offset = ALCOVE_FORCE_DYNAMIC_TLS || offset == 0 ? TLS_DYNAMIC : offset;
}

tls_word *
tls_slot(void)
{
    __asm__ volatile(""); /* else a compiler finds out that it depends on nothing, and calls it once for two */
    if (tls_offset != TLS_DYNAMIC)
        return (tls_word *)(thread_pointer() + tls_offset);
    return &tls_record;
}
