/* Slabs: blocks are taken and given; what cannot be free is reported and changes nothing. */
#include "unit.h"

#include "ground/misuse.h"
#include "heap/heap.h"
#include "heap/slab.h"

#define BIN_64 4
#define MANY 4096

/* Where a slab is one or two pages there is nothing to see. */
#define SKIP_WITH_LARGE_PAGES()                                                    \
    do {                                                                           \
        if (PAGE_LG > 12) {                                                        \
            print_message("# skipped: a slab has several pages only of 4 KiB\n"); \
            skip();                                                                \
        }                                                                          \
    } while (0)

static struct heap *
heap_new(uint64_t limit)
{
    struct alcove_heap_options options = { .limit = limit, .name = "tested" };
    uint32_t index;
    assert_int_equal(heap_create(&options, &index), 0);
    return heap_of(index);
}

static void *
take(struct heap *h, unsigned bin)
{
    void *block;
    assert_int_equal(slab_take(h, bin, &block, 1), 1);
    return block;
}

static void
give(struct heap *h, unsigned bin, void *block)
{
    slab_give(h, bin, &block, 1);
    misuse_tell();
}

static unsigned
blocks_of_slab(unsigned bin)
{
    size_t blocks = (size_t)bin_slab_pages(bin) * PAGE_SIZE / bin_size(bin);
    return (unsigned)(blocks < SLAB_MAX_BLOCKS ? blocks : SLAB_MAX_BLOCKS);
}

static void
test_blocks_of_every_bin_are_apart_and_in_their_slab(void **unused)
{
    (void)unused;
    struct heap *h = heap_new(0);
    static void *blocks[MANY];
    for (unsigned bin = 1; bin <= SMALL_BINS; bin++) {
        unsigned n = blocks_of_slab(bin);
        for (unsigned i = 0; i < n; i++) {
            blocks[i] = take(h, bin);
            struct run *slab = pool_find(blocks[i]);
            assert_non_null(slab);
            assert_int_equal(slab->bin, bin);
            assert_int_equal(slab->heap, h->index);
            assert_true((uintptr_t)blocks[i] + bin_size(bin) <= slab->base + slab->pages * PAGE_SIZE);
            assert_int_equal((uintptr_t)blocks[i] % QUANTUM, 0);
            memset(blocks[i], (int)i, bin_size(bin));
        }
        for (unsigned i = 0; i < n; i++) {
            assert_int_equal(*(unsigned char *)blocks[i], i & 255);
            assert_int_equal(((unsigned char *)blocks[i])[bin_size(bin) - 1], i & 255);
        }
    }
}

static void
test_batch_pops_in_ascending_addresses(void **unused)
{
    (void)unused;
    void *blocks[20];
    assert_int_equal(slab_take(heap_new(0), BIN_64, blocks, 20), 20);
    for (int i = 1; i < 20; i++)
        assert_ptr_equal((char *)blocks[i - 1] - 64, blocks[i]);
}

static void
test_lowest_address_is_taken_first(void **unused)
{
    (void)unused;
    struct heap *h = heap_new(0);
    void *blocks[10];
    for (int i = 0; i < 10; i++)
        blocks[i] = take(h, BIN_64);
    give(h, BIN_64, blocks[7]);
    give(h, BIN_64, blocks[2]);
    give(h, BIN_64, blocks[5]);
    assert_ptr_equal(take(h, BIN_64), blocks[2]);
    assert_ptr_equal(take(h, BIN_64), blocks[5]);
    assert_ptr_equal(take(h, BIN_64), blocks[7]);
}

static void
test_full_slab_is_followed_by_another_and_used_again_after_a_give(void **unused)
{
    (void)unused;
    struct heap *h = heap_new(0);
    unsigned n = blocks_of_slab(BIN_64);
    void *first = take(h, BIN_64), *last = NULL;
    for (unsigned i = 1; i < n; i++)
        last = take(h, BIN_64);
    struct run *slab = pool_find(first);
    assert_ptr_equal(pool_find(last), slab);
    assert_int_equal(slab->free, 0);
    assert_ptr_equal(h->bins[BIN_64].full, slab);
    void *other = take(h, BIN_64);
    assert_ptr_not_equal(pool_find(other), slab);
    assert_int_equal(h->bins[BIN_64].slabs, 2);
    give(h, BIN_64, last);
    assert_null(h->bins[BIN_64].full);
    assert_int_equal(slab->free, 1);
    /* Before there is a third one, whichever of the two comes first. */
    bool again = false;
    for (unsigned i = 0; i < n; i++)
        again |= take(h, BIN_64) == last;
    assert_true(again);
    assert_int_equal(h->bins[BIN_64].slabs, 2);
}

static void
test_batch_goes_on_in_the_next_partial_slab(void **unused)
{
    (void)unused;
    struct heap *h = heap_new(0);
    static void *blocks[MANY];
    unsigned n = blocks_of_slab(BIN_64);
    for (unsigned i = 0; i < 2 * n; i++)
        blocks[i] = take(h, BIN_64);
    for (unsigned i = n - 3; i < n + 3; i++)
        give(h, BIN_64, blocks[i]);
    void *again[6];
    assert_int_equal(slab_take(h, BIN_64, again, 6), 6);
    assert_int_equal(h->bins[BIN_64].slabs, 2);
}

static void
test_batch_does_not_start_a_slab_for_what_is_missing(void **unused)
{
    (void)unused;
    struct heap *h = heap_new(0);
    unsigned n = blocks_of_slab(BIN_64);
    for (unsigned i = 0; i < n - 3; i++)
        take(h, BIN_64);
    void *blocks[10];
    assert_int_equal(slab_take(h, BIN_64, blocks, 10), 3);
    for (int i = 0; i < 3; i++)
        assert_non_null(pool_find(blocks[i]));
    assert_int_equal(h->bins[BIN_64].slabs, 1);
}

static void
test_empty_slab_goes_back_to_the_pool(void **unused)
{
    (void)unused;
    struct heap *h = heap_new(0);
    void *a = take(h, BIN_64), *b = take(h, BIN_64);
    assert_true(atomic_load(&h->active) > 0);
    give(h, BIN_64, a);
    assert_non_null(pool_find(b));
    give(h, BIN_64, b);
    assert_null(pool_find(b));
    assert_int_equal(atomic_load(&h->active), 0);
    assert_int_equal(h->bins[BIN_64].slabs, 0);
    assert_int_equal(h->bins[BIN_64].out, 0);
}

static void
test_batch_may_empty_several_slabs(void **unused)
{
    (void)unused;
    struct heap *h = heap_new(0);
    static void *blocks[MANY];
    unsigned n = 3 * blocks_of_slab(BIN_64);
    for (unsigned i = 0; i < n; i++)
        blocks[i] = take(h, BIN_64);
    slab_give(h, BIN_64, blocks, n);
    assert_int_equal(atomic_load(&h->active), 0);
    assert_int_equal(h->bins[BIN_64].slabs, 0);
    assert_int_equal(message_count, 0);
}

static void
test_block_of_an_address(void **unused)
{
    (void)unused;
    struct heap *h = heap_new(0);
    char *a = take(h, BIN_64), *b = take(h, BIN_64);
    struct run *slab = pool_find(a);
    assert_ptr_equal(slab_block(slab, a), a);
    assert_ptr_equal(slab_block(slab, a + 63), a);
    assert_ptr_equal(slab_block(slab, a + 64), b);
    assert_false(slab_block_is_free(slab, a));
    assert_true(slab_block_is_free(slab, b + 64));
}

static void
test_tail_of_a_slab_is_no_block(void **unused)
{
    (void)unused;
    struct heap *h = heap_new(0);
    unsigned tails = 0;
    for (unsigned bin = 1; bin <= SMALL_BINS; bin++) {
        struct run *slab = pool_find(take(h, bin));
        uintptr_t end = slab->base + slab->pages * PAGE_SIZE, used = slab->base + slab->blocks * bin_size(bin);
        assert_ptr_equal(slab_block(slab, (void *)(used - 1)), (void *)(used - bin_size(bin)));
        if (used == end)
            continue;
        tails++;
        assert_null(slab_block(slab, (void *)used));
        assert_null(slab_block(slab, (void *)(end - 1)));
        give(h, bin, (void *)used);
        assert_int_equal(message_count, tails);
    }
    assert_true(tails > 0);
}

static void
assert_refused(struct heap *h, unsigned bin, void *block, const char *what)
{
    struct run *slab = pool_find(block);
    unsigned free_before = slab != NULL ? slab->free : 0;
    uint64_t out = h->bins[bin].out, active = atomic_load(&h->active);
    char address[32];
    messages_clear();
    give(h, bin, block);
    assert_int_equal(message_count, 1);
    assert_message(what);
    assert_message("heap 'tested'");
    snprintf(address, sizeof address, "%p", block);
    assert_message(address);
    assert_int_equal(h->bins[bin].out, out);
    assert_int_equal(atomic_load(&h->active), active);
    if (slab != NULL)
        assert_int_equal(slab->free, free_before);
}

static void
test_double_free_is_reported(void **unused)
{
    (void)unused;
    struct heap *h = heap_new(0);
    void *keep = take(h, BIN_64), *block = take(h, BIN_64);
    give(h, BIN_64, block);
    assert_refused(h, BIN_64, block, "double free");
    assert_non_null(pool_find(keep));
}

static void
test_double_free_in_one_batch_is_reported(void **unused)
{
    (void)unused;
    struct heap *h = heap_new(0);
    void *block = take(h, BIN_64), *twice[2] = { block, block };
    slab_give(h, BIN_64, twice, 2);
    misuse_tell();
    assert_int_equal(message_count, 1);
    assert_message("double free");
    assert_int_equal(h->bins[BIN_64].out, 0);
    assert_int_equal(atomic_load(&h->active), 0);
}

static void
test_double_free_is_reported_when_its_slab_has_gone(void **unused)
{
    (void)unused;
    struct heap *h = heap_new(0);
    unsigned n = 3 * PAGE_SIZE / 64; /* to the slab's fourth page, which is the end of no free run */
    void *blocks[3 * PAGE_SIZE / 64 + 1], *block;
    for (unsigned i = 0; i <= n; i++)
        blocks[i] = take(h, BIN_64);
    block = blocks[n];
    slab_give(h, BIN_64, blocks, n + 1);
    assert_null(pool_find(block));
    assert_refused(h, BIN_64, block, "double free");
}

static void
test_double_free_is_reported_when_its_pages_have_another_class(void **unused)
{
    (void)unused;
    struct heap *h = heap_new(0);
    void *block = take(h, BIN_64);
    give(h, BIN_64, block);
    void *other = take(h, BIN_64 / 2);
    assert_ptr_equal(other, block);
    assert_refused(h, BIN_64, block, "double free");
    assert_int_equal(h->bins[BIN_64 / 2].out, 1);
}

static void
test_double_free_is_reported_when_its_pages_have_another_heap(void **unused)
{
    (void)unused;
    struct heap *h = heap_new(0), *other = heap_new(0);
    void *block = take(h, BIN_64);
    give(h, BIN_64, block);
    assert_ptr_equal(take(other, BIN_64), block);
    assert_refused(h, BIN_64, block, "double free");
    assert_int_equal(other->bins[BIN_64].out, 1);
}

static void
test_inner_pointer_is_reported(void **unused)
{
    (void)unused;
    struct heap *h = heap_new(0);
    char *block = take(h, BIN_64);
    for (int offset = 16; offset < 64; offset += 16) /* caches take no others */
        assert_refused(h, BIN_64, block + offset, "inside of a block of 64 bytes");
}

static void
test_others_of_a_batch_are_given_though_one_is_refused(void **unused)
{
    (void)unused;
    struct heap *h = heap_new(0);
    void *keep = take(h, BIN_64), *a = take(h, BIN_64), *b = take(h, BIN_64);
    void *batch[3] = { a, (char *)keep + 16, b };
    slab_give(h, BIN_64, batch, 3);
    misuse_tell();
    assert_int_equal(message_count, 1);
    assert_int_equal(h->bins[BIN_64].out, 1);
}

static void
test_sifting_takes_out_what_could_not_be_given_and_gives_nothing(void **unused)
{
    (void)unused;
    struct heap *h = heap_new(0);
    char *a = take(h, BIN_64), *b = take(h, BIN_64), *given = take(h, BIN_64), *c = take(h, BIN_64);
    give(h, BIN_64, given);
    void *blocks[] = { a, b, given, c + 16, a, c, b };
    unsigned free_before = pool_find(a)->free;
    assert_int_equal(slab_sift(h, BIN_64, blocks, 7), 3);
    misuse_tell();
    assert_int_equal(message_count, 4);
    assert_ptr_equal(blocks[0], a);
    assert_ptr_equal(blocks[1], b);
    assert_ptr_equal(blocks[2], c);
    assert_int_equal(pool_find(a)->free, free_before);
    assert_int_equal(h->bins[BIN_64].out, 3);
    slab_give(h, BIN_64, blocks, 3);
    misuse_tell();
    assert_int_equal(message_count, 4);
    assert_int_equal(atomic_load(&h->active), 0);
}

static void
test_many_misuses_at_once_are_told_up_to_a_number(void **unused)
{
    (void)unused;
    enum { TOO_MANY = 40, TOLD = 32 };
    struct heap *h = heap_new(0);
    void *keep = take(h, BIN_64), *blocks[TOO_MANY];
    for (int i = 0; i < TOO_MANY; i++)
        blocks[i] = take(h, BIN_64);
    slab_give(h, BIN_64, blocks, TOO_MANY);
    slab_give(h, BIN_64, blocks, TOO_MANY);
    assert_int_equal(message_count, 0);
    assert_true(misuse_tell());
    assert_int_equal(message_count, TOLD + 1);
    assert_message("and 8 more");
    assert_false(misuse_tell());
    assert_int_equal(message_count, TOLD + 1);
    give(h, BIN_64, keep);
}

static void
test_limit_is_kept(void **unused)
{
    (void)unused;
    struct heap *h = heap_new(HEAP_LIMIT_MIN), *other = heap_new(0);
    static void *blocks[MANY];
    unsigned n = 0;
    while (n < MANY && slab_take(h, BIN_64, &blocks[n], 1) == 1)
        n++;
    assert_int_equal(n, HEAP_LIMIT_MIN / 64);
    assert_int_equal(atomic_load(&h->active), HEAP_LIMIT_MIN);
    take(other, BIN_64);
    give(h, BIN_64, blocks[n / 2]);
    take(h, BIN_64);
}

static void
test_pages_are_charged_when_blocks_are_first_taken_out_of_them(void **unused)
{
    (void)unused;
    for (unsigned bin = 1; bin <= SMALL_BINS; bin++) {
        struct heap *h = heap_new(0);
        size_t size = bin_size(bin);
        for (unsigned i = 0; i < blocks_of_slab(bin); i++) {
            take(h, bin);
            assert_int_equal(atomic_load(&h->active), ((i + 1) * size + PAGE_MASK) & ~PAGE_MASK);
        }
    }
}

static void
test_pages_of_a_block_that_was_freed_are_not_charged_again(void **unused)
{
    (void)unused;
    struct heap *h = heap_new(0);
    void *keep = take(h, BIN_64), *block = take(h, BIN_64);
    for (int i = 0; i < 3; i++) {
        give(h, BIN_64, block);
        assert_ptr_equal(take(h, BIN_64), block);
        assert_int_equal(atomic_load(&h->active), PAGE_SIZE);
    }
    give(h, BIN_64, block);
    give(h, BIN_64, keep);
    assert_int_equal(atomic_load(&h->active), 0);
}

static void
test_all_of_the_limit_can_be_taken(void **unused)
{
    (void)unused;
    static const size_t sizes[] = { 16, 64, 1024, 2048, PAGE_SIZE < SMALL_MAX ? PAGE_SIZE : SMALL_MAX };
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct heap *h = heap_new(HEAP_LIMIT_MIN);
        unsigned bin = bin_of_size(sizes[i]), n = (unsigned)(HEAP_LIMIT_MIN / sizes[i]);
        void *blocks[MANY];
        assert_in_range(n, 1, MANY);
        for (unsigned j = 0; j < n; j++)
            blocks[j] = take(h, bin);
        assert_int_equal(slab_take(h, bin, blocks, 1), 0);
        assert_int_equal(atomic_load(&h->active), HEAP_LIMIT_MIN);
    }
}

static void
test_batch_is_shorter_where_the_limit_forbids_more(void **unused)
{
    (void)unused;
    SKIP_WITH_LARGE_PAGES();
    struct heap *h = heap_new(HEAP_LIMIT_MIN);
    void *blocks[20];
    assert_int_equal(slab_take(h, bin_of_size(32 << 10), blocks, 20), 1);
    assert_int_equal(slab_take(h, bin_of_size(32 << 10), blocks, 20), 1);
    assert_int_equal(slab_take(h, bin_of_size(32 << 10), blocks, 20), 0);
}

/* Where little is left of the limit, a batch is what there is without another page. */
static void
test_batch_near_the_limit_touches_a_page_for_its_first_block_alone(void **unused)
{
    (void)unused;
    SKIP_WITH_LARGE_PAGES();
    struct heap *h = heap_new(HEAP_LIMIT_MIN);
    size_t most = HEAP_LIMIT_MIN * 3 / 4 + PAGE_SIZE;
    void *blocks[MANY];
    while (atomic_load(&h->active) < most)
        take(h, bin_of_size(PAGE_SIZE));
    assert_int_equal(slab_take(h, BIN_64, blocks, 100), PAGE_SIZE / 64 < 100 ? PAGE_SIZE / 64 : 100);
    assert_int_equal(atomic_load(&h->active), most + PAGE_SIZE);
}

static void
test_batch_far_from_the_limit_is_whole(void **unused)
{
    (void)unused;
    SKIP_WITH_LARGE_PAGES();
    struct heap *h = heap_new(HEAP_LIMIT_MIN * 64);
    void *blocks[MANY];
    assert_int_equal(slab_take(h, BIN_64, blocks, PAGE_SIZE / 64 + 1), PAGE_SIZE / 64 + 1);
    assert_int_equal(atomic_load(&h->active), 2 * PAGE_SIZE);
}

static void
test_pages_without_a_block_that_is_out_are_trimmed(void **unused)
{
    (void)unused;
    SKIP_WITH_LARGE_PAGES();
    struct heap *h = heap_new(0);
    const unsigned n = PAGE_SIZE / 64;
    void *blocks[4 * PAGE_SIZE / 64];
    for (unsigned i = 0; i < 4 * n; i++)
        memset(blocks[i] = take(h, BIN_64), 1, 64);
    for (unsigned i = 0; i < 2 * n; i++)
        give(h, BIN_64, blocks[i]);
    for (unsigned i = 2 * n + 1; i < 4 * n; i++)
        give(h, BIN_64, blocks[i]);
    assert_int_equal(atomic_load(&h->active), 4 * PAGE_SIZE);
    heap_trim(h);
    assert_int_equal(atomic_load(&h->active), PAGE_SIZE);
    assert_int_equal(*(char *)blocks[0], 0); /* it was purged */
    assert_int_equal(*(char *)blocks[2 * n], 1);
    /* What needs no page is taken first, though its address is higher. */
    for (unsigned i = 2 * n + 1; i < 3 * n; i++)
        assert_ptr_equal(take(h, BIN_64), blocks[i]);
    assert_int_equal(atomic_load(&h->active), PAGE_SIZE);
    assert_ptr_equal(take(h, BIN_64), blocks[0]);
    assert_int_equal(atomic_load(&h->active), 2 * PAGE_SIZE);
}

static void
test_trimmed_page_is_had_by_another_class(void **unused)
{
    (void)unused;
    SKIP_WITH_LARGE_PAGES();
    struct heap *h = heap_new(HEAP_LIMIT_MIN);
    void *blocks[MANY], *other;
    unsigned n = (unsigned)(HEAP_LIMIT_MIN / 64);
    for (unsigned i = 0; i < n; i++)
        blocks[i] = take(h, BIN_64);
    slab_give(h, BIN_64, blocks, PAGE_SIZE / 64);
    assert_int_equal(slab_take(h, bin_of_size(PAGE_SIZE), &other, 1), 0);
    heap_trim(h);
    assert_int_equal(slab_take(h, bin_of_size(PAGE_SIZE), &other, 1), 1);
    assert_int_equal(atomic_load(&h->active), HEAP_LIMIT_MIN);
}

/* A free block that lies in two pages needs both; the last page of the limit does for one beside it. */
static void
test_last_page_of_the_limit_serves_any_block_that_needs_no_more(void **unused)
{
    (void)unused;
    SKIP_WITH_LARGE_PAGES();
    const size_t size = 3072;
    struct heap *h = heap_new(HEAP_LIMIT_MIN);
    unsigned bin = bin_of_size(size), n = 0;
    void *blocks[MANY], *block;
    if (size >= PAGE_SIZE)
        skip();
    while (slab_take(h, bin, &blocks[n], 1) == 1)
        n++;
    /* Of every three pages with four blocks keep the fourth, which lies in the third page; then none but one page is left. */
    for (unsigned i = 0; i < n; i++)
        if (i % 4 != 3)
            give(h, bin, blocks[i]);
    heap_trim(h);
    while (atomic_load(&h->active) + 2 * PAGE_SIZE <= HEAP_LIMIT_MIN)
        take(h, bin_of_size(PAGE_SIZE));
    assert_int_equal(atomic_load(&h->active), HEAP_LIMIT_MIN - PAGE_SIZE);
    assert_int_equal(slab_take(h, bin, &block, 1), 1);
    assert_int_equal(atomic_load(&h->active), HEAP_LIMIT_MIN);
}

/* Takes, gives and trims at random: no block is handed out twice or loses its contents, and what is charged is
 * the pages of blocks that are out and of those that were since the last trim. */
static void
test_blocks_survive_trims(void **unused)
{
    (void)unused;
    enum { HELD = 600, STEPS_EACH = 4000 };
    static const size_t sizes[] = { 16, 48, 112, 640, 1280, 3072, 5120, 20480, 28672 };
    uint32_t state = 1;
    for (unsigned s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        struct heap *h = heap_new(s % 2 == 0 ? 0 : HEAP_LIMIT_MIN * 16);
        unsigned bin = bin_of_size(sizes[s]), n = 0;
        size_t size = bin_size(bin);
        static unsigned char *held[HELD], value[HELD];
        for (unsigned step = 0; step < STEPS_EACH; step++) {
            state = state * 1103515245 + 12345;
            unsigned what = state >> 16 & 255, i = n > 0 ? (state >> 8) % n : 0;
            if (what < 2) {
                heap_trim(h);
            } else if (n > 0 && (step / 512 % 2 == 1 ? what < 160 : what < 90)) {
                for (size_t at = 0; at < size; at += size / 5 + 1)
                    assert_int_equal(held[i][at], value[i]);
                assert_int_equal(held[i][size - 1], value[i]);
                give(h, bin, held[i]);
                held[i] = held[--n];
                value[i] = value[n];
            } else {
                void *blocks[16];
                unsigned want = 1 + what % 16, got = n + want <= HELD ? slab_take(h, bin, blocks, want) : 0;
                for (unsigned j = 0; j < got; j++) {
                    held[n] = blocks[j];
                    value[n] = (unsigned char)step;
                    memset(held[n], value[n], size);
                    n++;
                }
            }
            assert_int_equal(h->bins[bin].out, n);
            assert_true(h->limit == 0 || atomic_load(&h->active) <= h->limit);
        }
        heap_trim(h);
        uintptr_t pages[HELD * 9];
        size_t used = 0;
        for (unsigned i = 0; i < n; i++)
            for (uintptr_t page = (uintptr_t)held[i] & ~PAGE_MASK; page < (uintptr_t)held[i] + size; page += PAGE_SIZE) {
                size_t seen = 0;
                while (seen < used && pages[seen] != page)
                    seen++;
                if (seen == used)
                    pages[used++] = page;
            }
        assert_int_equal(atomic_load(&h->active), used * PAGE_SIZE);
        while (n > 0)
            give(h, bin, held[--n]);
        assert_int_equal(atomic_load(&h->active), 0);
    }
    assert_int_equal(message_count, 0);
}

static void
test_heaps_do_not_share_slabs(void **unused)
{
    (void)unused;
    struct heap *one = heap_new(0), *two = heap_new(0);
    for (int i = 0; i < 100; i++) {
        struct run *a = pool_find(take(one, BIN_64)), *b = pool_find(take(two, BIN_64));
        assert_ptr_not_equal(a, b);
        assert_int_equal(a->heap, one->index);
        assert_int_equal(b->heap, two->index);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        fresh_test(test_blocks_of_every_bin_are_apart_and_in_their_slab),
        fresh_test(test_batch_pops_in_ascending_addresses),
        fresh_test(test_lowest_address_is_taken_first),
        fresh_test(test_full_slab_is_followed_by_another_and_used_again_after_a_give),
        fresh_test(test_batch_goes_on_in_the_next_partial_slab),
        fresh_test(test_batch_does_not_start_a_slab_for_what_is_missing),
        fresh_test(test_empty_slab_goes_back_to_the_pool),
        fresh_test(test_batch_may_empty_several_slabs),
        fresh_test(test_block_of_an_address),
        fresh_test(test_tail_of_a_slab_is_no_block),
        fresh_test(test_double_free_is_reported),
        fresh_test(test_double_free_in_one_batch_is_reported),
        fresh_test(test_double_free_is_reported_when_its_slab_has_gone),
        fresh_test(test_double_free_is_reported_when_its_pages_have_another_class),
        fresh_test(test_double_free_is_reported_when_its_pages_have_another_heap),
        fresh_test(test_inner_pointer_is_reported),
        fresh_test(test_others_of_a_batch_are_given_though_one_is_refused),
        fresh_test(test_sifting_takes_out_what_could_not_be_given_and_gives_nothing),
        fresh_test(test_many_misuses_at_once_are_told_up_to_a_number),
        fresh_test(test_limit_is_kept),
        fresh_test(test_pages_are_charged_when_blocks_are_first_taken_out_of_them),
        fresh_test(test_pages_of_a_block_that_was_freed_are_not_charged_again),
        fresh_test(test_all_of_the_limit_can_be_taken),
        fresh_test(test_batch_is_shorter_where_the_limit_forbids_more),
        fresh_test(test_batch_near_the_limit_touches_a_page_for_its_first_block_alone),
        fresh_test(test_batch_far_from_the_limit_is_whole),
        fresh_test(test_pages_without_a_block_that_is_out_are_trimmed),
        fresh_test(test_trimmed_page_is_had_by_another_class),
        fresh_test(test_last_page_of_the_limit_serves_any_block_that_needs_no_more),
        fresh_test(test_blocks_survive_trims),
        fresh_test(test_heaps_do_not_share_slabs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
