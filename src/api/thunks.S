/*
 * Thunks: for each function that can be routed and each heap, sixteen bytes that put the heap's
 * number behind the function's arguments and jump to the entry point. They come ready-made, so
 * no page is ever both writable and executable. Only those that are used become resident.
 */
#define HEAPS 4096 /* ALCOVE_HEAP_MAX */
#define THUNK_LG 4

#if defined __x86_64__
#define ARGUMENT_1 %esi /* after one argument, and so on */
#define ARGUMENT_2 %edx
#define ARGUMENT_3 %ecx
#define PUT_AND_JUMP(register, target) \
    movl $heap, register; \
    jmp target
#elif defined __aarch64__
#define ARGUMENT_1 w1
#define ARGUMENT_2 w2
#define ARGUMENT_3 w3
#define PUT_AND_JUMP(register, target) \
    mov register, heap; \
    b target
#elif defined __powerpc64__ && _CALL_ELF == 2
/* The caller has put the thunk's address in r12. Whoever jumps to an entry must have its library's TOC in r2. */
    .abiversion 2
#define ARGUMENT_1 4
#define ARGUMENT_2 5
#define ARGUMENT_3 6
#define PUT_AND_JUMP(register, target) \
0:  addis 2, 12, (.TOC. - 0b)@ha; \
    addi 2, 2, (.TOC. - 0b)@l; \
    li register, heap; \
    b target
#else
#error "thunks for this processor are not written yet"
#endif

#define THUNKS(name, register)    \
    .globl thunks_##name;         \
    .hidden thunks_##name;        \
    .type thunks_##name, %function; \
    .p2align THUNK_LG;            \
thunks_##name:                    \
    .set heap, 0;                 \
    .rept HEAPS;                  \
    .p2align THUNK_LG;            \
    PUT_AND_JUMP(register, entry_##name); \
    .set heap, heap + 1;          \
    .endr;                        \
    .size thunks_##name, . - thunks_##name

    .section .thunks, "ax", %progbits

    .globl thunks_begin, thunks_end
    .hidden thunks_begin, thunks_end
thunks_begin:
    THUNKS(malloc, ARGUMENT_1)
    THUNKS(calloc, ARGUMENT_2)
    THUNKS(realloc, ARGUMENT_2)
    THUNKS(reallocarray, ARGUMENT_3)
    THUNKS(aligned_alloc, ARGUMENT_2)
    THUNKS(memalign, ARGUMENT_2)
    THUNKS(posix_memalign, ARGUMENT_3)
    THUNKS(valloc, ARGUMENT_1)
    THUNKS(pvalloc, ARGUMENT_1)
    THUNKS(strdup, ARGUMENT_1)
    THUNKS(strndup, ARGUMENT_2)
    THUNKS(free, ARGUMENT_1)
    THUNKS(malloc_usable_size, ARGUMENT_1)
thunks_end:

    .section .note.GNU-stack, "", %progbits
