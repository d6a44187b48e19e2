/* Walks the page map, which has a word for every chunk in use, huge run and free span. The pool's lock guards everything here. */
#include "pages/unmap.h"

#include "os/os.h"
#include "pages/free_runs.h"

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
    const struct run *r = word_run(pagemap_get(pagemap, (void *)a));
    if (r == NULL || r->base != a)
        return (struct chunks){ .base = a, .bytes = r != NULL ? CHUNK_SIZE : 0 };
    bool whole = r->kind == SPAN_CLEAN || r->kind == SPAN_DIRTY || r->kind == RUN_HUGE;
    size_t bytes = whole ? chunks_of(r->pages) << CHUNK_LG : CHUNK_SIZE;
    return (struct chunks){ a, bytes, whole ? r : NULL, r->hooked };
}

/* Call a function for all chunks. Pages that an allocator before us left are of no run. */
static void
each_chunks(void (*each)(struct chunks chunks))
{
    for (uintptr_t i = 0; i < PAGEMAP_ROOT_COUNT;) {
        uintptr_t a = i << PAGEMAP_ROOT_SHIFT;
        if (atomic_load_explicit(&pagemap->root[i], memory_order_relaxed) == NULL) {
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

/* Clear the words of whole chunks: a guard may ask about what is mapped there next. */
static void
clear(struct chunks chunks)
{
    if (chunks.whole == NULL)
        pagemap_set(chunks.base, CHUNK_PAGES, 0);
    else
        span_clear(chunks.whole);
}

static void
release(struct chunks chunks)
{
    clear(chunks);
    pagemap_purge(chunks.base, chunks.bytes >> PAGE_LG); /* who lent the map keeps it */
    if (!chunks.hooked)
        os_give_up((void *)chunks.base, chunks.bytes);
}

/* Have the words of what stays tell that nobody knows it any more, and put what is free on a list: it is unmapped when
 * all words are right, for a guard may ask about what is mapped there next. */
static struct run *leaving;

static void
leave_runs(uintptr_t chunk)
{
    for (uintptr_t a = chunk; a - chunk < CHUNK_SIZE;) {
        struct run *r = word_run(pagemap_get(pagemap, (void *)a));
        a += r->pages << PAGE_LG;
        if (r->kind >= RUN_SLAB) {
            pagemap_set(r->base, r->pages, WORD_LEFT);
        } else {
            pagemap_set(r->base, r->pages, 0);
            r->next = leaving;
            leaving = r;
        }
    }
}

static void
leave(struct chunks chunks)
{
    struct run *r = word_run(pagemap_get(pagemap, (void *)chunks.base));
    if (chunks.whole == NULL) {
        leave_runs(chunks.base);
    } else if (r->kind == RUN_HUGE) {
        for (size_t offset = 0; offset < chunks.bytes; offset += CHUNK_SIZE)
            if (pagemap_get(pagemap, (void *)(chunks.base + offset)) != 0)
                pagemap_set(chunks.base + offset, 1, WORD_LEFT);
    } else {
        clear(chunks);
        r->next = leaving;
        leaving = r;
    }
}

void
unmap_all(void)
{
    each_chunks(release);
}

void
unmap_free_runs(void)
{
    atomic_store_explicit(&pagemap->left, 1, memory_order_relaxed);
    each_chunks(leave);
    for (; leaving != NULL; leaving = leaving->next) {
        pagemap_purge(leaving->base, leaving->pages);
        if (!leaving->hooked)
            os_give_up((void *)leaving->base, leaving->pages << PAGE_LG);
    }
}
