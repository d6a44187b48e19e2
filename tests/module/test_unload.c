/*
 * What a bare dlclose leaves behind: nothing but blocks that are live, with their slabs, whatever threads used it. No
 * loader takes part.
 */
#include "module.h"

#include <malloc.h>
#include <pthread.h>
#include <sys/wait.h>

static void *handle;
static const struct alcove_table *t;

static int
load(void **unused)
{
    (void)unused;
    t = module_open(module_path(), &handle);
    return t != NULL ? 0 : -1;
}

static bool
is_mapped(void)
{
    return mappings_with(strrchr(module_path(), '/')) != 0;
}

static void
unload(void)
{
    assert_int_equal(dlclose(handle), 0);
    assert_int_equal(is_mapped(), !DLCLOSE_UNLOADS);
}

static void
meet(void *barrier)
{
    if (barrier != NULL)
        pthread_barrier_wait(barrier);
}

/* With a barrier: two threads are to hold what they allocate at the same time, so that each use takes as much as another. */
static void *
use(void *barrier)
{
    void *blocks[100];
    uint32_t heap;
    t->heap_create(NULL, &heap);
    for (int round = 0; round < 10; round++) {
        for (unsigned i = 0; i < 100; i++)
            fill(blocks[i] = t->heap_malloc(i % 2 ? heap : 0, i * i * 7), i * i * 7, i);
        meet(barrier);
        for (unsigned i = 0; i < 100; i++)
            t->free(blocks[i]);
    }
    t->heap_destroy(heap);
    void *huge = t->malloc(5 << 20);
    meet(barrier);
    t->free(huge);
    return NULL;
}

static void
use_from_two_threads(void)
{
    pthread_t threads[2];
    pthread_barrier_t both;
    pthread_barrier_init(&both, NULL, 2);
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, use, &both), 0);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    pthread_barrier_destroy(&both);
}

static void
test_dlclose_of_an_unused_module_leaves_nothing(void **unused)
{
    (void)unused;
    assert_true(is_mapped());
    unload();
}

static void
test_dlclose_after_use_leaves_nothing(void **unused)
{
    (void)unused;
    use(NULL);
    unload();
    unsigned before = mappings_with("");
    for (int i = 0; i < 3; i++) {
        assert_int_equal(load(NULL), 0);
        use(NULL);
        unload();
    }
    assert_true(mappings_with("") <= before + 1); /* libc's own heap may have grown */
}

static void
test_dlclose_after_two_threads_have_ended_leaves_nothing(void **unused)
{
    (void)unused;
    SKIP_WITHOUT_UNLOADING();
    use_from_two_threads(); /* libc keeps their stacks */
    unload();
    unsigned maps = mappings_with("");
    size_t bytes = mapped_bytes();
    assert_int_equal(load(NULL), 0);
    use_from_two_threads();
    use(NULL);
    unload();
    assert_true(mappings_with("") <= maps + 1);
    assert_true(mapped_bytes() <= bytes + (128 << 10));
}

static void
test_dlclose_after_forty_threads_have_ended_leaves_nothing(void **unused)
{
    (void)unused;
    SKIP_WITHOUT_UNLOADING();
    size_t bytes = 0;
    for (int round = 0; round < 3; round++) {
        if (round > 0)
            assert_int_equal(load(NULL), 0);
        pthread_t threads[40];
        for (int i = 0; i < 40; i++)
            assert_int_equal(pthread_create(&threads[i], NULL, use, NULL), 0);
        for (int i = 0; i < 40; i++)
            pthread_join(threads[i], NULL);
        unload();
        if (round == 0)
            bytes = mapped_bytes();
    }
    assert_true(mapped_bytes() <= bytes + (1 << 20));
}

static void
test_hundred_cycles_do_not_grow(void **unused)
{
    (void)unused;
    unsigned maps = 0;
    size_t bytes = 0;
    use_from_two_threads();
    unload();
    for (int i = 0; i < 100; i++) {
        assert_int_equal(load(NULL), 0);
        use_from_two_threads();
        use(NULL);
        unload();
        if (i == 10) {
            maps = mappings_with("");
            bytes = mapped_bytes();
        }
    }
    assert_true(mappings_with("") <= maps + 2);
    /* What is not unloaded keeps the chunks of a huge block, another and a few records more when threads happen to overlap more. */
    assert_true(mapped_bytes() <= bytes + (DLCLOSE_UNLOADS ? 256 << 10 : 13 << 20));
}

static void
test_live_blocks_stay_readable_and_writable(void **unused)
{
    (void)unused;
    static const size_t sizes[] = { 1, 100, 5000, 50000, 1500000, 9 << 20 };
    void *blocks[6];
    for (unsigned i = 0; i < 6; i++)
        fill(blocks[i] = t->malloc(sizes[i]), sizes[i], i);
    unload();
    for (unsigned i = 0; i < 6; i++) {
        assert_true(filled(blocks[i], sizes[i], i));
        memset(blocks[i], 0xcc, sizes[i]);
    }
}

/* Live blocks keep the pages of their slabs, no more. */
static void
test_live_blocks_keep_only_their_own_pages(void **unused)
{
    (void)unused;
    SKIP_WITHOUT_UNLOADING();
    enum { COUNT = 20000 };
    static void *blocks[COUNT];
    unload();
    size_t mapped = mapped_bytes(), resident = resident_bytes();
    assert_int_equal(load(NULL), 0);
    for (unsigned i = 0; i < COUNT; i++)
        fill(blocks[i] = t->malloc(1000 + i % 7 * 300), 1000 + i % 7 * 300, i);
    for (unsigned i = 0; i < COUNT; i++)
        if (i % (COUNT / 4) != 0)
            t->free(blocks[i]);
    unload();
    for (unsigned i = 0; i < COUNT; i += COUNT / 4)
        assert_true(filled(blocks[i], 1000 + i % 7 * 300, i));
    assert_true(mapped_bytes() <= mapped + 4 * (128 << 10));
    assert_true(resident_bytes() <= resident + 4 * (128 << 10));
}

static void
test_live_blocks_are_told_of_when_asked(void **unused)
{
    (void)unused;
    SKIP_WITHOUT_UNLOADING();
    unload();
    for (int verbose = 0; verbose < 2; verbose++) {
        options_set(verbose ? "verbose:true" : NULL);
        messages_clear();
        for (int live = 0; live < 3; live++) {
            assert_int_equal(load(NULL), 0);
            module_listen(handle);
            for (int i = 0; i < live; i++)
                assert_non_null(t->malloc(1000));
            unload();
            if (!verbose || live == 0)
                assert_int_equal(message_count, 0);
        }
    }
    options_set(NULL);
    assert_int_equal(message_count, 2);
    assert_message("1 live block of ");
    assert_message("2 live blocks of ");
}

/* What its table offers to a loader of somebody else's. */
static void
test_detach_that_leaves_live_blocks(void **unused)
{
    (void)unused;
    SKIP_WITHOUT_UNLOADING();
    char *block = t->malloc(3000);
    fill(block, 3000, 3);
    assert_int_equal(t->detach_leaving(), 0);
    unload();
    assert_true(filled(block, 3000, 3));
}

static pthread_barrier_t barrier;

static void *
use_and_outlive(void *unused)
{
    (void)unused;
    t->free(t->malloc(100));
    pthread_barrier_wait(&barrier); /* used */
    pthread_barrier_wait(&barrier); /* unloaded */
    return &barrier;
}

/* Whatever is called when it ends must not be code that is gone. */
static void
test_thread_that_used_it_ends_after_dlclose(void **unused)
{
    (void)unused;
    pthread_t thread;
    void *result;
    pthread_barrier_init(&barrier, NULL, 2);
    assert_int_equal(pthread_create(&thread, NULL, use_and_outlive, NULL), 0);
    pthread_barrier_wait(&barrier);
    t->free(t->malloc(100));
    unload();
    pthread_barrier_wait(&barrier);
    pthread_join(thread, &result);
    assert_ptr_equal(result, &barrier);
    pthread_barrier_destroy(&barrier);
}

static void *
outlive_and_use_again(void *unused)
{
    (void)unused;
    t->free(t->malloc(100));
    pthread_barrier_wait(&barrier); /* used */
    pthread_barrier_wait(&barrier); /* loaded again */
    void *block = t->malloc(100);
    struct alcove_owner owner;
    bool good = block != NULL && t->owner(block, &owner) == 1 && owner.live;
    t->free(block);
    return good ? &barrier : NULL;
}

static void
test_thread_uses_the_module_that_was_loaded_again(void **unused)
{
    (void)unused;
    pthread_t thread;
    void *result;
    pthread_barrier_init(&barrier, NULL, 2);
    assert_int_equal(pthread_create(&thread, NULL, outlive_and_use_again, NULL), 0);
    pthread_barrier_wait(&barrier);
    unload();
    assert_int_equal(load(NULL), 0);
    pthread_barrier_wait(&barrier);
    pthread_join(thread, &result);
    assert_ptr_equal(result, &barrier);
    pthread_barrier_destroy(&barrier);
    unload();
}

static void
test_fork_works_after_dlclose(void **unused)
{
    (void)unused;
    t->free(t->malloc(100));
    unload();
    int status;
    pid_t child = fork(); /* its handlers must be gone with it */
    if (child == 0)
        _exit(7);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(WEXITSTATUS(status), 7);
}

static void
test_keys_of_threads_are_not_used_up(void **unused)
{
    (void)unused;
    unload();
    for (int i = 0; i < 2 * PTHREAD_KEYS_MAX; i++) {
        assert_int_equal(load(NULL), 0);
        t->free(t->malloc(100));
        assert_int_equal(dlclose(handle), 0);
    }
    pthread_key_t key;
    assert_int_equal(pthread_key_create(&key, NULL), 0);
    pthread_key_delete(key);
}

static void *
load_use_unload(void *unused)
{
    (void)unused;
    if (load(NULL) != 0)
        return NULL;
    use(NULL);
    return dlclose(handle) == 0 ? &barrier : NULL;
}

static void
test_loaded_and_unloaded_in_a_thread(void **unused)
{
    (void)unused;
    pthread_t thread;
    void *result;
    unload();
    assert_int_equal(pthread_create(&thread, NULL, load_use_unload, NULL), 0);
    pthread_join(thread, &result);
    assert_non_null(result);
    assert_int_equal(is_mapped(), !DLCLOSE_UNLOADS);
}

static void
test_detach_gives_everything_back_live_blocks_or_not(void **unused)
{
    (void)unused;
    unload();
    size_t bytes = mapped_bytes();
    assert_int_equal(load(NULL), 0);
    for (int i = 0; i < 1000; i++)
        t->malloc((size_t)i * 10);
    t->malloc(20 << 20);
    assert_int_equal(t->detach(), 0);
    unload();
    assert_true(mapped_bytes() <= bytes + (128 << 10));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_dlclose_of_an_unused_module_leaves_nothing, load),
        cmocka_unit_test_setup(test_dlclose_after_use_leaves_nothing, load),
        cmocka_unit_test_setup(test_dlclose_after_two_threads_have_ended_leaves_nothing, load),
        cmocka_unit_test_setup(test_dlclose_after_forty_threads_have_ended_leaves_nothing, load),
        cmocka_unit_test_setup(test_hundred_cycles_do_not_grow, load),
        cmocka_unit_test_setup(test_live_blocks_stay_readable_and_writable, load),
        cmocka_unit_test_setup(test_live_blocks_keep_only_their_own_pages, load),
        cmocka_unit_test_setup(test_live_blocks_are_told_of_when_asked, load),
        cmocka_unit_test_setup(test_detach_that_leaves_live_blocks, load),
        cmocka_unit_test_setup(test_thread_that_used_it_ends_after_dlclose, load),
        cmocka_unit_test_setup(test_thread_uses_the_module_that_was_loaded_again, load),
        cmocka_unit_test_setup(test_fork_works_after_dlclose, load),
        cmocka_unit_test_setup(test_keys_of_threads_are_not_used_up, load),
        cmocka_unit_test_setup(test_loaded_and_unloaded_in_a_thread, load),
        cmocka_unit_test_setup(test_detach_gives_everything_back_live_blocks_or_not, load),
    };
#ifdef M_ARENA_MAX
    mallopt(M_ARENA_MAX, 1); /* libc's own memory is not to be taken for ours */
#endif
    return cmocka_run_group_tests(tests, NULL, NULL);
}
