/*
 * One option: what it is called, where its value is, what it takes. Made from ground/options.def, for all who ask for an
 * option by name.
 */
#ifndef CONF_OPTION_H
#define CONF_OPTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ground/conf.h"

/* The value is a bool; an int64_t; an enum of which each constant is the index of its word. */
enum option_kind { OPTION_BOOL, OPTION_MS, OPTION_CHOICE };

struct option {
    const char *name;
    enum option_kind kind;
    uint32_t offset;          /* of its member in struct conf */
    int64_t least, most;      /* of a number */
    const char *const *words; /* of a choice; NULL ends them */
};

/* Where an option's value is. */
static inline void *
option_value(const struct option *o)
{
    return (char *)&conf + o->offset;
}

/* The option whose name is these `length` bytes; NULL if there is none. */
const struct option *option_find(const char *name, size_t length);

enum option_result { OPTION_SET, OPTION_REFUSED, OPTION_OUT_OF_RANGE };

/* Set an option to a value that is written in `length` bytes, all of them, and after which comes ',' or the end of the string.
 * Nothing is changed unless the result is OPTION_SET. Keeps errno. */
enum option_result option_set(const struct option *o, const char *value, size_t length);

/* Write down what an option takes, cut to `size` bytes; for a message. */
void option_takes(const struct option *o, char *out, size_t size);

#endif
