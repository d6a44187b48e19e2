/* The options in force: set once, when the library is loaded (conf/conf.h), read by everyone. */
#ifndef GROUND_CONF_H
#define GROUND_CONF_H

#include <stdbool.h>
#include <stdint.h>

#include "ground/attributes.h"

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

#endif
