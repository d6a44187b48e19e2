/* The pool of pages: runs are cut and joined, dirty ones used first, purged ones zero, chunks given back. */
#include "unit.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "heap/slab.h"
#include "os/os.h"
#include "pages/base.h"
#include "pages/giants.h"
#include "pages/pool.h"
#include "tests/child.h"

static const struct run_use slab_use = { RUN_SLAB, 3, 7 }, large_use = { RUN_LARGE, 80, 7 },
                            huge_use = { RUN_HUGE, 0, 7 };

static uint64_t
word_at(uintptr_t address)
{
    return pagemap_get((void *)address);
}

static struct run *
take(size_t pages)
{
    struct run *r = pool_take(&pool_default, pages, PAGE_SIZE, slab_use);
    assert_non_null(r);
    assert_int_equal(r->pages, pages);
    return r;
}

static void
give(struct run *r)
{
    r->next = NULL;
    pool_give(&pool_default, r);
}

static uintptr_t
end_of(const struct run *r)
{
    return r->base + r->pages * PAGE_SIZE;
}

static uintptr_t
chunk_of(const struct run *r)
{
    return r->base & ~(CHUNK_SIZE - 1);
}

static size_t
mapped(void)
{
    struct pool_figures f;
    pool_figures_get(&f);
    return f.mapped;
}

static size_t
dirty(void)
{
    struct pool_figures f;
    pool_figures_get(&f);
    return f.dirty;
}

/* Walk a chunk by its page map words: runs without a gap; all pages of a used run lead to it; of a
 * free one the first and the last, and nothing between; no two free runs of one kind are neighbours. */
static void
check_chunk(uintptr_t chunk)
{
    const struct run *before = NULL;
    for (uintptr_t a = chunk; a < chunk + CHUNK_SIZE;) {
        const struct run *r = word_run(word_at(a));
        if (r == NULL || r->base != a || r->pages == 0 || end_of(r) > chunk + CHUNK_SIZE) {
            fail_msg("page %lu of a chunk belongs to no run", (a - chunk) / PAGE_SIZE);
            return;
        }
        if (r->kind == SPAN_CLEAN || r->kind == SPAN_DIRTY) {
            assert_int_equal(a, chunk); /* all of it is free */
            return;
        }
        bool free_run = r->kind < RUN_SLAB;
        for (size_t i = 0; i < r->pages; i++) {
            uint64_t word = word_at(a + i * PAGE_SIZE);
            bool inner = free_run && i != 0 && i != r->pages - 1;
            if (word_run(word) != (inner ? NULL : r))
                fail_msg("page %zu of %zu of a run of kind %d leads elsewhere", i, r->pages, r->kind);
        }
        if (before != NULL && before->kind == r->kind && r->kind <= RUN_DIRTY)
            fail_msg("two free runs of kind %d are neighbours, and not joined", r->kind);
        before = r;
        a = end_of(r);
    }
}

static void
test_run_starts_on_a_page_and_is_entered_at_each(void **unused)
{
    (void)unused;
    struct run *r = take(5);
    assert_int_equal(r->base % PAGE_SIZE, 0);
    for (unsigned i = 0; i < 5; i++) {
        uint64_t word = word_at(r->base + i * PAGE_SIZE + i);
        assert_ptr_equal(word_run(word), r);
        assert_int_equal(word_heap(word), 7);
        assert_int_equal(word_bin(word), 3);
    }
    check_chunk(chunk_of(r));
}

static void
test_large_run_tells_its_bin_only_at_its_start(void **unused)
{
    (void)unused;
    struct run *r = pool_take(&pool_default, 12, PAGE_SIZE, large_use);
    assert_int_equal(word_bin(word_at(r->base)), 80);
    for (unsigned i = 1; i < 12; i++)
        assert_int_equal(word_bin(word_at(r->base + i * PAGE_SIZE)), 0);
}

/* No cache takes a block then: its free comes by the slow path. */
static void
test_word_names_another_bin_than_the_run_has(void **unused)
{
    (void)unused;
    struct run *r = take(1);
    assert_int_equal(word_bin(word_make(r)), 3);
    r->word_bin = 0;
    assert_int_equal(word_bin(word_make(r)), 0);
    assert_ptr_equal(word_run(word_make(r)), r);
    assert_int_equal(r->bin, 3);
    r->word_bin = 3;
}

static void
test_new_run_reads_as_zero_and_says_so(void **unused)
{
    (void)unused;
    struct run *r = take(3);
    assert_true(r->zeroed);
    for (size_t i = 0; i < 3 * PAGE_SIZE; i++)
        assert_int_equal(((char *)r->base)[i], 0);
}

static void
test_used_run_does_not_say_it_is_zero(void **unused)
{
    (void)unused;
    give(take(3));
    assert_false(take(3)->zeroed);
}

static void
test_alignment_up_to_a_chunk(void **unused)
{
    (void)unused;
    for (size_t alignment = PAGE_SIZE; alignment <= CHUNK_SIZE; alignment *= 2) {
        for (size_t pages = 1; pages <= CHUNK_PAGES; pages = pages * 3 + 1) {
            struct run *r = pool_take(&pool_default, pages, alignment, slab_use);
            assert_non_null(r);
            assert_int_equal(r->base & (alignment - 1), 0);
            assert_int_equal(r->pages, pages);
            check_chunk(chunk_of(r));
        }
    }
}

static void
test_runs_do_not_overlap(void **unused)
{
    (void)unused;
    for (unsigned i = 0; i < 300; i++) {
        struct run *r = take(1 + i % 40);
        memset((void *)r->base, (int)i, r->pages * PAGE_SIZE);
        check_chunk(chunk_of(r));
    }
}

static void
test_run_of_a_whole_chunk(void **unused)
{
    (void)unused;
    struct run *r = take(CHUNK_PAGES);
    assert_int_equal(r->base % CHUNK_SIZE, 0);
    check_chunk(r->base);
    give(r);
    check_chunk(r->base);
}

static void
test_free_run_joins_both_neighbours(void **unused)
{
    (void)unused;
    struct run *r[5];
    for (int i = 0; i < 5; i++)
        r[i] = take(4);
    uintptr_t first = r[1]->base;
    assert_int_equal(r[3]->base, r[1]->base + 8 * PAGE_SIZE);
    give(r[1]);
    give(r[3]);
    check_chunk(chunk_of(r[0]));
    give(r[2]);
    check_chunk(chunk_of(r[0]));
    assert_int_equal(word_run(word_at(first))->pages, 12);
    assert_int_equal(take(12)->base, first);
}

static void
test_free_run_is_split_and_the_rest_can_be_taken(void **unused)
{
    (void)unused;
    struct run *r = take(10);
    uintptr_t base = r->base;
    take(1);
    give(r);
    assert_int_equal(take(4)->base, base);
    check_chunk(base & ~(CHUNK_SIZE - 1));
    assert_int_equal(take(6)->base, base + 4 * PAGE_SIZE);
    check_chunk(base & ~(CHUNK_SIZE - 1));
}

static void
test_addresses_inside_of_a_free_run_are_nobodys(void **unused)
{
    (void)unused;
    struct run *r[8];
    for (int i = 0; i < 8; i++)
        r[i] = take(4);
    uintptr_t base = r[1]->base, end = end_of(r[6]);
    for (int i = 1; i < 7; i++)
        give(r[i]);
    /* The records of the joined runs are used again for others. */
    for (int i = 0; i < 8; i++)
        take(64);
    struct alcove_owner owner;
    for (uintptr_t a = base; a < end; a += PAGE_SIZE) {
        assert_null(pool_find((void *)a));
        assert_int_equal(ALCOVE_PUBLIC(owner)((void *)(a + 100), &owner), 0);
        assert_int_equal(owner.heap, ALCOVE_HEAP_NONE);
    }
}

static void
test_dirty_pages_are_used_before_clean_ones(void **unused)
{
    (void)unused;
    take(1);
    struct run *r = take(20);
    uintptr_t base = r->base;
    take(1);
    give(r);
    assert_int_equal(dirty(), 20 * PAGE_SIZE);
    assert_int_equal(take(3)->base, base);
    assert_int_equal(dirty(), 17 * PAGE_SIZE);
}

static void
test_shortest_run_that_is_long_enough_is_used(void **unused)
{
    (void)unused;
    struct run *lengths[3];
    for (int i = 0; i < 3; i++) {
        lengths[i] = take(i == 0 ? 20 : i == 1 ? 5 : 10);
        take(1);
    }
    uintptr_t five = lengths[1]->base;
    for (int i = 0; i < 3; i++)
        give(lengths[i]);
    assert_int_equal(take(4)->base, five);
}

static void
test_given_run_is_no_longer_found(void **unused)
{
    (void)unused;
    struct run *r = take(4);
    uintptr_t base = r->base;
    assert_ptr_equal(pool_find((void *)(base + 5000)), r);
    give(r);
    for (size_t i = 0; i < 4; i++)
        assert_null(pool_find((void *)(base + i * PAGE_SIZE)));
}

static void
test_list_of_runs_is_given_at_once(void **unused)
{
    (void)unused;
    struct run *list = NULL, *r;
    for (int i = 0; i < 10; i++) {
        r = take(3);
        r->next = list;
        list = r;
    }
    uintptr_t chunk = chunk_of(list);
    pool_give(&pool_default, list);
    assert_int_equal(dirty(), 30 * PAGE_SIZE);
    check_chunk(chunk);
}

static void
test_large_run_shrinks_in_place_and_gives_the_tail(void **unused)
{
    (void)unused;
    struct run *r = pool_take(&pool_default, 20, PAGE_SIZE, large_use);
    uintptr_t base = r->base;
    assert_true(pool_resize(&pool_default, r, 9, 75));
    assert_int_equal(r->base, base);
    assert_int_equal(r->pages, 9);
    assert_int_equal(word_bin(word_at(base)), 75);
    assert_null(pool_find((void *)(base + 9 * PAGE_SIZE)));
    check_chunk(chunk_of(r));
    assert_int_equal(dirty(), 11 * PAGE_SIZE);
}

static void
test_large_run_grows_in_place_into_dirty_and_clean_pages(void **unused)
{
    (void)unused;
    struct run *r = pool_take(&pool_default, 10, PAGE_SIZE, large_use), *after = take(10);
    uintptr_t base = r->base;
    assert_int_equal(after->base, end_of(r));
    give(after);
    assert_true(pool_resize(&pool_default, r, 15, 80)); /* dirty */
    assert_true(pool_resize(&pool_default, r, 20, 80)); /* the last of them */
    check_chunk(chunk_of(r));
    assert_true(pool_resize(&pool_default, r, CHUNK_PAGES * 3 / 4, 0)); /* clean */
    assert_int_equal(r->base, base);
    assert_int_equal(r->pages, CHUNK_PAGES * 3 / 4);
    for (size_t i = 0; i < CHUNK_PAGES * 3 / 4; i++)
        assert_ptr_equal(pool_find((void *)(base + i * PAGE_SIZE)), r);
    check_chunk(chunk_of(r));
}

static void
test_contents_stay_when_a_run_is_resized_in_place(void **unused)
{
    (void)unused;
    struct run *r = pool_take(&pool_default, 10, PAGE_SIZE, large_use);
    memset((void *)r->base, 0x5a, 10 * PAGE_SIZE);
    assert_true(pool_resize(&pool_default, r, 30, 0));
    assert_true(pool_resize(&pool_default, r, 5, 80));
    for (size_t i = 0; i < 5 * PAGE_SIZE; i++)
        assert_int_equal(((char *)r->base)[i], 0x5a);
}

static void
test_large_run_does_not_grow_over_its_neighbour(void **unused)
{
    (void)unused;
    struct run *r = pool_take(&pool_default, 10, PAGE_SIZE, large_use), *after = take(1);
    assert_int_equal(after->base, end_of(r));
    assert_false(pool_resize(&pool_default, r, 11, 81));
    assert_int_equal(r->pages, 10);
    assert_int_equal(r->bin, 80);
    assert_ptr_equal(pool_find((void *)after->base), after);
    check_chunk(chunk_of(r));
}

static void
test_large_run_does_not_grow_beyond_its_chunk(void **unused)
{
    (void)unused;
    struct run *r = pool_take(&pool_default, CHUNK_PAGES, PAGE_SIZE, large_use);
    assert_false(pool_resize(&pool_default, r, CHUNK_PAGES + 1, 0));
    struct run *last = pool_take(&pool_default, CHUNK_PAGES - 10, PAGE_SIZE, large_use);
    assert_false(pool_resize(&pool_default, last, CHUNK_PAGES + 1, 0));
    assert_int_equal(last->pages, CHUNK_PAGES - 10);
}

static void
test_shrunk_tail_is_purged_at_once_if_nothing_may_stay(void **unused)
{
    (void)unused;
    pool_init(0);
    struct run *r = pool_take(&pool_default, 20, PAGE_SIZE, large_use);
    assert_true(pool_resize(&pool_default, r, 9, 75));
    assert_int_equal(dirty(), 0);
}

static void
test_purged_pages_read_as_zero(void **unused)
{
    (void)unused;
    struct run *r = take(50);
    uintptr_t base = r->base;
    take(1);
    memset((void *)base, 0xff, 50 * PAGE_SIZE);
    give(r);
    pool_purge();
    assert_int_equal(dirty(), 0);
    r = take(50);
    assert_int_equal(r->base, base);
    assert_true(r->zeroed);
    for (size_t i = 0; i < 50 * PAGE_SIZE; i++)
        assert_int_equal(((char *)base)[i], 0);
}

static void
test_purged_runs_join(void **unused)
{
    (void)unused;
    struct run *r[6];
    for (int i = 0; i < 6; i++)
        r[i] = take(4);
    uintptr_t chunk = chunk_of(r[0]);
    give(r[1]);
    give(r[3]);
    pool_purge();
    give(r[2]);
    check_chunk(chunk);
    pool_purge();
    check_chunk(chunk);
    assert_int_equal(word_run(word_at(chunk + 4 * PAGE_SIZE))->pages, 12);
}

static void
test_nothing_stays_dirty_if_decay_is_at_once(void **unused)
{
    (void)unused;
    pool_init(0);
    give(take(30));
    assert_int_equal(dirty(), 0);
}

/* Pages freed at two moments, half the decay time apart: at its end the first are gone, and half of the others. */
static void
test_tick_purges_the_oldest_first(void **unused)
{
    (void)unused;
    enum { RUNS = CHUNK_PAGES < 400 ? CHUNK_PAGES : 400 };
    struct run *r[RUNS];
    pool_init(1000);
    uint64_t now = os_clock_ms();
    for (int i = 0; i < RUNS; i++)
        r[i] = take(1);
    uintptr_t base = r[0]->base;
    assert_int_equal(r[RUNS - 1]->base, base + (RUNS - 1) * PAGE_SIZE);
    for (int i = 0; i < RUNS / 2; i += 2)
        give(r[i]);
    pool_tick(now + 500);
    for (int i = RUNS / 2; i < RUNS; i += 2)
        give(r[i]);
    pool_tick(now + 1100);
    for (int i = 0; i < RUNS / 2; i += 2)
        assert_int_equal(word_run(word_at(base + (size_t)i * PAGE_SIZE))->kind, RUN_CLEAN);
    assert_in_range(dirty() / PAGE_SIZE, RUNS / 4 / 4, RUNS / 4 - 1);
    pool_tick(now + 100000);
    assert_int_equal(dirty(), 0);
}

static void
test_chunks_go_back_to_the_system(void **unused)
{
    (void)unused;
    struct run *r[4];
    uintptr_t bases[4];
    for (int i = 0; i < 4; i++) {
        r[i] = take(CHUNK_PAGES);
        bases[i] = r[i]->base;
    }
    assert_int_equal(mapped(), 4 * CHUNK_SIZE);
    for (int i = 0; i < 4; i++)
        give(r[i]);
    assert_int_equal(mapped(), 4 * CHUNK_SIZE); /* dirty */
    pool_purge();
    assert_true(mapped() <= CHUNK_SIZE); /* one may stay for what comes next */
    unsigned char residency;
    unsigned gone = 0;
    for (int i = 0; i < 4; i++)
        gone += mincore((void *)bases[i], 1, &residency) != 0;
    assert_int_equal(gone, 4 - mapped() / CHUNK_SIZE);
}

static void
test_addresses_of_a_returned_chunk_have_no_entry(void **unused)
{
    (void)unused;
    struct run *keep = take(CHUNK_PAGES), *r[CHUNK_PAGES / 4];
    for (size_t i = 0; i < CHUNK_PAGES / 4; i++)
        r[i] = take(4);
    uintptr_t chunk = chunk_of(r[0]);
    assert_int_equal(chunk_of(r[CHUNK_PAGES / 4 - 1]), chunk);
    for (size_t i = 0; i < CHUNK_PAGES / 4; i++)
        give(r[i * 37 % (CHUNK_PAGES / 4)]);
    give(keep);
    pool_purge();
    assert_true(mapped() <= CHUNK_SIZE);
    if (word_at(chunk) != 0) /* this one stayed */
        chunk = chunk_of(keep);
    for (size_t i = 0; i < CHUNK_PAGES; i++)
        if (word_at(chunk + i * PAGE_SIZE) != 0)
            fail_msg("page %zu of a chunk that was given back still has a word", i);
}

static void
test_huge_run_has_chunks_of_its_own(void **unused)
{
    (void)unused;
    size_t bytes = 3 * CHUNK_SIZE + 5 * PAGE_SIZE;
    struct run *r = pool_take_huge(&pool_default, bytes, PAGE_SIZE, huge_use);
    assert_non_null(r);
    assert_int_equal(r->base % CHUNK_SIZE, 0);
    assert_int_equal(mapped(), 4 * CHUNK_SIZE);
    memset((void *)r->base, 1, bytes);
    for (size_t offset = 0; offset < bytes; offset += PAGE_SIZE)
        assert_ptr_equal(pool_find((void *)(r->base + offset)), r);
    assert_null(pool_find((void *)(r->base + bytes)));
    assert_null(pool_find((void *)(r->base - 1)));
    give(r);
}

static void
test_huge_alignment_beyond_a_chunk(void **unused)
{
    (void)unused;
    for (size_t alignment = CHUNK_SIZE; alignment <= 64 * CHUNK_SIZE; alignment *= 4) {
        struct run *r = pool_take_huge(&pool_default, PAGE_SIZE, alignment, huge_use);
        assert_non_null(r);
        assert_int_equal(r->base & (alignment - 1), 0);
        give(r);
    }
    pool_purge();
    assert_true(mapped() <= CHUNK_SIZE);
}

static void
test_given_huge_run_is_dirty_and_goes_with_a_purge(void **unused)
{
    (void)unused;
    struct run *r = pool_take_huge(&pool_default, 2 * CHUNK_SIZE, PAGE_SIZE, huge_use);
    uintptr_t base = r->base;
    unsigned char residency;
    give(r);
    assert_int_equal(dirty(), 2 * CHUNK_SIZE);
    assert_null(pool_find((void *)base));
    pool_purge();
    assert_int_equal(mapped(), 0);
    assert_int_equal(word_at(base), 0);
    assert_int_equal(word_at(base + CHUNK_SIZE), 0);
    assert_null(pool_find((void *)base));
    assert_null(pool_find((void *)(base + CHUNK_SIZE)));
    assert_int_not_equal(mincore((void *)base, 1, &residency), 0);
}

static void
test_huge_run_grows_and_keeps_its_contents(void **unused)
{
    (void)unused;
    struct run *r = pool_take_huge(&pool_default, CHUNK_SIZE, PAGE_SIZE, huge_use);
    memset((void *)r->base, 0x77, CHUNK_SIZE);
    assert_true(pool_resize_huge(&pool_default, r, 5 * CHUNK_SIZE));
    assert_int_equal(r->base % CHUNK_SIZE, 0);
    assert_int_equal(mapped(), 5 * CHUNK_SIZE);
    const char *p = (const char *)r->base;
    for (size_t i = 0; i < 5 * CHUNK_SIZE; i += 512)
        assert_int_equal(p[i], i < CHUNK_SIZE ? 0x77 : 0);
    for (size_t i = 0; i < 5 * CHUNK_SIZE; i += PAGE_SIZE)
        assert_ptr_equal(pool_find(p + i), r);
    give(r);
}

/* Does the system hold a page of memory for this address? */
static bool
is_resident(uintptr_t address)
{
    unsigned char residency = 0;
    assert_int_equal(mincore((void *)(address & ~(uintptr_t)PAGE_MASK), 1, &residency), 0);
    return (residency & 1) != 0;
}

static bool
in_emulator(void) /* qemu purges nothing, and places mappings as it likes */
{
    return getenv("ALCOVE_TEST_RUN") != NULL && getenv("ALCOVE_TEST_RUN")[0] != 0;
}

/* Have something follow a run, which then cannot grow where it is. MAP_FAILED: something does already. */
static void *
wall_behind(const struct run *r)
{
    return mmap((void *)end_of(r), PAGE_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
}

/* What follows is taken, so it must move, and its old addresses are forgotten. */
static void
test_huge_run_moves_when_it_cannot_grow_in_place(void **unused)
{
    (void)unused;
    struct run *r = pool_take_huge(&pool_default, CHUNK_SIZE, PAGE_SIZE, huge_use);
    uintptr_t old = r->base;
    memset((void *)old, 0x33, CHUNK_SIZE);
    void *wall = wall_behind(r);
    assert_true(pool_resize_huge(&pool_default, r, 2 * CHUNK_SIZE));
    assert_int_not_equal(r->base, old);
    assert_null(pool_find((void *)old));
    for (size_t i = 0; i < CHUNK_SIZE; i += 512)
        assert_int_equal(((const char *)r->base)[i], 0x33);
    if (wall != MAP_FAILED)
        munmap(wall, PAGE_SIZE);
    assert_int_equal(mapped(), 2 * CHUNK_SIZE);
    give(r);
    pool_purge();
    assert_int_equal(mapped(), 0);
}

/* So does one that was cut from what another was, even one that had moved. */
static void
test_huge_run_moves_again_and_again(void **unused)
{
    (void)unused;
    const size_t bytes = 5 * CHUNK_SIZE;
    give(pool_take_huge(&pool_default, 2 * bytes, PAGE_SIZE, huge_use));
    for (int round = 0; round < 4; round++) {
        struct run *r = pool_take_huge(&pool_default, bytes, PAGE_SIZE, huge_use), *behind;
        behind = pool_take_huge(&pool_default, bytes, PAGE_SIZE, huge_use);
        uintptr_t old = r->base;
        assert_int_equal(behind->base, old + bytes);
        memset((void *)old, round + 1, bytes);
        assert_true(pool_resize_huge(&pool_default, r, 2 * bytes));
        assert_int_not_equal(r->base, old);
        for (size_t i = 0; i < bytes; i += CHUNK_SIZE)
            assert_null(pool_find((void *)(old + i)));
        for (size_t i = 0; i < 2 * bytes; i += CHUNK_SIZE)
            assert_ptr_equal(pool_find((void *)(r->base + i)), r);
        for (size_t i = 0; i < bytes; i += 512)
            assert_int_equal(((const char *)r->base)[i], round + 1);
        give(r); /* what is behind its old place stays: only this is free */
    }
}

/* The addresses that it leaves are used again, and the page map keeps nothing for them. */
static void
test_huge_run_that_moves_leaves_nothing(void **unused)
{
    (void)unused;
    if (in_emulator())
        skip();
    struct run *r = pool_take_huge(&pool_default, CHUNK_SIZE, PAGE_SIZE, huge_use);
    uintptr_t old = r->base;
    const pagemap_word *leaf = pagemap.root[old >> PAGEMAP_ROOT_SHIFT];
    uintptr_t word = (uintptr_t)&leaf[(old >> PAGE_LG) & (PAGEMAP_LEAF_COUNT - 1)];
    bool has_pages = CHUNK_PAGES * sizeof *leaf >= PAGE_SIZE; /* else it shares one with other chunks */
    if (has_pages)
        assert_true(is_resident(word));
    void *wall = wall_behind(r);
    assert_true(pool_resize_huge(&pool_default, r, 2 * CHUNK_SIZE));
    if (has_pages)
        assert_false(is_resident(word));
    if (wall != MAP_FAILED)
        munmap(wall, PAGE_SIZE);
    struct run *next = pool_take_huge(&pool_default, CHUNK_SIZE, PAGE_SIZE, huge_use);
    assert_int_equal(next->base, old);
    give(next);
    give(r);
}

/* Of several mappings it cannot be moved: it stays what it is, and nothing is left of the attempt. */
static void
test_huge_run_of_two_mappings_stays(void **unused)
{
    (void)unused;
    if (in_emulator()) /* it parts no mappings */
        skip();
    struct run *r = pool_take_huge(&pool_default, 2 * CHUNK_SIZE, PAGE_SIZE, huge_use);
    uintptr_t base = r->base;
    memset((void *)base, 0x44, 2 * CHUNK_SIZE);
    if (madvise((void *)(base + CHUNK_SIZE), PAGE_SIZE, MADV_DONTDUMP) != 0)
        skip();
    void *wall = wall_behind(r);
    assert_false(pool_resize_huge(&pool_default, r, 4 * CHUNK_SIZE));
    assert_int_equal(r->base, base);
    assert_int_equal(r->pages, 2 * CHUNK_PAGES);
    assert_int_equal(mapped(), 2 * CHUNK_SIZE);
    for (size_t i = 0; i < 2 * CHUNK_SIZE; i += 512)
        assert_int_equal(((const char *)base)[i], 0x44);
    assert_ptr_equal(pool_find((void *)(base + CHUNK_SIZE)), r);
    madvise((void *)(base + CHUNK_SIZE), PAGE_SIZE, MADV_DODUMP);
    assert_true(pool_resize_huge(&pool_default, r, 4 * CHUNK_SIZE));
    assert_int_equal(((const char *)r->base)[CHUNK_SIZE], 0x44);
    if (wall != MAP_FAILED)
        munmap(wall, PAGE_SIZE);
    give(r);
}

/* Of a run that is shorter than its chunks the rest may be resident from before: it is dirty, and goes with a purge. */
static void
test_pages_behind_a_huge_run_are_dirty(void **unused)
{
    (void)unused;
    give(pool_take_huge(&pool_default, 2 * CHUNK_SIZE, PAGE_SIZE, huge_use));
    pool_purge();
    struct run *r = pool_take_huge(&pool_default, 2 * CHUNK_SIZE, PAGE_SIZE, huge_use);
    uintptr_t base = r->base;
    memset((void *)base, 0x55, 2 * CHUNK_SIZE);
    give(r);
    r = pool_take_huge(&pool_default, CHUNK_SIZE + PAGE_SIZE, PAGE_SIZE, huge_use);
    assert_int_equal(r->base, base);
    assert_int_equal(dirty(), CHUNK_SIZE - PAGE_SIZE);
    memset((void *)base, 0x66, CHUNK_SIZE + PAGE_SIZE);
    assert_true(pool_resize_huge(&pool_default, r, CHUNK_SIZE + 3 * PAGE_SIZE));
    assert_int_equal(dirty(), CHUNK_SIZE - 3 * PAGE_SIZE);
    assert_true(pool_resize_huge(&pool_default, r, CHUNK_SIZE + 2 * PAGE_SIZE));
    assert_int_equal(dirty(), CHUNK_SIZE - 2 * PAGE_SIZE);
    pool_purge();
    assert_int_equal(dirty(), 0);
    if (!in_emulator()) {
        assert_false(is_resident(base + CHUNK_SIZE + 2 * PAGE_SIZE));
        assert_false(is_resident(base + 2 * CHUNK_SIZE - PAGE_SIZE));
    }
    for (size_t i = 0; i < CHUNK_SIZE + PAGE_SIZE; i += 512)
        assert_int_equal(((const char *)base)[i], 0x66);
    /* What it has lost since: the rest of a chunk that stays, and of one that goes what it had of it. */
    assert_true(pool_resize_huge(&pool_default, r, CHUNK_SIZE - PAGE_SIZE));
    assert_int_equal(dirty(), 3 * PAGE_SIZE);
    give(r);
    assert_int_equal(dirty(), CHUNK_SIZE + 2 * PAGE_SIZE);
    pool_purge();
    assert_int_equal(dirty(), 0);
}

/* So are those behind what it grows into; and several of them decay one after the other. */
static void
test_pages_behind_huge_runs_decay(void **unused)
{
    (void)unused;
    enum { RUNS = 5 };
    struct run *r[RUNS], *whole = pool_take_huge(&pool_default, (2 * RUNS + 1) * CHUNK_SIZE, PAGE_SIZE, huge_use);
    memset((void *)whole->base, 0x77, (2 * RUNS + 1) * CHUNK_SIZE);
    give(whole);
    for (int i = 0; i < RUNS; i++)
        r[i] = pool_take_huge(&pool_default, 2 * CHUNK_SIZE - PAGE_SIZE, PAGE_SIZE, huge_use);
    assert_int_equal(dirty(), CHUNK_SIZE + RUNS * PAGE_SIZE);
    assert_true(pool_resize_huge(&pool_default, r[RUNS - 1], 2 * CHUNK_SIZE + PAGE_SIZE));
    assert_int_equal(dirty(), CHUNK_SIZE - PAGE_SIZE + (RUNS - 1) * PAGE_SIZE);
    assert_true(pool_resize_huge(&pool_default, r[2], 2 * CHUNK_SIZE));
    give(r[0]);
    pool_purge_some(&pool_default, PAGE_SIZE >> PAGE_LG);
    if (!in_emulator()) {
        assert_false(is_resident(end_of(r[1])));
        assert_true(is_resident(end_of(r[3])));
    }
    assert_int_equal(dirty(), 3 * CHUNK_SIZE);
    pool_purge();
    assert_int_equal(dirty(), 0);
    for (int i = 1; i < RUNS; i++)
        give(r[i]);
    pool_purge();
    assert_int_equal(dirty(), 0);
    assert_true(mapped() <= CHUNK_SIZE);
}

static void
test_huge_run_shrinks_in_place(void **unused)
{
    (void)unused;
    struct run *r = pool_take_huge(&pool_default, 4 * CHUNK_SIZE, PAGE_SIZE, huge_use);
    uintptr_t base = r->base;
    memset((void *)base, 0x11, 4 * CHUNK_SIZE);
    assert_true(pool_resize_huge(&pool_default, r, CHUNK_SIZE + PAGE_SIZE));
    assert_int_equal(r->base, base);
    pool_purge();
    assert_int_equal(mapped(), 2 * CHUNK_SIZE);
    assert_true(is_resident(base + CHUNK_SIZE));
    if (!in_emulator())
        assert_false(is_resident(base + CHUNK_SIZE + PAGE_SIZE)); /* what the block lost of its last chunk was given back */
    assert_ptr_equal(pool_find((void *)(base + CHUNK_SIZE)), r);
    assert_null(pool_find((void *)(base + CHUNK_SIZE + PAGE_SIZE)));
    assert_null(pool_find((void *)(base + 3 * CHUNK_SIZE)));
    assert_int_equal(((const char *)base)[CHUNK_SIZE], 0x11);
    give(r);
}

static void
test_impossible_sizes_are_refused_and_cost_nothing(void **unused)
{
    (void)unused;
    assert_null(pool_take_huge(&pool_default, (size_t)1 << 47, PAGE_SIZE, huge_use));
    assert_null(pool_take_huge(&pool_default, PAGE_SIZE, (size_t)1 << 62, huge_use));
    struct run *r = pool_take_huge(&pool_default, CHUNK_SIZE, PAGE_SIZE, huge_use);
    assert_false(pool_resize_huge(&pool_default, r, (size_t)1 << 47));
    assert_int_equal(r->pages, CHUNK_PAGES);
    assert_ptr_equal(pool_find((void *)r->base), r);
    assert_int_equal(mapped(), CHUNK_SIZE);
    give(r);
}

static unsigned
leaves(void)
{
    unsigned n = 0;
    for (size_t i = 0; i < PAGEMAP_ROOT_COUNT; i++)
        n += atomic_load(&pagemap.root[i]) != NULL;
    return n;
}

static void
test_impossible_growth_makes_no_tables(void **unused)
{
    (void)unused;
    struct run *r = pool_take_huge(&pool_default, CHUNK_SIZE, PAGE_SIZE, huge_use);
    unsigned before = leaves();
    assert_false(pool_resize_huge(&pool_default, r, (size_t)1 << (ALCOVE_LG_VADDR - 1)));
    assert_in_range(leaves(), before, before + 1); /* not one for each GiB */
    give(r);
}

/* What comes and goes is cut from one span, and joined again. */
static void
test_huge_runs_are_cut_from_dirty_spans_and_joined_again(void **unused)
{
    (void)unused;
    struct run *whole = pool_take_huge(&pool_default, 12 * CHUNK_SIZE, PAGE_SIZE, huge_use), *r[6];
    uintptr_t base = whole->base, end = end_of(whole);
    assert_int_equal(whole->zeroed, 1);
    give(whole);
    for (int i = 0; i < 6; i++) {
        r[i] = pool_take_huge(&pool_default, 2 * CHUNK_SIZE, PAGE_SIZE, huge_use);
        assert_true(r[i]->base >= base && end_of(r[i]) <= end);
        assert_int_equal(r[i]->zeroed, 0);
    }
    assert_int_equal(dirty(), 0);
    for (int i = 0; i < 6; i++)
        give(r[i * 5 % 6]);
    assert_int_equal(mapped(), 12 * CHUNK_SIZE);
    assert_int_equal(dirty(), 12 * CHUNK_SIZE);
    whole = pool_take_huge(&pool_default, 12 * CHUNK_SIZE, PAGE_SIZE, huge_use);
    assert_int_equal(whole->base, base);
    give(whole);
}

/* A double free is told of wherever a block was in it. */
static void
test_each_chunk_of_a_free_span_is_the_pools(void **unused)
{
    (void)unused;
    enum { CHUNKS = 12 };
    struct run *whole = pool_take_huge(&pool_default, CHUNKS * CHUNK_SIZE, PAGE_SIZE, huge_use), *r[CHUNKS / 2], *first;
    uintptr_t base = whole->base;
    give(whole);
    for (unsigned round = 0; round < 3; round++) {
        for (int i = 0; i < CHUNKS / 2; i++)
            r[i] = pool_take_huge(&pool_default, 2 * CHUNK_SIZE - PAGE_SIZE, PAGE_SIZE, huge_use);
        for (int i = 0; i < CHUNKS / 2; i++)
            give(r[i * 5 % (CHUNKS / 2)]);
        first = round == 1 ? take(1) : NULL; /* which takes a chunk */
        for (uintptr_t a = base; a < base + CHUNKS * CHUNK_SIZE; a += CHUNK_SIZE / 4) {
            assert_true(pool_holds((void *)a));
            assert_true(pool_find((void *)a) == (first != NULL && a == base ? first : NULL));
        }
        if (first != NULL)
            give(first);
        if (round == 1)
            pool_purge_some(&pool_default, CHUNK_PAGES);
    }
    pool_purge();
    for (uintptr_t a = base; a < base + CHUNKS * CHUNK_SIZE; a += CHUNK_SIZE) {
        assert_false(pool_holds((void *)a));
        assert_int_equal(word_at(a), 0);
    }
}

/* A chunk that is free as a whole serves huge blocks, and a freed huge block serves small runs. */
static void
test_chunks_and_spans_serve_each_other(void **unused)
{
    (void)unused;
    struct run *r = take(3), *after = take(1);
    uintptr_t chunk = chunk_of(r);
    give(r);
    give(after);
    pool_purge();
    struct run *huge = pool_take_huge(&pool_default, CHUNK_SIZE, PAGE_SIZE, huge_use);
    assert_int_equal(huge->base, chunk);
    give(huge);
    r = take(5);
    assert_int_equal(chunk_of(r), chunk);
    check_chunk(chunk);
    give(r);
}

static void
test_huge_run_grows_into_a_free_neighbour(void **unused)
{
    (void)unused;
    struct run *r = pool_take_huge(&pool_default, 9 * CHUNK_SIZE, PAGE_SIZE, huge_use);
    uintptr_t base = r->base;
    memset((void *)base, 0x22, 9 * CHUNK_SIZE);
    assert_true(pool_resize_huge(&pool_default, r, 2 * CHUNK_SIZE));
    assert_int_equal(dirty(), 7 * CHUNK_SIZE);
    assert_true(pool_resize_huge(&pool_default, r, 6 * CHUNK_SIZE));
    assert_int_equal(r->base, base);
    assert_int_equal(dirty(), 3 * CHUNK_SIZE);
    assert_int_equal(mapped(), 9 * CHUNK_SIZE);
    assert_int_equal(*(char *)base, 0x22);
    for (size_t i = 0; i < 6 * CHUNK_SIZE; i += CHUNK_SIZE)
        assert_ptr_equal(pool_find((void *)(base + i + 5)), r);
    assert_null(pool_find((void *)(base + 6 * CHUNK_SIZE)));
    give(r);
}

/* No table but that of its start, and yet it is found. */
static void
test_giant_costs_one_word(void **unused)
{
    (void)unused;
    /* qemu keeps a record of each page that is mapped, and valgrind has fewer addresses. */
    bool emulated = (getenv("ALCOVE_TEST_RUN") != NULL && getenv("ALCOVE_TEST_RUN")[0] != 0) || getenv("ALCOVE_TEST_VALGRIND") != NULL;
    const size_t bytes = (size_t)1 << (emulated ? 34 : ALCOVE_LG_VADDR < 47 ? ALCOVE_LG_VADDR - 3 : 43);
    struct run *other = take(1);
    unsigned before = leaves();
    struct run *r = pool_take_huge(&pool_default, bytes, PAGE_SIZE, huge_use);
    assert_non_null(r);
    assert_true(leaves() <= before + 1);
    assert_ptr_equal(pool_find((void *)(r->base + bytes - 1)), r);
    assert_ptr_equal(pool_find((void *)(r->base + bytes / 2)), r);
    assert_ptr_not_equal(pool_find((void *)(r->base + bytes)), r);
    *(char *)r->base = 1;
    assert_true(pool_resize_huge(&pool_default, r, CHUNK_SIZE * 3 / 2));
    assert_ptr_equal(pool_find((void *)(r->base + CHUNK_SIZE)), r);
    assert_null(pool_find((void *)(r->base + bytes / 2)));
    assert_int_equal(*(char *)r->base, 1);
    give(r);
    /* Two of them, side by side perhaps, with tables for their starts only. */
    r = pool_take_huge(&pool_default, (size_t)8 << 30, PAGE_SIZE, huge_use);
    struct run *next = pool_take_huge(&pool_default, (size_t)2 << 30, PAGE_SIZE, huge_use);
    give(next);
    give(r);
    give(other);
    pool_purge();
    assert_true(mapped() <= CHUNK_SIZE);
}

/* What hooks may keep of their memory: the pieces that they were told of, each named whole by whoever splits, joins or releases it. */
enum { PIECES_MOST = 400 };
static struct piece {
    uintptr_t base;
    size_t size;
} pieces[PIECES_MOST];
static unsigned piece_count;

static struct piece *
piece_of(uintptr_t base, size_t size)
{
    for (struct piece *p = pieces; p < pieces + piece_count; p++)
        if (p->base == base && p->size == size)
            return p;
    fail_msg("%zu bytes at %p are no piece of the hooks'", size, (void *)base);
    return NULL;
}

static void
piece_add(const void *address, size_t size)
{
    assert_true(piece_count < PIECES_MOST);
    pieces[piece_count++] = (struct piece){ (uintptr_t)address, size };
}

static void
piece_remove(const void *address, size_t size)
{
    struct piece *piece = piece_of((uintptr_t)address, size);
    *piece = pieces[--piece_count];
}

static void
check_is_in_one_piece(const void *address, size_t size)
{
    for (const struct piece *p = pieces; p < pieces + piece_count; p++)
        if ((uintptr_t)address - p->base < p->size && size <= p->size - ((uintptr_t)address - p->base))
            return;
    fail_msg("%zu bytes at %p lie in no piece of the hooks'", size, address);
}

/* Memory from hooks that refuse every now and then. */
static struct {
    unsigned calls, refuse_at;
    bool keeping; /* what was reserved is not taken back */
    size_t reserved, most; /* 0: any number */
} hooks_seen;

static bool
refuses(void)
{
    return ++hooks_seen.calls == hooks_seen.refuse_at;
}

static void *
test_reserve(void *unused, size_t size, size_t alignment)
{
    (void)unused;
    bool too_much = hooks_seen.most != 0 && hooks_seen.reserved + size > hooks_seen.most;
    void *p = refuses() || too_much ? NULL : os_map(size, alignment);
    if (p == NULL)
        return NULL;
    hooks_seen.reserved += size;
    piece_add(p, size);
    return p;
}

static bool
test_reserve_at(void *unused, void *address, size_t size)
{
    (void)unused;
    if (refuses() || !os_map_at(address, size))
        return false;
    hooks_seen.reserved += size;
    piece_add(address, size);
    return true;
}

static bool
test_unmap(void *unused, void *address, size_t size)
{
    (void)unused;
    piece_of((uintptr_t)address, size);
    if (refuses() || hooks_seen.keeping || !os_unmap(address, size))
        return false;
    hooks_seen.reserved -= size;
    piece_remove(address, size);
    return true;
}

static bool
test_commit(void *unused, void *address, size_t size)
{
    (void)unused;
    check_is_in_one_piece(address, size);
    return !refuses();
}

static bool
test_purge(void *unused, void *address, size_t size)
{
    (void)unused;
    check_is_in_one_piece(address, size);
    if (refuses())
        return false;
    os_purge(address, size);
    return true;
}

static bool
purge_nothing(void *unused, void *address, size_t size)
{
    (void)unused, (void)address, (void)size;
    return false;
}

static bool
test_split(void *unused, void *address, size_t size, size_t first)
{
    (void)unused;
    struct piece *piece = piece_of((uintptr_t)address, size);
    assert_true(first > 0 && first < size);
    if (refuses())
        return false;
    piece->size = first;
    piece_add((char *)address + first, size - first);
    return true;
}

static bool
test_merge(void *unused, void *first, size_t first_size, void *second, size_t second_size)
{
    (void)unused;
    struct piece *piece = piece_of((uintptr_t)first, first_size);
    assert_ptr_equal((char *)first + first_size, second);
    piece_of((uintptr_t)second, second_size);
    if (refuses())
        return false;
    piece->size += second_size;
    piece_remove(second, second_size);
    return true;
}

static const struct pool_hooks test_hooks = {
    .reserve = test_reserve, .reserve_at = test_reserve_at, .release = test_unmap, .commit = test_commit,
    .purge = test_purge, .split = test_split, .merge = test_merge,
};

static struct pool hooked;

static void
make_hooked(const struct pool_hooks *hooks)
{
    memset(&hooked, 0, sizeof hooked);
    memset(&hooks_seen, 0, sizeof hooks_seen);
    piece_count = 0;
    pool_make(&hooked, hooks, NULL, -1);
}

/* A short life of a pool whose hooks refuse one call; every block that was had keeps what was written to it. */
static void
hooked_life(void)
{
    struct run *r[24] = { 0 };
    for (int i = 0; i < 24; i++) {
        r[i] = i % 3 == 0 ? pool_take_huge(&hooked, (1 + (size_t)i % 5) * CHUNK_SIZE - (size_t)i * PAGE_SIZE, PAGE_SIZE, huge_use)
                          : pool_take(&hooked, CHUNK_PAGES / 3 + (size_t)i, PAGE_SIZE, large_use);
        if (r[i] != NULL)
            memset((void *)r[i]->base, i + 1, r[i]->pages << PAGE_LG);
        if (i % 4 == 3 && r[i - 3] != NULL) {
            r[i - 3]->next = NULL;
            pool_give(&hooked, r[i - 3]);
            r[i - 3] = NULL;
        }
        if (r[i] != NULL && r[i]->kind == RUN_HUGE)
            pool_resize_huge(&hooked, r[i], (i % 2 == 0 ? 1 : 7) * CHUNK_SIZE - (size_t)(i % 4) * PAGE_SIZE);
        if (i % 8 == 7)
            pool_purge();
        for (int k = 0; k <= i; k++)
            if (r[k] != NULL && (((char *)r[k]->base)[0] != k + 1 || ((char *)r[k]->base)[CHUNK_SIZE / 4] != k + 1))
                fail_msg("run %d lost its contents", k);
    }
    for (int i = 0; i < 24; i++) {
        if (r[i] != NULL) {
            r[i]->next = NULL;
            pool_give(&hooked, r[i]);
        }
    }
    pool_purge();
    pool_purge(); /* what was refused is tried again */
    assert_true(hooked.mapped <= CHUNK_SIZE);
    assert_int_equal(hooked.mapped, hooks_seen.reserved);
    assert_int_equal(pool_dirty(&hooked), 0);
}

static void
test_hook_that_refuses_loses_nothing(void **unused)
{
    (void)unused;
    unsigned last = 1;
    for (unsigned at = 0; at <= last; at++) {
        make_hooked(&test_hooks);
        hooks_seen.refuse_at = at;
        hooked_life();
        last = at == 0 ? hooks_seen.calls : last;
        hooks_seen.refuse_at = 0;
        pool_end(&hooked);
        assert_int_equal(hooked.mapped, 0);
        assert_int_equal(hooks_seen.reserved, 0);
    }
    assert_true(last > 50);
}

/* Cut out of a free giant, of which the first chunk alone has a word: what is left on both sides is known whole. */
static void
test_all_that_is_left_of_a_giant_is_known(void **unused)
{
    (void)unused;
    if (in_emulator() || getenv("ALCOVE_TEST_VALGRIND") != NULL)
        skip();
    make_hooked(&test_hooks);
    size_t bytes = (GIANT_PAGES << PAGE_LG) + 64 * CHUNK_SIZE, alignment = 4 * CHUNK_SIZE;
    struct run *r = pool_take_huge(&hooked, bytes, PAGE_SIZE, huge_use);
    assert_non_null(r);
    uintptr_t base = r->base;
    hooks_seen.keeping = true;
    r->next = NULL;
    pool_give(&hooked, r);
    while ((-base & (alignment - 1)) < 3 * CHUNK_SIZE)
        alignment *= 2;
    r = (-base & (alignment - 1)) < bytes / 2 ? pool_take_huge(&hooked, 5 * CHUNK_SIZE, alignment, huge_use) : NULL;
    if (r != NULL) {
        assert_true(r->base > base && r->base < base + bytes);
        for (size_t at = 0; at < bytes; at += CHUNK_SIZE)
            assert_true(pool_holds((void *)(base + at)));
        r->next = NULL;
        pool_give(&hooked, r);
    }
    hooks_seen.keeping = false;
    pool_purge();
    pool_end(&hooked);
    assert_int_equal(hooks_seen.reserved, 0);
}

/* A pool of other memory that is still there when the allocator goes: that memory stays as it is. */
static void
go_with_hooked_pool(void (*go)(void))
{
    struct run *r[8], *system = take(1);
    uintptr_t bases[8], of_system = system->base;
    unsigned char residency;
    make_hooked(&test_hooks);
    for (int i = 0; i < 8; i++) {
        r[i] = i % 4 == 3 ? pool_take_huge(&hooked, 2 * CHUNK_SIZE, PAGE_SIZE, huge_use)
                          : pool_take(&hooked, CHUNK_PAGES / 4, PAGE_SIZE, slab_use);
        bases[i] = r[i]->base;
        *(int *)bases[i] = i;
    }
    for (int i = 0; i < 8; i += i == 1 ? 6 : 1) { /* the first two, and the last, which is huge */
        r[i]->next = NULL;
        pool_give(&hooked, r[i]);
    }
    give(system);
    size_t reserved = hooks_seen.reserved;
    go();
    CHECK(hooks_seen.reserved == reserved);
    CHECK(mincore((void *)of_system, 1, &residency) != 0);
    for (int i = 0; i < 8; i++) {
        CHECK(mincore((void *)bases[i], 1, &residency) == 0);
        CHECK(*(int *)bases[i] == i);
        CHECK(word_at(bases[i]) == 0);
    }
    for (int i = 0; i < 8; i++)
        munmap((void *)(bases[i] & ~CHUNK_MASK), i % 4 == 3 ? 2 * CHUNK_SIZE : CHUNK_SIZE);
}

static void
release_with_hooked_pool(void)
{
    go_with_hooked_pool(pool_release);
}

static void
leave_with_hooked_pool(void)
{
    go_with_hooked_pool(pool_leave);
}

static void
test_memory_of_hooks_stays_when_the_allocator_goes(void **unused)
{
    (void)unused;
    in_child(release_with_hooked_pool);
    in_child(leave_with_hooked_pool);
}

/* Memory of which only what is committed can be touched, and whose hooks refuse some of it. */
static bool
reserve_closed_at(void *unused, void *address, size_t size)
{
    return test_reserve_at(unused, address, size) && mprotect(address, size, PROT_NONE) == 0;
}

static void *
reserve_closed(void *unused, size_t size, size_t alignment)
{
    void *p = test_reserve(unused, size, alignment);
    return p != NULL && mprotect(p, size, PROT_NONE) == 0 ? p : NULL;
}

static bool
commit_closed(void *unused, void *address, size_t size)
{
    (void)unused;
    return ++hooks_seen.calls % 7 != 0 && mprotect(address, size, PROT_READ | PROT_WRITE) == 0;
}

static bool
purge_closed(void *unused, void *address, size_t size)
{
    (void)unused;
    return os_purge(address, size) && mprotect(address, size, PROT_NONE) == 0;
}

/* Write to every page that a run has, and see that what was there before is. */
static void
use_pages(const struct run *r, size_t old, unsigned value)
{
    for (size_t i = 0; i < r->pages; i++) {
        unsigned *word = (unsigned *)(r->base + (i << PAGE_LG));
        assert_true(i < old ? *word == value : !r->zeroed || old != 0 || *word == 0);
        *word = value;
    }
}

static void
test_pages_are_committed_before_they_are_used(void **unused)
{
    (void)unused;
    enum { RUNS = 12 };
    struct pool_hooks hooks = test_hooks;
    struct run *r[RUNS] = { 0 };
    hooks.reserve = reserve_closed;
    hooks.reserve_at = reserve_closed_at;
    hooks.commit = commit_closed;
    hooks.purge = purge_closed;
    make_hooked(&hooks);
    srand(7);
    for (unsigned round = 0; round < 1500; round++) {
        unsigned i = (unsigned)rand() % RUNS;
        bool huge = i % 4 == 0;
        size_t pages = 1 + (size_t)rand() % (huge ? 3 * CHUNK_PAGES : CHUNK_PAGES / 2), old = 0;
        if (r[i] != NULL && rand() % 3 == 0) {
            r[i]->next = NULL;
            pool_give(&hooked, r[i]);
            r[i] = NULL;
        } else if (r[i] != NULL) {
            old = r[i]->pages;
            if (huge)
                pool_resize_huge(&hooked, r[i], pages << PAGE_LG);
            else
                pool_resize(&hooked, r[i], pages, 0);
        } else {
            r[i] = huge ? pool_take_huge(&hooked, pages << PAGE_LG, PAGE_SIZE, huge_use)
                        : pool_take(&hooked, pages, PAGE_SIZE, large_use);
        }
        if (r[i] != NULL)
            use_pages(r[i], old, i + 1);
        if (rand() % 4 == 0)
            pool_purge_some(&hooked, 1 + (size_t)rand() % CHUNK_PAGES);
    }
    for (unsigned i = 0; i < RUNS; i++) {
        if (r[i] != NULL) {
            use_pages(r[i], r[i]->pages, i + 1);
            r[i]->next = NULL;
            pool_give(&hooked, r[i]);
        }
    }
    pool_end(&hooked);
    assert_int_equal(hooked.mapped, 0);
}

/* Whatever its hooks refuse, at the end or before: nothing of it is known any more. */
static void
test_pool_that_ended_has_left_nothing(void **unused)
{
    (void)unused;
    struct pool_hooks hooks = test_hooks;
    size_t records = 0;
    for (unsigned round = 0; round < 300; round++) {
        struct run *r[30];
        uintptr_t bases[30];
        hooks.purge = round % 3 != 0 ? test_purge : purge_nothing;
        make_hooked(&hooks);
        for (unsigned i = 0; i < 30; i++) {
            r[i] = i % 6 == 5 ? pool_take_huge(&hooked, 2 * CHUNK_SIZE, PAGE_SIZE, huge_use)
                              : pool_take(&hooked, CHUNK_PAGES / 3, PAGE_SIZE, slab_use);
            bases[i] = r[i]->base;
        }
        hooks_seen.keeping = round % 2 != 0;
        for (unsigned i = 0; i < 30; i++) {
            r[i]->next = NULL;
            pool_give(&hooked, r[i]);
        }
        uintptr_t kept_chunks = hooks_seen.reserved;
        pool_end(&hooked);
        assert_int_equal(hooked.mapped, 0);
        assert_int_equal(hooks_seen.reserved, hooks_seen.keeping ? kept_chunks : 0);
        for (unsigned i = 0; i < 30; i++) {
            for (size_t page = 0; page < CHUNK_PAGES; page++)
                assert_int_equal(word_at((bases[i] & ~CHUNK_MASK) + (page << PAGE_LG)), 0);
            if (hooks_seen.keeping) /* what the hooks have now */
                munmap((void *)(bases[i] & ~CHUNK_MASK), i % 6 == 5 ? 2 * CHUNK_SIZE : CHUNK_SIZE);
        }
        if (round == 10)
            records = base_bytes();
    }
    assert_int_equal(base_bytes(), records);
}

/* The chunk that is kept for what comes next too. */
static void
test_nothing_that_is_kept_stands_in_the_way(void **unused)
{
    (void)unused;
    make_hooked(&test_hooks);
    hooks_seen.most = 3 * CHUNK_SIZE;
    struct run *r = pool_take(&hooked, 1, PAGE_SIZE, slab_use);
    r->next = NULL;
    pool_give(&hooked, r);
    pool_purge();
    assert_int_equal(hooked.mapped, CHUNK_SIZE);
    r = pool_take_huge(&hooked, 3 * CHUNK_SIZE, PAGE_SIZE, huge_use);
    assert_non_null(r);
    assert_null(pool_take_huge(&hooked, CHUNK_SIZE, PAGE_SIZE, huge_use));
    r->next = NULL;
    pool_give(&hooked, r);
    pool_end(&hooked);
    assert_int_equal(hooks_seen.reserved, 0);
}

/* Chunks that each stay a span of their own, of which the hooks keep some. */
#define SPANS 100u
static uintptr_t kept[SPANS];
static unsigned kept_count, offers;

static bool
unmap_some(void *unused, void *address, size_t size)
{
    offers++;
    for (unsigned i = 0; i < kept_count; i++)
        if (kept[i] == (uintptr_t)address)
            return false;
    return test_unmap(unused, address, size);
}

static bool
merge_never(void *unused, void *first, size_t first_size, void *second, size_t second_size)
{
    (void)unused, (void)first, (void)first_size, (void)second, (void)second_size;
    return false;
}

static void
test_span_that_is_refused_stands_in_no_others_way(void **unused)
{
    (void)unused;
    struct pool_hooks hooks = test_hooks;
    struct run *r[SPANS];
    hooks.release = unmap_some;
    hooks.merge = merge_never;
    make_hooked(&hooks);
    for (unsigned i = 0; i < SPANS; i++)
        assert_non_null(r[i] = pool_take(&hooked, CHUNK_PAGES, PAGE_SIZE, large_use));
    for (unsigned i = 0; i < SPANS; i++) {
        if (i % 5 != 4)
            kept[kept_count++] = r[i]->base;
        r[i]->next = i + 1 < SPANS ? r[i + 1] : NULL;
    }
    pool_give(&hooked, r[0]);
    pool_purge();
    unsigned first = offers, turns = 1;
    for (; hooked.mapped > kept_count * CHUNK_SIZE; turns++) {
        offers = 0;
        pool_purge();
        assert_true(offers < SPANS / 2); /* a turn takes no long time */
        assert_true(turns < SPANS);
    }
    assert_true(first > 1);
    kept_count = 2;
    while (hooked.mapped > 3 * CHUNK_SIZE)
        pool_purge();
    offers = 0;
    pool_purge();
    assert_true(offers <= 3); /* nobody is asked twice */
    kept_count = 0;
    pool_end(&hooked);
    assert_int_equal(hooks_seen.reserved, 0);
}

/* It is no block's any more, but the pool's still, and used again: as a whole, then in parts. */
static void
test_giant_that_cannot_be_given_back_costs_one_word(void **unused)
{
    (void)unused;
    const size_t bytes = (size_t)6 << 30;
    memset(&hooked, 0, sizeof hooked);
    pool_make(&hooked, &test_hooks, NULL, -1);
    struct run *r = pool_take_huge(&hooked, bytes, PAGE_SIZE, huge_use), *part;
    uintptr_t base = r->base;
    unsigned before = leaves();
    hooks_seen.keeping = true;
    for (int round = 0; round < 2; round++) {
        r->next = NULL;
        pool_give(&hooked, r);
        pool_purge();
        assert_int_equal(leaves(), before);
        assert_null(pool_find((void *)base));
        assert_true(pool_holds((void *)base) && pool_holds((void *)(base + bytes / 2)));
        assert_int_equal(hooked.mapped, bytes);
        r = pool_take_huge(&hooked, round == 0 ? bytes : bytes - GIANT_BYTES, PAGE_SIZE, huge_use);
        assert_int_equal(r->base, base);
        assert_ptr_equal(pool_find((void *)(base + bytes / 2)), r);
    }
    part = pool_take_huge(&hooked, CHUNK_SIZE, PAGE_SIZE, huge_use);
    assert_int_equal(part->base, end_of(r));
    for (size_t i = 1; i < GIANT_BYTES / CHUNK_SIZE; i++)
        assert_true(pool_holds((void *)(part->base + i * CHUNK_SIZE)));
    assert_false(pool_holds((void *)(base + bytes)));
    hooks_seen.keeping = false;
    r->next = part;
    part->next = NULL;
    pool_give(&hooked, r);
    pool_purge();
    pool_end(&hooked);
    assert_int_equal(hooked.mapped, 0);
    assert_false(pool_holds((void *)base) || pool_holds((void *)(base + bytes / 2)));
}

/* A fork while pages are being purged, which is without a lock. */
static pthread_barrier_t in_purge, forked;
static pid_t child_of_purge = -1;

static bool
purge_and_wait(void *unused, void *address, size_t size)
{
    static bool waited;
    (void)unused;
    if (!waited) {
        waited = true;
        pthread_barrier_wait(&in_purge);
        pthread_barrier_wait(&forked);
    }
    return os_purge(address, size);
}

static bool
purge_and_fork(void *unused, void *address, size_t size)
{
    (void)unused;
    if (child_of_purge == -1) {
        CHECK((child_of_purge = fork()) != -1);
        alarm(CHILD_SECONDS); /* which a child does not have from its parent */
    }
    return os_purge(address, size);
}

static struct run *last_of_dirty_pool;

static void
make_dirty_pool(bool (*purge)(void *context, void *address, size_t size))
{
    static struct pool_hooks hooks;
    hooks = test_hooks;
    hooks.purge = purge;
    make_hooked(&hooks);
    struct run *r[6];
    for (int i = 0; i < 6; i++) {
        r[i] = i % 2 == 0 ? pool_take_huge(&hooked, (1 + (size_t)i) * CHUNK_SIZE, PAGE_SIZE, huge_use)
                          : pool_take(&hooked, CHUNK_PAGES / 2, PAGE_SIZE, large_use);
        CHECK(r[i] != NULL);
    }
    for (int i = 0; i < 5; i++) { /* the last one stays */
        r[i]->next = NULL;
        pool_give(&hooked, r[i]);
    }
    last_of_dirty_pool = r[5];
}

static void
check_all_can_be_purged(void)
{
    pool_purge();
    CHECK(hooked.purging == NULL && hooked.free.dirty == 0 && hooked.free.dirty_ages.oldest == NULL);
    CHECK(hooked.mapped <= 2 * CHUNK_SIZE); /* that of the last one, and a spare one */
    CHECK(hooked.mapped == hooks_seen.reserved);
    struct run *r = pool_take_huge(&hooked, 9 * CHUNK_SIZE, PAGE_SIZE, huge_use);
    CHECK(r != NULL);
    memset((void *)r->base, 1, 9 * CHUNK_SIZE);
    r->next = NULL;
    pool_give(&hooked, r);
    pool_purge();
    CHECK(hooked.mapped <= 2 * CHUNK_SIZE);
}

static void *
purge_pools(void *unused)
{
    pool_purge();
    return unused;
}

static void
wait_for_child(pid_t child)
{
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

static void
fork_while_another_thread_purges(void)
{
    pthread_t thread;
    pthread_barrier_init(&in_purge, NULL, 2);
    pthread_barrier_init(&forked, NULL, 2);
    make_dirty_pool(purge_and_wait);
    CHECK(pthread_create(&thread, NULL, purge_pools, NULL) == 0);
    pthread_barrier_wait(&in_purge);
    CHECK(hooked.purging != NULL);
    pid_t child = fork();
    if (child == 0) {
        alarm(CHILD_SECONDS);
        check_all_can_be_purged();
        _exit(0);
    }
    pthread_barrier_wait(&forked);
    pthread_join(thread, NULL);
    check_all_can_be_purged();
    wait_for_child(child);
}

static void
test_child_finds_what_another_thread_was_purging(void **unused)
{
    (void)unused;
    in_child(fork_while_another_thread_purges);
}

/* Pools come and go while others are purged: who ends one waits for who is at it. */
static _Atomic bool ended;

static void *
end_hooked_pool(void *unused)
{
    pool_end(&hooked);
    atomic_store(&ended, true);
    return unused;
}

static void
end_while_another_thread_purges(void)
{
    pthread_t purger, ender;
    pthread_barrier_init(&in_purge, NULL, 2);
    pthread_barrier_init(&forked, NULL, 2);
    make_dirty_pool(purge_and_wait);
    last_of_dirty_pool->next = NULL;
    pool_give(&hooked, last_of_dirty_pool);
    CHECK(pthread_create(&purger, NULL, purge_pools, NULL) == 0);
    pthread_barrier_wait(&in_purge);
    CHECK(pthread_create(&ender, NULL, end_hooked_pool, NULL) == 0);
    usleep(50000);
    CHECK(!atomic_load(&ended));
    struct pool_figures figures;
    pool_figures_get(&figures); /* waits for nobody */
    CHECK(figures.mapped == hooked.mapped);
    pthread_barrier_wait(&forked);
    pthread_join(purger, NULL);
    pthread_join(ender, NULL);
    CHECK(hooked.mapped == 0 && hooks_seen.reserved == 0);
}

static void
test_pool_ends_when_nobody_purges_it(void **unused)
{
    (void)unused;
    in_child(end_while_another_thread_purges);
}

/* As a signal handler does: parent and child go on with what they were at. */
static void
fork_while_this_thread_purges(void)
{
    make_dirty_pool(purge_and_fork);
    check_all_can_be_purged();
    CHECK(child_of_purge != -1);
    if (child_of_purge != 0)
        wait_for_child(child_of_purge);
}

static void
test_child_goes_on_with_what_its_thread_was_purging(void **unused)
{
    (void)unused;
    in_child(fork_while_this_thread_purges);
}

static void
test_release_unmaps_everything(void **unused)
{
    (void)unused;
    struct run *r = take(3);
    uintptr_t base = r->base;
    unsigned char residency;
    pool_release();
    assert_int_equal(mapped(), 0);
    assert_int_not_equal(mincore((void *)base, 1, &residency), 0);
    assert_null(pool_find((void *)base));
}

/* Takes, gives, resizes and purges in a random order; the chunks are walked now and then. */
static void
test_random_operations_keep_the_chunks_in_order(void **unused)
{
    (void)unused;
    enum { RUNS = 200, LONG = CHUNK_PAGES < 300 ? CHUNK_PAGES : 300 };
    struct run *runs[RUNS] = { 0 };
    srand(42);
    for (int round = 0; round < 30000; round++) {
        int i = rand() % RUNS;
        if (runs[i] == NULL) {
            size_t alignment = rand() % 4 == 0 ? PAGE_SIZE << rand() % 6 : PAGE_SIZE;
            runs[i] = pool_take(&pool_default, 1 + (size_t)rand() % (rand() % 8 == 0 ? LONG : 20), alignment, large_use);
            assert_int_equal(runs[i]->base & (alignment - 1), 0);
            *(int *)runs[i]->base = i;
        } else if (rand() % 3 == 0) {
            pool_resize(&pool_default, runs[i], 1 + (size_t)rand() % (2 * runs[i]->pages), 80);
        } else {
            assert_int_equal(*(int *)runs[i]->base, i);
            give(runs[i]);
            runs[i] = NULL;
        }
        if (rand() % 1000 == 0)
            pool_purge();
        if (round % 100 == 0) {
            for (i = 0; i < RUNS; i++)
                if (runs[i] != NULL)
                    check_chunk(chunk_of(runs[i]));
        }
    }
    for (int i = 0; i < RUNS; i++)
        if (runs[i] != NULL)
            give(runs[i]);
    pool_purge();
    assert_true(mapped() <= CHUNK_SIZE);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        fresh_test(test_run_starts_on_a_page_and_is_entered_at_each),
        fresh_test(test_large_run_tells_its_bin_only_at_its_start),
        fresh_test(test_word_names_another_bin_than_the_run_has),
        fresh_test(test_new_run_reads_as_zero_and_says_so),
        fresh_test(test_used_run_does_not_say_it_is_zero),
        fresh_test(test_alignment_up_to_a_chunk),
        fresh_test(test_runs_do_not_overlap),
        fresh_test(test_run_of_a_whole_chunk),
        fresh_test(test_free_run_joins_both_neighbours),
        fresh_test(test_free_run_is_split_and_the_rest_can_be_taken),
        fresh_test(test_addresses_inside_of_a_free_run_are_nobodys),
        fresh_test(test_dirty_pages_are_used_before_clean_ones),
        fresh_test(test_shortest_run_that_is_long_enough_is_used),
        fresh_test(test_given_run_is_no_longer_found),
        fresh_test(test_list_of_runs_is_given_at_once),
        fresh_test(test_large_run_shrinks_in_place_and_gives_the_tail),
        fresh_test(test_large_run_grows_in_place_into_dirty_and_clean_pages),
        fresh_test(test_contents_stay_when_a_run_is_resized_in_place),
        fresh_test(test_large_run_does_not_grow_over_its_neighbour),
        fresh_test(test_large_run_does_not_grow_beyond_its_chunk),
        fresh_test(test_shrunk_tail_is_purged_at_once_if_nothing_may_stay),
        fresh_test(test_purged_pages_read_as_zero),
        fresh_test(test_purged_runs_join),
        fresh_test(test_nothing_stays_dirty_if_decay_is_at_once),
        fresh_test(test_tick_purges_the_oldest_first),
        fresh_test(test_chunks_go_back_to_the_system),
        fresh_test(test_addresses_of_a_returned_chunk_have_no_entry),
        fresh_test(test_huge_run_has_chunks_of_its_own),
        fresh_test(test_huge_alignment_beyond_a_chunk),
        fresh_test(test_given_huge_run_is_dirty_and_goes_with_a_purge),
        fresh_test(test_huge_run_grows_and_keeps_its_contents),
        fresh_test(test_huge_run_moves_when_it_cannot_grow_in_place),
        fresh_test(test_huge_run_moves_again_and_again),
        fresh_test(test_huge_run_that_moves_leaves_nothing),
        fresh_test(test_huge_run_of_two_mappings_stays),
        fresh_test(test_pages_behind_a_huge_run_are_dirty),
        fresh_test(test_pages_behind_huge_runs_decay),
        fresh_test(test_huge_run_shrinks_in_place),
        fresh_test(test_impossible_sizes_are_refused_and_cost_nothing),
        fresh_test(test_impossible_growth_makes_no_tables),
        fresh_test(test_huge_runs_are_cut_from_dirty_spans_and_joined_again),
        fresh_test(test_each_chunk_of_a_free_span_is_the_pools),
        fresh_test(test_chunks_and_spans_serve_each_other),
        fresh_test(test_huge_run_grows_into_a_free_neighbour),
        fresh_test(test_giant_costs_one_word),
        fresh_test(test_hook_that_refuses_loses_nothing),
        fresh_test(test_all_that_is_left_of_a_giant_is_known),
        fresh_test(test_memory_of_hooks_stays_when_the_allocator_goes),
        fresh_test(test_pages_are_committed_before_they_are_used),
        fresh_test(test_pool_that_ended_has_left_nothing),
        fresh_test(test_nothing_that_is_kept_stands_in_the_way),
        fresh_test(test_span_that_is_refused_stands_in_no_others_way),
        fresh_test(test_giant_that_cannot_be_given_back_costs_one_word),
        fresh_test(test_child_finds_what_another_thread_was_purging),
        fresh_test(test_pool_ends_when_nobody_purges_it),
        fresh_test(test_child_goes_on_with_what_its_thread_was_purging),
        fresh_test(test_release_unmaps_everything),
        fresh_test(test_random_operations_keep_the_chunks_in_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
