/* The configuration of the plugin other_prefix, whose copy of the loader has another prefix. */
#ifndef OTHER_PREFIX_CONFIG_H
#define OTHER_PREFIX_CONFIG_H

#include_next "config.h"

#undef ALCOVE_PREFIX
#undef ALCOVE_PUBLIC
#undef ALCOVE_ENV_PREFIX
#define ALCOVE_PREFIX "other_"
#define ALCOVE_PUBLIC(name) other_##name
#define ALCOVE_ENV_PREFIX "OTHER_"

#endif
