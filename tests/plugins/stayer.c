/*
 * A plugin that some dynamic linkers keep mapped when it is closed, for the reason that it is compiled with, and whose destructor
 * looks at the blocks that are left and frees them. It has in C what a C++ compiler makes of an inline function's static variable
 * (STB_GNU_UNIQUE) and of a thread_local one with a destructor.
 */
#include "stayer.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static unsigned char *blocks[STAYER_BLOCKS];

/* From 20 bytes to 2.6 MiB: slabs, large and huge ones. */
static size_t
size_of(size_t which)
{
    return (size_t)20 << (which * 17 / (STAYER_BLOCKS - 1));
}

static void
release(void)
{
    size_t released = 0;
    for (size_t i = 0; i < STAYER_BLOCKS; i++) {
        if (blocks[i] == NULL)
            continue;
        if (blocks[i][0] != i + 1 || blocks[i][size_of(i) - 1] != i + 1)
            abort();
        free(blocks[i]);
        blocks[i] = NULL;
        released++;
    }
    static const char words[] = "the destructor found its blocks\n";
    if (released == STAYER_BLOCKS && write(STDERR_FILENO, words, sizeof words - 1) < 0)
        abort();
}

#ifdef STAYS_UNIQUE
extern int stayer_only_one;
__asm__(".pushsection .data\n"
        ".globl stayer_only_one\n"
        ".type stayer_only_one, %gnu_unique_object\n"
        ".balign 4\n"
        "stayer_only_one: .long 0\n"
        ".size stayer_only_one, 4\n"
        ".popsection\n");
#else
static int stayer_only_one;
#endif

#ifdef STAYS_FOR_THREAD
extern int __cxa_thread_atexit_impl(void (*function)(void *), void *argument, void *library) __attribute__((weak));
extern void *__dso_handle __attribute__((visibility("hidden")));

static void
thread_ends(void *unused)
{
    (void)unused;
    release();
}
#endif

static void __attribute__((destructor))
end(void)
{
    release();
}

void
stayer_work(void)
{
    stayer_only_one++;
#ifdef STAYS_FOR_THREAD
    if (__cxa_thread_atexit_impl != NULL)
        __cxa_thread_atexit_impl(thread_ends, NULL, &__dso_handle);
#endif
    for (size_t i = 0; i < STAYER_BLOCKS; i++) {
        if (blocks[i] != NULL)
            continue;
        blocks[i] = malloc(size_of(i));
        if (blocks[i] == NULL)
            abort();
        memset(blocks[i], (int)i + 1, size_of(i));
    }
}

void
stayer_clear(void)
{
    release();
}

const void *
stayer_block(size_t which)
{
    return blocks[which];
}
