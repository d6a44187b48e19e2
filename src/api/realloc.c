/* realloc and reallocarray. A block stays with its heap, and where it is if it can. */
#include <errno.h>
#include <string.h>

#include "alcove/alcove.h"
#include "api/internal.h"
#include "api/message.h"
#include "api/services.h"
#include "heap/large.h"
#include "heap/slab.h"
#include "pages/pool.h"

static void *
move(void *block, size_t used, size_t size, uint32_t heap)
{
    void *to = entry_malloc(size, heap);
    if (to == NULL)
        return NULL;
    memcpy(to, block, used < size ? used : size);
    ALCOVE_PUBLIC(free)(block);
    return to;
}

/* A small block may stay in its place if it is not more than a third too large for its new size. */
static bool
fits(size_t used, size_t size)
{
    return size <= used && size > used - used / 4;
}

/* Resize a block that is ours. `size` is not 0. */
static void *
resize(struct run *r, void *block, size_t size)
{
    bool slab = r->kind == RUN_SLAB;
    size_t used = slab ? bin_size(r->bin) : r->usable;
    if (block != (slab ? slab_block(r, block) : (void *)r->base)) {
        message_misuse("realloc of %p, which is not the start of a block (of heap '%s')", block,
                       heap_of(r->heap)->name);
        errno = EINVAL;
        return NULL;
    }
    if (slab && fits(used, size))
        return block;
    uint32_t heap = r->heap;
    void *to = slab ? NULL : large_resize(heap_of(heap), r, size);
    return to != NULL ? to : move(block, used, size, heap);
}

/* heap: where a new block comes from. caller: the module that calls; ALCOVE_HEAP_NONE: called by
 * our own name, so that the block must be ours. */
static void *
reallocate(void *block, size_t size, uint32_t heap, uint32_t caller)
{
    if (block == NULL)
        return entry_malloc(size, heap);
    struct run *r = pool_find(block);
    uint32_t owner = r != NULL ? r->heap : ALCOVE_HEAP_NONE;
    if (unlikely(caller != ALCOVE_HEAP_NONE && owner != caller) && services.crossed != NULL)
        services.crossed(caller, owner, block, r != NULL ? block_usable(block) : 0);
    if (unlikely(r == NULL)) {
        if (caller != ALCOVE_HEAP_NONE && services.libc_realloc != NULL)
            return services.libc_realloc(block, size);
        message_misuse("realloc of %p, which is not a live block of this allocator", block);
        errno = EINVAL;
        return NULL;
    }
    if (size == 0) {
        ALCOVE_PUBLIC(free)(block);
        return NULL;
    }
    return resize(r, block, size);
}

void *
entry_realloc(void *block, size_t size, uint32_t heap)
{
    return reallocate(block, size, heap, heap);
}

void *
entry_reallocarray(void *block, size_t count, size_t size, uint32_t heap)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes)) {
        errno = ENOMEM;
        return NULL;
    }
    return reallocate(block, bytes, heap, heap);
}

API void *
ALCOVE_PUBLIC(realloc)(void *block, size_t size)
{
    return reallocate(block, size, ALCOVE_HEAP_DEFAULT, ALCOVE_HEAP_NONE);
}

API void *
ALCOVE_PUBLIC(reallocarray)(void *block, size_t count, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes)) {
        errno = ENOMEM;
        return NULL;
    }
    return reallocate(block, bytes, ALCOVE_HEAP_DEFAULT, ALCOVE_HEAP_NONE);
}

API void *
ALCOVE_PUBLIC(heap_realloc)(uint32_t heap, void *block, size_t size)
{
    return reallocate(block, size, heap, ALCOVE_HEAP_NONE);
}
