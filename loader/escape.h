/* Names that anything may stand in, made fit for one line of a message. */
#ifndef LOADER_ESCAPE_H
#define LOADER_ESCAPE_H

#include <stdbool.h>
#include <stddef.h>

#pragma GCC visibility push(hidden)

/* Copy a text: control characters, invalid UTF-8, and, if `quoted`, \ and " too, become \xNN. What `size` has no room for is cut
 * off. Returns `out`. */
char *escape(char *out, size_t size, const char *text, bool quoted);

#pragma GCC visibility pop
#endif
