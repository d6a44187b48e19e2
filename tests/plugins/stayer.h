/* What stayer.c offers. */
#ifndef PLUGINS_STAYER_H
#define PLUGINS_STAYER_H

#include <stddef.h>

#define STAYER_BLOCKS 8

/* Fill what it has not filled yet with blocks that its destructor checks and frees. */
void stayer_work(void);
/* Free them now. */
void stayer_clear(void);
const void *stayer_block(size_t which);

#endif
