/*
 * Where options come from. Read once, when the library is loaded, in this order, later ones winning: the string given to
 * configure, the variable <prefix>malloc_conf, the environment's <PREFIX>MALLOC_CONF (ignored in
 * a set-user-ID program). A string is "name:value,name:value".
 */
#ifndef CONF_CONF_H
#define CONF_CONF_H

#include <stdbool.h>

#include "ground/conf.h"

void conf_read(void);

/* Read one string of options; `source` names it in messages. False if any was bad. */
bool conf_parse(const char *options, const char *source);

#endif
