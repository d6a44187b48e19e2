/*
 * What lies free in the caches of threads does not stand in the way of an allocation at a heap's limit: not when
 * those threads sleep, and not when the blocks lie scattered among live ones. Nothing is handed out twice for it.
 */
#include "heaps.h"

#include <pthread.h>
#include <time.h>

#include "tests/child.h"

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)
#define SLEEPERS_MOST 8
#define KEPT_MOST 4000

static uint32_t heap;

/* What sleeping threads have in their caches: blocks of many sizes from `smallest` to `largest`, `held` bytes of each size,
 * of which one in `kept` stays live; 0: none. */
struct mix {
    const char *name;
    size_t smallest, largest, held;
    unsigned sleepers, kept;
};

static const struct mix mixes[] = {
    { "small", 16, 32 * KIB, 32 * KIB, 8, 0 },
    { "small and few live", 16, 32 * KIB, 64 * KIB, 8, 2000 },
    { "large", 40 * KIB, MIB, 512 * KIB, 1, 0 },
    { "large of two", 40 * KIB, 400 * KIB, 400 * KIB, 2, 0 },
    { "large among live", 40 * KIB, MIB, MIB, 1, 12 },
    { "all", 16, MIB, 128 * KIB, 4, 0 },
};

struct kept {
    void *block;
    size_t size;
};

struct sleeper {
    const struct mix *mix;
    unsigned seed, count;
    struct kept kept[KEPT_MOST];
    int wake[2]; /* a pipe: it sleeps in a read of it */
    pthread_t thread;
};

static struct sleeper sleepers[SLEEPERS_MOST];
static pthread_barrier_t asleep;

static void
fill_caches(struct sleeper *s)
{
    static __thread struct kept blocks[KEPT_MOST];
    unsigned made = 0;
    for (size_t size = s->mix->smallest; size <= s->mix->largest; size += size / 8) {
        unsigned n = 0, wanted = (unsigned)(s->mix->held / size) + 1;
        for (; n < wanted && n < KEPT_MOST; n++) {
            void *block = table->heap_malloc(heap, size);
            if (block == NULL)
                break;
            fill(block, size, s->seed + n);
            blocks[n] = (struct kept){ block, size };
        }
        for (unsigned i = 0; i < n; i++)
            if (s->mix->kept != 0 && ++made % s->mix->kept == 0 && s->count < KEPT_MOST) {
                fill(blocks[i].block, size, s->seed + s->count);
                s->kept[s->count++] = blocks[i];
            } else {
                table->free(blocks[i].block);
            }
    }
}

static void
check_kept(const struct sleeper *s)
{
    for (unsigned i = 0; i < s->count; i++)
        CHECK(filled(s->kept[i].block, s->kept[i].size, s->seed + i));
}

static void *
fill_caches_and_sleep(void *argument)
{
    struct sleeper *s = argument;
    char byte;
    fill_caches(s);
    pthread_barrier_wait(&asleep);
    CHECK(read(s->wake[0], &byte, 1) == 1);
    /* Others have had what it held: it works on as if nothing had been. */
    check_kept(s);
    for (unsigned i = 0; i < s->count; i++)
        table->free(s->kept[i].block);
    s->count = 0;
    fill_caches(s);
    check_kept(s);
    for (unsigned i = 0; i < s->count; i++)
        table->free(s->kept[i].block);
    return NULL;
}

static void
put_to_sleep(const struct mix *mix)
{
    pthread_barrier_init(&asleep, NULL, mix->sleepers + 1);
    for (unsigned i = 0; i < mix->sleepers; i++) {
        sleepers[i] = (struct sleeper){ .mix = mix, .seed = i * 1000 };
        CHECK(pipe(sleepers[i].wake) == 0);
        CHECK(pthread_create(&sleepers[i].thread, NULL, fill_caches_and_sleep, &sleepers[i]) == 0);
    }
    pthread_barrier_wait(&asleep);
}

static void
wake_all(const struct mix *mix)
{
    for (unsigned i = 0; i < mix->sleepers; i++) {
        CHECK(write(sleepers[i].wake[1], "", 1) == 1);
        pthread_join(sleepers[i].thread, NULL);
        close(sleepers[i].wake[0]);
        close(sleepers[i].wake[1]);
    }
    CHECK(stats_of(heap).live_blocks == 0);
}

/* Blocks of a size, so many bytes altogether: each is had, and none is a block that was had already. */
static void
take(const char *what, size_t size, size_t bytes)
{
    static void *blocks[40000];
    unsigned n = (unsigned)(bytes / size);
    CHECK(n <= sizeof blocks / sizeof *blocks);
    for (unsigned i = 0; i < n; i++) {
        if ((blocks[i] = table->heap_malloc(heap, size)) == NULL) {
            struct alcove_heap_stats s = stats_of(heap);
            fprintf(stderr, "%s: block %u of %u of %zu bytes refused: limit %llu, live %llu, cached %llu, active %llu\n", what, i,
                    n, size, (unsigned long long)s.limit, (unsigned long long)s.live_bytes, (unsigned long long)s.cached_bytes,
                    (unsigned long long)s.active_bytes);
            _exit(1);
        }
        fill(blocks[i], size, i + 7);
    }
    for (unsigned i = 0; i < n; i++)
        CHECK(filled(blocks[i], size, i + 7));
    for (unsigned i = 0; i < n; i++)
        table->free(blocks[i]);
}

#define TAKEN(limit) ((limit) / 4) /* live blocks and what lies in the way of a slab leave more than that */

static void
take_all_kinds(const char *what, uint64_t limit)
{
    struct alcove_heap_stats s = stats_of(heap);
    CHECK(s.live_bytes < limit / 4);
    take(what, TAKEN(limit), TAKEN(limit));
    take(what, 300 * KIB, TAKEN(limit));
    take(what, 50000, TAKEN(limit));
    take(what, 3000, TAKEN(limit));
    take(what, 200, TAKEN(limit));
    CHECK(stats_of(heap).live_blocks == s.live_blocks);
    CHECK(stats_of(heap).limit_refused == s.limit_refused);
}

static void
take_beside_sleepers(void)
{
    CHECK(group_open(NULL) == 0);
    for (unsigned i = 0; i < sizeof mixes / sizeof *mixes; i++) {
        heap = heap_new(16 * MIB);
        put_to_sleep(&mixes[i]);
        take_all_kinds(mixes[i].name, 16 * MIB);
        wake_all(&mixes[i]);
        heap_end(heap);
    }
}

static void
test_caches_of_sleeping_threads_do_not_stand_in_the_way(void **unused)
{
    (void)unused;
    in_child(take_beside_sleepers);
}

/* The limit is set when the caches are full; what is in them is above it. */
static void
take_under_a_lowered_limit(void)
{
    CHECK(group_open(NULL) == 0);
    for (unsigned i = 0; i < sizeof mixes / sizeof *mixes; i++) {
        heap = heap_new(64 * MIB);
        put_to_sleep(&mixes[i]);
        uint64_t limit = stats_of(heap).active_bytes / 2;
        if (limit < stats_of(heap).live_bytes * 6)
            limit = stats_of(heap).live_bytes * 6;
        limit = limit < 2 * MIB ? 2 * MIB : limit;
        CHECK(table->heap_limit(heap, limit) == 0);
        take_all_kinds(mixes[i].name, limit);
        CHECK(stats_of(heap).active_bytes <= limit);
        CHECK(table->heap_limit(heap, 64 * MIB) == 0);
        wake_all(&mixes[i]);
        heap_end(heap);
    }
}

static void
test_caches_do_not_stand_in_the_way_of_a_limit_lowered_later(void **unused)
{
    (void)unused;
    in_child(take_under_a_lowered_limit);
}

/* realloc that must move finds room too. */
static void
grow_beside_sleepers(void)
{
    CHECK(group_open(NULL) == 0);
    for (unsigned i = 0; i < sizeof mixes / sizeof *mixes; i++) {
        heap = heap_new(16 * MIB);
        unsigned char *block = table->heap_malloc(heap, 100);
        put_to_sleep(&mixes[i]);
        for (size_t size = 100; size <= 3 * MIB; size *= 2) {
            fill(block, size, 1);
            unsigned char *grown = table->heap_realloc(heap, block, size * 2);
            if (grown == NULL)
                fprintf(stderr, "%s: realloc of %zu bytes to twice as much refused\n", mixes[i].name, size);
            CHECK(grown != NULL && filled(grown, size, 1));
            block = grown;
        }
        table->free(block);
        wake_all(&mixes[i]);
        heap_end(heap);
    }
}

static void
test_caches_do_not_stand_in_the_way_of_realloc(void **unused)
{
    (void)unused;
    in_child(grow_beside_sleepers);
}

/* Threads that work at the limit, so that each takes what lies in the caches of the others while these use them. */
#define WORKERS 4
#define HELD 300
#define STRESS_SECONDS 2

static atomic_bool stop;

struct held {
    unsigned char *block;
    size_t size;
    unsigned seed;
};

static void *
work_at_the_limit(void *argument)
{
    static __thread struct held held[HELD];
    uint32_t state = 12345 + (uint32_t)(uintptr_t)argument * 2654435761u;
    uintptr_t refused = 0;
    while (!atomic_load(&stop)) {
        struct held *h = &held[random_next(&state) % HELD];
        uint32_t x = random_next(&state);
        size_t size = x % 16 == 0 ? 33000 + x % 300000 : 1 + x % 5000;
        if (h->block != NULL) {
            CHECK(filled(h->block, h->size, h->seed));
            if (x % 3 == 0) {
                unsigned char *other = table->heap_realloc(heap, h->block, size);
                size_t common = size < h->size ? size : h->size, at = 0;
                if (other == NULL) {
                    refused++;
                    CHECK(filled(h->block, h->size, h->seed));
                    continue;
                }
                while (at < common && other[at] == (unsigned char)(h->seed * 37 + h->size))
                    at++;
                CHECK(at == common);
                h->block = other;
            } else {
                table->free(h->block);
                h->block = NULL;
            }
        } else if ((h->block = table->heap_malloc(heap, size)) == NULL) {
            refused++;
        }
        if (h->block != NULL) {
            *h = (struct held){ h->block, size, x };
            fill(h->block, size, x);
        }
        if (x % 20000 == 0)
            nanosleep(&(struct timespec){ .tv_nsec = 3000000 }, NULL); /* with its caches full */
    }
    for (unsigned i = 0; i < HELD; i++) {
        CHECK(held[i].block == NULL || filled(held[i].block, held[i].size, held[i].seed));
        table->free(held[i].block);
    }
    return (void *)refused;
}

static void
work_at_the_limit_in_threads(void)
{
    pthread_t threads[WORKERS];
    uintptr_t refused = 0;
    CHECK(group_open(NULL) == 0);
    heap = heap_new(8 * MIB);
    for (uintptr_t i = 0; i < WORKERS; i++)
        CHECK(pthread_create(&threads[i], NULL, work_at_the_limit, (void *)i) == 0);
    for (int i = 0; i < STRESS_SECONDS * 100; i++) {
        nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
        CHECK(stats_of(heap).active_bytes <= 8 * MIB);
    }
    atomic_store(&stop, true);
    for (unsigned i = 0; i < WORKERS; i++) {
        void *of_one;
        pthread_join(threads[i], &of_one);
        refused += (uintptr_t)of_one;
    }
    struct alcove_heap_stats s = stats_of(heap);
    CHECK(refused > 0 && s.limit_refused == refused);
    CHECK(s.live_blocks == 0 && s.live_bytes == 0 && s.total_allocs == s.total_frees);
    CHECK(strcmp(messages, "") == 0);
    heap_end(heap);
}

static void
test_nothing_is_handed_out_twice_at_the_limit(void **unused)
{
    (void)unused;
    in_child(work_at_the_limit_in_threads);
}

static void *
take_nearly_all(void *unused)
{
    (void)unused;
    for (int i = 0; i < 14; i++)
        CHECK(table->heap_malloc(heap, 16 * KIB) != NULL);
    return NULL;
}

/* While little is live, every pop of such a block is a turn; at the first one after there is a limit the cache is guarded. */
static void
turn_under_a_new_limit(void)
{
    pthread_t thread;
    CHECK(group_open(NULL) == 0);
    heap = heap_new(0);
    for (int i = 0; i < 4; i++)
        table->free(table->heap_malloc(heap, 16 * KIB));
    CHECK(table->heap_limit(heap, 256 * KIB) == 0);
    table->free(table->heap_malloc(heap, 16 * KIB));
    CHECK(pthread_create(&thread, NULL, take_nearly_all, NULL) == 0);
    pthread_join(thread, NULL);
    heap_end(heap);
}

static void
test_next_turn_of_a_thread_guards_its_cache(void **unused)
{
    (void)unused;
    in_child(turn_under_a_new_limit);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_caches_of_sleeping_threads_do_not_stand_in_the_way),
        cmocka_unit_test(test_caches_do_not_stand_in_the_way_of_a_limit_lowered_later),
        cmocka_unit_test(test_caches_do_not_stand_in_the_way_of_realloc),
        cmocka_unit_test(test_next_turn_of_a_thread_guards_its_cache),
        cmocka_unit_test(test_nothing_is_handed_out_twice_at_the_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
