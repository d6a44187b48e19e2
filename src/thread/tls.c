/*
 * The thread-local variable, and how to find out where it is. A TLSDESC relocation makes glibc
 * try to place a small variable in its optional static TLS, silently doing without when that is
 * used up. The descriptor's second word then is the variable's offset. It is only looked at, never called:
 * before version 2.40 glibc's dynamic resolver clobbers vector registers (its bug 31372).
 */
#include "thread/tls.h"

#include <stddef.h>

/* Not static: the assembler text below names it, and with -flto may be in another object. */
__thread struct thread *tls_record __attribute__((visibility("hidden"), used));

intptr_t tls_offset;

#define OFFSET_MAX ((intptr_t)1 << 20) /* static TLS is near the thread pointer */

void
tls_init(void)
{
#if ALCOVE_HAVE_TLSDESC && !ALCOVE_FORCE_DYNAMIC_TLS && defined __x86_64__
    intptr_t *descriptor;
    __asm__("leaq tls_record@tlsdesc(%%rip), %0" : "=a"(descriptor));
    intptr_t offset = (char *)&tls_record - (char *)__builtin_thread_pointer();
    if (offset == 0 || offset > OFFSET_MAX || offset < -OFFSET_MAX)
        return;
    /* Linked into an executable, the linker has put the offset itself in the descriptor's place. */
    if ((intptr_t)descriptor == offset || descriptor[1] == offset)
        tls_offset = offset;
#endif
}

void
tls_lend(intptr_t offset)
{
    tls_offset = ALCOVE_FORCE_DYNAMIC_TLS ? 0 : offset;
}

struct thread **
tls_slot(void)
{
    __asm__ volatile(""); /* else a compiler finds out that it depends on nothing, and calls it once for two */
    if (tls_offset != 0)
        return (struct thread **)((char *)__builtin_thread_pointer() + tls_offset);
    return &tls_record;
}
