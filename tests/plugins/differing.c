/*
 * A plugin that behaves otherwise beside an allocator than without one, in the way that ALCOVE_TEST_DIFFERING says, so
 * that who compares (tests/sweep/) has something to find.
 */
#include <link.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern void *(*volatile differing_malloc)(size_t);
void *(*volatile differing_malloc)(size_t) = malloc; /* a slot */

static void *
none(size_t size)
{
    (void)size;
    return NULL;
}

static int
is_allocator(struct dl_phdr_info *info, size_t size, void *path)
{
    (void)size;
    return info->dlpi_name != NULL && strcmp(info->dlpi_name, path) == 0;
}

__attribute__((constructor)) static void
begin(void)
{
    char *allocator = getenv("ALCOVE_TEST_MODULE"), *way = getenv("ALCOVE_TEST_DIFFERING");
    if (allocator == NULL || way == NULL || dl_iterate_phdr(is_allocator, allocator) == 0)
        return;
    if (strcmp(way, "slot") == 0)
        differing_malloc = none;
    else if (strcmp(way, "words") == 0)
        fputs("other words\n", stderr);
    else if (strcmp(way, "exit") == 0)
        exit(3);
    else if (strcmp(way, "crash") == 0)
        raise(SIGSEGV);
}
