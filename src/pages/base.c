/* Memory for the allocator's own records. `base.lock` guards everything here. */
#include "pages/base.h"

#include <stdbool.h>
#include <string.h>

#include "ground/page.h"
#include "ground/sizeclass.h"
#include "os/os.h"
#include "ground/lock.h"

#define BASE_BLOCK ((size_t)512 << 10) /* untouched pages cost address space only */
#define BASE_ALIGN ((size_t)64)
#define BASE_HEADER ((size_t)128)

/* Stands at the start of each block that was taken from the system. */
struct base_block {
    struct base_block *next;
    size_t size;
};

struct base_spare {
    struct base_spare *next;
};

static struct {
    struct lock lock;
    struct base_block *blocks;
    char *next, *end; /* the part of the newest block that was never used: records from its start on, pages from its end */
    size_t bytes; /* read without the lock */
    struct base_spare *spares[BINS];    /* records of up to 32 KiB, by size class */
    struct base_spare *large_spares[8]; /* larger ones, by power of two above it */
} base = { .lock = LOCK_INITIAL(LOCK_BASE) };

/* The list that holds records of a size, and the size that they really have. */
static struct base_spare **
spares_of(size_t *size)
{
    if (*size <= SMALL_MAX) {
        unsigned bin = bin_of_size(*size);
        size_t exact = (*size + BASE_ALIGN - 1) & ~(BASE_ALIGN - 1);
        *size = (bin_size(bin) + BASE_ALIGN - 1) & ~(BASE_ALIGN - 1);
        /* Runs and other multiples of 128 keep that alignment. */
        if ((exact & 127) == 0)
            *size = (*size + 127) & ~(size_t)127;
        return &base.spares[bin];
    }
    unsigned i = 0;
    while (((size_t)SMALL_MAX << (i + 1)) < *size)
        i++;
    *size = (size_t)SMALL_MAX << (i + 1);
    return &base.large_spares[i];
}

/* Take a new block from the system, if the newest has no room for so many bytes. False: the system has no memory. */
static bool
make_room(size_t size)
{
    if (base.next != NULL && (size_t)(base.end - base.next) >= size)
        return true;
    size_t bytes = size + BASE_HEADER > BASE_BLOCK ? (size + BASE_HEADER + 0xffff) & ~(size_t)0xffff : BASE_BLOCK;
    struct base_block *block = os_map(bytes, PAGE_SIZE);
    if (block == NULL)
        return false;
    os_huge_pages(block, bytes, false);
    block->size = bytes;
    block->next = base.blocks;
    base.blocks = block;
    __atomic_store_n(&base.bytes, base.bytes + bytes, __ATOMIC_RELAXED);
    base.next = (char *)block + BASE_HEADER;
    base.end = (char *)block + bytes;
    return true;
}

/* *fresh: it was never used, and so reads as zero. */
static void *
take(size_t size, bool *fresh)
{
    lock_take(&base.lock);
    struct base_spare **list = spares_of(&size), *spare = *list;
    size_t align = (size & 127) == 0 ? 128 : BASE_ALIGN;
    *fresh = spare == NULL;
    if (spare != NULL) {
        *list = spare->next;
        lock_drop(&base.lock);
        return spare;
    }
    if (!make_room(size + align)) {
        lock_drop(&base.lock);
        return NULL;
    }
    char *p = (char *)(((uintptr_t)base.next + align - 1) & ~(uintptr_t)(align - 1));
    base.next = p + size;
    lock_drop(&base.lock);
    return p;
}

void *
base_alloc_pages(size_t size)
{
    char *pages = NULL;
    lock_take(&base.lock);
    if (make_room(size + PAGE_MASK))
        pages = base.end = (char *)((uintptr_t)(base.end - size) & ~(uintptr_t)PAGE_MASK);
    lock_drop(&base.lock);
    return pages;
}

void *
base_alloc(size_t size)
{
    bool fresh;
    return take(size, &fresh);
}

void *
base_alloc_zeroed(size_t size)
{
    bool fresh;
    void *record = take(size, &fresh);
    return record == NULL || fresh ? record : memset(record, 0, size);
}

void
base_free(void *record, size_t size)
{
    lock_take(&base.lock);
    struct base_spare **list = spares_of(&size), *spare = record;
    spare->next = *list;
    *list = spare;
    lock_drop(&base.lock);
}

size_t
base_bytes(void)
{
    return __atomic_load_n(&base.bytes, __ATOMIC_RELAXED);
}

void
base_release(void)
{
    lock_take(&base.lock);
    struct base_block *block = base.blocks;
    base.blocks = NULL;
    base.next = base.end = NULL;
    __atomic_store_n(&base.bytes, 0, __ATOMIC_RELAXED);
    memset(base.spares, 0, sizeof base.spares);
    memset(base.large_spares, 0, sizeof base.large_spares);
    lock_drop(&base.lock);
    while (block != NULL) {
        struct base_block *next = block->next;
        os_give_up(block, block->size);
        block = next;
    }
}

bool base_fork_holds(void) { return lock_is_mine(&base.lock); }
void base_fork_prepare(void) { lock_take(&base.lock); }
void base_fork_done(void) { lock_drop(&base.lock); }
void base_fork_child(void) { lock_init(&base.lock, LOCK_BASE); }
