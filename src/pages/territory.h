/*
 * The territory: chunks that blocks may be in, told to the loader that lent us services (alcove/table.h). Its guards ask by it whose a
 * block is that anybody releases, so it must be right at any moment: entered after addresses became ours, left before they can be
 * somebody else's. Of a giant only the first chunk is told, as in the page map. Without a loader nothing here does anything.
 */
#ifndef PAGES_TERRITORY_H
#define PAGES_TERRITORY_H

#include <stddef.h>
#include <stdint.h>

/* Make room for a span of so many pages. 0 or ENOMEM. */
int chunks_reserve(uintptr_t base, size_t pages);

/* A span that was reserved is ours. To enter one twice is entering it once. */
void chunks_enter(uintptr_t base, size_t pages);

/* It is not any more, whatever of it was entered. */
void chunks_leave(uintptr_t base, size_t pages);

/* Pages of what was left stay mapped for ever. */
void chunks_abandon(uintptr_t base, size_t pages);

#endif
