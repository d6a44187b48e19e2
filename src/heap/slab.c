/* Slabs. Each size class of a heap has a lock, which guards its slabs and their bitmaps. */
#include "heap/slab.h"

#include <string.h>

#include "ground/attributes.h"
#include "ground/misuse.h"
#include "pages/pool.h"

/* Slabs with free blocks wait in a queue. Blocks of a slab tend to be freed at about the same time: when its turn
 * comes many are free, so that one slab fills a batch, and no thread takes from it what another is just giving. */
static void
partial_add(struct heap_bin *b, struct run *slab)
{
    slab->next = NULL;
    slab->prev = b->last;
    if (b->last != NULL)
        b->last->next = slab;
    else
        b->partial = slab;
    b->last = slab;
}

static void
partial_remove(struct heap_bin *b, struct run *slab)
{
    if (slab == b->last)
        b->last = slab->prev;
    run_list_remove(&b->partial, slab);
}

/* Pages from the first of one block to the last of another, as bits. */
static uint32_t
pages_between(size_t size, unsigned first, unsigned last)
{
    return (2u << ((last * size + size - 1) >> PAGE_LG)) - (1u << ((first * size) >> PAGE_LG));
}

static uint32_t
pages_of(size_t size, unsigned block)
{
    return pages_between(size, block, block);
}

static size_t
bytes_of(uint32_t pages)
{
    return (size_t)(unsigned)__builtin_popcount(pages) << PAGE_LG;
}

/* Neighbouring pages of a slab, up to `end`, or its blocks. */
struct stretch {
    unsigned begin, end;
};

/* Take the first stretch out of a set of pages that is not empty. */
static struct stretch
stretch_take(uint32_t *pages)
{
    unsigned begin = (unsigned)__builtin_ctz(*pages);
    uint64_t carried = (uint64_t)*pages + ((uint64_t)1 << begin);
    *pages &= (uint32_t)carried;
    return (struct stretch){ begin, (unsigned)__builtin_ctzll(carried) };
}

/* The blocks that lie in a stretch of pages and in no others. */
static struct stretch
blocks_inside(const struct run *slab, size_t size, struct stretch pages)
{
    unsigned begin = (unsigned)((((size_t)pages.begin << PAGE_LG) + size - 1) / size);
    unsigned end = (unsigned)(((size_t)pages.end << PAGE_LG) / size);
    return (struct stretch){ begin, end < slab->blocks ? end : slab->blocks };
}

/* Bits of a word of the bitmap that are in a stretch of blocks. */
static uint64_t
bits_inside(const struct run *slab, unsigned word, struct stretch blocks)
{
    uint64_t bits = slab->bits[word];
    if (word == blocks.begin / 64)
        bits &= ~(uint64_t)0 << (blocks.begin % 64);
    if (word == blocks.end / 64)
        bits &= ((uint64_t)1 << (blocks.end % 64)) - 1;
    return bits;
}

static unsigned
count_free(const struct run *slab, struct stretch blocks)
{
    unsigned n = 0;
    for (unsigned word = blocks.begin / 64; word * 64 < blocks.end; word++)
        n += (unsigned)__builtin_popcountll(bits_inside(slab, word, blocks));
    return n;
}

static void
set_touched(struct run *slab, size_t size, uint32_t touched)
{
    unsigned ready = 0;
    slab->charged = touched;
    while (touched != 0)
        ready += count_free(slab, blocks_inside(slab, size, stretch_take(&touched)));
    slab->ready = (uint16_t)ready;
}

/* Charge for pages of a slab in `fresh`, and touch them. False: the limit forbids it. */
static bool
touch(struct heap *h, struct run *slab, size_t size, uint32_t pages)
{
    if (!heap_charge(h, bytes_of(pages & ~slab->charged)))
        return false;
    set_touched(slab, size, slab->charged | pages);
    struct heap_bin *b = &h->bins[slab->bin];
    run_list_remove(&b->fresh, slab);
    partial_add(b, slab);
    return true;
}

static unsigned
first_free(const struct run *slab)
{
    unsigned word = 0;
    while (slab->bits[word] == 0)
        word++;
    return word * 64 + (unsigned)__builtin_ctzll(slab->bits[word]);
}

/* Pages for the slab's first free blocks, `want` if no others lie between. A page that is not touched has free blocks alone. */
static uint32_t
pages_of_first(const struct run *slab, size_t size, unsigned want)
{
    unsigned first = first_free(slab), left = slab->blocks - first;
    return pages_between(size, first, first + (want < left ? want : left) - 1);
}

/* The last page that the limit allows may do for a block that is not the first free one, since it begins in a touched
 * page or lies in one page where that lies in two. */
static bool
touch_least(struct heap *h, struct heap_bin *b, size_t size)
{
    struct run *slab = b->fresh, *next;
    for (; slab != NULL; slab = next) {
        next = slab->next;
        for (unsigned i = 0; i < slab->blocks; i++)
            if (run_bit(slab, i) && heap_allows(h, bytes_of(pages_of(size, i) & ~slab->charged)) &&
                touch(h, slab, size, pages_of(size, i)))
                return true;
    }
    return false;
}

/* Without blocks that are ready, one needs pages which are not touched, but for its first and its last. Only near the limit it
 * reads what others write under the bin's lock. */
__attribute__((no_sanitize("thread"))) bool
slab_forbidden(const struct heap *h, unsigned bin)
{
    size_t pages = bin_size(bin) >> PAGE_LG, least = pages > 2 ? pages - 1 : 1;
    return !heap_allows(h, least << PAGE_LG) && __atomic_load_n(&h->bins[bin].partial, __ATOMIC_RELAXED) == NULL;
}

/* Give up a slab in `fresh` of which no block is out. */
static void
slab_undo(struct heap *h, struct heap_bin *b, struct run *slab)
{
    run_list_remove(&b->fresh, slab);
    run_set_listed(slab, 0);
    b->slabs--;
    slab->next = NULL;
    heap_give_pages(h, slab);
    heap_let_go(h);
}

/* A slab in `fresh`, or, if its pages are resident already, and have to be charged, in `partial`. */
static bool
slab_new(struct heap *h, struct heap_bin *b, unsigned bin, size_t size)
{
    unsigned pages = bin_slab_pages(bin);
    if (!heap_allows(h, bytes_of(pages_of(size, 0))) || !heap_hold(h))
        return false;
    struct run *slab = pool_take(h->pool, pages, PAGE_SIZE, (struct run_use){ RUN_SLAB, (uint8_t)bin, (uint16_t)h->index });
    if (slab == NULL) {
        heap_count_starved(h);
        heap_let_go(h);
        return false;
    }
    heap_count_taken(h, slab);
    slab->stale = !slab->zeroed && atomic_load_explicit(&h->limit, memory_order_relaxed) == 0;
    bool cleared = heap_clear_uncharged(h, slab, 0);
    size_t blocks = ((size_t)pages << PAGE_LG) / size;
    if (blocks > SLAB_MAX_BLOCKS)
        blocks = SLAB_MAX_BLOCKS;
    slab->blocks = slab->free = (uint16_t)blocks;
    slab->inverse = (uint32_t)((((uint64_t)1 << 32) + size - 1) / size);
    slab->charged = 0;
    slab->ready = 0;
    memset(slab->bits, 0, sizeof slab->bits);
    for (unsigned i = 0; i < blocks / 64; i++)
        slab->bits[i] = ~(uint64_t)0;
    if (blocks % 64 != 0)
        slab->bits[blocks / 64] = ((uint64_t)1 << (blocks % 64)) - 1;
    run_list_push(&b->fresh, slab);
    run_set_listed(slab, listed_in(h->index, true));
    b->slabs++;
    if (cleared || touch(h, slab, size, (2u << (pages - 1)) - 1))
        return true;
    slab_undo(h, b, slab);
    return false;
}

/* Make blocks ready in some slab, where none is: about `want`, or if the limit is near one, and that only if it is needed. */
static bool
make_ready(struct heap *h, struct heap_bin *b, size_t size, unsigned want, bool needed)
{
    struct run *slab = b->fresh;
    if (!heap_is_near_limit(h) && touch(h, slab, size, pages_of_first(slab, size, want)))
        return true;
    if (!needed)
        return false;
    if (touch(h, slab, size, pages_of_first(slab, size, 1)) || touch_least(h, b, size))
        return true;
    if (slab->free == slab->blocks) /* a new one, and the limit was reached meanwhile */
        slab_undo(h, b, slab);
    return false;
}

/* Take blocks from a stretch of a slab's, lowest addresses first, and store them downwards from *end. */
static unsigned
carve(struct run *slab, size_t size, struct stretch blocks, void ***end, unsigned want)
{
    unsigned got = 0;
    void **out = *end;
    for (unsigned word = blocks.begin / 64; got < want && word * 64 < blocks.end; word++) {
        uint64_t bits = bits_inside(slab, word, blocks), others = slab->bits[word] ^ bits;
        char *base = (char *)slab->base + (size_t)word * 64 * size;
        if (bits == 0)
            continue;
        do {
            *--out = base + (size_t)(unsigned)__builtin_ctzl(bits) * size;
            bits &= bits - 1;
        } while (++got < want && bits != 0);
        run_bits_put(slab, word, bits | others);
    }
    *end = out;
    return got;
}

/* Take blocks that are ready from a slab. */
static unsigned
slab_carve(struct run *slab, size_t size, void ***end, unsigned want)
{
    unsigned got = 0;
    if (want > slab->ready)
        want = slab->ready;
    if (slab->ready == slab->free) {
        got = carve(slab, size, (struct stretch){ 0, slab->blocks }, end, want);
    } else {
        for (uint32_t touched = slab->charged; got < want;)
            got += carve(slab, size, blocks_inside(slab, size, stretch_take(&touched)), end, want - got);
    }
    slab->free = (uint16_t)(slab->free - got);
    slab->ready = (uint16_t)(slab->ready - got);
    return got;
}

unsigned
slab_take(struct heap *h, unsigned bin, void **out, unsigned want)
{
    struct heap_bin *b = &h->bins[bin];
    size_t size = bin_size(bin);
    void **end = out + want;
    unsigned got = 0;
    if (slab_forbidden(h, bin))
        return 0;
    lock_take(&b->lock);
    while (got < want) {
        struct run *slab = b->partial;
        if (slab == NULL) {
            if (b->fresh == NULL && (got > 0 || !slab_new(h, b, bin, size)))
                break;
            if (b->partial == NULL && !make_ready(h, b, size, want - got, got == 0))
                break;
            slab = b->partial;
        }
        got += slab_carve(slab, size, &end, want - got);
        if (slab->ready == 0) {
            partial_remove(b, slab);
            run_list_push(slab->free == 0 ? &b->full : &b->fresh, slab);
        }
    }
    counter_add(&b->out, got);
    lock_drop(&b->lock);
    if (got < want)
        memmove(out, end, got * sizeof *out);
    return got;
}

/* Touched pages of a slab in which no block is out. */
static uint32_t
idle_pages(const struct run *slab, size_t size)
{
    uint32_t idle = 0;
    for (uint32_t touched = slab->charged; touched != 0; touched &= touched - 1) {
        unsigned page = (unsigned)__builtin_ctz(touched);
        size_t end = ((((size_t)page + 1) << PAGE_LG) + size - 1) / size;
        struct stretch blocks = { (unsigned)(((size_t)page << PAGE_LG) / size),
                                  end < slab->blocks ? (unsigned)end : slab->blocks };
        if (count_free(slab, blocks) == blocks.end - blocks.begin)
            idle |= 1u << page;
    }
    return idle;
}

/* Purge some pages of a slab. Returns those that the system did not refuse to. */
static uint32_t
slab_purge(struct heap *h, const struct run *slab, uint32_t pages)
{
    uint32_t purged = 0;
    for (uint32_t left = pages; left != 0; pages = left) {
        struct stretch stretch = stretch_take(&left);
        if (pages_purge(h->pool, slab->base + ((size_t)stretch.begin << PAGE_LG), stretch.end - stretch.begin))
            purged |= pages ^ left;
    }
    return purged;
}

/* False: the system refused to purge some, which stay charged. */
static bool
slab_trim(struct heap *h, struct heap_bin *b, struct run *slab, size_t size)
{
    uint32_t idle = idle_pages(slab, size), purged = slab_purge(h, slab, idle);
    bool all = purged == idle;
    if (purged == 0)
        return all;
    set_touched(slab, size, slab->charged & ~purged);
    if (slab->ready == 0) {
        partial_remove(b, slab);
        run_list_push(&b->fresh, slab);
    }
    heap_discharge(h, bytes_of(purged));
    return all;
}

void
heap_trim(struct heap *h)
{
    for (unsigned bin = 1; bin <= SMALL_BINS; bin++) {
        struct heap_bin *b = &h->bins[bin];
        if (__atomic_load_n(&b->given, __ATOMIC_RELAXED) == 0)
            continue;
        bool all = true;
        lock_take(&b->lock);
        for (struct run *slab = b->partial, *next; slab != NULL; slab = next) {
            next = slab->next;
            all = slab_trim(h, b, slab, bin_size(bin)) && all;
        }
        if (all) /* else some other time */
            __atomic_store_n(&b->given, 0, __ATOMIC_RELAXED); /* now: who sees it meanwhile waits, and has what was trimmed */
        lock_drop(&b->lock);
    }
}

/* Of a slab in `fresh` or `partial`. */
static void
slab_clear_untouched(struct heap *h, struct heap_bin *b, struct run *slab, size_t size, bool charge)
{
    uint32_t all = (2u << (slab->pages - 1)) - 1, untouched = all & ~slab->charged;
    uint32_t left = untouched & ~slab_purge(h, slab, untouched);
    slab->stale = left != 0 && !charge;
    if (left == 0 || !charge)
        return;
    heap_charge_resident(h, bytes_of(left));
    bool was_ready = slab->ready != 0;
    set_touched(slab, size, slab->charged | left);
    if (!was_ready && slab->ready != 0) {
        run_list_remove(&b->fresh, slab);
        partial_add(b, slab);
    }
}

void
heap_clear_untouched(struct heap *h, bool charge)
{
    for (unsigned bin = 1; bin <= SMALL_BINS; bin++) {
        struct heap_bin *b = &h->bins[bin];
        lock_take(&b->lock); /* though it seems to have none: one may just be made, without a limit */
        struct run *lists[] = { b->fresh, b->partial };
        for (unsigned i = 0; i < 2; i++) {
            for (struct run *slab = lists[i], *next; slab != NULL; slab = next) {
                next = slab->next;
                if (slab->stale)
                    slab_clear_untouched(h, b, slab, bin_size(bin), charge);
            }
        }
        lock_drop(&b->lock);
    }
}

void *
slab_block(const struct run *slab, const void *address)
{
    size_t size = bin_size(slab->bin);
    if (size == 0) /* it is none any more */
        return NULL;
    uintptr_t i = ((uintptr_t)address - slab->base) / size;
    return i < slab->blocks ? (void *)(slab->base + i * size) : NULL;
}

bool
slab_block_is_free(const struct run *slab, const void *block)
{
    int i = slab_index(slab, bin_size(slab->bin), block);
    return i >= 0 && run_bit(slab, (unsigned)i);
}

/* The records may be in another processor's cache, where blocks were taken from them. */
static void
prefetch_records(void **blocks, unsigned count)
{
    uintptr_t last_page = 0;
    for (unsigned i = 0; i < count; i++) {
        uintptr_t page = (uintptr_t)blocks[i] >> PAGE_LG;
        if (page == last_page)
            continue;
        last_page = page;
        uintptr_t slab = (uintptr_t)word_run(pagemap_get_hot(blocks[i])); /* 0 after a double free */
        __builtin_prefetch((const void *)slab, 1);
        __builtin_prefetch((const void *)(slab + offsetof(struct run, bits)), 1);
    }
}

/* Where a block lies. One after the other are often of one slab, and while the lock is held that stays one of its class. */
struct place {
    struct run *slab;
    uintptr_t base;
    size_t length;
    unsigned index;
};

/* With the bin's lock held. Another thread may have emptied it just now, and its words are still to be cleared. */
static inline bool
is_listed(const struct heap *h, const struct run *slab, unsigned bin)
{
    return run_is_listed(slab, listed_in(h->index, true)) && slab->bin == bin;
}

/* Find a block that is out. False, and noted: it is not. */
static inline bool
place_find(struct place *p, const struct heap *h, unsigned bin, size_t size, const void *block)
{
    if ((uintptr_t)block - p->base >= p->length) {
        uint64_t word = pagemap_get_hot(block);
        struct run *slab = word_run(word);
        if (unlikely(word_bin(word) != bin || word_heap(word) != h->index || !is_listed(h, slab, bin))) {
            misuse_note("double free", "in a slab that has gone, once a block", block, size, h->name);
            return false;
        }
        p->slab = slab;
        p->base = p->slab->base;
        p->length = p->slab->pages << PAGE_LG;
    }
    int index = slab_index(p->slab, size, block);
    if (unlikely(index < 0)) {
        misuse_note("free", "which is inside of a block", block, size, h->name);
        return false;
    }
    p->index = (unsigned)index;
    if (unlikely(run_bit(p->slab, p->index))) {
        misuse_note("double free", "a block", block, size, h->name);
        return false;
    }
    return true;
}

static inline void
place_put(struct place p, bool is_free)
{
    uint64_t bit = (uint64_t)1 << (p.index % 64), bits = p.slab->bits[p.index / 64];
    run_bits_put(p.slab, p.index / 64, is_free ? bits | bit : bits & ~bit);
}

unsigned
slab_sift(struct heap *h, unsigned bin, void **blocks, unsigned count)
{
    struct heap_bin *b = &h->bins[bin];
    size_t size = bin_size(bin);
    unsigned kept = 0;
    struct place p = { 0 };
    lock_take(&b->lock);
    /* Given for a moment, so that what is there twice is noticed. */
    for (unsigned i = 0; i < count; i++) {
        if (!place_find(&p, h, bin, size, blocks[i]))
            continue;
        place_put(p, true);
        blocks[kept++] = blocks[i];
    }
    for (unsigned i = 0; i < kept; i++) {
        p.slab = word_run(pagemap_get_hot(blocks[i]));
        p.index = (unsigned)slab_index(p.slab, size, blocks[i]);
        place_put(p, false);
    }
    lock_drop(&b->lock);
    return kept;
}

unsigned
slab_give(struct heap *h, unsigned bin, void **blocks, unsigned count)
{
    struct heap_bin *b = &h->bins[bin];
    size_t size = bin_size(bin);
    struct run *empty = NULL;
    unsigned given = 0, empties = 0;
    size_t bytes = 0;
    struct place p = { 0 };
    prefetch_records(blocks, count);
    lock_take(&b->lock);
    for (unsigned i = 0; i < count; i++) {
        if (!place_find(&p, h, bin, size, blocks[i]))
            continue;
        place_put(p, true);
        struct run *slab = p.slab;
        given++;
        /* Its pages are touched: it was out. */
        if (slab->ready++ == 0) {
            run_list_remove(slab->free == 0 ? &b->full : &b->fresh, slab);
            partial_add(b, slab);
        }
        slab->free++;
        if (slab->free == slab->blocks) {
            partial_remove(b, slab);
            run_set_listed(slab, 0);
            slab->next = empty;
            empty = slab;
            bytes += bytes_of(slab->charged);
            empties++;
        }
    }
    counter_add(&b->out, -(uint64_t)given);
    b->slabs -= empties;
    __atomic_store_n(&b->given, 1, __ATOMIC_RELAXED);
    lock_drop(&b->lock);
    if (empty != NULL) {
        heap_discharge(h, bytes);
        heap_give_pages(h, empty);
        while (empties-- > 0)
            heap_let_go(h);
    }
    return given;
}
