/* Cache sets: one cache for each heap that is used, found by the heap, made, dropped, collected. */
#include "unit.h"

#include "api/internal.h"
#include "pages/base.h"
#include "thread/record.h"

#define BIN_64 4

static struct cache_set *set;
#define MEMORY (16 * PAGE_SIZE)
static char *memory; /* for its arrays */
static struct heap *heaps[3]; /* the default heap, and two more */

static int
start(void **unused)
{
    fresh(unused);
    heaps[0] = heap_default();
    for (int i = 1; i < 3; i++) {
        uint32_t index;
        if (heap_create(NULL, &index) != 0)
            return -1;
        heaps[i] = heap_of(index);
    }
    set = base_alloc(sizeof *set);
    _Atomic(struct cache *) *by_heap = base_alloc_zeroed(CACHE_SET_HEAPS * sizeof *by_heap);
    memory = base_alloc(MEMORY);
    if (heaps[0] == NULL || set == NULL || by_heap == NULL || memory == NULL)
        return -1;
    cache_set_init(set, heaps[0], by_heap, memory, MEMORY);
    return 0;
}

#define set_test(function) cmocka_unit_test_setup(function, start)

/* Take a block through a cache of the set and free it into it. */
static void
use(struct heap *h)
{
    bool zeroed;
    struct cache *c = cache_set_get(set, h);
    assert_non_null(c);
    void *block = cache_refill(c, BIN_64, &zeroed);
    assert_non_null(block);
    assert_true(cache_push_inside(c, &c->bins[BIN_64], block));
}

static void
test_first_cache_is_of_the_default_heap(void **unused)
{
    (void)unused;
    assert_ptr_equal(cache_set_get(set, heaps[0]), &set->first);
    assert_ptr_equal(set->first.heap, heaps[0]);
    assert_null(set->made);
}

static void
test_cache_of_a_heap_is_made_once(void **unused)
{
    (void)unused;
    struct cache *one = cache_set_get(set, heaps[1]), *two = cache_set_get(set, heaps[2]);
    assert_ptr_not_equal(one, two);
    assert_ptr_equal(one->heap, heaps[1]);
    assert_ptr_equal(two->heap, heaps[2]);
    assert_ptr_equal(cache_set_get(set, heaps[1]), one);
    assert_ptr_equal(atomic_load(&set->by_heap[heaps[2]->index]), two);
}

static void
test_dropped_cache_is_made_anew_and_others_stay(void **unused)
{
    (void)unused;
    use(heaps[1]);
    use(heaps[2]);
    struct cache *two = cache_set_get(set, heaps[2]);
    cache_set_drop(set, heaps[1]->index);
    cache_set_drop(set, heaps[1]->index); /* there is none any more */
    assert_null(atomic_load(&set->by_heap[heaps[1]->index]));
    assert_ptr_equal(set->made, two);
    assert_null(two->next);
    assert_int_equal(cache_set_get(set, heaps[1])->bins[BIN_64].capacity, 0);
    assert_ptr_equal(cache_set_get(set, heaps[2]), two);
}

static void
test_collecting_empties_every_cache(void **unused)
{
    (void)unused;
    for (int i = 0; i < 3; i++)
        use(heaps[i]);
    cache_set_collect(set, true);
    for (int i = 0; i < 3; i++)
        assert_int_equal(heaps[i]->bins[BIN_64].out, 0);
}

static bool
within(const void *array)
{
    return (const char *)array >= memory && (const char *)array < memory + MEMORY;
}

static void
test_arrays_lie_in_the_memory_of_the_set_and_read_as_zero_when_all_is_collected(void **unused)
{
    (void)unused;
    for (int i = 0; i < 3; i++)
        use(heaps[i]);
    char *array = (char *)cache_set_get(set, heaps[1])->bins[BIN_64].end;
    assert_true(within(array));
    cache_set_collect(set, true);
    for (const char *p = set->arrays.begin; p < set->arrays.end; p++)
        assert_int_equal(*p, 0);
    use(heaps[0]);
    assert_true((char *)set->first.bins[BIN_64].end <= array); /* from the start again */
}

static void
test_given_array_is_taken_again(void **unused)
{
    (void)unused;
    void *one = arrays_take(&set->arrays, 128), *two = arrays_take(&set->arrays, 128);
    assert_ptr_not_equal(one, two);
    arrays_give(&set->arrays, one, 128);
    assert_ptr_not_equal(arrays_take(&set->arrays, 64), one);
    assert_ptr_equal(arrays_take(&set->arrays, 128), one);
}

static void
test_what_the_memory_has_no_room_for_comes_from_base(void **unused)
{
    (void)unused;
    void *last;
    while (within(last = arrays_take(&set->arrays, 8192)))
        memset(last, 1, 8192);
    assert_non_null(last);
    arrays_give(&set->arrays, last, 8192);
    assert_ptr_equal(base_alloc(8192), last);
    assert_true(within(arrays_take(&set->arrays, 16)) || set->arrays.next == set->arrays.end);
}

/* Caches of a heap with a limit: where the hot path looks is a closed one. */

static void
test_cache_of_a_limited_heap_is_behind_a_closed_one(void **unused)
{
    (void)unused;
    assert_int_equal(heap_limit_set(heaps[1]->index, 1 << 20), 0);
    struct cache *c = cache_set_get(set, heaps[1]), *hot = atomic_load(&set->by_heap[heaps[1]->index]);
    assert_true(c->guarded);
    assert_ptr_equal(c->heap, heaps[1]);
    assert_ptr_not_equal(hot, c);
    assert_true(cache_is_closed(hot));
    use(heaps[1]);
    for (unsigned bin = 0; bin < BINS; bin++) {
        assert_null(cache_pop(&hot->bins[bin]));
        assert_false(cache_push(&hot->bins[bin], c));
    }
    assert_ptr_equal(cache_set_find(set, heaps[1]->index), c);
    assert_ptr_equal(cache_set_guarded(set, heaps[1]->index), c);
    assert_null(cache_set_find(set, heaps[2]->index));
}

static void
test_cache_that_is_open_is_guarded_when_its_heap_gets_a_limit(void **unused)
{
    (void)unused;
    for (int i = 0; i < 3; i++) {
        use(heaps[i]);
        struct cache *open = cache_set_get(set, heaps[i]);
        cache_set_empty(set, heaps[i]->index); /* it is its user's alone */
        assert_true(heaps[i]->bins[BIN_64].out != 0);
        assert_int_equal(heap_limit_set(heaps[i]->index, 1 << 20), 0);
        struct cache *c = cache_set_get(set, heaps[i]);
        assert_true(c->guarded);
        assert_ptr_equal(cache_set_get(set, heaps[i]), c);
        assert_int_equal(c == open, i != 0); /* the first one's place is the hot path's */
        if (i == 0)
            assert_null(cache_pop(&open->bins[BIN_64]));
        assert_int_equal(c->held, heaps[i]->bins[BIN_64].out);
        assert_true(c->held > 0);
    }
    cache_set_collect(set, true);
    for (int i = 0; i < 3; i++)
        assert_int_equal(heaps[i]->bins[BIN_64].out, 0);
}

static void
test_guarded_cache_can_be_emptied(void **unused)
{
    (void)unused;
    assert_int_equal(heap_limit_set(heaps[1]->index, 1 << 20), 0);
    cache_set_empty(set, heaps[1]->index); /* there is none */
    use(heaps[1]);
    struct cache *c = cache_set_get(set, heaps[1]);
    void *a = cache_pop_guarded(c, &c->bins[BIN_64]), *b = cache_pop_guarded(c, &c->bins[BIN_64]);
    assert_true(cache_push_guarded(c, &c->bins[BIN_64], a));
    assert_true(cache_push_guarded(c, &c->bins[BIN_64], b));
    assert_int_equal(c->held, heaps[1]->bins[BIN_64].out);
    cache_set_empty(set, heaps[1]->index);
    assert_int_equal(heaps[1]->bins[BIN_64].out, 0);
    assert_int_equal(c->held, 0);
    cache_set_empty(set, heaps[1]->index);
    use(heaps[1]);
    assert_int_equal(message_count, 0);
}

static void
test_first_cache_that_is_guarded_counts_once(void **unused)
{
    (void)unused;
    use(heaps[0]);
    uint32_t caches = atomic_load(&heaps[0]->caches);
    assert_int_equal(heap_limit_set(heaps[0]->index, 1 << 20), 0);
    assert_ptr_not_equal(cache_set_get(set, heaps[0]), &set->first);
    assert_int_equal(atomic_load(&heaps[0]->caches), caches);
}

/* Whoever looks at it has no lock: it is not to be moved meanwhile. */
static void
test_first_cache_that_others_look_at_stays_open_until_the_next_time(void **unused)
{
    (void)unused;
    use(heaps[0]);
    unsigned count = cache_count(&set->first.bins[BIN_64]);
    assert_int_equal(heap_limit_set(heaps[0]->index, 1 << 20), 0);
    assert_true(heap_look_begin(heaps[0]));
    for (int i = 0; i < 3; i++) {
        assert_ptr_equal(cache_set_get(set, heaps[0]), &set->first);
        assert_ptr_equal(cache_set_find(set, heaps[0]->index), &set->first);
        assert_int_equal(cache_count(&set->first.bins[BIN_64]), count);
        assert_null(set->made);
    }
    heap_look_end(heaps[0]);
    struct cache *c = cache_set_get(set, heaps[0]);
    assert_true(c->guarded);
    assert_int_equal(c->held, count);
    assert_true(cache_is_closed(&set->first));
}

static void
test_what_the_first_cache_holds_is_known_when_it_is_moved(void **unused)
{
    (void)unused;
    use(heaps[0]);
    assert_int_equal(atomic_load(&heaps[0]->live), bin_size(BIN_64)); /* nobody knows that it was freed */
    assert_int_equal(heap_limit_set(heaps[0]->index, 1 << 20), 0);
    assert_ptr_not_equal(cache_set_get(set, heaps[0]), &set->first);
    assert_int_equal(atomic_load(&heaps[0]->live), 0);
}

static void
test_first_cache_that_stays_open_does_not_stand_in_the_way_of_its_thread_at_the_limit(void **unused)
{
    (void)unused;
    struct cache *first = &thread_get()->set.first;
    void *most = entry_malloc(2 * HEAP_LIMIT_MIN, 0);
    ALCOVE_PUBLIC(free)(entry_malloc(64, 0));
    assert_true(cache_count(&first->bins[BIN_64]) > 0);
    assert_int_equal(heap_limit_set(0, atomic_load(&heaps[0]->active)), 0);
    assert_true(heap_look_begin(heaps[0]));
    void *other = entry_malloc(128, 0);
    assert_non_null(other);
    assert_false(cache_is_closed(first));
    assert_int_equal(cache_count(&first->bins[BIN_64]), 0);
    heap_look_end(heaps[0]);
    ALCOVE_PUBLIC(free)(other);
    ALCOVE_PUBLIC(free)(most);
}

/* It is found in neither place for a moment. */
static void
test_sums_are_not_steady_while_the_first_cache_is_being_moved(void **unused)
{
    (void)unused;
    struct thread_sums sums;
    struct cache_set *own = &thread_get()->set;
    assert_int_equal(heap_limit_set(heaps[1]->index, 1 << 20), 0);
    ALCOVE_PUBLIC(free)(entry_malloc(64, heaps[1]->index));
    assert_true(thread_sum(0, &sums) && thread_sum(heaps[1]->index, &sums) && thread_sum(heaps[2]->index, &sums));
    atomic_store(&own->by_heap[0], atomic_load(&own->by_heap[heaps[1]->index]));
    assert_false(thread_sum(0, &sums));
    atomic_store(&own->by_heap[0], &own->first);
    assert_true(thread_sum(0, &sums));
}

static void
test_growing_block_leaves_a_guarded_cache(void **unused)
{
    (void)unused;
    enum { ROOM = 40 << 10 };
    assert_int_equal(heap_limit_set(heaps[1]->index, 1 << 20), 0);
    void *block = entry_malloc(ROOM, heaps[1]->index);
    ALCOVE_PUBLIC(free)(block);
    struct cache *c = cache_set_find(&thread_get()->set, heaps[1]->index);
    assert_int_equal(c->held, 1);
    assert_ptr_equal(alloc_growing(ROOM / 2 + 1, ROOM, heaps[1]), block);
    assert_int_equal(c->held, 0);
    ALCOVE_PUBLIC(free)(block);
}

static uint64_t
total_allocs(const struct heap *h)
{
    struct alcove_heap_stats s;
    assert_int_equal(ALCOVE_PUBLIC(heap_stats)(h->index, &s), 0);
    return s.total_allocs;
}

/* This thread's cache of a heap, with a block in it, whose next pop is for the slow path to count. */
static struct cache_bin *
bin_at_its_turn(struct heap *h)
{
    ALCOVE_PUBLIC(free)(entry_malloc(64, h->index));
    assert_int_equal(total_allocs(h), 1);
    struct cache_bin *b = &cache_set_get(&thread_get()->set, h)->bins[BIN_64];
    assert_true(cache_count(b) > 0);
    cache_turn_after(b, 0);
    return b;
}

static void
test_allocation_at_a_turn_counts_once_if_its_guarded_cache_is_emptied_meanwhile(void **unused)
{
    (void)unused;
    bool zeroed;
    assert_int_equal(heap_limit_set(heaps[1]->index, 1 << 20), 0);
    struct cache_bin *b = bin_at_its_turn(heaps[1]);
    assert_null(cache_pop_guarded(cache_set_find(&thread_get()->set, heaps[1]->index), b));
    thread_empty_caches(heaps[1]);
    assert_non_null(alloc_slow(BIN_64, heaps[1]->index, &zeroed));
    assert_int_equal(total_allocs(heaps[1]), 2);
}

static void
test_allocation_at_a_turn_counts_once_if_its_cache_becomes_a_guarded_one(void **unused)
{
    (void)unused;
    for (int i = 0; i < 2; i++) {
        bool zeroed;
        assert_null(cache_pop(bin_at_its_turn(heaps[i])));
        assert_int_equal(heap_limit_set(heaps[i]->index, 1 << 20), 0);
        assert_true(cache_set_get(&thread_get()->set, heaps[i])->guarded);
        thread_empty_caches(heaps[i]);
        assert_non_null(alloc_slow(BIN_64, heaps[i]->index, &zeroed));
        assert_int_equal(total_allocs(heaps[i]), 2);
    }
}

static void
test_dropped_guarded_cache_is_made_anew(void **unused)
{
    (void)unused;
    assert_int_equal(heap_limit_set(heaps[1]->index, 1 << 20), 0);
    use(heaps[1]);
    cache_set_drop(set, heaps[1]->index);
    assert_null(cache_set_find(set, heaps[1]->index));
    assert_null(set->made);
    assert_int_equal(cache_set_get(set, heaps[1])->held, 0);
    assert_true(cache_set_get(set, heaps[1])->guarded);
}

/* Retired, the set knows no cache. */

static void
test_retired_set_has_counted_all_for_its_heaps(void **unused)
{
    (void)unused;
    assert_int_equal(heap_limit_set(heaps[2]->index, 1 << 20), 0);
    for (int i = 0; i < 3; i++)
        use(heaps[i]);
    uint64_t counted[3];
    for (int i = 0; i < 3; i++) {
        struct cache_bin *b = &cache_set_find(set, heaps[i]->index)->bins[BIN_64];
        cache_pop(b);
        counted[i] = atomic_load(&heaps[i]->bins[BIN_64].uncached) + cache_allocations(b);
        assert_true(counted[i] > 0);
    }
    assert_true(cache_set_retire(set));
    for (int i = 0; i < 3; i++) {
        assert_null(cache_set_find(set, heaps[i]->index));
        assert_int_equal(atomic_load(&heaps[i]->bins[BIN_64].uncached), counted[i]);
        assert_int_equal(heaps[i]->bins[BIN_64].out, 1); /* the one that was popped */
        assert_int_equal(atomic_load(&heaps[i]->caches), 0);
        assert_int_equal(atomic_load(&heaps[i]->holds), 2); /* for its number, and the slab of that block */
    }
    assert_null(set->made);
}

static void
test_set_whose_first_cache_is_guarded_can_be_retired(void **unused)
{
    (void)unused;
    use(heaps[0]);
    assert_int_equal(heap_limit_set(heaps[0]->index, 1 << 20), 0);
    use(heaps[0]);
    assert_true(cache_set_retire(set));
    assert_null(cache_set_find(set, heaps[0]->index));
    assert_int_equal(heaps[0]->bins[BIN_64].out, 0);
    assert_int_equal(atomic_load(&heaps[0]->holds), 1);
}

static void
test_set_that_is_looked_at_is_not_retired_and_can_be_used(void **unused)
{
    (void)unused;
    assert_int_equal(heap_limit_set(heaps[2]->index, 1 << 20), 0);
    for (int i = 0; i < 3; i++) {
        cache_set_collect(set, true);
        for (int n = 0; n < 3; n++)
            use(heaps[n]);
        struct cache *c = cache_set_find(set, heaps[i]->index), *hot = atomic_load(&set->by_heap[heaps[i]->index]);
        atomic_fetch_add(&heaps[i]->lookers, 1);
        assert_false(cache_set_retire(set));
        atomic_fetch_sub(&heaps[i]->lookers, 1);
        assert_ptr_equal(cache_set_find(set, heaps[i]->index), c);
        assert_ptr_equal(atomic_load(&set->by_heap[heaps[i]->index]), hot);
        assert_ptr_equal(cache_set_find(set, heaps[0]->index), &set->first); /* which the hot path does not ask for */
        assert_true(heaps[i]->bins[BIN_64].out > 0);
    }
    atomic_fetch_add(&heaps[2]->emptiers, 1);
    assert_false(cache_set_retire(set));
    atomic_fetch_sub(&heaps[2]->emptiers, 1);
    assert_true(cache_set_retire(set));
}

static void
test_no_cache_is_found_where_all_reads_as_zero(void **unused)
{
    (void)unused;
    memset(set, 0, sizeof *set);
    for (int i = 0; i < 3; i++) {
        assert_null(cache_set_find(set, heaps[i]->index));
        cache_set_empty(set, heaps[i]->index);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        set_test(test_first_cache_is_of_the_default_heap),
        set_test(test_cache_of_a_heap_is_made_once),
        set_test(test_dropped_cache_is_made_anew_and_others_stay),
        set_test(test_collecting_empties_every_cache),
        set_test(test_arrays_lie_in_the_memory_of_the_set_and_read_as_zero_when_all_is_collected),
        set_test(test_given_array_is_taken_again),
        set_test(test_what_the_memory_has_no_room_for_comes_from_base),
        set_test(test_cache_of_a_limited_heap_is_behind_a_closed_one),
        set_test(test_cache_that_is_open_is_guarded_when_its_heap_gets_a_limit),
        set_test(test_guarded_cache_can_be_emptied),
        set_test(test_first_cache_that_is_guarded_counts_once),
        set_test(test_first_cache_that_others_look_at_stays_open_until_the_next_time),
        set_test(test_what_the_first_cache_holds_is_known_when_it_is_moved),
        set_test(test_first_cache_that_stays_open_does_not_stand_in_the_way_of_its_thread_at_the_limit),
        set_test(test_sums_are_not_steady_while_the_first_cache_is_being_moved),
        set_test(test_growing_block_leaves_a_guarded_cache),
        set_test(test_allocation_at_a_turn_counts_once_if_its_guarded_cache_is_emptied_meanwhile),
        set_test(test_allocation_at_a_turn_counts_once_if_its_cache_becomes_a_guarded_one),
        set_test(test_dropped_guarded_cache_is_made_anew),
        set_test(test_retired_set_has_counted_all_for_its_heaps),
        set_test(test_set_whose_first_cache_is_guarded_can_be_retired),
        set_test(test_set_that_is_looked_at_is_not_retired_and_can_be_used),
        set_test(test_no_cache_is_found_where_all_reads_as_zero),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
