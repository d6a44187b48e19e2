/*
 * Giants: huge blocks, and spans, of more than GIANT_BYTES. The page map has a word for their first page only, so that they are
 * entered and left in no time and no memory; an address inside of one is looked for in a list. There are few.
 */
#ifndef PAGES_GIANTS_H
#define PAGES_GIANTS_H

#include "pages/run.h"

#define GIANT_BYTES ((size_t)1 << 30)
#define GIANT_PAGES (GIANT_BYTES >> PAGE_LG)

static inline bool
run_is_giant(const struct run *r)
{
    return r->pages > GIANT_PAGES;
}

void giant_add(struct run *r);
void giant_remove(struct run *r);

/* The one in whose chunks an address is; NULL: none. */
struct run *giant_find(uintptr_t address);

void giants_forget(void);

#endif
