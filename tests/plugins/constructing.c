#include "constructing.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "dependency.h"

void host_moment(void) __attribute__((weak));

void *constructing_blocks[CONSTRUCTING_KINDS];

__attribute__((constructor(201))) static void
first(void)
{
    constructing_blocks[CONSTRUCTING_FIRST] = strdup("a name that is kept");
    if (host_moment != NULL)
        host_moment();
}

__attribute__((constructor(202))) static void
second(void)
{
    constructing_blocks[CONSTRUCTING_SECOND] = malloc(500);
}

static void *
allocate(void *unused)
{
    (void)unused;
    return calloc(1, 700);
}

__attribute__((constructor(203))) static void
third(void)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, allocate, NULL) == 0)
        pthread_join(thread, &constructing_blocks[CONSTRUCTING_THREAD]);
}

__attribute__((destructor)) static void
end(void)
{
    for (int i = 0; i < CONSTRUCTING_KINDS; i++)
        free(constructing_blocks[i]);
}

void *
constructing_dependency_block(void)
{
    return dependency_block;
}

void *
constructing_dependency_make(size_t size)
{
    return dependency_make(size);
}

void *
constructing_dependency_make_plain(size_t size)
{
    return dependency_make_plain(size);
}
