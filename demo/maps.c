/*
 * What /proc/self/maps says of the allocator: its file, and the memory that it took. Read with
 * plain system calls, so that looking changes nothing: memory that it gave back could otherwise be
 * taken by the reading.
 */
#include "demo.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PAGE 4096 /* the smallest there is; a larger one is looked at more than once */

static char text[1 << 20];

static struct range {
    uintptr_t start, end;
} remembered[8192];
static size_t remembered_count;

static bool
read_maps(void)
{
    int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    ssize_t got = 0;
    size_t size = 0;

    if (fd < 0)
        return false;
    while (size < sizeof text - 1 && (got = read(fd, text + size, sizeof text - 1 - size)) > 0)
        size += (size_t)got;
    close(fd);
    text[size] = '\0';
    return got == 0;
}

int
maps_naming(const char *file)
{
    int count = 0;
    size_t length = strlen(file);

    if (!read_maps())
        return -1;
    for (const char *at = text; (at = strstr(at, file)) != NULL; at += length)
        count += at[-1] == ' ' && (at[length] == '\n' || at[length] == ' ');
    return count;
}

/* Calls see() for each mapping in the text that was read. */
static void
each_mapping(void (*see)(struct range, bool writable, void *context), void *context)
{
    for (const char *line = text; line != NULL && *line != '\0';) {
        struct range range;
        char writable;
        if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %*c%c", &range.start, &range.end, &writable) == 3)
            see(range, writable == 'w', context);
        line = strchr(line, '\n');
        line = line != NULL ? line + 1 : NULL;
    }
}

static void
remember(struct range mapping, bool writable, void *context)
{
    const struct alcove_table *table = context;
    struct alcove_owner owner;

    for (uintptr_t page = mapping.start; writable && page < mapping.end; page += PAGE) {
        if (!table->owner((const void *)page, &owner))
            continue;
        struct range *last = remembered_count > 0 ? &remembered[remembered_count - 1] : NULL;
        if (last != NULL && last->end == page)
            last->end += PAGE;
        else if (remembered_count < sizeof remembered / sizeof remembered[0])
            remembered[remembered_count++] = (struct range){ page, page + PAGE };
    }
}

uint64_t
maps_remember(const struct alcove_table *table)
{
    uint64_t bytes = 0;

    remembered_count = 0;
    if (read_maps())
        each_mapping(remember, (void *)(uintptr_t)table);
    for (size_t i = 0; i < remembered_count; i++)
        bytes += remembered[i].end - remembered[i].start;
    return bytes;
}

static void
overlap(struct range mapping, bool writable, void *context)
{
    uint64_t *left = context;

    (void)writable;
    for (size_t i = 0; i < remembered_count; i++) {
        uintptr_t start = remembered[i].start > mapping.start ? remembered[i].start : mapping.start;
        uintptr_t end = remembered[i].end < mapping.end ? remembered[i].end : mapping.end;
        *left += start < end ? end - start : 0;
    }
}

uint64_t
maps_remembered_left(void)
{
    uint64_t left = 0;

    if (!read_maps())
        return UINT64_MAX;
    each_mapping(overlap, &left);
    return left;
}
