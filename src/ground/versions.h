/* Structs that cross between versions of loader, allocator and host (alcove/table.h has the rules). */
#ifndef GROUND_VERSIONS_H
#define GROUND_VERSIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define OPTIONS_MOST 4096 /* bytes: what says that it is longer was never filled */

/* Read options that a caller of any version filled into the struct of `known` bytes that we know. `size` is what they
 * say of themselves, `first` what 0 stands for. False: they have no possible size, or ask for what we do not know. */
static inline bool
options_read(void *out, size_t known, const void *given, uint32_t size, size_t first)
{
    size_t length = size != 0 ? size : first;
    if (length % 8 != 0 || length > OPTIONS_MOST)
        return false;
    for (size_t i = known; i < length; i++)
        if (((const unsigned char *)given)[i] != 0)
            return false;
    memset(out, 0, known);
    memcpy(out, given, length < known ? length : known);
    return true;
}

/* How many bytes of a struct with room at its end are in use. */
#define FIGURES_SIZE(type) offsetof(type, room)

#endif
