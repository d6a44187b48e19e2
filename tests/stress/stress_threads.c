/* Threads allocate, write, resize, hand over to others and free; every block must keep what was written. */
#include "stress.h"

#include <unistd.h>

#define THREADS 8
#define SLOTS 512 /* of the table through which blocks change hands */
#define OWN 64    /* blocks that a thread keeps */

struct block {
    void *address;
    size_t size;
    uint64_t seed;
};

/* Who takes the block out of a slot owns it. */
static struct slot {
    pthread_mutex_t lock;
    struct block block;
} slots[SLOTS];

static bool
holds(const struct block *b)
{
    return b->address == NULL ||
           (mark_holds(b->address, b->size, b->seed) && table->malloc_usable_size(b->address) >= b->size);
}

static bool
make(struct block *b, struct dice *d)
{
    struct alcove_owner owner;
    b->size = roll_size(d);
    b->seed = d->state;
    switch (roll(d, 8)) {
    case 0:
        b->address = table->calloc(1, b->size);
        for (size_t i = 0; b->address != NULL && i < b->size; i += 1 + i / 8)
            if (((char *)b->address)[i] != 0)
                return false;
        break;
    case 1: {
        size_t alignment = (size_t)16 << roll(d, 10);
        b->address = table->aligned_alloc(alignment, b->size);
        if ((uintptr_t)b->address % alignment != 0)
            return false;
        break;
    }
    default:
        b->address = table->malloc(b->size);
    }
    if (b->address == NULL || !table->owner(b->address, &owner) || owner.block != b->address || !owner.live)
        return false;
    mark_write(b->address, b->size, b->seed);
    return true;
}

static bool
resize(struct block *b, struct dice *d)
{
    size_t size = roll(d, 4) == 0 ? roll_size(d) : b->size + b->size / 4 + roll(d, 64);
    size_t kept = size < b->size ? size : b->size;
    unsigned char first = kept != 0 ? *(unsigned char *)b->address : 0;
    if (size == 0)
        size = 1;
    void *to = table->realloc(b->address, size);
    if (to == NULL || (kept != 0 && *(unsigned char *)to != first))
        return false;
    b->address = to;
    b->size = size;
    b->seed = d->state;
    mark_write(to, size, b->seed);
    return true;
}

static void *
work(void *number)
{
    struct dice d = { (uintptr_t)number + 1 };
    struct block own[OWN] = { { NULL, 0, 0 } };
    for (unsigned i = 0; i < rounds * 40000; i++) {
        struct block *b = &own[roll(&d, OWN)];
        if (!holds(b))
            return FAILED;
        uint32_t what = roll(&d, 100);
        if (b->address == NULL) {
            if (!make(b, &d))
                return FAILED;
        } else if (what < 15) {
            if (!resize(b, &d))
                return FAILED;
        } else if (what < 55) {
            struct slot *s = &slots[roll(&d, SLOTS)];
            pthread_mutex_lock(&s->lock);
            struct block other = s->block;
            s->block = *b;
            pthread_mutex_unlock(&s->lock);
            *b = other;
        } else {
            table->free(b->address);
            b->address = NULL;
        }
        if (i % 20000 == 19999)
            table->purge();
    }
    for (unsigned i = 0; i < OWN; i++) {
        if (!holds(&own[i]))
            return FAILED;
        table->free(own[i].address);
    }
    return NULL;
}

/* How many the allocator knows, once it has forgotten those that ended: the system may know a thread for a moment after
 * it was joined. */
static unsigned
threads_settled(unsigned expected)
{
    struct alcove_info info;
    table->info(&info);
    for (int i = 0; i < 2000 && info.threads > expected; i++) {
        usleep(1000);
        table->info(&info);
    }
    return info.threads;
}

static void
test_blocks_keep_their_contents_while_they_change_hands(void **unused)
{
    (void)unused;
    struct alcove_info before, after;
    table->info(&before);
    for (unsigned i = 0; i < SLOTS; i++)
        pthread_mutex_init(&slots[i].lock, NULL);
    in_threads(THREADS, work);
    for (unsigned i = 0; i < SLOTS; i++) {
        assert_true(holds(&slots[i].block));
        table->free(slots[i].block.address);
        slots[i].block = (struct block){ NULL, 0, 0 };
    }
    threads_settled(before.threads);
    table->info(&after);
    assert_int_equal(after.live_blocks, before.live_blocks);
    assert_int_equal(after.live_bytes, before.live_bytes);
    table->purge();
    table->info(&after);
    assert_int_equal(after.active_bytes, before.active_bytes);
    assert_int_equal(message_count, 0);
}

static void *
live_shortly(void *number)
{
    struct dice d = { (uintptr_t)number + 1 };
    struct block b[20];
    for (unsigned i = 0; i < 20; i++)
        if (!make(&b[i], &d))
            return FAILED;
    for (unsigned i = 0; i < 20; i++) {
        if (!holds(&b[i]))
            return FAILED;
        table->free(b[i].address);
    }
    return NULL;
}

static void
test_many_short_threads_leave_nothing(void **unused)
{
    (void)unused;
    struct alcove_info info;
    for (unsigned i = 0; i < rounds * 100; i++)
        in_threads(THREADS, live_shortly);
    assert_true(threads_settled(1) <= 1);
    table->info(&info);
    assert_int_equal(info.live_blocks, 0);
    assert_int_equal(message_count, 0);
}

static uint32_t shared_heap;

/* Blocks of several threads grow side by side in one heap, change hands, and are freed by whoever has them. */
static void *
grow(void *number)
{
    struct dice d = { (uintptr_t)number + 1 };
    struct block own[6] = { { NULL, 0, 0 } };
    for (unsigned i = 0; i < rounds * 4000; i++) {
        struct block *b = &own[roll(&d, 6)];
        if (!holds(b))
            return FAILED;
        size_t size = b->size + (b->size >> (1 + roll(&d, 3)));
        if (roll(&d, 16) == 0) {
            struct slot *s = &slots[roll(&d, THREADS)];
            pthread_mutex_lock(&s->lock);
            struct block other = s->block;
            s->block = *b;
            pthread_mutex_unlock(&s->lock);
            *b = other;
            continue;
        }
        if (b->address != NULL && (size > (3 << 20) || roll(&d, 40) == 0)) {
            table->free(b->address);
            *b = (struct block){ NULL, 0, 0 };
            continue;
        }
        if (b->address == NULL)
            size = 16 + roll(&d, 9000);
        b->address = table->heap_realloc(shared_heap, b->address, size);
        if (b->address == NULL || (b->size != 0 && !mark_holds(b->address, b->size, b->seed)))
            return FAILED;
        b->size = size;
        b->seed = d.state;
        mark_write(b->address, size, b->seed);
    }
    for (unsigned i = 0; i < 6; i++) {
        if (!holds(&own[i]))
            return FAILED;
        table->free(own[i].address);
    }
    return NULL;
}

static atomic_bool stop;

static void *
watch_shared(void *unused)
{
    (void)unused;
    while (!stop) {
        struct alcove_heap_stats s;
        if (table->heap_stats(shared_heap, &s) != 0)
            return FAILED;
        table->purge();
    }
    return NULL;
}

static void
test_blocks_grow_side_by_side(void **unused)
{
    (void)unused;
    pthread_t watcher;
    void *result;
    struct alcove_heap_stats s;
    assert_int_equal(table->heap_create(NULL, &shared_heap), 0);
    stop = false;
    assert_int_equal(pthread_create(&watcher, NULL, watch_shared, NULL), 0);
    in_threads(THREADS, grow);
    stop = true;
    pthread_join(watcher, &result);
    assert_null(result);
    for (unsigned i = 0; i < THREADS; i++) {
        assert_true(holds(&slots[i].block));
        table->free(slots[i].block.address);
        slots[i].block = (struct block){ NULL, 0, 0 };
    }
    threads_settled(1);
    table->purge();
    assert_int_equal(table->heap_stats(shared_heap, &s), 0);
    assert_int_equal(s.live_blocks, 0);
    assert_int_equal(s.live_bytes, 0);
    assert_int_equal(s.active_bytes, 0);
    assert_int_equal(s.total_allocs, s.total_frees);
    assert_int_equal(table->heap_destroy(shared_heap), 0);
    assert_int_equal(message_count, 0);
}

static void *
watch(void *unused)
{
    (void)unused;
    while (!stop) {
        struct alcove_info info;
        struct alcove_heap_stats s;
        table->info(&info);
        if (table->heap_stats(0, &s) != 0 || s.live_bytes > info.mapped_bytes * 4)
            return FAILED;
    }
    return NULL;
}

static void
test_figures_can_be_read_meanwhile(void **unused)
{
    (void)unused;
    pthread_t watcher;
    void *result;
    table->free(table->malloc(1));
    stop = false;
    assert_int_equal(pthread_create(&watcher, NULL, watch, NULL), 0);
    for (unsigned i = 0; i < rounds * 50; i++)
        in_threads(THREADS, live_shortly);
    stop = true;
    pthread_join(watcher, &result);
    assert_null(result);
}

/* Figures that are read while the records of threads that ended are emptied: nothing is counted twice, or not at all. */
#define COUNTED 37

static uint32_t counted_heap;
static uint64_t counted_total;

static void *
allocate_counted(void *unused)
{
    (void)unused;
    void *blocks[COUNTED];
    for (unsigned i = 0; i < COUNTED; i++)
        blocks[i] = table->heap_malloc(counted_heap, 16 + i * 40);
    for (unsigned i = 0; i < COUNTED; i++)
        table->free(blocks[i]);
    return NULL;
}

static void *
read_counted(void *unused)
{
    (void)unused;
    while (!stop) {
        if (!figures_become(counted_heap, 0, counted_total))
            return FAILED;
        usleep(20); /* while somebody reads, no record is emptied */
    }
    return NULL;
}

static void
test_figures_are_true_while_records_are_emptied(void **unused)
{
    (void)unused;
    assert_int_equal(table->heap_create(NULL, &counted_heap), 0);
    counted_total = 0;
    for (unsigned i = 0; i < rounds * 50; i++) {
        pthread_t reader;
        void *result;
        in_threads(THREADS, allocate_counted);
        threads_settled(1);
        counted_total += THREADS * COUNTED;
        stop = false;
        assert_int_equal(pthread_create(&reader, NULL, read_counted, NULL), 0);
        for (unsigned turn = 0; turn < 20; turn++) {
            usleep(10);
            table->purge();
        }
        stop = true;
        pthread_join(reader, &result);
        assert_null(result);
    }
    assert_int_equal(table->heap_destroy(counted_heap), 0);
}

int
main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_blocks_keep_their_contents_while_they_change_hands),
        cmocka_unit_test(test_blocks_grow_side_by_side),
        cmocka_unit_test(test_many_short_threads_leave_nothing),
        cmocka_unit_test(test_figures_can_be_read_meanwhile),
        cmocka_unit_test(test_figures_are_true_while_records_are_emptied),
    };
    rounds_read(argc, argv);
    ALCOVE_PUBLIC(malloc_message) = messages_count;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
