/* Large and huge blocks. A heap's large_lock guards its list of them and their counters. */
#include "heap/large.h"

#include "pages/pool.h"

static bool
is_huge(size_t bytes, size_t alignment)
{
    return bytes > LARGE_MAX || alignment >= CHUNK_SIZE;
}

static void
count(struct heap *h, struct run *r, int64_t sign)
{
    h->large_out[large_counter(r->bin)] += (uint64_t)sign;
    if (r->bin == 0)
        h->nobin_out_bytes += (uint64_t)(sign * (int64_t)r->usable);
}

void *
large_take(struct heap *h, unsigned bin, size_t size, size_t alignment, bool *zeroed)
{
    size_t bytes = bin != 0 ? bin_size(bin) : size_round_huge(size);
    bytes = (bytes + PAGE_MASK) & ~PAGE_MASK;
    if (bytes == 0 || alignment > PTRDIFF_MAX || bytes > PTRDIFF_MAX - alignment || !heap_charge(h, bytes))
        return NULL;
    bool huge = is_huge(bytes, alignment);
    struct run_use use = { huge ? RUN_HUGE : RUN_LARGE, (uint8_t)(huge ? 0 : bin), (uint16_t)h->index };
    struct run *r = huge ? pool_take_huge(bytes, alignment, use)
                         : pool_take(bytes >> PAGE_LG, alignment < PAGE_SIZE ? PAGE_SIZE : alignment, use);
    if (r == NULL) {
        heap_discharge(h, bytes);
        return NULL;
    }
    r->usable = r->asked = bytes;
    lock_take(&h->large_lock);
    run_list_push(&h->large, r);
    count(h, r, 1);
    lock_drop(&h->large_lock);
    heap_count_out(h, bytes);
    *zeroed = r->zeroed != 0;
    return (void *)r->base;
}

static void
run_give(struct run *r)
{
    if (r->kind == RUN_HUGE) {
        pool_give_huge(r);
    } else {
        r->next = NULL;
        pool_give(r);
    }
}

void
large_give(struct heap *h, struct run *r)
{
    size_t bytes = r->usable;
    lock_take(&h->large_lock);
    run_list_remove(&h->large, r);
    count(h, r, -1);
    lock_drop(&h->large_lock);
    run_give(r);
    heap_count_back(h, bytes);
    heap_discharge(h, bytes);
}

/* Resize the pages of a run that is off its heap's list. Returns the run that has them then. */
static struct run *
resize_pages(struct run *r, size_t bytes, unsigned bin)
{
    bool huge = is_huge(bytes, PAGE_SIZE);
    if (r->kind == RUN_HUGE)
        return huge && pool_resize_huge(r, bytes) ? r : NULL;
    if (!huge)
        return pool_resize(r, bytes >> PAGE_LG, (uint8_t)bin) ? r : NULL;
    struct run *to = pool_move_to_huge(r, bytes);
    if (to != NULL)
        run_give(r);
    return to;
}

void *
large_resize(struct heap *h, struct run *r, size_t size)
{
    /* A block that a thread cache may keep has the size of its class. */
    unsigned bin = size <= CACHED_MAX ? bin_of_size(size) : 0;
    size_t bytes = bin != 0 ? bin_size(bin) : size_round_huge(size), old = r->usable;
    bytes = (bytes + PAGE_MASK) & ~PAGE_MASK;
    if (bytes == 0 || size <= SMALL_MAX)
        return NULL;
    if (bytes == old)
        return (void *)r->base;
    if (bytes > old && !heap_charge(h, bytes - old))
        return NULL;
    /* Off the list meanwhile, so that nobody counts half of a change. */
    lock_take(&h->large_lock);
    run_list_remove(&h->large, r);
    count(h, r, -1);
    lock_drop(&h->large_lock);
    struct run *now = resize_pages(r, bytes, bin);
    if (now != NULL) {
        r = now;
        r->usable = bytes;
    }
    lock_take(&h->large_lock);
    run_list_push(&h->large, r);
    count(h, r, 1);
    lock_drop(&h->large_lock);
    if (bytes > old) {
        if (now == NULL)
            heap_discharge(h, bytes - old);
        else
            heap_count_out(h, bytes - old);
    } else if (now != NULL) {
        heap_count_back(h, old - bytes);
        heap_discharge(h, old - bytes);
    }
    return now != NULL ? (void *)now->base : NULL;
}

void
large_drop_all(struct heap *h)
{
    struct run *r = h->large;
    h->large = NULL;
    while (r != NULL) {
        struct run *next = r->next;
        run_give(r);
        r = next;
    }
}
