/* What grower.c offers: releases of a block, by calls of libc's functions. */
#ifndef PLUGINS_GROWER_H
#define PLUGINS_GROWER_H

#include <stddef.h>

void grower_free(void *block);
void *grower_grow(void *block, size_t size);
size_t grower_usable(void *block);

#endif
