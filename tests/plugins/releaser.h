/* What releaser.c offers. */
#ifndef PLUGINS_RELEASER_H
#define PLUGINS_RELEASER_H

/* free, by a call that returns here. */
void *releaser_free(void *block);

#endif
