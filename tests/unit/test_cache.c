/* Thread caches: a stack of blocks for each bin, refilled and flushed in batches, counted. */
#include "unit.h"

#include "ground/misuse.h"
#include "heap/large.h"
#include "heap/slab.h"
#include "pages/base.h"
#include "thread/cache.h"

#define BIN_64 4
#define BIN_LARGE (SMALL_BINS + 1)

static struct cache *cache;
static struct heap *heap;

static int
start(void **unused)
{
    uint32_t index;
    fresh(unused);
    cache = base_alloc(sizeof *cache);
    if (cache == NULL || heap_create(&(struct alcove_heap_options){ .name = "tested" }, &index) != 0)
        return -1;
    heap = heap_of(index);
    cache_init(cache, heap, NULL);
    return 0;
}

#define cache_test(function) cmocka_unit_test_setup(function, start)

static unsigned
held(unsigned bin)
{
    const struct cache_bin *b = &cache->bins[bin];
    return b->capacity - (unsigned)(b->end - b->top);
}

/* As malloc and free do, without the turns of the slow path. */
static void *
take(unsigned bin)
{
    bool zeroed;
    struct cache_bin *b = &cache->bins[bin];
    b->countdown = COUNTDOWN;
    void *block = cache_pop(b);
    if (block == NULL)
        block = cache_refill(cache, bin, &zeroed);
    assert_non_null(block);
    return block;
}

/* Whatever it is. */
static void
push(unsigned bin, void *block)
{
    assert_true(cache_push_inside(cache, &cache->bins[bin], block));
}

static void
give(unsigned bin, void *block)
{
    struct cache_bin *b = &cache->bins[bin];
    if (!cache_push(b, block)) {
        assert_true(cache_make_room(cache, bin));
        assert_true(cache_push(b, block));
    }
}

static void
test_new_cache_holds_and_takes_nothing(void **unused)
{
    (void)unused;
    for (unsigned bin = 0; bin < BINS; bin++) {
        assert_null(cache_pop(&cache->bins[bin]));
        assert_false(cache_push(&cache->bins[bin], cache));
    }
}

static void
test_bin_zero_never_takes_a_block(void **unused)
{
    (void)unused;
    give(BIN_64, take(BIN_64));
    cache_collect(cache, true);
    assert_false(cache_push(&cache->bins[0], cache));
}

static void
test_last_pushed_is_popped_first(void **unused)
{
    (void)unused;
    void *a = take(BIN_64), *b = take(BIN_64);
    give(BIN_64, a);
    give(BIN_64, b);
    assert_ptr_equal(take(BIN_64), b);
    assert_ptr_equal(take(BIN_64), a);
}

static void
test_block_that_is_on_top_already_is_not_pushed(void **unused)
{
    (void)unused;
    void *a = take(BIN_64);
    give(BIN_64, a);
    unsigned before = held(BIN_64);
    assert_false(cache_push(&cache->bins[BIN_64], a));
    assert_int_equal(held(BIN_64), before);
}

static void
test_refill_takes_a_batch_from_the_heap(void **unused)
{
    (void)unused;
    take(BIN_64);
    assert_true(held(BIN_64) > 0);
    assert_int_equal(heap->bins[BIN_64].out, held(BIN_64) + 1);
}

static void
test_bin_grows_while_it_is_used_up_to_a_limit(void **unused)
{
    (void)unused;
    unsigned last = 0;
    for (int i = 0; i < 100000; i++) {
        take(BIN_64);
        assert_true(cache->bins[BIN_64].capacity >= last);
        last = cache->bins[BIN_64].capacity;
    }
    assert_in_range(last, 7, 1023);
    assert_true(last * 64 <= 256 << 10);
}

static void
test_every_small_bin_can_keep_some_blocks(void **unused)
{
    (void)unused;
    for (unsigned bin = 1; bin <= SMALL_BINS; bin++) {
        void *a = take(bin), *b = take(bin), *c = take(bin);
        give(bin, a);
        give(bin, b);
        give(bin, c);
        assert_ptr_equal(take(bin), c);
    }
}

static void
test_full_bin_gives_the_oldest_half_back(void **unused)
{
    (void)unused;
    enum { MANY = 20000 };
    static void *blocks[MANY];
    for (int i = 0; i < MANY; i++)
        blocks[i] = take(BIN_64);
    for (int i = 0; i < MANY; i++)
        give(BIN_64, blocks[i]);
    assert_true(held(BIN_64) <= cache->bins[BIN_64].capacity);
    assert_int_equal(heap->bins[BIN_64].out, held(BIN_64));
    assert_true(held(BIN_64) < MANY / 4);
    assert_ptr_equal(take(BIN_64), blocks[MANY - 1]); /* the youngest stayed */
    assert_int_equal(message_count, 0);
}

static void
test_collecting_all_empties_the_cache(void **unused)
{
    (void)unused;
    for (unsigned bin = 1; bin < BINS; bin++)
        give(bin, take(bin));
    cache_collect(cache, true);
    for (unsigned bin = 1; bin < BINS; bin++) {
        assert_int_equal(held(bin), 0);
        assert_int_equal(cache->bins[bin].capacity, 0);
    }
    assert_int_equal(atomic_load(&heap->active), 0);
    assert_int_equal(atomic_load(&heap->live), 0);
}

static void
test_collecting_leaves_bins_that_were_used_since_the_last_time(void **unused)
{
    (void)unused;
    for (unsigned bin = 1; bin <= 2; bin++) {
        give(bin, take(bin));
        cache->bins[bin].countdown--; /* an allocation, as the hot path counts it */
    }
    cache_collect(cache, false);
    assert_true(held(1) > 0);
    give(1, take(1));
    cache->bins[1].countdown--;
    cache_collect(cache, false);
    assert_true(held(1) > 0);
    assert_int_equal(held(2), 0);
}

static void
test_large_block_is_kept_and_used_again(void **unused)
{
    (void)unused;
    void *block = take(BIN_LARGE);
    assert_int_equal(pool_find(block)->kind, RUN_LARGE);
    give(BIN_LARGE, block);
    assert_ptr_equal(take(BIN_LARGE), block);
}

static void
test_largest_class_keeps_one_block(void **unused)
{
    (void)unused;
    void *a = take(BINS - 1), *b = take(BINS - 1);
    give(BINS - 1, a);
    give(BINS - 1, b);
    assert_int_equal(held(BINS - 1), 1);
    assert_null(pool_find(a));
    assert_ptr_equal(take(BINS - 1), b);
}

static void
test_new_large_block_says_whether_it_is_zero(void **unused)
{
    (void)unused;
    bool zeroed = false;
    void *block = cache_refill(cache, BIN_LARGE, &zeroed);
    assert_true(zeroed);
    memset(block, 1, bin_size(BIN_LARGE));
    assert_true(large_give(heap, pool_find(block), block));
    cache_refill(cache, BIN_LARGE, &zeroed);
    assert_false(zeroed);
}

/* As two threads do that free it at once: both have found its run. The record serves another block meanwhile. */
static void
test_large_block_is_given_once(void **unused)
{
    (void)unused;
    bool zeroed;
    uint64_t active = atomic_load(&heap->active);
    void *block = large_take(heap, BIN_LARGE, bin_size(BIN_LARGE), PAGE_SIZE, &zeroed);
    struct run *r = pool_find(block);
    assert_true(large_give(heap, r, block));
    assert_false(large_give(heap, r, block));
    assert_int_equal(atomic_load(&heap->active), active);
    void *other = large_take(heap, 0, (size_t)5 << 20, PAGE_SIZE, &zeroed);
    assert_false(large_give(heap, r, block));
    assert_true(large_give(heap, pool_find(other), other));
}

static void
test_double_free_of_a_large_block_is_reported_when_it_goes_back(void **unused)
{
    (void)unused;
    void *a = take(BIN_LARGE), *b = take(BIN_LARGE);
    give(BIN_LARGE, a);
    give(BIN_LARGE, b);
    push(BIN_LARGE, a);
    cache_collect(cache, true);
    misuse_tell();
    assert_int_equal(message_count, 1);
    assert_message("double");
    assert_int_equal(atomic_load(&heap->active), 0);
    assert_int_equal(atomic_load(&heap->live), 0);
}

static void
test_double_free_of_a_small_block_is_reported_when_it_goes_back(void **unused)
{
    (void)unused;
    void *a = take(BIN_64), *b = take(BIN_64);
    give(BIN_64, a);
    give(BIN_64, b);
    push(BIN_64, a);
    cache_collect(cache, true);
    misuse_tell();
    assert_int_equal(message_count, 1);
    assert_message("double free");
    assert_int_equal(atomic_load(&heap->active), 0);
    assert_int_equal(atomic_load(&heap->live), 0);
}

/* In a bin that stays, as it was used since the last time. */
static void
test_collecting_tells_of_double_frees_in_what_stays(void **unused)
{
    (void)unused;
    for (int i = 0; i < 2; i++) {
        unsigned bin = i == 0 ? BIN_64 : BIN_LARGE;
        void *a = take(bin), *b = take(bin);
        give(bin, a);
        give(bin, b);
        unsigned before = held(bin);
        push(bin, a);
        messages_clear();
        cache->bins[bin].mark = (uint16_t)(cache_allocations(&cache->bins[bin]) - 1); /* it was used since the last time */
        cache_collect(cache, false);
        misuse_tell();
        assert_int_equal(message_count, 1);
        assert_message("double free");
        assert_int_equal(held(bin), before);
    }
    cache_collect(cache, true);
    misuse_tell();
    assert_int_equal(message_count, 1);
    assert_int_equal(atomic_load(&heap->active), 0);
    assert_int_equal(atomic_load(&heap->live), 0);
}

static void
test_block_that_is_next_below_the_top_is_not_pushed(void **unused)
{
    (void)unused;
    if (CACHE_COMPARED < 2)
        skip(); /* a build with sanitizers compares the top only */
    struct cache_bin *b = &cache->bins[BIN_64];
    void *first = take(BIN_64), *second = take(BIN_64);
    assert_true(cache_push(b, first));
    assert_true(cache_push(b, second));
    assert_false(cache_push(b, second));
    assert_false(cache_push(b, first));
    assert_ptr_equal(cache_pop(b), second);
}

static void
test_countdown_gives_the_slow_path_a_turn(void **unused)
{
    (void)unused;
    struct cache_bin *b = &cache->bins[BIN_64];
    void *block = take(BIN_64);
    b->countdown = 2;
    give(BIN_64, block);
    assert_ptr_equal(cache_pop(b), block);
    give(BIN_64, block);
    assert_ptr_equal(cache_pop(b), block);
    give(BIN_64, block);
    assert_null(cache_pop(b));
}

static void
test_allocations_are_counted_by_the_countdown(void **unused)
{
    (void)unused;
    struct cache_bin *b = &cache->bins[BIN_64];
    void *block = take(BIN_64);
    uint64_t before = cache_allocations(b);
    for (int i = 0; i < 50; i++) {
        give(BIN_64, block);
        assert_ptr_equal(cache_pop(b), block);
    }
    assert_int_equal(cache_allocations(b) - before, 50);
}

/* One allocation as malloc does it, but for the turn itself: is it due for one? */
static bool
allocate_and_free(void)
{
    bool zeroed, turn = false;
    struct cache_bin *b = &cache->bins[BIN_64];
    void *block = cache_pop(b);
    if (block == NULL) {
        turn = cache_count_slow(cache, BIN_64);
        if (turn)
            cache_turn_after(b, COUNTDOWN);
        block = b->top[-1] != NULL ? *--b->top : cache_refill(cache, BIN_64, &zeroed);
    }
    give(BIN_64, block);
    return turn;
}

static void
test_turns_may_have_any_period_and_the_count_is_exact(void **unused)
{
    (void)unused;
    static const int32_t periods[] = { 1, 100000, 127, 1, 1, 0, 127, 100000, 0, 1 };
    struct cache_bin *b = &cache->bins[BIN_64];
    uint64_t done = 0;
    for (unsigned i = 0; i < sizeof periods / sizeof *periods; i++) {
        cache_turn_after(b, periods[i]);
        assert_int_equal(cache_allocations(b), done);
        for (int32_t n = 0; n < periods[i]; n++) {
            assert_false(allocate_and_free());
            assert_int_equal(cache_allocations(b), ++done);
        }
        assert_true(allocate_and_free()); /* the next one is the turn's */
        assert_int_equal(cache_allocations(b), ++done);
        assert_int_equal(cache_allocations_seen(b), done);
    }
}

static void
test_period_may_be_changed_before_its_turn_came(void **unused)
{
    (void)unused;
    struct cache_bin *b = &cache->bins[BIN_64];
    cache_turn_after(b, 100000);
    for (int i = 0; i < 40; i++)
        assert_false(allocate_and_free());
    cache_turn_after(b, 1);
    assert_int_equal(cache_allocations(b), 40);
    assert_false(allocate_and_free());
    assert_true(allocate_and_free());
    assert_int_equal(cache_allocations(b), 42);
}

static void
test_failed_allocation_is_not_counted(void **unused)
{
    (void)unused;
    struct cache_bin *b = &cache->bins[BIN_64];
    cache_turn_after(b, 0);
    assert_true(cache_count_slow(cache, BIN_64));
    cache_turn_after(b, 5);
    cache_count_failed(b);
    assert_int_equal(cache_allocations(b), 0);
}

static void
test_refill_fails_at_the_limit(void **unused)
{
    (void)unused;
    bool zeroed;
    assert_int_equal(heap_limit_set(heap->index, HEAP_LIMIT_MIN), 0);
    unsigned n = 0;
    struct cache_bin *b = &cache->bins[BIN_64];
    for (; n < 10000; n++) {
        b->countdown = COUNTDOWN;
        if (cache_pop(b) == NULL && cache_refill(cache, BIN_64, &zeroed) == NULL)
            break;
    }
    assert_in_range(n, 100, HEAP_LIMIT_MIN / 64);
    assert_null(cache_refill(cache, BIN_LARGE + 8, &zeroed));
    assert_true(atomic_load(&heap->active) <= HEAP_LIMIT_MIN);
}

static void
test_arrays_go_back_when_the_cache_ends(void **unused)
{
    (void)unused;
    for (int round = 0; round < 1000; round++) {
        for (unsigned bin = 1; bin <= SMALL_BINS; bin += 8)
            give(bin, take(bin));
        cache_collect(cache, true);
        cache_fini(cache);
        if (round == 0)
            base_free(base_alloc(64), 64);
    }
    assert_true(base_bytes() <= 512 << 10);
}

/* Allocations are counted through a recall, whether the pop that has found it has counted or not. */
static void
test_recalled_bin_has_a_turn_and_counts(void **unused)
{
    (void)unused;
    struct cache_bin *b = &cache->bins[BIN_64];
    give(BIN_64, take(BIN_64));
    uint64_t before = cache_allocations(b);
    cache_recall(cache, BIN_64, COUNTDOWN);
    assert_true(b->countdown >= 0); /* it has no leave for more */
    cache_recall(cache, BIN_64, 1);
    assert_int_equal(cache_allocations(b), before);
    assert_int_equal(cache_allocations_seen(b), before);
    assert_null(cache_pop(b));
    assert_true(cache_count_slow(cache, BIN_64));
    assert_int_equal(cache_allocations(b), before + 1);
    cache_turn_after(b, COUNTDOWN);
    assert_int_equal(cache_allocations(b), before + 1);
    cache_recall(cache, BIN_64, 1);
    assert_true(cache_count_slow(cache, BIN_64)); /* by who has not tried to pop */
    assert_int_equal(cache_allocations(b), before + 2);
    cache_turn_after(b, COUNTDOWN);
    assert_int_equal(cache_allocations_seen(b), before + 2);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cache_test(test_new_cache_holds_and_takes_nothing),
        cache_test(test_bin_zero_never_takes_a_block),
        cache_test(test_last_pushed_is_popped_first),
        cache_test(test_block_that_is_on_top_already_is_not_pushed),
        cache_test(test_refill_takes_a_batch_from_the_heap),
        cache_test(test_bin_grows_while_it_is_used_up_to_a_limit),
        cache_test(test_every_small_bin_can_keep_some_blocks),
        cache_test(test_full_bin_gives_the_oldest_half_back),
        cache_test(test_collecting_all_empties_the_cache),
        cache_test(test_collecting_leaves_bins_that_were_used_since_the_last_time),
        cache_test(test_large_block_is_kept_and_used_again),
        cache_test(test_largest_class_keeps_one_block),
        cache_test(test_new_large_block_says_whether_it_is_zero),
        cache_test(test_large_block_is_given_once),
        cache_test(test_double_free_of_a_large_block_is_reported_when_it_goes_back),
        cache_test(test_double_free_of_a_small_block_is_reported_when_it_goes_back),
        cache_test(test_collecting_tells_of_double_frees_in_what_stays),
        cache_test(test_block_that_is_next_below_the_top_is_not_pushed),
        cache_test(test_countdown_gives_the_slow_path_a_turn),
        cache_test(test_allocations_are_counted_by_the_countdown),
        cache_test(test_turns_may_have_any_period_and_the_count_is_exact),
        cache_test(test_period_may_be_changed_before_its_turn_came),
        cache_test(test_failed_allocation_is_not_counted),
        cache_test(test_refill_fails_at_the_limit),
        cache_test(test_arrays_go_back_when_the_cache_ends),
        cache_test(test_recalled_bin_has_a_turn_and_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
