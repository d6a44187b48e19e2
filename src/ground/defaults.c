/* The options in force, as they are before any is read. */
#include "ground/conf.h"

#include "config.h"

struct conf conf = {
#define OPTION(name, kind, initial, values, text) .name = initial,
#include "ground/options.def"
};
