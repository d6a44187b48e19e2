/*
 * Options. Read once, at first use, in this order, later ones winning: the string given to
 * configure, the variable <prefix>malloc_conf, the environment's <PREFIX>MALLOC_CONF (ignored in
 * a set-user-ID program). A string is "name:value,name:value".
 */
#ifndef CONF_CONF_H
#define CONF_CONF_H

#include <stdbool.h>
#include <stdint.h>

#include "api/api.h"

enum conf_thp { CONF_THP_DEFAULT, CONF_THP_ALWAYS, CONF_THP_NEVER };

struct conf {
    bool abort;             /* abort after a message about a misuse */
    bool abort_conf;        /* abort on a bad option */
    bool tcache;            /* threads keep freed blocks */
    int64_t dirty_decay_ms; /* how long free pages stay resident; 0: not; -1: for ever */
    bool verbose;           /* tell what is left behind at dlclose */
    enum conf_thp thp;      /* huge pages: the system's choice, always, never */
};

extern HIDDEN struct conf conf;

void conf_read(void);

/* Read one string of options; `source` names it in messages. False if any was bad. */
bool conf_parse(const char *options, const char *source);

#endif
