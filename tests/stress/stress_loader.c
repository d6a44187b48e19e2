/*
 * Opens and closes modules in eight threads, among everything that others do to the same objects meanwhile: dlopen and dlclose, imports bound
 * at their first call, dlsym, threads that end, forks, other calls of the loader's. With one loader, or with
 * several, which extensions have inside.
 *
 * stress_loader [cycles [test]]     of each scenario, all threads together; default: ALCOVE_TEST_LOADS, or 400, or
 *                                     100 under ThreadSanitizer
 */
#include <malloc.h>
#include <pthread.h>

#include "tests/stress/loader/scenario.h"

#include "tests/child.h"

struct scenario now;
unsigned cycles = UNDER_TSAN ? 100 : 400;

/* --- what must hold */

atomic_uint failures;

void
complain(const char *file, int line, const char *format, ...)
{
    char text[1024];
    va_list arguments;
    if (atomic_fetch_add(&failures, 1) >= 10)
        return;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    fprintf(stderr, "%s:%d: not so: %s\n", file, line, text);
}

#if UNDER_TSAN
/* It knows nothing of the dynamic linker's locks, nor that a library which was mapped before lay where another one does. */
const char *__tsan_default_suppressions(void);
const char *
__tsan_default_suppressions(void)
{
    return "race_top:/keeper-\nrace_top:/walker-\nrace_top:/blocks\nrace:name_compare\nrace:module_load\n";
}
#endif

/* --- the scenarios */

static void
all_clear(void)
{
    struct alcove_info info;
    for (unsigned market = 0; market < MARKETS; market++)
        for (unsigned at = 0; at < STALLS; at++)
            stall_clear(market, at);
    for (unsigned i = 0; i < now.allocators; i++) {
        loader->table_of(loaded[i])->info(&info);
        HOLDS_AT_MOST(info.live_blocks, 0);
    }
}

/* Each by its loader, if there are several. */
static void
load_all(void)
{
    for (unsigned i = 0; i < now.allocators; i++) {
        loader_take(i % now.loaders);
        loaded[i] = load(i);
        loader_give_back();
    }
}

static void
unload_all(void)
{
    for (unsigned i = 0; i < now.allocators; i++) {
        loader_take(i % now.loaders);
        unload(loaded[i], i);
        loader_give_back();
    }
}

static void
run_once(unsigned count)
{
    pthread_t openers[OPENERS], doers[OTHERS];
    stop = false;
    tickets = 0;
    unsigned all = cycles;
    cycles = count;
    unsigned mapped = mappings_with(EXTENSIONS);
    loaders_begin();
    load_all();
    words_note_steered();
    if (now.load_each)
        unload_all();
    farewells = 0;
    for (uintptr_t i = 0; i < OTHERS; i++)
        assert_int_equal(pthread_create(&doers[i], NULL, do_others, (void *)i), 0);
    for (uintptr_t i = 0; i < OPENERS; i++)
        assert_int_equal(pthread_create(&openers[i], NULL, now.opener, (void *)i), 0);
    for (unsigned i = 0; i < OPENERS; i++)
        pthread_join(openers[i], NULL);
    stop = true;
    for (unsigned i = 0; i < OTHERS; i++)
        pthread_join(doers[i], NULL);
    HOLDS(!now.open_each || !DLCLOSE_UNLOADS || farewells != 0);
    if (now.load_each)
        load_all();
    all_clear();
    unload_all();
    loaders_end();
    HOLDS(!DLCLOSE_UNLOADS || mappings_with(EXTENSIONS) == mapped);
    cycles = all;
    words_compare();
}

/* In any process; its failures are counted. */
static void
run_all(struct scenario scenario)
{
    static const int fatal[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGSYS};
    for (unsigned i = 0; i < sizeof fatal / sizeof *fatal; i++)
        signal(fatal[i], SIG_DFL); /* cmocka's handler is for the thread that runs the tests */
    now = scenario;
    failures = 0;
    run_once(cycles / 4);
    if (emulated() || UNDER_TSAN) { /* whose own memory it would be */
        run_once(cycles);
        return;
    }
    struct memory first = memory_now();
    run_once(cycles);
    memory_compare(&first, cycles);
}

static void
run(struct scenario scenario)
{
    run_all(scenario);
    assert_int_equal(failures, 0);
}

static void
test_modules_open_and_close_among_everything(void **unused)
{
    (void)unused;
    run((struct scenario){.loaders = 1, .allocators = 1, .opener = open_blocks});
}

static void
test_allocator_comes_and_goes_among_everything(void **unused)
{
    (void)unused;
    run((struct scenario){.loaders = 1, .allocators = 1, .opener = open_blocks, .load_each = true});
}

static void
test_blocks_cross_between_two_allocators(void **unused)
{
    (void)unused;
    run((struct scenario){.loaders = 1, .allocators = 2, .opener = open_blocks});
}

static void
test_what_others_allocate_meanwhile_is_no_modules(void **unused)
{
    (void)unused;
    SKIP_WITHOUT_UNLOADING(); /* the constructors run once */
    run((struct scenario){.loaders = 1, .allocators = 2, .opener = open_keeper});
}

static void
test_constructors_allocate_while_they_walk_over_objects(void **unused)
{
    (void)unused;
    SKIP_WITHOUT_UNLOADING(); /* the constructors run once */
    if (UNDER_TSAN)
        SKIP_BECAUSE("ThreadSanitizer's dlopen walks over objects with a lock of its own");
    run((struct scenario){.loaders = 1, .allocators = 1, .opener = open_walker});
}

#define SKIP_WITHOUT_ARCHIVE()                                                                       \
    do {                                                                                             \
        if (!archive_is_built())                                                                     \
            SKIP_BECAUSE("there is no archive of the loader to put into libraries (--enable-static)"); \
    } while (0)

static void
test_blocks_cross_between_loaders_with_an_allocator_each(void **unused)
{
    (void)unused;
    SKIP_WITHOUT_ARCHIVE();
    run((struct scenario){.loaders = 3, .allocators = 3, .opener = open_blocks});
}

static void
test_loaders_share_an_allocator(void **unused)
{
    (void)unused;
    SKIP_WITHOUT_ARCHIVE();
    run((struct scenario){.loaders = 3, .allocators = 3, .opener = open_blocks, .share = true});
}

static const struct scenario come_and_go = {
    .loaders = LOADERS, .allocators = LOADERS, .opener = open_blocks, .load_each = true, .open_each = true};

#define SKIP_UNDER_TSAN()                                                                                   \
    do {                                                                                                    \
        if (UNDER_TSAN)                                                                                     \
            SKIP_BECAUSE("ThreadSanitizer knows memory for longer than a library is mapped, and calls what comes in its place a race"); \
    } while (0)

static void
test_loaders_come_and_go_with_an_allocator_each(void **unused)
{
    (void)unused;
    SKIP_WITHOUT_ARCHIVE();
    SKIP_UNDER_TSAN();
    run(come_and_go);
}

static void
test_loaders_come_and_go_and_share_an_allocator(void **unused)
{
    (void)unused;
    SKIP_WITHOUT_ARCHIVE();
    SKIP_UNDER_TSAN();
    struct scenario scenario = come_and_go;
    scenario.share = true;
    run(scenario);
}

static void
with_an_extension_as_keeper(void)
{
    alarm(0); /* make check has a limit of its own */
    now = come_and_go;
    loader_take(1);
    CHECK(loader->refresh() == ALCOVE_OK);
    loader_give_back();
    CHECK(mappings_with(file_of("extension_one", 1)) != 0); /* it stays */
    run_all(come_and_go);
    CHECK(failures == 0);
}

/* The first test, for in this process no loader was called yet. */
static void
test_loaders_come_and_go_while_an_extension_is_the_keeper(void **unused)
{
    (void)unused;
    SKIP_WITHOUT_ARCHIVE();
    SKIP_UNDER_TSAN();
    in_child(with_an_extension_as_keeper);
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
    if (argc > 2)
        cmocka_set_test_filter(argv[2]);
    words_note();
    others_begin();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_loaders_come_and_go_while_an_extension_is_the_keeper),
        cmocka_unit_test(test_modules_open_and_close_among_everything),
        cmocka_unit_test(test_allocator_comes_and_goes_among_everything),
        cmocka_unit_test(test_blocks_cross_between_two_allocators),
        cmocka_unit_test(test_what_others_allocate_meanwhile_is_no_modules),
        cmocka_unit_test(test_constructors_allocate_while_they_walk_over_objects),
        cmocka_unit_test(test_blocks_cross_between_loaders_with_an_allocator_each),
        cmocka_unit_test(test_loaders_share_an_allocator),
        cmocka_unit_test(test_loaders_come_and_go_with_an_allocator_each),
        cmocka_unit_test(test_loaders_come_and_go_and_share_an_allocator),
    };
    return cmocka_run_group_tests(tests, files_make, files_remove);
}
