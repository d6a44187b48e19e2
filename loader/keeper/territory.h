/*
 * The territory map: which allocator has blocks in an address. Allocators tell (struct alcove_services); the guards ask, about any
 * address that anybody releases, and it never touches that. It only grows, and outlives all allocators.
 *
 * Glossary
 *   unit    ALCOVE_TERRITORY bytes of addresses, aligned to that
 *   number  which allocator; 0: none of ours
 *   leaf    the numbers of 2^TERRITORY_LG_LEAF neighbouring units, mapped when first needed
 *   left    pages that an allocator left mapped for ever, because blocks in them were live
 */
#ifndef KEEPER_TERRITORY_H
#define KEEPER_TERRITORY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <alcove/table.h>

#include "ground/attributes.h"

#define TERRITORY_LG_UNIT 22
#define TERRITORY_LG_LEAF 18 /* a leaf speaks of 1 TiB, in 256 KiB of which few are touched */
#define TERRITORY_LG_ROOT 17 /* 57 bits of address are the most that a processor has; a tag above is left out */
#define TERRITORY_LEFT 255u  /* the number of units in which something was left */

#pragma GCC visibility push(hidden)

extern _Atomic(_Atomic uint8_t *) territory_root[(size_t)1 << TERRITORY_LG_ROOT];

/* The number of an address. TERRITORY_LEFT: territory_was_left() knows more. */
UNSEEN_BY_TSAN static inline unsigned
territory_of(const void *address)
{
    uintptr_t unit = (uintptr_t)address >> TERRITORY_LG_UNIT;
    _Atomic uint8_t *leaf = atomic_load_explicit(
        &territory_root[unit >> TERRITORY_LG_LEAF & (((size_t)1 << TERRITORY_LG_ROOT) - 1)], memory_order_acquire);
    if (__builtin_expect(leaf == NULL, 0))
        return 0;
    return atomic_load_explicit(&leaf[unit & (((size_t)1 << TERRITORY_LG_LEAF) - 1)], memory_order_relaxed);
}

/* Have the leaves for these addresses. 0 or ENOMEM. */
int territory_reserve(uintptr_t base, size_t bytes);

/* Addresses that were reserved are this allocator's, until they are left. */
void territory_enter(unsigned number, uintptr_t base, size_t bytes);
void territory_leave(uintptr_t base, size_t bytes);

/* Pages of a unit that was left, or of several, stay. With the loader's lock held. */
void territory_abandon(uintptr_t base, size_t bytes);

/* Is the address, whose number is TERRITORY_LEFT, in pages that stayed? */
bool territory_was_left(const void *address);
/* How many bytes from there on stayed; at the least what is left of the page. */
size_t territory_left_room(const void *address);

/* Was anything ever? */
bool territory_has_left(void);

#pragma GCC visibility pop
#endif
