/* Large and huge blocks. A heap's large_lock guards its list of them and their counters. */
#include "heap/large.h"

#include "ground/misuse.h"
#include "pages/pool.h"

static bool
is_huge(size_t bytes, size_t alignment)
{
    return bytes > LARGE_MAX || alignment >= CHUNK_SIZE;
}

/* Count a block that comes or goes: its lock is held. */
static void
count(struct heap *h, struct run *r, int64_t sign)
{
    counter_add(&h->large_out[large_counter(r->bin)], (uint64_t)sign);
    if (r->bin == 0)
        atomic_fetch_add_explicit(&h->nobin_out_bytes, (uint64_t)(sign * (int64_t)r->usable), memory_order_relaxed);
}

/* A block has another bin, or usable size. Most that grow have no bin before or after, and need no lock. */
static void
count_changed(struct heap *h, unsigned old_bin, size_t old, unsigned bin, size_t now)
{
    if (bin != old_bin) {
        lock_take(&h->large_lock);
        counter_add(&h->large_out[large_counter(old_bin)], (uint64_t)-1);
        counter_add(&h->large_out[large_counter(bin)], 1);
        lock_drop(&h->large_lock);
    }
    uint64_t more = (bin == 0 ? now : 0) - (uint64_t)(old_bin == 0 ? old : 0);
    if (more != 0)
        atomic_fetch_add_explicit(&h->nobin_out_bytes, more, memory_order_relaxed);
}

/* It did so where it is. What it gained is part of the bytes that were ever allocated, and what it lost stays so. */
static void
count_gone(struct heap *h, unsigned old_bin, size_t old, unsigned bin, size_t now)
{
    uint64_t counted = (bin == 0 ? now : 0) - (uint64_t)(old_bin == 0 ? old : 0);
    uint64_t gained = now > old ? now - old : 0;
    if (gained != counted)
        atomic_fetch_add_explicit(&h->gone_bytes, gained - counted, memory_order_relaxed);
}

/* Bytes of whole pages; 0: too many. */
static size_t
bytes_of(unsigned bin, size_t size)
{
    size_t bytes = bin != 0 ? bin_size(bin) : size_round_huge(size);
    return (bytes + PAGE_MASK) & ~PAGE_MASK;
}

#define FAR ((size_t)16 << PAGE_LG)

/* What is charged besides the pages of a block of this alignment. */
static size_t
metadata_of(size_t alignment)
{
    size_t words = (alignment >> PAGE_LG) * sizeof(pagemap_word);
    if (alignment < FAR)
        return 0;
    return (words < PAGE_SIZE ? words : PAGE_SIZE) + sizeof(struct run);
}

/* A block that a thread cache may keep has the size of its class. */
static unsigned
bin_of(size_t size)
{
    return size <= CACHED_MAX ? bin_of_size(size) : 0;
}

static void
run_give(struct heap *h, struct run *r)
{
    r->next = NULL;
    heap_give_pages(h, r);
}

/* Pages of a block's room that may be resident: a huge one's was purged, or never touched. */
static size_t
room_of(const struct run *r)
{
    return r->kind == RUN_HUGE ? 0 : r->pages - (r->usable >> PAGE_LG);
}

static void
count_room(struct heap *h, const struct run *r, size_t old)
{
    size_t room = room_of(r);
    if (room != old)
        atomic_fetch_add_explicit(&h->room, room - old, memory_order_relaxed);
}

/* Of `bytes` of whole pages `usable` are charged, and count. */
static struct run *
run_take(struct heap *h, unsigned bin, size_t bytes, size_t usable, size_t alignment)
{
    size_t metadata = metadata_of(alignment);
    if (bytes == 0 || alignment > PTRDIFF_MAX || bytes > PTRDIFF_MAX - alignment || !heap_charge(h, usable + metadata))
        return NULL;
    if (!heap_hold(h)) {
        heap_discharge(h, usable + metadata);
        return NULL;
    }
    bool huge = is_huge(bytes, alignment);
    struct run_use use = { huge ? RUN_HUGE : RUN_LARGE, (uint8_t)(huge ? 0 : bin), (uint16_t)h->index };
    struct run *r = huge ? pool_take_huge(h->pool, bytes, alignment, use)
                         : pool_take(h->pool, bytes >> PAGE_LG, alignment < PAGE_SIZE ? PAGE_SIZE : alignment, use);
    if (r == NULL) {
        heap_count_starved(h);
        heap_discharge(h, usable + metadata);
        heap_let_go(h);
        return NULL;
    }
    heap_count_taken(h, r);
    r->usable = usable;
    r->metadata = metadata;
    r->outgrown = false;
    if (!heap_clear_uncharged(h, r, usable)) { /* then it is to be had without room */
        heap_discharge(h, usable + metadata);
        run_give(h, r);
        heap_let_go(h);
        return NULL;
    }
    count_room(h, r, 0);
    lock_take(&h->large_lock);
    run_list_push(&h->large, r);
    run_set_listed(r, listed_in(h->index, false));
    count(h, r, 1);
    lock_drop(&h->large_lock);
    heap_count_live(h, (int64_t)usable);
    return r;
}

void *
large_take(struct heap *h, unsigned bin, size_t size, size_t alignment, bool *zeroed)
{
    size_t bytes = bytes_of(bin, size);
    struct run *r = run_take(h, bin, bytes, bytes, alignment);
    if (r == NULL)
        return NULL;
    *zeroed = r->zeroed != 0;
    return (void *)r->base;
}

bool
large_forbidden(const struct heap *h, unsigned bin, size_t size, size_t alignment)
{
    return !heap_allows(h, bytes_of(bin, size) + metadata_of(alignment));
}

/* What a block of `size` bytes that will grow on may use, of what there is. */
static size_t
usable_of_growing(size_t size, size_t most)
{
    size_t usable = large_usable_of_growing(size);
    return usable < most ? usable : most;
}

struct run *
large_take_growing(struct heap *h, size_t size, size_t room)
{
    unsigned bin = bin_of(room);
    size_t bytes = bytes_of(bin, room), usable = usable_of_growing(size, bytes);
    return run_take(h, usable < bytes ? 0 : bin, bytes, usable, PAGE_SIZE);
}

static void
note_gone(const struct heap *h, unsigned bin, const void *block)
{
    misuse_note("double free", "once a block", block, bin_size(bin), h->name);
}

struct run *
large_cached(const struct heap *h, unsigned bin, const void *block)
{
    struct run *r = word_run(pagemap_get_hot(block));
    if (likely(r != NULL) && likely(run_is_block(r, block)) && likely(r->heap == h->index && r->bin == bin))
        return r;
    if (((uintptr_t)block & PAGE_MASK) != 0) /* where no large block begins */
        misuse_note("free", "which is inside of a block", block, bin_size(bin), h->name);
    else
        note_gone(h, bin, block);
    return NULL;
}

bool
large_give(struct heap *h, struct run *r, const void *block)
{
    lock_take(&h->large_lock);
    bool live = run_is_listed(r, listed_in(h->index, false)) && run_is_block(r, block);
    if (live) {
        run_list_remove(&h->large, r);
        run_set_listed(r, 0);
        count(h, r, -1);
    }
    lock_drop(&h->large_lock);
    if (!live)
        return false;
    size_t bytes = r->usable, metadata = r->metadata, room = room_of(r);
    if (room != 0)
        atomic_fetch_sub_explicit(&h->room, room, memory_order_relaxed);
    if (run_is_lent(r)) /* and freed by a thread that has no record */
        run_rebin(r, r->bin);
    if (r->bin == 0)
        atomic_fetch_add_explicit(&h->gone_bytes, bytes, memory_order_relaxed);
    heap_count_live(h, -(int64_t)bytes);
    heap_discharge(h, bytes + metadata);
    run_give(h, r);
    heap_let_go(h);
    return true;
}

bool
large_give_cached(struct heap *h, unsigned bin, const void *block)
{
    struct run *r = large_cached(h, bin, block);
    if (r == NULL)
        return false;
    bool given = large_give(h, r, block);
    if (!given)
        note_gone(h, bin, block);
    return given;
}

/* Resize the pages of a run. *clean: what it got reads as zero. False: it stays as it is. */
static bool
resize_pages(struct heap *h, struct run *r, size_t bytes, unsigned bin, bool *clean)
{
    bool huge = is_huge(bytes, PAGE_SIZE);
    size_t pages = bytes >> PAGE_LG;
    r->zeroed = 1; /* to be told of what it gets */
    bool done = huge == (r->kind == RUN_HUGE) &&
                (huge ? pool_resize_huge(h->pool, r, bytes) : pool_resize(h->pool, r, pages, (uint8_t)bin));
    if (done)
        heap_count_taken(h, r);
    *clean = r->zeroed;
    r->zeroed = 0; /* what it had is not */
    return done;
}

/* Count that the usable size has become another. */
static void
count_change(struct heap *h, size_t old, size_t now)
{
    heap_count_live(h, (int64_t)now - (int64_t)old);
    if (now < old)
        heap_discharge(h, old - now);
}

void *
large_resize(struct heap *h, struct run *r, size_t size, size_t room)
{
    unsigned bin = bin_of(room);
    size_t bytes = bytes_of(bin, room), old = r->usable, old_room = room_of(r);
    if (bytes == 0 || room <= SMALL_MAX)
        return NULL;
    size_t usable = room > size ? usable_of_growing(size, bytes) : bytes;
    if (usable < bytes)
        bin = 0;
    if (usable > old && !heap_charge(h, usable - old))
        return NULL;
    unsigned old_bin = r->bin;
    bool clean;
    if (!resize_pages(h, r, bytes, bin, &clean)) {
        if (usable > old)
            heap_discharge(h, usable - old);
        return NULL;
    }
    bool cleared = (clean && r->kind == RUN_HUGE) || heap_clear_uncharged(h, r, usable);
    if (!cleared && !resize_pages(h, r, usable, 0, &clean)) { /* it has no room then, or all of it */
        heap_charge_resident(h, bytes - usable);
        usable = bytes;
    }
    r->usable = usable;
    count_room(h, r, old_room);
    count_changed(h, old_bin, old, r->bin, usable);
    count_gone(h, old_bin, old, r->bin, usable);
    count_change(h, old, usable);
    return (void *)r->base;
}

bool
large_make_room(struct heap *h, struct run *r, size_t size)
{
    size_t old = r->usable, usable = usable_of_growing(size, old);
    if (usable == old)
        return false;
    r->zeroed = 0; /* it may have been another block's */
    if (!heap_clear_uncharged(h, r, usable)) /* before that is discharged */
        return false;
    unsigned old_bin = r->bin;
    r->usable = usable;
    r->outgrown = false;
    count_room(h, r, 0);
    run_rebin(r, 0);
    count_changed(h, old_bin, old, 0, usable);
    count_change(h, old, usable);
    return true;
}

bool
large_use_room(struct heap *h, struct run *r, size_t size)
{
    size_t old = r->usable, usable = usable_of_growing(size, r->pages << PAGE_LG);
    if (!heap_charge(h, usable - old)) {
        usable = (size + PAGE_MASK) & ~PAGE_MASK;
        if (!heap_charge(h, usable - old))
            return false;
    }
    size_t room = room_of(r);
    r->usable = usable;
    count_room(h, r, room);
    atomic_fetch_add_explicit(&h->nobin_out_bytes, usable - old, memory_order_relaxed);
    heap_count_live(h, (int64_t)(usable - old));
    return true;
}

bool
large_end_room(struct heap *h, struct run *r, size_t bytes)
{
    unsigned old_bin = r->bin;
    size_t room = room_of(r), old = r->usable, all = r->pages << PAGE_LG, kept = bytes_of(bin_of(bytes > SMALL_MAX ? bytes : SMALL_MAX + 1), 0);
    bytes = all < kept ? all : kept;
    bool never_had_any = old == all && all > CACHED_MAX;
    if (r->kind != RUN_LARGE || all <= SMALL_MAX || never_had_any || bin_size(bin_of_size(bytes)) != bytes || heap_is_ending(h))
        return false;
    if (bytes > old && !heap_charge(h, bytes - old))
        return false;
    unsigned bin = bin_of_size(bytes);
    bool clean;
    if (bytes == all) {
        run_rebin(r, (uint8_t)bin);
    } else if (!resize_pages(h, r, bytes, bin, &clean)) {
        if (bytes > old)
            heap_discharge(h, bytes - old);
        return false;
    }
    r->usable = bytes;
    count_room(h, r, room);
    if (old_bin == 0)
        atomic_fetch_add_explicit(&h->gone_bytes, old, memory_order_relaxed);
    count_changed(h, old_bin, old, bin, bytes);
    count_change(h, old, bytes);
    return true;
}
