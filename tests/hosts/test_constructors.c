/*
 * Whose are the blocks that come about while a module is being opened: its constructors' are its own, and nobody else's are.
 */
#include "host.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../plugins/blocks.h"
#include "../plugins/constructing.h"
#include "loaded.h"
#include "tests/child.h"

void host_moment(void);
void *keeper_first_block(void);

/* What the program does between the first constructor of the plugin constructing and the second. */
static void (*moment)(void);
static atomic_uint moments;

void
host_moment(void)
{
    moments++;
    if (moment != NULL)
        moment();
}

static void
assert_constructed(alcove_module *module)
{
    uint32_t heap = alcove_module_heap(module);
    void **blocks = symbol(module, "constructing_blocks");
    assert_int_not_equal(heap, ALCOVE_HEAP_NONE);
    for (int i = 0; i < CONSTRUCTING_KINDS; i++)
        assert_int_equal(heap_of(allocator, blocks[i]), heap);
    assert_string_equal((char *)blocks[CONSTRUCTING_FIRST], "a name that is kept");
}

/* Opened while the program does that, it has what its constructors made, and when it is closed nothing is left. */
static void
constructed_meanwhile(void (*what)(void))
{
    moment = what;
    moments = 0;
    alcove_module *module = plugin_open(allocator, "constructing", NULL);
    moment = NULL;
    assert_int_equal(moments, 1);
    assert_constructed(module);
    struct alcove_report report = module_end(module);
    if (DLCLOSE_UNLOADS)
        assert_int_equal(report.heap.live_blocks, 0);
    assert_int_equal(report.heap.total_allocs, CONSTRUCTING_KINDS);
    assert_int_equal(report.released_outside, 0);
}

static void
test_blocks_of_all_constructors_are_the_modules(void **state)
{
    (void)state;
    constructed_meanwhile(NULL);
}

static void
test_module_opened_again_has_its_constructors_blocks_again(void **state)
{
    (void)state;
    SKIP_WITHOUT_UNLOADING();
    for (int i = 0; i < 20; i++)
        constructed_meanwhile(NULL);
}

/* From before anything was allocated, kept where no word of the library's leads: the module's code calls by them. */
static void
test_addresses_that_a_constructor_took_are_the_modules_in_its_code(void **state)
{
    (void)state;
    alcove_module *module = plugin_open(allocator, "constructing", &(struct alcove_module_options){.policy = ALCOVE_POLICY_STRICT, .limit = 1 << 20});
    void *block = CALL(module, constructing_kept_make)(1000);
    assert_int_equal(heap_of(allocator, block), alcove_module_heap(module));
    assert_null(CALL(module, constructing_kept_make)(2 << 20));
    CALL(module, constructing_kept_release)(block);
    assert_int_equal(stats_of(module).released_outside, 0);
    assert_int_equal(stats_of(module).heap.live_blocks, CONSTRUCTING_KINDS);
    module_end(module);
}

static void
test_dependencys_blocks_are_libcs(void **state)
{
    (void)state;
    alcove_module *module = plugin_open(allocator, "constructing", NULL);
    assert_int_equal(heap_of(allocator, CALL(module, constructing_dependency_block)()), ALCOVE_HEAP_NONE);
    void *by_copy = CALL(module, constructing_dependency_make)(100), *plain = CALL(module, constructing_dependency_make_plain)(100);
    assert_int_equal(heap_of(allocator, by_copy), ALCOVE_HEAP_NONE);
    assert_int_equal(heap_of(allocator, plain), ALCOVE_HEAP_NONE);
    free(by_copy);
    free(plain);
    module_end(module);
}

/* --- what happens meanwhile */

static void *meanwhile;

static void
open_a_library(void)
{
    meanwhile = dlopen(plugin_path("keeper"), RTLD_NOW | RTLD_LOCAL);
}

static void
test_constructor_that_opens_a_library(void **state)
{
    (void)state;
    constructed_meanwhile(open_a_library);
    assert_non_null(meanwhile);
    void *block = ((__typeof__(&keeper_first_block))dlsym(meanwhile, "keeper_first_block"))();
    assert_int_equal(heap_of(allocator, block), ALCOVE_HEAP_NONE);
    dlclose(meanwhile);
}

static alcove_module *inner;

static void
open_a_module(void)
{
    inner = plugin_open(allocator, "keeper", NULL);
}

static void
test_constructor_that_opens_a_module(void **state)
{
    (void)state;
    constructed_meanwhile(open_a_module);
    assert_int_equal(heap_of(allocator, CALL(inner, keeper_first_block)()), alcove_module_heap(inner));
    assert_int_equal(stats_of(inner).heap.total_allocs, 1);
    module_end(inner);
}

static int opened_again;

static void
open_the_same_module(void)
{
    alcove_module *again = untouched;
    moment = NULL;
    opened_again = alcove_module_open(allocator, plugin_path("constructing"), NULL, &again);
    if (opened_again == ALCOVE_OK)
        alcove_module_close(again, 0, NULL);
}

/* The inner call is first; to it the outer one is a second. Either may be the one that succeeds, but not with blocks that are nobody's. */
static void
test_constructor_that_opens_its_own_module(void **state)
{
    (void)state;
    alcove_module *module = untouched;
    moment = open_the_same_module;
    int code = alcove_module_open(allocator, plugin_path("constructing"), NULL, &module);
    moment = NULL;
    assert_ok(code);
    void **blocks = symbol(module, "constructing_blocks");
    void *block = blocks[CONSTRUCTING_SECOND];
    blocks[CONSTRUCTING_SECOND] = NULL;
    free(block);
    module_end(module);
}

static int child_code;

static void
fork_a_child(void)
{
    pid_t child = fork();
    if (child == 0) {
        alarm(30);
        free(strdup("libc's"));
        _exit(3);
    }
    int status = 0;
    waitpid(child, &status, 0);
    child_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void
test_constructor_that_forks(void **state)
{
    (void)state;
    SKIP_FORK_OF_THREADS_IF_EMULATED();
    constructed_meanwhile(fork_a_child);
    assert_int_equal(child_code, 3);
}

static pid_t parent;

static void
fork_and_go_on(void)
{
    pid_t child = fork();
    if (child != 0)
        waitpid(child, &child_code, 0);
    CHECK(alcove_unload(allocator, ALCOVE_UNLOAD_RELEASE) == ALCOVE_EBUSY); /* in the middle of the opening */
}

/* Both go on, and finish opening the module. */
static void
open_in_both(void)
{
    moment = fork_and_go_on;
    parent = getpid();
    alcove_module *module;
    CHECK(alcove_module_open(allocator, plugin_path("constructing"), NULL, &module) == 0);
    moment = NULL;
    uint32_t heap = alcove_module_heap(module);
    void **blocks = symbol(module, "constructing_blocks");
    for (int i = 0; i < CONSTRUCTING_KINDS; i++)
        CHECK(heap_of(allocator, blocks[i]) == heap);
    CHECK(alcove_module_close(module, 0, NULL) == 0);
    CHECK(alcove_unload(allocator, DLCLOSE_UNLOADS ? 0 : ALCOVE_UNLOAD_RELEASE) == 0);
    if (getpid() != parent)
        _exit(0);
    CHECK(child_code == 0);
}

static void
test_child_that_is_forked_in_a_constructor_opens_the_module_too(void **state)
{
    (void)state;
    SKIP_FORK_OF_THREADS_IF_EMULATED();
    in_child(open_in_both);
}

static alcove_module *other;
static int other_code;

static void
ask_for_figures(void)
{
    struct alcove_module_stats stats;
    other_code = alcove_module_stats(other, &stats) != 0 || alcove_refresh() != 0 || alcove_table_of(allocator) == NULL;
}

static void
test_constructor_that_asks_the_loader(void **state)
{
    (void)state;
    other = plugin_open(allocator, "blocks", NULL);
    other_code = 1;
    constructed_meanwhile(ask_for_figures);
    assert_int_equal(other_code, 0);
    assert_int_equal(stats_of(other).heap.total_allocs, 0);
    module_end(other);
}

/* Another module allocates meanwhile, in another thread: that is its own. */
static void *(*others_make)(enum blocks_kind, size_t);

static void *
other_allocates(void *out)
{
    *(void **)out = others_make(BLOCKS_MALLOC, 100);
    return NULL;
}

static void *others_block;

static void
let_another_module_allocate(void)
{
    pthread_t thread;
    pthread_create(&thread, NULL, other_allocates, &others_block);
    pthread_join(thread, NULL);
}

static void
test_other_modules_allocate_meanwhile(void **state)
{
    (void)state;
    other = plugin_open(allocator, "blocks", NULL);
    others_make = CALL(other, blocks_make);
    constructed_meanwhile(let_another_module_allocate);
    assert_int_equal(heap_of(allocator, others_block), alcove_module_heap(other));
    CALL(other, blocks_release)(others_block);
    module_end(other);
}

/* --- addresses of dispatchers that somebody keeps */

static void *(*kept_malloc)(size_t);
static char *(*kept_strdup)(const char *);
static void *(*kept_realloc)(void *, size_t);
static void *(*kept_calloc)(size_t, size_t);

static void *
look_up(void *unused)
{
    (void)unused;
    kept_malloc = (void *(*)(size_t))dlsym(RTLD_DEFAULT, "malloc");
    kept_strdup = (char *(*)(const char *))dlsym(RTLD_DEFAULT, "strdup");
    kept_realloc = (void *(*)(void *, size_t))dlsym(RTLD_DEFAULT, "realloc");
    kept_calloc = (void *(*)(size_t, size_t))dlsym(RTLD_DEFAULT, "calloc");
    return NULL;
}

/* By a thread that is not opening: not in the constructor's, for glibc's dlsym may wait for the dlopen. */
static pthread_t looking;

static void
look_up_elsewhere(void)
{
    pthread_create(&looking, NULL, look_up, NULL);
    usleep(20000);
}

static void
kept_addresses_are_libcs(void)
{
    char *text = kept_strdup("a text");
    unsigned *zeros = kept_calloc(100, sizeof *zeros);
    void *block = kept_malloc(100);
    assert_string_equal(text, "a text");
    for (int i = 0; i < 100; i++)
        assert_int_equal(zeros[i], 0);
    if (allocator != NULL) {
        assert_int_equal(heap_of(allocator, text), ALCOVE_HEAP_NONE);
        assert_int_equal(heap_of(allocator, zeros), ALCOVE_HEAP_NONE);
        assert_int_equal(heap_of(allocator, block), ALCOVE_HEAP_NONE);
    }
    free(text);
    free(zeros);
    free(kept_realloc(block, 10000));
}

static void
test_address_that_was_looked_up_while_a_module_opened_is_libcs_for_ever(void **state)
{
    void *plain = dlsym(RTLD_DEFAULT, "malloc");
    constructed_meanwhile(look_up_elsewhere);
    pthread_join(looking, NULL);
    assert_ptr_equal(dlsym(RTLD_DEFAULT, "malloc"), plain);
    kept_addresses_are_libcs();
    alcove_module *module = plugin_open(allocator, "blocks", NULL);
    kept_addresses_are_libcs();
    /* a module's block, by the function's address */
    void *block = kept_realloc(CALL(module, blocks_make)(BLOCKS_MALLOC, 100), 5000);
    assert_int_equal(heap_of(allocator, block), alcove_module_heap(module));
    CALL(module, blocks_release)(block);
    assert_int_equal(stats_of(module).heap.total_allocs - stats_of(module).heap.total_frees, 0);
    module_end(module);
    assert_ok(alcove_unload(allocator, DLCLOSE_UNLOADS ? 0 : ALCOVE_UNLOAD_LEAVE));
    allocator = NULL;
    kept_addresses_are_libcs();
    assert_ptr_equal(dlsym(RTLD_DEFAULT, "malloc"), plain);
    setup(state);
    kept_addresses_are_libcs();
}

static void
look_up_here(void)
{
    look_up(NULL);
}

/* The same by the opening thread: the program's code calls it, and that is no module's. */
static void
test_address_that_the_opening_thread_looked_up_charges_nobody(void **state)
{
    void *plain = dlsym(RTLD_DEFAULT, "malloc");
    constructed_meanwhile(look_up_here);
    assert_true((void *)kept_malloc != plain); /* else nothing is shown */
    assert_ptr_equal(dlsym(RTLD_DEFAULT, "malloc"), plain);
    kept_addresses_are_libcs();
    if (DLCLOSE_UNLOADS) /* else it is constructed already */
        constructed_meanwhile(kept_addresses_are_libcs);
    assert_ok(alcove_unload(allocator, DLCLOSE_UNLOADS ? 0 : ALCOVE_UNLOAD_LEAVE));
    allocator = NULL;
    kept_addresses_are_libcs();
    setup(state);
}

/* --- a module that is opened by the constructor of another one, and calls that */

void host_nesting(void *(*make)(void));
static void *(*outer_make)(void);
static alcove_module *inner;
static void *block_within;

void
host_nesting(void *(*make)(void))
{
    if (outer_make != NULL) {
        block_within = outer_make();
        return;
    }
    outer_make = make;
    inner = plugin_open(allocator, "nesting_two", NULL);
}

static void
test_outer_of_two_modules_in_the_making_is_called_within_the_inner(void **state)
{
    (void)state;
    alcove_module *outer = plugin_open(allocator, "nesting", NULL);
    assert_int_equal(heap_of(allocator, block_within), alcove_module_heap(outer));
    assert_int_equal(stats_of(outer).heap.total_allocs, 2);
    assert_int_equal(stats_of(inner).heap.total_allocs, 1);
    free(block_within);
    module_end(inner);
    module_end(outer);
}

/* --- other threads' libraries */

static atomic_bool stop;
static atomic_uint loads, wrong;

static void *
load_libraries(void *argument)
{
    const char *const names[] = {"keeper", "constructing", "ways"};
    unsigned which = (unsigned)(uintptr_t)argument % 3;
    char path[4096];
    snprintf(path, sizeof path, "%s/%s.so", setting("ALCOVE_TEST_PLUGINS"), names[which]);
    while (!stop) {
        void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        wrong += library == NULL;
        if (library != NULL && which == 0) {
            void *block = ((__typeof__(&keeper_first_block))dlsym(library, "keeper_first_block"))();
            wrong += block == NULL;
        }
        if (library != NULL)
            dlclose(library);
        loads++;
    }
    return NULL;
}

static void
test_libraries_that_other_threads_open_meanwhile_charge_nobody(void **state)
{
    (void)state;
    pthread_t threads[8];
    stop = false;
    loads = wrong = 0;
    for (uintptr_t i = 0; i < 8; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, load_libraries, (void *)i), 0);
    int rounds = emulated() || getenv("ALCOVE_TEST_VALGRIND") != NULL ? 20 : 300;
    for (int i = 0; i < rounds || loads < 100; i++) {
        alcove_module *module = plugin_open(allocator, i % 2 != 0 ? "blocks" : "blocks_two", NULL);
        struct alcove_module_stats stats = stats_of(module);
        struct alcove_report report = module_end(module);
        assert_int_equal(stats.heap.total_allocs, 0);
        assert_int_equal(report.heap.total_allocs, 0);
        assert_int_equal(report.released_outside + report.released_foreign, 0);
    }
    stop = true;
    for (int i = 0; i < 8; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(wrong, 0);
}

/* --- a fork meanwhile */

static pthread_barrier_t barrier;

static void
wait_for_the_fork(void)
{
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
}

static void *
open_constructing(void *unused)
{
    (void)unused;
    alcove_module *module = NULL;
    assert_ok(alcove_module_open(allocator, plugin_path("constructing"), NULL, &module));
    return module;
}

/* The child has no such module, but its heap, with the block of the first constructor in it, is to be seen. */
static void
check_child(void)
{
    struct alcove_module_entry entries[4];
    uint32_t count = 4;
    CHECK(alcove_refresh() == ALCOVE_OK);
    CHECK(alcove_modules(entries, sizeof entries[0], &count) == ALCOVE_OK);
    CHECK(count == 1 && entries[0].opens == 0 && entries[0].live_blocks == 1 && strcmp(entries[0].name, "constructing.so") == 0);
    CHECK(alcove_unload(allocator, 0) == ALCOVE_EBUSY && strstr(alcove_error_message(), "constructing.so") != NULL);
    CHECK(alcove_unload(allocator, ALCOVE_UNLOAD_RELEASE) == ALCOVE_OK);
}

static void
test_fork_while_another_thread_is_in_a_constructor(void **state)
{
    (void)state;
    SKIP_FORK_OF_THREADS_IF_EMULATED();
    pthread_t thread;
    int status;
    void *module;
    pthread_barrier_init(&barrier, NULL, 2);
    moment = wait_for_the_fork;
    assert_int_equal(pthread_create(&thread, NULL, open_constructing, NULL), 0);
    pthread_barrier_wait(&barrier);
    pid_t child = fork();
    if (child == 0) {
        alarm(CHILD_SECONDS);
        check_child();
        _exit(0);
    }
    pthread_barrier_wait(&barrier);
    pthread_join(thread, &module);
    moment = NULL;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_constructed(module);
    module_end(module);
}

/* --- a constructor that allocates in a walk over all objects, for which who has the loader's lock waits meanwhile */

static void *
refresh_again(void *unused)
{
    (void)unused;
    while (!stop)
        wrong += alcove_refresh() != ALCOVE_OK;
    return NULL;
}

static void
test_constructors_that_others_wait_for_have_a_heap(void **state)
{
    (void)state;
    pthread_t threads[3];
    stop = false;
    wrong = 0;
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, refresh_again, NULL), 0);
    for (int i = 0; i < (DLCLOSE_UNLOADS ? 50 : 1); i++) {
        alcove_module *module = plugin_open(allocator, "walker", NULL);
        struct alcove_module_stats stats = stats_of(module);
        assert_int_equal(stats.heap.total_allocs, 1);
        module_end(module);
    }
    stop = true;
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(wrong, 0);
}

/* Where its destructors do not run, a module's constructors' blocks are left. */
static int
teardown_constructed(void **state)
{
    if (DLCLOSE_UNLOADS)
        return teardown(state);
    assert_ok(alcove_unload(allocator, ALCOVE_UNLOAD_LEAVE));
    return 0;
}

/* A library is constructed once in a process, where none is unloaded: then each test has a process of its own. */
static int
run_each_apart(const struct CMUnitTest *tests, size_t count)
{
    int failed = 0;
    for (size_t i = 0; i < count; i++) {
        int status;
        fflush(NULL);
        pid_t child = fork();
        if (child == 0) {
            int code = _cmocka_run_group_tests(tests[i].name, &tests[i], 1, NULL, NULL);
            fflush(NULL);
            _exit(code != 0);
        }
        failed += child < 0 || waitpid(child, &status, 0) != child || status != 0;
    }
    return failed;
}

int
main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown_constructed)
    const struct CMUnitTest tests[] = {
        TEST(test_blocks_of_all_constructors_are_the_modules),
        TEST(test_module_opened_again_has_its_constructors_blocks_again),
        TEST(test_addresses_that_a_constructor_took_are_the_modules_in_its_code),
        TEST(test_dependencys_blocks_are_libcs),
        TEST(test_constructor_that_opens_a_library),
        TEST(test_constructor_that_opens_a_module),
        TEST(test_constructor_that_opens_its_own_module),
        TEST(test_constructor_that_forks),
        TEST(test_child_that_is_forked_in_a_constructor_opens_the_module_too),
        TEST(test_constructor_that_asks_the_loader),
        TEST(test_other_modules_allocate_meanwhile),
        TEST(test_address_that_was_looked_up_while_a_module_opened_is_libcs_for_ever),
        TEST(test_address_that_the_opening_thread_looked_up_charges_nobody),
        TEST(test_outer_of_two_modules_in_the_making_is_called_within_the_inner),
        TEST(test_fork_while_another_thread_is_in_a_constructor),
        TEST(test_libraries_that_other_threads_open_meanwhile_charge_nobody),
        TEST(test_constructors_that_others_wait_for_have_a_heap),
    };
    if (!DLCLOSE_UNLOADS)
        return run_each_apart(tests, sizeof tests / sizeof *tests);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
