/* As of_thread_static the variables are in static TLS, which every thread has from the start; else the constructor touches them. */
#include "of_thread.h"

#include <stdlib.h>

#ifdef OF_THREAD_STATIC
#define MODEL __attribute__((tls_model("initial-exec")))
#else
#define MODEL
#endif

static __thread void *(*make)(size_t) MODEL = malloc;
static __thread void (*release)(void *) MODEL = free;

#ifndef OF_THREAD_STATIC
static void *volatile touched;

__attribute__((constructor)) static void
begin(void)
{
    touched = &make;
}
#endif

void *
of_thread_make(size_t size)
{
    return (*(void *(*volatile *)(size_t))&make)(size);
}

void
of_thread_release(void *block)
{
    (*(void (*volatile *)(void *))&release)(block);
}

const void *
of_thread_malloc(void)
{
    return (const void *)make;
}

const void *
of_thread_free(void)
{
    return (const void *)release;
}
