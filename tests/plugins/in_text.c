#include "in_text.h"

#include <stdlib.h>

#ifdef __x86_64__
#define ADDRESS(function, out) __asm__ volatile("movabs $" #function ", %0" : "=r"(out))
#else
#define ADDRESS(function, out) ((out) = (function))
#endif

void *
in_text_make(size_t size)
{
    void *(*make)(size_t);
    ADDRESS(malloc, make);
    return make(size);
}

void
in_text_release(void *block)
{
    void (*release)(void *);
    ADDRESS(free, release);
    release(block);
}
