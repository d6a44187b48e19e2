/* Walks the page map, which has a word for every chunk in use, huge run and free span. The pool's lock guards everything here. */
#include "pages/unmap.h"

#include "os/os.h"
#include "pages/free_runs.h"
#include "pages/territory.h"

/* Whole chunks at an address: a free span, a huge run, or one chunk that runs were cut from. */
struct chunks {
    uintptr_t base;
    size_t bytes;
    const struct run *whole; /* the span or huge run; NULL: runs */
    bool hooked;             /* they are not ours to unmap */
};

static struct chunks
chunks_at(uintptr_t a)
{
    const struct run *r = word_run(pagemap_get((void *)a));
    if (r == NULL || r->base != a)
        return (struct chunks){ .base = a, .bytes = r != NULL ? CHUNK_SIZE : 0 };
    bool whole = r->kind == SPAN_CLEAN || r->kind == SPAN_DIRTY || r->kind == RUN_HUGE;
    size_t bytes = whole ? chunks_of(r->pages) << CHUNK_LG : CHUNK_SIZE;
    return (struct chunks){ a, bytes, whole ? r : NULL, r->hooked };
}

/* Call a function for all chunks. */
static void
each_chunks(void (*each)(struct chunks chunks))
{
    for (uintptr_t i = 0; i < PAGEMAP_ROOT_COUNT;) {
        uintptr_t a = i << PAGEMAP_ROOT_SHIFT;
        if (atomic_load_explicit(&pagemap.root[i], memory_order_relaxed) == NULL) {
            i++;
            continue;
        }
        while (a >> PAGEMAP_ROOT_SHIFT == i) {
            struct chunks chunks = chunks_at(a);
            if (chunks.bytes != 0)
                each(chunks);
            a += chunks.bytes != 0 ? chunks.bytes : CHUNK_SIZE;
        }
        i = a >> PAGEMAP_ROOT_SHIFT;
    }
}

static void
release(struct chunks chunks)
{
    chunks_leave(chunks.base, chunks.bytes >> PAGE_LG);
    if (!chunks.hooked)
        os_give_up((void *)chunks.base, chunks.bytes);
}

/* What is free, to be unmapped when the territory is right: a guard may ask about what is mapped there next. */
static struct run *leaving;

/* False: nothing of it stays. */
static bool
leave_run(struct run *r)
{
    if (r->kind >= RUN_SLAB) {
        chunks_abandon(r->base, r->pages);
        return true;
    }
    r->next = leaving;
    leaving = r;
    return false;
}

static void
leave(struct chunks chunks)
{
    struct run *r = word_run(pagemap_get((void *)chunks.base));
    bool stays = false;
    if (chunks.whole != NULL)
        stays = leave_run(r);
    else
        for (uintptr_t a = chunks.base; a - chunks.base < CHUNK_SIZE; a += r->pages << PAGE_LG) {
            r = word_run(pagemap_get((void *)a));
            stays |= leave_run(r);
        }
    if (!stays)
        chunks_leave(chunks.base, chunks.bytes >> PAGE_LG);
}

void
unmap_all(void)
{
    each_chunks(release);
}

void
unmap_free_runs(void)
{
    each_chunks(leave);
    for (; leaving != NULL; leaving = leaving->next)
        if (!leaving->hooked)
            os_give_up((void *)leaving->base, leaving->pages << PAGE_LG);
}
