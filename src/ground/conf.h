/*
 * The options in force: set once, when the library is loaded (conf/conf.h), read by everyone. A member for each option, by its
 * name; what it means is in ground/options.def. A choice is an enum, conf_<name>.
 */
#ifndef GROUND_CONF_H
#define GROUND_CONF_H

#include <stdbool.h>
#include <stdint.h>

#include "ground/attributes.h"

#define CONF_MEMBER_BOOL(name, ...) bool name;
#define CONF_MEMBER_MS(name, ...) int64_t name;
#define CONF_MEMBER_CHOICE(name, ...) enum conf_##name __VA_ARGS__ name; /* { the words' constants } */

struct conf {
#define OPTION(name, kind, initial, values, text) CONF_MEMBER_##kind(name, values)
#define WORDS(words) { words }
#define WORD(constant, word) constant,
#include "ground/options.def"
};

extern HIDDEN struct conf conf;

#endif
