/* The list of giants, guarded by the page map's lock. */
#include "pages/giants.h"

static struct run *giants;

void
giant_add(struct run *r)
{
    pagemap_lock_take();
    r->next_giant = giants;
    __atomic_store_n(&giants, r, __ATOMIC_RELAXED);
    pagemap_lock_drop();
}

void
giant_remove(struct run *r)
{
    pagemap_lock_take();
    struct run **link = &giants;
    while (*link != r)
        link = &(*link)->next_giant;
    __atomic_store_n(link, r->next_giant, __ATOMIC_RELAXED);
    pagemap_lock_drop();
}

struct run *
giant_find(uintptr_t address)
{
    if (__atomic_load_n(&giants, __ATOMIC_RELAXED) == NULL)
        return NULL;
    pagemap_lock_take();
    struct run *r = giants;
    while (r != NULL && address - r->base >= chunks_of(r->pages) << CHUNK_LG)
        r = r->next_giant;
    pagemap_lock_drop();
    return r;
}

void
giants_forget(void)
{
    giants = NULL;
}
