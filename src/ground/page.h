/* The page: the unit in which memory is taken from the system and described. */
#ifndef GROUND_PAGE_H
#define GROUND_PAGE_H

#include <stddef.h>

#include "config.h"

#define PAGE_LG ALCOVE_LG_PAGE
#undef PAGE_SIZE /* musl's limits.h has one */
#define PAGE_SIZE ((size_t)1 << PAGE_LG)
#define PAGE_MASK (PAGE_SIZE - 1)

#endif
