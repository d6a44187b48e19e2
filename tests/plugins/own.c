/* Blocks come from a pool of the library's own, so libc's free would end the process at one. With OWN_CHOSEN its functions are IFUNCs. */
#include "own.h"

#include <stdint.h>

#define BLOCK ((size_t)256)

unsigned own_live;
static _Alignas(16) char pool[64][BLOCK];
static unsigned char used[64];

static void *
pool_take(size_t size)
{
    for (unsigned i = 0; i < 64; i++)
        if (!used[i] && size <= BLOCK) {
            used[i] = 1;
            own_live++;
            return pool[i];
        }
    return NULL;
}

static void
pool_give(void *block)
{
    uintptr_t offset = (uintptr_t)block - (uintptr_t)pool;
    if (offset < sizeof pool && used[offset / BLOCK]) {
        used[offset / BLOCK] = 0;
        own_live--;
    }
}

#if defined(OWN_CHOSEN) && defined(__GLIBC__) /* musl has no IFUNC */
static __attribute__((used)) void *(*choose_take(void))(size_t)
{
    return pool_take;
}

static __attribute__((used)) void (*choose_give(void))(void *)
{
    return pool_give;
}

void *malloc(size_t size) __attribute__((ifunc("choose_take")));
void free(void *block) __attribute__((ifunc("choose_give")));
#else
/* As a library calls what its users may replace: clang would inline them. */
__attribute__((noinline)) void *malloc(size_t size);
__attribute__((noinline)) void free(void *block);

void *
malloc(size_t size)
{
    return pool_take(size);
}

void
free(void *block)
{
    pool_give(block);
}
#endif

void *
own_make(size_t size)
{
    return malloc(size);
}

void
own_release(void *block)
{
    free(block);
}
