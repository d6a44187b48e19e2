/*
 * Late callers: what runs when a thread or the process ends, and allocates. Destructors of thread-local
 * variables of C++ and of thread keys, exit handlers, destructors of libraries; each beside an
 * allocator that was opened with a bare dlopen, and beside one that the loader loaded.
 */
#include "host.h"

#include <dlfcn.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>

#include "tests/child.h"
#include "tests/plugins/blocks.h"
#include "tests/work.h"

/* How C++ registers the destructor of a thread_local variable when a thread first uses it. */
int __cxa_thread_atexit_impl(void (*destructor)(void *), void *object, void *library) __attribute__((weak));
#define SKIP_WITHOUT_CXX_DESTRUCTORS()                                                 \
    do {                                                                               \
        if (__cxa_thread_atexit_impl == NULL)                                          \
            SKIP_BECAUSE("this libc leaves thread-local variables of C++ to C++'s library"); \
    } while (0)
extern void *__dso_handle;

static const struct alcove_table *table;
static alcove_allocator *allocator; /* NULL: without the loader */
static void *handle;

static void
open_bare(void)
{
    char name[128];
    snprintf(name, sizeof name, "%stable", setting("ALCOVE_TEST_PREFIX"));
    handle = dlopen(allocator_path(), RTLD_NOW | RTLD_LOCAL);
    table = handle != NULL ? dlsym(handle, name) : NULL;
}

static void
open_with_loader(void)
{
    allocator = allocator_load();
    table = alcove_table_of(allocator);
}

static int
setup(void **open)
{
    allocator = NULL;
    handle = NULL;
    if (__cxa_thread_atexit_impl == NULL)
        return 0; /* the test will be skipped */
    (*(void (**)(void))*open)();
    return table != NULL ? 0 : -1;
}

static int
teardown(void **unused)
{
    (void)unused;
    if (allocator != NULL)
        assert_ok(alcove_unload(allocator, 0));
    else if (handle != NULL)
        assert_int_equal(dlclose(handle), 0);
    else
        return 0;
    assert_int_equal(lines_mapped(allocator_path()) != 0, !DLCLOSE_UNLOADS);
    return 0;
}

static struct alcove_info
info_now(void)
{
    struct alcove_info info;
    table->info(&info);
    return info;
}

/* A thread that has `body` run, then ends. */
static void
thread_run(void *(*body)(void *))
{
    pthread_t thread;
    void *result;
    assert_int_equal(pthread_create(&thread, NULL, body, NULL), 0);
    pthread_join(thread, &result);
    assert_null(result);
}

static atomic_uint good_ends, bad_ends;

static void
work_at_the_end(void *block)
{
    table->free(block);
    if (allocator_works(table))
        good_ends++;
    else
        bad_ends++;
}

static void *
leave_to_cxx_destructors(void *unused)
{
    (void)unused;
    for (int i = 0; i < 3; i++) {
        __cxa_thread_atexit_impl(work_at_the_end, table->malloc(100), &__dso_handle);
        if (i == 0)
            allocator_works(table);
    }
    return NULL;
}

static void
test_thread_local_destructors_of_cxx(void **unused)
{
    (void)unused;
    SKIP_WITHOUT_CXX_DESTRUCTORS();
    uint32_t threads = info_now().threads;
    good_ends = bad_ends = 0;
    for (int i = 0; i < 20; i++)
        thread_run(leave_to_cxx_destructors);
    assert_int_equal(good_ends, 60);
    assert_int_equal(bad_ends, 0);
    assert_int_equal(info_now().live_blocks, 0);
    assert_int_equal(threads_settled(table, threads), threads);
}

/* Keys made before and after the allocator's, so that their destructors run before and after its. */
#define KEYS 24
static pthread_key_t keys[KEYS];
static unsigned rounds[KEYS];

struct late {
    unsigned key, round;
};

/* Comes back until libc gives up. */
static void
work_in_every_round(void *argument)
{
    struct late late = *(struct late *)argument, *next;
    table->free(argument);
    for (size_t size = 1; size < 2000; size *= 2) {
        char *block = table->malloc(size);
        memset(block, 1, size);
        table->free(block);
    }
    rounds[late.key]++;
    if (late.round + 1 < PTHREAD_DESTRUCTOR_ITERATIONS) {
        next = table->malloc(sizeof *next);
        *next = (struct late){late.key, late.round + 1};
        pthread_setspecific(keys[late.key], next);
    }
}

static void *
leave_to_keys(void *unused)
{
    (void)unused;
    for (unsigned i = 0; i < KEYS; i++) {
        struct late *late = table->malloc(sizeof *late);
        *late = (struct late){i, 0};
        pthread_setspecific(keys[i], late);
    }
    return NULL;
}

static void
keys_make(unsigned from, unsigned to)
{
    for (unsigned i = from; i < to; i++)
        CHECK(pthread_key_create(&keys[i], work_in_every_round) == 0);
}

static void
keys_run(unsigned threads)
{
    memset(rounds, 0, sizeof rounds);
    for (unsigned i = 0; i < threads; i++) {
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, leave_to_keys, NULL) == 0);
        pthread_join(thread, NULL);
        if (emulated())
            threads_settled(table, 1); /* qemu's threads outlive their join by much, and the next would have a new record */
    }
    for (unsigned i = 0; i < KEYS; i++)
        CHECK(rounds[i] == threads * PTHREAD_DESTRUCTOR_ITERATIONS);
    CHECK(info_now().live_blocks == 0);
}

/* Threads that ended are not taken for living ones, and their caches do not pile up. */
static void
keys_test(void (*open)(void))
{
    keys_make(0, KEYS / 2);
    open();
    CHECK(allocator_works(table)); /* with the loader, it has its key now */
    keys_make(KEYS / 2, KEYS);
    keys_run(20);
    uint64_t metadata = info_now().metadata_bytes, mapped = info_now().mapped_bytes - metadata;
    keys_run(100);
    /* Threads that the system still knew for a moment after their join cost a record or two. */
    CHECK(info_now().mapped_bytes - info_now().metadata_bytes == mapped);
    CHECK(info_now().metadata_bytes <= metadata + (256 << 10));
    CHECK(threads_settled(table, 1) == 1);
}

static void
keys_bare(void)
{
    keys_test(open_bare);
    CHECK(dlclose(handle) == 0);
    CHECK((lines_mapped(allocator_path()) == 0) == DLCLOSE_UNLOADS);
    exit(0);
}

static void
keys_with_loader(void)
{
    keys_test(open_with_loader);
    CHECK(alcove_unload(allocator, 0) == 0);
    CHECK((lines_mapped(allocator_path()) == 0) == DLCLOSE_UNLOADS);
    exit(0);
}

static void
test_destructors_of_thread_keys_bare(void **unused)
{
    (void)unused;
    in_child(keys_bare);
}

static void
test_destructors_of_thread_keys_with_loader(void **unused)
{
    (void)unused;
    in_child(keys_with_loader);
}

/*
 * The end of the process. The child's handlers note in shared memory that they came and were well.
 */
static struct {
    atomic_uint good, bad;
} *shared;

static void *kept[4];

static void
work_at_exit(void)
{
    for (int i = 0; i < 4; i++) {
        if (kept[i] != NULL)
            memset(kept[i], 1, 100); /* still there */
        table->free(kept[i]);
        kept[i] = table->malloc(100);
    }
    if (allocator_works(table))
        shared->good++;
    else
        shared->bad++;
}

void host_callback(const char *moment);

/* The plugin `caller` calls this from its destructor. */
void
host_callback(const char *moment)
{
    if (strcmp(moment, "destructor") == 0)
        work_at_exit();
}

static bool threads_live, blocks_live;

static void *
use_for_ever(void *unused)
{
    (void)unused;
    for (unsigned i = 0;; i++)
        table->free(table->malloc(i % 5000));
    return NULL;
}

/* One library whose destructor allocates is loaded before the allocator, another one after it. */
static void
exit_after(void (*open)(void))
{
    pthread_t thread;
    CHECK(atexit(work_at_exit) == 0);
    CHECK(dlopen(plugin_path("caller"), RTLD_NOW) != NULL);
    open();
    CHECK(dlopen(plugin_path("caller_two"), RTLD_NOW) != NULL);
    CHECK(atexit(work_at_exit) == 0);
    CHECK(allocator_works(table));
    for (int i = 0; blocks_live && i < 4; i++)
        kept[i] = table->malloc(100);
    for (int i = 0; threads_live && i < 2; i++)
        CHECK(pthread_create(&thread, NULL, use_for_ever, NULL) == 0);
    exit(0);
}

static void
exit_bare(void)
{
    exit_after(open_bare);
}

static void
exit_with_loader(void)
{
    exit_after(open_with_loader);
}

static void
assert_exits_well(void (*body)(void))
{
    for (int i = 0; i < 4; i++) {
        threads_live = i & 1;
        blocks_live = i & 2;
        shared->good = shared->bad = 0;
        in_child(body);
        assert_int_equal(shared->bad, 0);
        assert_int_equal(shared->good, 4); /* two exit handlers, two destructors */
    }
}

static void
test_exit_handlers_and_destructors_of_libraries_bare(void **unused)
{
    (void)unused;
    assert_exits_well(exit_bare);
}

static void
test_exit_handlers_and_destructors_of_libraries_with_loader(void **unused)
{
    (void)unused;
    assert_exits_well(exit_with_loader);
}

/* A module that is still open: its destructor's work is routed to the end. */
static void
exit_with_open_module(void)
{
    open_with_loader();
    alcove_module *module = plugin_open(allocator, "blocks", NULL), *keeper = plugin_open(allocator, "keeper", NULL);
    for (int i = 0; i < 50; i++)
        CHECK(((void *(*)(size_t))symbol(keeper, "keeper_keep"))((size_t)i * 100) != NULL);
    free(CALL(module, blocks_make)(BLOCKS_STRDUP, 0));
    exit(0);
}

static void
test_exit_with_open_modules(void **unused)
{
    (void)unused;
    in_child(exit_with_open_module);
}

/* The main thread's variables of C++ are destroyed at exit, before the exit handlers run. */
static void
exit_with_cxx_variables(void (*open)(void))
{
    open();
    leave_to_cxx_destructors(NULL);
    CHECK(atexit(work_at_exit) == 0);
    exit(0);
}

static void
exit_with_cxx_variables_bare(void)
{
    exit_with_cxx_variables(open_bare);
}

static void
exit_with_cxx_variables_with_loader(void)
{
    exit_with_cxx_variables(open_with_loader);
}

static void
test_thread_local_destructors_of_the_main_thread(void **unused)
{
    (void)unused;
    SKIP_WITHOUT_CXX_DESTRUCTORS();
    shared->good = 0;
    in_child(exit_with_cxx_variables_bare);
    in_child(exit_with_cxx_variables_with_loader);
    assert_int_equal(shared->good, 2);
}

/* pthread_exit in main: the process ends with its last thread, and that runs the exit handlers. */
static void *
end_last(void *main_thread)
{
    pthread_join(*(pthread_t *)main_thread, NULL);
    table->free(table->malloc(100));
    return NULL;
}

static pthread_t main_thread;

static void
main_ends_first(void (*open)(void))
{
    pthread_t thread;
    open();
    main_thread = pthread_self();
    CHECK(allocator_works(table));
    CHECK(atexit(work_at_exit) == 0);
    CHECK(pthread_create(&thread, NULL, end_last, &main_thread) == 0);
    pthread_exit(NULL);
}

static void
main_ends_first_bare(void)
{
    main_ends_first(open_bare);
}

static void
main_ends_first_with_loader(void)
{
    main_ends_first(open_with_loader);
}

static void
test_main_thread_ends_before_the_process(void **unused)
{
    (void)unused;
    if (!DLCLOSE_UNLOADS)
        SKIP_BECAUSE("with musl, nobody can join the main thread of a forked child");
    shared->good = 0;
    in_child(main_ends_first_bare);
    in_child(main_ends_first_with_loader);
    assert_int_equal(shared->good, 2);
}

static void (*const bare)(void) = open_bare, (*const with_loader)(void) = open_with_loader;
#define opened(function, how) {#function "_" #how, function, setup, teardown, (void *)(uintptr_t)&how}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        opened(test_thread_local_destructors_of_cxx, bare),
        opened(test_thread_local_destructors_of_cxx, with_loader),
        cmocka_unit_test(test_destructors_of_thread_keys_bare),
        cmocka_unit_test(test_destructors_of_thread_keys_with_loader),
        cmocka_unit_test(test_exit_handlers_and_destructors_of_libraries_bare),
        cmocka_unit_test(test_exit_handlers_and_destructors_of_libraries_with_loader),
        cmocka_unit_test(test_exit_with_open_modules),
        cmocka_unit_test(test_thread_local_destructors_of_the_main_thread),
        cmocka_unit_test(test_main_thread_ends_before_the_process),
    };
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
