/* strdup and strndup, into a module's heap. */
#include <string.h>

#include "api/internal.h"

char *
entry_strndup(const char *text, size_t most, size_t heap)
{
    size_t length = strnlen(text, most);
    char *copy = entry_malloc(length + 1, heap);
    if (copy != NULL) {
        memcpy(copy, text, length);
        copy[length] = '\0';
    }
    return copy;
}

char *
entry_strdup(const char *text, size_t heap)
{
    size_t bytes = strlen(text) + 1;
    char *copy = entry_malloc(bytes, heap);
    return copy != NULL ? memcpy(copy, text, bytes) : NULL;
}
