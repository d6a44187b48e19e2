/*
 * A plugin with a constructor and a destructor: it takes a block when it is loaded, more when asked,
 * and gives all back when it is unloaded.
 */
#include <stdlib.h>

void *keeper_first_block(void);
void *keeper_keep(size_t size);
void keeper_release_all(void);
void keeper_release_first(void);

static void *first;
static void *kept[100];
static unsigned count;

__attribute__((constructor)) static void
begin(void)
{
    first = malloc(200);
}

__attribute__((destructor)) void
keeper_release_all(void)
{
    keeper_release_first();
    while (count > 0)
        free(kept[--count]);
}

void *
keeper_first_block(void)
{
    return first;
}

void
keeper_release_first(void)
{
    free(first);
    first = NULL;
}

void *
keeper_keep(size_t size)
{
    return kept[count++] = malloc(size);
}
