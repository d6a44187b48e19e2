/*
 * Loads, uses and unloads the built allocator over and over, by bare dlopen and dlclose and by the loader, while
 * threads that used it live on, end, or sleep. What must hold is what doc/unloading.md promises: a caller keeps
 * threads out of the allocator while it goes, and nothing else.
 *
 * stress_unload [cycles]     default: ALCOVE_TEST_LOADS, or 300
 */
#include "module.h"

#include <malloc.h>
#include <pthread.h>

#include <alcove/loader.h>

#include "config.h"
#include "tests/child.h"

static unsigned cycles = 300;

#define SKIP_IF_SANITIZED()                                                              \
    do {                                                                                 \
        if (UNDER_TSAN)                                                                  \
            SKIP_BECAUSE("what ThreadSanitizer maps hides what the allocator does"); \
    } while (0)

/* The allocator while it is loaded, else NULL. Who uses it holds the lock for reading, who unloads for writing. */
static pthread_rwlock_t lifetime = PTHREAD_RWLOCK_INITIALIZER;
static const struct alcove_table *t;

static void *bare;
static alcove_allocator *lent;

static void
load_bare(void)
{
    t = module_open(module_path(), &bare);
    assert_non_null(t);
}

static void
unload_bare(void)
{
    t = NULL;
    assert_int_equal(dlclose(bare), 0);
}

static void
load_lent(void)
{
    if (alcove_load(&lent, &(struct alcove_load_options){ .path = module_path() }) != 0)
        fail_msg("%s", alcove_error_message());
    t = alcove_table_of(lent);
}

static void
unload_lent(void)
{
    t = NULL;
    if (alcove_unload(lent, 0) != 0)
        fail_msg("%s", alcove_error_message());
}

static const struct way {
    void (*load)(void), (*unload)(void);
} ways[] = { { load_bare, unload_bare }, { load_lent, unload_lent } };

static bool
use(unsigned seed)
{
    void *blocks[40];
    bool good = true;
    for (unsigned i = 0; i < 40; i++) {
        blocks[i] = t->malloc(i * i * (1 + seed % 13));
        fill(blocks[i], i * i * (1 + seed % 13), i + seed);
    }
    for (unsigned i = 0; i < 40; i++) {
        good = good && filled(blocks[i], i * i * (1 + seed % 13), i + seed);
        t->free(blocks[i]);
    }
    return good;
}

/* Threads that ended. */
static _Atomic unsigned lives;

/* A thread takes over what one before it has left, when the system no longer knows that one. ThreadSanitizer cannot see
 * this order of things: there the end is told. */
static void
life_ends(void)
{
    if (UNDER_TSAN) {
        pthread_rwlock_rdlock(&lifetime);
        if (t != NULL)
            t->thread_exit();
        pthread_rwlock_unlock(&lifetime);
    }
    lives++;
}

/* Use it if it is there. */
static bool
visit(unsigned seed)
{
    pthread_rwlock_rdlock(&lifetime);
    bool good = t == NULL || use(seed);
    pthread_rwlock_unlock(&lifetime);
    return good;
}

static void
swap(void (*change)(void))
{
    pthread_rwlock_wrlock(&lifetime);
    change();
    pthread_rwlock_unlock(&lifetime);
}

/* Short-lived threads, always. */

static _Atomic bool stop;
static _Atomic unsigned failures;

static void *
live_shortly(void *seed)
{
    if (!visit((unsigned)(uintptr_t)seed))
        failures++;
    life_ends();
    return NULL;
}

static void *
breed(void *seed)
{
    for (unsigned i = (unsigned)(uintptr_t)seed; !stop; i += 2) {
        pthread_t children[4];
        for (unsigned k = 0; k < 4; k++)
            if (pthread_create(&children[k], NULL, live_shortly, (void *)(uintptr_t)(i + k)) != 0)
                abort();
        for (unsigned k = 0; k < 4; k++)
            pthread_join(children[k], NULL);
    }
    return NULL;
}

/* A key of the program's own, whose destructor uses the allocator at the thread's end. */

static pthread_key_t late;

static void
use_late(void *seed)
{
    if (!visit((unsigned)(uintptr_t)seed))
        failures++;
    life_ends();
}

static void *
live_long(void *seed)
{
    pthread_setspecific(late, (void *)((uintptr_t)seed + 1));
    for (unsigned i = 0; !stop; i++) {
        if (!visit(i))
            failures++;
        usleep(i % 3 * 100);
    }
    return NULL;
}

/* A child has none of the threads, and loads, uses and unloads it again. It makes no threads: glibc would give them stacks
 * of its parent's, and free dynamic TLS that was just being freed at the fork (doc/unloading.md, Cases). */

static const struct way *way_of_child;
static unsigned seed_of_child;

static void
visit_in_child(void)
{
    lifetime = (pthread_rwlock_t)PTHREAD_RWLOCK_INITIALIZER;
    swap(way_of_child->load);
    CHECK(visit(seed_of_child) && failures == 0);
    swap(way_of_child->unload);
}

static void
race(const struct way *way)
{
    pthread_t breeders[2], living[2];
    way_of_child = way;
    stop = false;
    failures = lives = 0;
    assert_int_equal(pthread_key_create(&late, use_late), 0);
    for (uintptr_t i = 0; i < 2; i++) {
        assert_int_equal(pthread_create(&breeders[i], NULL, breed, (void *)i), 0);
        assert_int_equal(pthread_create(&living[i], NULL, live_long, (void *)i), 0);
    }
    for (unsigned i = 0; i < (UNDER_TSAN ? cycles / 4 : cycles); i++) { /* there each takes so long */
        swap(way->load);
        visit(i);
        if (i % 4 != 0)
            sched_yield();
        swap(way->unload);
        if (i % 64 == 63) {
            seed_of_child = i;
            in_child(visit_in_child);
        }
    }
    stop = true;
    for (int i = 0; i < 2; i++) {
        pthread_join(breeders[i], NULL);
        pthread_join(living[i], NULL);
    }
    pthread_key_delete(late);
    assert_int_equal(failures, 0);
    assert_true(lives > 8);
}

static void
test_bare_unload_races_with_threads_that_come_and_go(void **unused)
{
    (void)unused;
    SKIP_WITHOUT_UNLOADING();
    race(&ways[0]);
}

static void
test_loader_unload_races_with_threads_that_come_and_go(void **unused)
{
    (void)unused;
    race(&ways[1]);
}

/* Two threads use it, it is unloaded, then they end. */

static pthread_barrier_t barrier;

static void *
use_and_outlive(void *seed)
{
    bool good = use((unsigned)(uintptr_t)seed);
    pthread_barrier_wait(&barrier); /* used */
    pthread_barrier_wait(&barrier); /* unloaded */
    return good ? &barrier : NULL;
}

struct state {
    size_t resident, mapped;
    unsigned mappings, keys;
};

static unsigned
keys_free(void)
{
    static pthread_key_t keys[PTHREAD_KEYS_MAX];
    unsigned n = 0;
    while (n < PTHREAD_KEYS_MAX && pthread_key_create(&keys[n], NULL) == 0)
        n++;
    for (unsigned i = 0; i < n; i++)
        pthread_key_delete(keys[i]);
    return n;
}

static struct state
state_now(void)
{
    return (struct state){ resident_bytes(), mapped_bytes(), mappings_with(""), keys_free() };
}

#define SETTLED 10 /* cycles after which nothing grows */
#define SLACK ((size_t)128 << 10) /* all in all: libc's heap, the stack, pages of text that are touched late */

#define GIB_MOST 10

static void
stay_flat(const struct way *way)
{
    SKIP_IF_SANITIZED();
    struct state before = { 0 };
    pthread_barrier_init(&barrier, NULL, 3);
    for (unsigned i = 0; i < cycles + SETTLED; i++) {
        pthread_t threads[2];
        void *result;
        way->load();
        for (uintptr_t k = 0; k < 2; k++)
            assert_int_equal(pthread_create(&threads[k], NULL, use_and_outlive, (void *)(i + k)), 0);
        pthread_barrier_wait(&barrier);
        way->unload();
        pthread_barrier_wait(&barrier);
        for (int k = 0; k < 2; k++) {
            pthread_join(threads[k], &result);
            assert_ptr_equal(result, &barrier);
        }
        if (i + 1 == SETTLED)
            before = state_now();
    }
    struct state after = state_now();
    pthread_barrier_destroy(&barrier);
    assert_int_equal(after.keys, before.keys);
    if (emulated()) {
        /* The page map keeps a table for each GiB that was ever used; qemu goes on to the next where the kernel returns. */
        assert_in_range(after.mappings, 0, before.mappings + GIB_MOST);
        assert_in_range(after.mapped, 0, before.mapped + GIB_MOST * ((size_t)1 << 30 >> ALCOVE_LG_PAGE) * sizeof(void *));
    } else {
        assert_int_equal(after.mappings, before.mappings);
        assert_int_equal(after.mapped, before.mapped);
    }
    if (after.resident > before.resident + SLACK)
        fail_msg("%zu bytes resident after %u cycles, %zu after %u", after.resident, cycles + SETTLED, before.resident, SETTLED);
}

static void
test_bare_cycles_leave_nothing_though_threads_live(void **unused)
{
    (void)unused;
    SKIP_WITHOUT_UNLOADING();
    stay_flat(&ways[0]);
}

static void
test_loader_cycles_leave_nothing_though_threads_live(void **unused)
{
    (void)unused;
    stay_flat(&ways[1]);
}

int
main(int argc, char **argv)
{
    const char *text = argc > 1 ? argv[1] : getenv("ALCOVE_TEST_LOADS");
    if (text != NULL && atoi(text) > 0)
        cycles = (unsigned)atoi(text);
#ifdef M_ARENA_MAX
    mallopt(M_ARENA_MAX, 1); /* libc's own memory is not to be taken for ours */
#endif
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bare_cycles_leave_nothing_though_threads_live),
        cmocka_unit_test(test_loader_cycles_leave_nothing_though_threads_live),
        cmocka_unit_test(test_bare_unload_races_with_threads_that_come_and_go),
        cmocka_unit_test(test_loader_unload_races_with_threads_that_come_and_go),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
