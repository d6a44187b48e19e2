/* Slabs. Each size class of a heap has a lock, which guards its slabs and their bitmaps. */
#include "heap/slab.h"

#include <string.h>

#include "ground/attributes.h"
#include "ground/message.h"
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

static struct run *
slab_new(struct heap *h, unsigned bin)
{
    unsigned pages = bin_slab_pages(bin);
    size_t size = bin_size(bin), bytes = (size_t)pages << PAGE_LG;
    if (!heap_charge(h, bytes))
        return NULL;
    struct run *slab = pool_take(h->pool, pages, PAGE_SIZE, (struct run_use){ RUN_SLAB, (uint8_t)bin, (uint16_t)h->index });
    if (slab == NULL) {
        heap_discharge(h, bytes);
        return NULL;
    }
    size_t blocks = bytes / size < SLAB_MAX_BLOCKS ? bytes / size : SLAB_MAX_BLOCKS;
    slab->blocks = slab->free = (uint16_t)blocks;
    slab->inverse = (uint32_t)((((uint64_t)1 << 32) + size - 1) / size);
    memset(slab->bits, 0, sizeof slab->bits);
    for (unsigned i = 0; i < blocks / 64; i++)
        slab->bits[i] = ~(uint64_t)0;
    if (blocks % 64 != 0)
        slab->bits[blocks / 64] = ((uint64_t)1 << (blocks % 64)) - 1;
    return slab;
}

/* Take blocks from one slab, lowest addresses first, and store them downwards from *end. */
static unsigned
slab_carve(struct run *slab, size_t size, void ***end, unsigned want)
{
    unsigned got = 0;
    void **out = *end;
    for (unsigned word = 0; got < want; word++) {
        uint64_t bits = slab->bits[word];
        char *base = (char *)slab->base + (size_t)word * 64 * size;
        if (bits == 0)
            continue;
        do {
            *--out = base + (size_t)(unsigned)__builtin_ctzl(bits) * size;
            bits &= bits - 1;
        } while (++got < want && bits != 0);
        run_bits_put(slab, word, bits);
    }
    slab->free = (uint16_t)(slab->free - got);
    *end = out;
    return got;
}

unsigned
slab_take(struct heap *h, unsigned bin, void **out, unsigned want)
{
    struct heap_bin *b = &h->bins[bin];
    size_t size = bin_size(bin);
    void **end = out + want;
    unsigned got = 0;
    lock_take(&b->lock);
    while (got < want) {
        struct run *slab = b->partial;
        if (slab == NULL) {
            if (got > 0 || (slab = slab_new(h, bin)) == NULL)
                break;
            partial_add(b, slab);
            b->slabs++;
        }
        unsigned left = want - got;
        got += slab_carve(slab, size, &end, left < slab->free ? left : slab->free);
        if (slab->free == 0) {
            partial_remove(b, slab);
            run_list_push(&b->full, slab);
        }
    }
    b->out += got;
    lock_drop(&b->lock);
    if (got < want)
        memmove(out, end, got * sizeof *out);
    heap_count_out(h, got * size);
    return got;
}

void *
slab_block(const struct run *slab, const void *address)
{
    size_t size = bin_size(slab->bin);
    uintptr_t i = ((uintptr_t)address - slab->base) / size;
    return i < slab->blocks ? (void *)(slab->base + i * size) : NULL;
}

bool
slab_block_is_free(const struct run *slab, const void *block)
{
    int i = slab_index(slab, bin_size(slab->bin), block);
    return i >= 0 && run_bit(slab, (unsigned)i);
}

void
slab_give(struct heap *h, unsigned bin, void **blocks, unsigned count)
{
    struct heap_bin *b = &h->bins[bin];
    size_t size = bin_size(bin);
    struct run *empty = NULL;
    unsigned given = 0, empties = 0;
    size_t bytes = 0;
    /* The records may be in another processor's cache, where blocks were taken from them. */
    for (unsigned i = 0; i < count; i++) {
        uintptr_t slab = (uintptr_t)entry_run(pagemap_get_hot(blocks[i])); /* 0 after a double free */
        __builtin_prefetch((const void *)slab, 1);
        __builtin_prefetch((const void *)(slab + offsetof(struct run, bits)), 1);
    }
    lock_take(&b->lock);
    for (unsigned i = 0; i < count; i++) {
        uint64_t entry = pagemap_get(pagemap, blocks[i]);
        if (unlikely(entry_bin(entry) != bin || entry_heap(entry) != h->index)) {
            message_misuse("double free of %p, once a block of %zu bytes of heap '%s', whose slab has gone", blocks[i],
                           size, h->name);
            continue;
        }
        struct run *slab = entry_run(entry);
        int index = slab_index(slab, size, blocks[i]);
        if (unlikely(index < 0)) {
            message_misuse("free of %p, which is inside of a block of %zu bytes of heap '%s' and not its start",
                           blocks[i], size, h->name);
            continue;
        }
        uint64_t bit = (uint64_t)1 << (index % 64);
        if (unlikely((slab->bits[index / 64] & bit) != 0)) {
            message_misuse("double free of %p, a block of %zu bytes of heap '%s'", blocks[i], size, h->name);
            continue;
        }
        run_bits_put(slab, (unsigned)index / 64, slab->bits[index / 64] | bit);
        given++;
        if (slab->free++ == 0) {
            run_list_remove(&b->full, slab);
            partial_add(b, slab);
        }
        if (slab->free == slab->blocks) {
            partial_remove(b, slab);
            slab->next = empty;
            empty = slab;
            bytes += slab->pages << PAGE_LG;
            empties++;
        }
    }
    b->out -= given;
    b->slabs -= empties;
    lock_drop(&b->lock);
    heap_count_back(h, given * size);
    if (empty != NULL) {
        pool_give(h->pool, empty);
        heap_discharge(h, bytes);
    }
}
