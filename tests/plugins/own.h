/* What the plugins `own`, `own_chosen` and `own_version` export: libraries with a malloc and a free of their own, under those very names. */
#ifndef PLUGINS_OWN_H
#define PLUGINS_OWN_H

#include <stddef.h>

void *own_make(size_t size);      /* malloc, as the library sees it */
void own_release(void *block);    /* free, as the library sees it */
extern unsigned own_live;         /* blocks of its own malloc */

#endif
