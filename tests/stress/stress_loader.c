/*
 * Opens and closes modules in eight threads, among everything that others do to the same objects meanwhile: dlopen and dlclose, imports bound
 * at their first call, dlsym, threads that end, forks, other calls of the loader's.
 *
 * stress_loader [cycles [test]]     of each scenario, all threads together; default: ALCOVE_TEST_LOADS, or 400, or
 *                                     100 under ThreadSanitizer
 */
#include <malloc.h>
#include <pthread.h>

#include "tests/stress/loader/scenario.h"

struct scenario now;
unsigned cycles = UNDER_TSAN ? 100 : 400;

/* --- what must hold */

atomic_uint failures;

void
complain(const char *what, const char *file, int line)
{
    if (atomic_fetch_add(&failures, 1) < 10)
        fprintf(stderr, "%s:%d: not so: %s (%s)\n", file, line, what, alcove_error_message());
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
all_clear(alcove_allocator *a)
{
    struct alcove_info info;
    for (unsigned at = 0; at < STALLS; at++)
        stall_clear(at);
    alcove_table_of(a)->info(&info);
    assert_int_equal(info.live_blocks, 0);
}

static void
run_once(unsigned count)
{
    pthread_t openers[OPENERS], doers[OTHERS];
    stop = false;
    tickets = failures = 0;
    unsigned all = cycles;
    cycles = count;
    for (unsigned i = 0; i < now.allocators; i++)
        loaded[i] = load(i);
    words_note_steered();
    if (now.load_each)
        unload(loaded[0]);
    for (uintptr_t i = 0; i < OTHERS; i++)
        assert_int_equal(pthread_create(&doers[i], NULL, do_others, (void *)i), 0);
    for (uintptr_t i = 0; i < OPENERS; i++)
        assert_int_equal(pthread_create(&openers[i], NULL, now.opener, (void *)i), 0);
    for (unsigned i = 0; i < OPENERS; i++)
        pthread_join(openers[i], NULL);
    stop = true;
    for (unsigned i = 0; i < OTHERS; i++)
        pthread_join(doers[i], NULL);
    if (now.load_each)
        loaded[0] = load(0);
    all_clear(loaded[0]);
    for (unsigned i = 0; i < now.allocators; i++)
        unload(loaded[i]);
    cycles = all;
    assert_int_equal(failures, 0);
    words_compare();
}

static void
run(struct scenario scenario)
{
    now = scenario;
    run_once(cycles / 4);
    if (emulated() || UNDER_TSAN) /* whose own memory it would be */
        return run_once(cycles);
    struct memory first = memory_now();
    run_once(cycles);
    memory_compare(&first, cycles / 4, cycles);
}

static void
test_modules_open_and_close_among_everything(void **unused)
{
    (void)unused;
    run((struct scenario){.allocators = 1, .opener = open_blocks});
}

static void
test_allocator_comes_and_goes_among_everything(void **unused)
{
    (void)unused;
    run((struct scenario){.allocators = 1, .opener = open_blocks, .load_each = true});
}

static void
test_blocks_cross_between_two_allocators(void **unused)
{
    (void)unused;
    run((struct scenario){.allocators = 2, .opener = open_blocks});
}

static void
test_what_others_allocate_meanwhile_is_no_modules(void **unused)
{
    (void)unused;
    SKIP_WITHOUT_UNLOADING(); /* the constructors run once */
    run((struct scenario){.allocators = 2, .opener = open_keeper});
}

static void
test_constructors_allocate_while_they_walk_over_objects(void **unused)
{
    (void)unused;
    SKIP_WITHOUT_UNLOADING(); /* the constructors run once */
    if (UNDER_TSAN)
        SKIP_BECAUSE("ThreadSanitizer's dlopen walks over objects with a lock of its own");
    unsigned all = cycles;
    cycles = cycles / 100 + OPENERS; /* each may wait for a while */
    run((struct scenario){.allocators = 1, .opener = open_walker});
    cycles = all;
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
        cmocka_unit_test(test_modules_open_and_close_among_everything),
        cmocka_unit_test(test_allocator_comes_and_goes_among_everything),
        cmocka_unit_test(test_blocks_cross_between_two_allocators),
        cmocka_unit_test(test_what_others_allocate_meanwhile_is_no_modules),
        cmocka_unit_test(test_constructors_allocate_while_they_walk_over_objects),
    };
    return cmocka_run_group_tests(tests, files_make, files_remove);
}
