/* Walks the page map, which has an entry for every chunk and huge run. The pool's lock guards everything here. */
#include "pages/unmap.h"

#include "os/os.h"
#include "pages/run.h"

static void
release_chunk(uintptr_t chunk)
{
    pagemap_set(chunk, CHUNK_PAGES, 0); /* a guard may ask about what is mapped here next */
    os_unmap((void *)chunk, CHUNK_SIZE);
}

/* Have the entries of what stays tell that nobody knows it any more, and put what is free on a list: it is unmapped when
 * all entries are right, for a guard may ask about what is mapped there next. */
static struct run *leaving;

static void
leave_chunk(uintptr_t chunk)
{
    for (uintptr_t a = chunk; a - chunk < CHUNK_SIZE;) {
        struct run *r = entry_run(pagemap_get(pagemap, (void *)a));
        a += r->pages << PAGE_LG;
        if (r->kind >= RUN_SLAB) {
            pagemap_set(r->base, r->pages, ENTRY_LEFT);
        } else {
            pagemap_set(r->base, r->pages, 0);
            r->next = leaving;
            leaving = r;
        }
    }
}

/* Call a function for every chunk, and for every chunk's worth of a huge run. The first page of each has an
 * entry, and so have pages that an allocator before us left. */
static void
each_chunk(void (*chunk)(uintptr_t), void (*huge)(uintptr_t))
{
    for (uintptr_t i = 0; i < PAGEMAP_ROOT_COUNT; i++) {
        uintptr_t from = i << PAGEMAP_ROOT_SHIFT;
        if (atomic_load_explicit(&pagemap->root[i], memory_order_relaxed) == NULL)
            continue;
        for (uintptr_t a = from; a - from < (uintptr_t)1 << PAGEMAP_ROOT_SHIFT; a += CHUNK_SIZE) {
            const struct run *r = entry_run(pagemap_get(pagemap, (void *)a));
            if (r != NULL)
                (r->kind == RUN_HUGE ? huge : chunk)(a);
        }
    }
}

static void
leave_huge(uintptr_t a)
{
    pagemap_set(a, 1, ENTRY_LEFT);
}

void
unmap_all(void)
{
    each_chunk(release_chunk, NULL);
}

void
unmap_free_runs(void)
{
    atomic_store_explicit(&pagemap->left, 1, memory_order_relaxed);
    each_chunk(leave_chunk, leave_huge);
    for (; leaving != NULL; leaving = leaving->next)
        os_unmap((void *)leaving->base, leaving->pages << PAGE_LG);
}
