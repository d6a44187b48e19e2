#include "constructing.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "dependency.h"

void host_moment(void) __attribute__((weak));

void *constructing_blocks[CONSTRUCTING_KINDS];

static struct kept {
    void *(*make)(size_t);
    void (*release)(void *);
} *kept;

__attribute__((constructor(200))) static void
keep(void)
{
    kept = mmap(NULL, sizeof *kept, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    kept->make = malloc;
    kept->release = free;
}

void *
constructing_kept_make(size_t size)
{
    void *volatile block = kept->make(size); /* it comes back here */
    return block;
}

void
constructing_kept_release(void *block)
{
    void *volatile released = block;
    kept->release(released);
    released = NULL;
}

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
