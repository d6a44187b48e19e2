/*
 * The files that the works are fed with, and what the host finds out about them by itself, so that
 * the libraries' results can be checked against something that no library computed.
 */
#include "demo.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *
read_file(const char *path, size_t *size)
{
    FILE *file = fopen(path, "rb");
    char *text = NULL;
    size_t room = 0;

    *size = 0;
    while (file != NULL && !ferror(file) && !feof(file)) {
        if (*size == room) {
            room = room == 0 ? 1 << 16 : room * 2;
            char *larger = realloc(text, room + 1);
            if (larger == NULL)
                break;
            text = larger;
        }
        *size += fread(text + *size, 1, room - *size, file);
    }
    bool whole = file != NULL && feof(file);
    int error = errno;
    if (file != NULL)
        fclose(file);
    if (!whole) {
        fprintf(stderr, "alcove-demo: %s: %s\n", path, strerror(error));
        free(text);
        return NULL;
    }
    text[*size] = '\0';
    return text;
}

static int
compare_rows(const void *a, const void *b)
{
    const struct row *const *x = a, *const *y = b;
    size_t shorter = (*x)->length < (*y)->length ? (*x)->length : (*y)->length;
    int order = memcmp((*x)->text, (*y)->text, shorter);
    return order != 0 ? order : ((*x)->length > (*y)->length) - ((*x)->length < (*y)->length);
}

/* Set copies of every row: sorted, equal ones are neighbours. */
static bool
count_copies(struct row *rows, size_t count)
{
    struct row **sorted = malloc(count * sizeof *sorted);
    if (sorted == NULL)
        return false;
    for (size_t i = 0; i < count; i++)
        sorted[i] = &rows[i];
    qsort(sorted, count, sizeof *sorted, compare_rows);
    for (size_t first = 0, next; first < count; first = next) {
        for (next = first + 1; next < count; next++)
            if (compare_rows(&sorted[first], &sorted[next]) != 0)
                break;
        for (size_t i = first; i < next; i++)
            sorted[i]->copies = (uint32_t)(next - first);
    }
    free(sorted);
    return true;
}

static bool
read_rows(struct input *input)
{
    size_t size;
    input->rows_text = read_file(input->rows_file, &size);
    if (input->rows_text == NULL)
        return false;
    if (memchr(input->rows_text, '\n', size) == NULL) {
        fprintf(stderr, "alcove-demo: %s: has no lines\n", input->rows_file);
        return false;
    }
    input->rows = calloc(DEMO_ROWS, sizeof *input->rows);
    if (input->rows == NULL)
        return false;

    const char *end = input->rows_text + size, *line = input->rows_text;
    for (size_t i = 0; i < DEMO_ROWS; i++) {
        if (line == end)
            line = input->rows_text;
        const char *newline = memchr(line, '\n', (size_t)(end - line));
        const char *stop = newline != NULL ? newline : end;
        input->rows[i].text = line;
        input->rows[i].length = (uint32_t)(stop - line);
        input->rows_bytes += input->rows[i].length;
        line = newline != NULL ? newline + 1 : end;
    }
    return count_copies(input->rows, DEMO_ROWS);
}

static const char *
after(const char *text, const char *end)
{
    const char *found = strstr(text, end);
    return found != NULL ? found + strlen(end) : text + strlen(text);
}

uint64_t
count_elements(const char *xml)
{
    uint64_t count = 0;
    const char *at = xml;

    while ((at = strchr(at, '<')) != NULL) {
        if (strncmp(at, "<!--", 4) == 0)
            at = after(at + 4, "-->");
        else if (strncmp(at, "<![CDATA[", 9) == 0)
            at = after(at, "]]>");
        else if (at[1] == '?')
            at = after(at, "?>");
        else {
            count += at[1] != '/' && at[1] != '!';
            at++;
        }
    }
    return count;
}

bool
input_read(struct input *input)
{
    size_t size;
    if (!read_rows(input))
        return false;
    input->xml_text = read_file(input->xml_file, &size);
    if (input->xml_text == NULL) {
        fprintf(stderr, "alcove-demo: freedesktop.org.xml is in Debian's package shared-mime-info;"
                        " --xml FILE takes another file\n");
        return false;
    }
    input->xml_elements = count_elements(input->xml_text);
    return true;
}

void
input_free(struct input *input)
{
    free(input->rows_text);
    free(input->rows);
    free(input->xml_text);
}
