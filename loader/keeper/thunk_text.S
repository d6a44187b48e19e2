/*
 * Thunks: for each function that can be routed and each thunk number, a few instructions that put the heap's number behind the
 * function's arguments and jump, where thunk_ways (thunks.c) says. They come ready-made, so no page is ever both
 * writable and executable. Only those that are used become resident.
 */
#include "keeper/thunk_sizes.h"

#if defined __x86_64__
#define ARGUMENT_1 %esi /* after one argument, and so on */
#define ARGUMENT_2 %edx
#define ARGUMENT_3 %ecx
#if defined __CET__ && (__CET__ & 1)
#define LANDING endbr64
#else
#define LANDING
#endif
#define GO(register, way) \
    LANDING; \
    movl way(%rip), register; \
    jmp *way + 8(%rip)
#elif defined __aarch64__
#define ARGUMENT_1 x1
#define ARGUMENT_2 x2
#define ARGUMENT_3 x3
#define GO(register, way) \
    adrp x16, way; \
    add x16, x16, :lo12:way; \
    ldp register, x16, [x16]; \
    br x16
#elif defined __powerpc64__ && _CALL_ELF == 2
/* The caller has put the thunk's address in r12, and whoever it jumps to wants its own there. */
    .abiversion 2
#define ARGUMENT_1 4
#define ARGUMENT_2 5
#define ARGUMENT_3 6
#define GO(register, way) \
0:  addis 11, 12, (way - 0b)@ha; \
    addi 11, 11, (way - 0b)@l; \
    ld register, 0(11); \
    ld 12, 8(11); \
    mtctr 12; \
    bctr
#else
#error "thunks for this processor are not written yet"
#endif

#define THUNKS_OF(name, register) \
    .globl thunks_##name;         \
    .hidden thunks_##name;        \
    .type thunks_##name, %function; \
    .p2align THUNK_LG;            \
thunks_##name:                    \
    .rept THUNKS;                 \
    .p2align THUNK_LG;            \
    GO(register, thunk_ways + way); \
    .set way, way + 16;           \
    .endr;                        \
    .size thunks_##name, . - thunks_##name

    .section .thunks, "ax", %progbits
    .hidden thunk_ways
    .globl thunks_begin, thunks_end
    .hidden thunks_begin, thunks_end
    .set way, 0
thunks_begin:
    THUNKS_OF(malloc, ARGUMENT_1)
    THUNKS_OF(calloc, ARGUMENT_2)
    THUNKS_OF(realloc, ARGUMENT_2)
    THUNKS_OF(reallocarray, ARGUMENT_3)
    THUNKS_OF(aligned_alloc, ARGUMENT_2)
    THUNKS_OF(memalign, ARGUMENT_2)
    THUNKS_OF(posix_memalign, ARGUMENT_3)
    THUNKS_OF(valloc, ARGUMENT_1)
    THUNKS_OF(pvalloc, ARGUMENT_1)
    THUNKS_OF(strdup, ARGUMENT_1)
    THUNKS_OF(strndup, ARGUMENT_2)
    THUNKS_OF(free, ARGUMENT_1)
    THUNKS_OF(malloc_usable_size, ARGUMENT_1)
thunks_end:

    .section .note.GNU-stack, "", %progbits
