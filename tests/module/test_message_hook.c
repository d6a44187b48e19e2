/*
 * A message is never given with a lock held: who takes it may allocate from the allocator, and so may a handler of the
 * signal that the option abort:true raises.
 *
 * Each test is a child process, which an alarm ends if it stands still.
 */
#include "module.h"

#include <pthread.h>
#include <signal.h>

#include "tests/child.h"

#define STANDS_STILL 10 /* seconds */

/* Of many sizes, so that every lock on the way is wanted; more than a cache has. */
static void
use_all(void)
{
    enum { MANY = 300 };
    void *blocks[MANY]; /* a message may come amid of it, and who takes that is here again */
    static const size_t sizes[] = { 16, 48, 1000, 20000, 50000, 700000, 3 << 20 };
    struct alcove_info info;
    struct alcove_heap_stats stats;
    uint32_t heap;
    for (unsigned s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        unsigned n = sizes[s] < 2000 ? MANY : 10;
        for (unsigned i = 0; i < n; i++)
            CHECK((blocks[i] = table->malloc(sizes[s])) != NULL);
        CHECK((blocks[0] = table->realloc(blocks[0], sizes[s] * 2)) != NULL);
        for (unsigned i = 0; i < n; i++)
            table->free(blocks[i]);
    }
    CHECK(table->heap_create(NULL, &heap) == 0);
    CHECK(table->heap_malloc(heap, 100) != NULL);
    CHECK(table->heap_stats(heap, &stats) == 0 && stats.live_blocks == 1);
    CHECK(table->heap_destroy(heap) == 0);
    table->info(&info);
    table->purge();
}

static atomic_uint told;
static __thread bool inside;

static void
message_that_allocates(void *unused, const char *line)
{
    (void)unused;
    CHECK(strstr(line, "0x") != NULL);
    atomic_fetch_add(&told, 1);
    if (inside)
        return; /* a message while one is given */
    inside = true;
    use_all();
    inside = false;
}

static void
open_with_hook(const char *options)
{
    void (**hook)(void *, const char *);
    alarm(STANDS_STILL);
    options_set(options);
    CHECK(group_open(NULL) == 0);
    hook = symbol_of(module, "malloc_message");
    *hook = message_that_allocates;
}

/* Out of the compilers' sight, who know what must not be freed. */
static void *
hide(const void *address)
{
    const void *volatile hidden = address;
    return (void *)(uintptr_t)hidden;
}

/* What is noticed where it happens. */
static void
misuse_at_once(void)
{
    static const size_t sizes[] = { 16, 48, 1000, 20000, 50000, 700000, 9 << 20 };
    int here = 0;
    table->free(hide(&here));
    CHECK(table->realloc(hide(&here), 10) == NULL);
    CHECK(table->malloc_usable_size(hide(&here)) == 0);
    for (unsigned s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        char *block = table->malloc(sizes[s]);
        CHECK(table->realloc(block + 4, 10) == NULL);
        CHECK(table->malloc_usable_size(block + 4) == 0);
        table->free(block + sizes[s] / 2 + 1);
        table->free(block);
        table->free(block);
    }
    CHECK(table->heap_malloc(77, 10) == NULL);
}

static void
misuse_at_once_and_allocate(void)
{
    open_with_hook("abort:false");
    misuse_at_once();
    CHECK(atomic_load(&told) >= 3 + 4 * 3);
    use_all();
}

static void
test_message_of_what_is_noticed_at_once(void **unused)
{
    (void)unused;
    in_child(misuse_at_once_and_allocate);
}

static void
misuse_without_caches(void)
{
    open_with_hook("abort:false,tcache:false");
    misuse_at_once();
    CHECK(atomic_load(&told) >= 3 + 4 * 3);
    use_all();
}

static void
test_message_without_thread_caches(void **unused)
{
    (void)unused;
    in_child(misuse_without_caches);
}

/* What is noticed when a batch goes back to its heap: at a free that fills a cache, at purge(), at the end of a thread. */
static void
misuse_that_a_cache_hides(size_t size)
{
    enum { MANY = 400 };
    static __thread void *blocks[MANY];
    for (unsigned i = 0; i < MANY; i++)
        CHECK((blocks[i] = table->malloc(size)) != NULL);
    table->free(blocks[0]);
    table->free(blocks[1]);
    table->free(blocks[0]);
    table->free((char *)blocks[MANY - 1] + 1);
    for (unsigned i = 2; i < MANY; i++)
        table->free(blocks[i]);
}

static void
misuse_late_and_allocate(void)
{
    static const size_t sizes[] = { 16, 48, 1000, 5000 };
    open_with_hook("abort:false");
    for (unsigned s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        unsigned before = atomic_load(&told);
        misuse_that_a_cache_hides(sizes[s]);
        table->purge();
        CHECK(atomic_load(&told) > before);
    }
    use_all();
}

static void
test_message_of_what_is_noticed_late(void **unused)
{
    (void)unused;
    in_child(misuse_late_and_allocate);
}

/* Others work meanwhile, and wait for the same locks. */
static atomic_bool stop;

static void *
use_all_until_stopped(void *unused)
{
    (void)unused;
    while (!atomic_load(&stop))
        use_all();
    return NULL;
}

static void *
misuse_in_a_thread(void *unused)
{
    (void)unused;
    misuse_that_a_cache_hides(64);
    return NULL;
}

static void
misuse_while_others_work(void)
{
    pthread_t workers[2], misusers[4];
    open_with_hook("abort:false");
    for (unsigned i = 0; i < 2; i++)
        CHECK(pthread_create(&workers[i], NULL, use_all_until_stopped, NULL) == 0);
    for (unsigned turn = 0; turn < 5; turn++) {
        for (unsigned i = 0; i < 4; i++)
            CHECK(pthread_create(&misusers[i], NULL, misuse_in_a_thread, NULL) == 0);
        for (unsigned i = 0; i < 4; i++)
            pthread_join(misusers[i], NULL);
    }
    atomic_store(&stop, true);
    for (unsigned i = 0; i < 2; i++)
        pthread_join(workers[i], NULL);
    table->purge();
    CHECK(atomic_load(&told) > 0);
}

static void
test_message_while_other_threads_work(void **unused)
{
    (void)unused;
    in_child(misuse_while_others_work);
}

/* A crash reporter allocates in its handler. */
#define REPORTED 3

static void
report(int unused)
{
    (void)unused;
    use_all();
    _exit(REPORTED);
}

static void
abort_at_once(void)
{
    open_with_hook("abort:true");
    signal(SIGABRT, report);
    void *block = table->malloc(48);
    table->free(block);
    table->free(block);
}

static void
abort_late(void)
{
    open_with_hook("abort:true");
    signal(SIGABRT, report);
    misuse_that_a_cache_hides(48);
    table->purge();
}

static void
abort_without_caches(void)
{
    open_with_hook("abort:true,tcache:false");
    signal(SIGABRT, report);
    misuse_that_a_cache_hides(48);
}

static void
abort_of_a_large_block(void)
{
    open_with_hook("abort:true");
    signal(SIGABRT, report);
    void *block = table->malloc(9 << 20);
    table->free((char *)block + 4096);
}

static void
test_handler_of_the_abort_allocates(void **unused)
{
    (void)unused;
    void (*const kinds[])(void) = { abort_at_once, abort_late, abort_without_caches, abort_of_a_large_block };
    char written[4096];
    for (unsigned i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        int status = child_status(kinds[i], written, sizeof written);
        if (!WIFEXITED(status) || WEXITSTATUS(status) != REPORTED)
            fail_msg("kind %u: status %d: %s", i, status, written);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_message_of_what_is_noticed_at_once),
        cmocka_unit_test(test_message_without_thread_caches),
        cmocka_unit_test(test_message_of_what_is_noticed_late),
        cmocka_unit_test(test_message_while_other_threads_work),
        cmocka_unit_test(test_handler_of_the_abort_allocates),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
