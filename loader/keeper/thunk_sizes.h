/* What the thunks' text (thunk_text.S) and their data (thunks.c) agree on. Also for the assembler. */
#ifndef KEEPER_THUNK_SIZES_H
#define KEEPER_THUNK_SIZES_H

#define THUNKS 4096 /* of each function; number 0 is nobody's */
#if defined __powerpc64__
#define THUNK_LG 5
#else
#define THUNK_LG 4
#endif

#endif
