/*
 * A plugin that allocates in every way a C library does, and hands the blocks to its host. Built
 * twice, as blocks and blocks_two, for two modules that must be kept apart.
 */
#include "blocks.h"

#include <malloc.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void (*blocks_free_pointer)(void *) = free;

/* In pages that the dynamic linker makes read-only. */
static void *(*const constant_pointers[])(size_t) = {malloc, NULL};

const void *
blocks_constant_slot(void)
{
    return &constant_pointers[0];
}

void *
blocks_constant_malloc(size_t size)
{
    void *(*const volatile *pointer)(size_t) = constant_pointers;
    return (*pointer)(size);
}

void *
blocks_make(enum blocks_kind kind, size_t size)
{
    void *block = NULL;
    switch (kind) {
    case BLOCKS_MALLOC: return malloc(size);
    case BLOCKS_CALLOC: return calloc(size / 8 + 1, 8);
    case BLOCKS_REALLOC: return realloc(NULL, size);
    case BLOCKS_REALLOC_GROWN: return realloc(malloc(size), size * 3);
    case BLOCKS_REALLOCARRAY: return reallocarray(NULL, size, 3);
    case BLOCKS_ALIGNED_ALLOC: return aligned_alloc(256, (size + 255) & ~(size_t)255);
    case BLOCKS_MEMALIGN: return memalign(1024, size);
    case BLOCKS_POSIX_MEMALIGN: return posix_memalign(&block, 64, size) == 0 ? block : NULL;
    case BLOCKS_VALLOC: return valloc(size);
#ifdef __GLIBC__
    case BLOCKS_PVALLOC: return pvalloc(size);
#endif
    case BLOCKS_STRDUP: return strdup("a string that is duplicated");
    case BLOCKS_STRNDUP: return strndup("a string that is cut", 8);
    case BLOCKS_KINDS: break;
    }
    return NULL;
}

size_t
blocks_usable(void *block)
{
    return malloc_usable_size(block);
}

void
blocks_release(void *block)
{
    free(block);
}

char *
blocks_printed(int number)
{
    char *text;
    return asprintf(&text, "number %d", number) > 0 ? text : NULL;
}

char *
blocks_longest_line(const char *path, size_t first_size, size_t *lines)
{
    FILE *file = fopen(path, "r");
    char *line = malloc(first_size), *longest = malloc(1);
    *lines = 0;
    longest[0] = 0;
    while (getline(&line, &first_size, file) > 0) {
        ++*lines;
        if (strlen(line) > strlen(longest)) {
            longest = realloc(longest, strlen(line) + 1);
            strcpy(longest, line);
        }
    }
    fclose(file);
    free(longest);
    return line;
}
