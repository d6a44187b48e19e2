/* A library that allocates by C++'s operator new, and by nothing else. */
#include <stddef.h>

void *_Znwm(size_t size) __attribute__((weak));
void _ZdlPv(void *block) __attribute__((weak));
void *of_cxx_make(size_t size);
void of_cxx_release(void *block);

void *
of_cxx_make(size_t size)
{
    return _Znwm != NULL ? _Znwm(size) : NULL;
}

void
of_cxx_release(void *block)
{
    _ZdlPv(block);
}
