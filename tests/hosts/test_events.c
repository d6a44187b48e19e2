/*
 * What a host is told of while it happens, and the list of modules.
 */
#include "host.h"
#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "../plugins/blocks.h"
#include "routed.h"
#include "tests/child.h"

static unsigned told;
static char text[1024];
static struct alcove_message message;
static struct alcove_refusal refusal;
static struct alcove_crossing crossing;
static const char *name, *other_name;
static pthread_t teller;

static void
note(enum alcove_event event, const void *what, void *context)
{
    assert_ptr_equal(context, &told);
    told++;
    teller = pthread_self();
    if (event == ALCOVE_EVENT_MESSAGE) {
        message = *(const struct alcove_message *)what;
        snprintf(text, sizeof text, "%s", message.text);
    } else if (event == ALCOVE_EVENT_REFUSAL) {
        refusal = *(const struct alcove_refusal *)what;
        name = refusal.name;
    } else {
        crossing = *(const struct alcove_crossing *)what;
        name = crossing.owner_name;
        other_name = crossing.releaser_name;
    }
}

static int
quiet_setup(void **state)
{
    told = 0;
    text[0] = 0;
    return setup(state);
}

static int
quiet_teardown(void **state)
{
    for (int event = ALCOVE_EVENT_MESSAGE; event <= ALCOVE_EVENT_CROSSING; event++)
        assert_ok(alcove_on((enum alcove_event)event, NULL, NULL));
    return teardown(state);
}

static void
test_call_that_fails_is_told_once_with_its_message(void **state)
{
    (void)state;
    assert_ok(alcove_on(ALCOVE_EVENT_MESSAGE, note, &told));
    alcove_module *opened = NULL;
    assert_int_equal(alcove_module_open(allocator, NULL, NULL, &opened), ALCOVE_EINVAL); /* found without the lock */
    assert_int_equal(told, 1);
    assert_string_equal(text, alcove_error_message());
    assert_null(message.allocator);
    assert_int_equal(alcove_unload(allocator, 0), ALCOVE_EBUSY); /* found with it */
    assert_int_equal(told, 2);
    assert_string_equal(text, alcove_error_message());
    assert_non_null(strstr(text, "blocks.so"));
    assert_ok(alcove_refresh()); /* what succeeds tells nothing */
    assert_int_equal(told, 2);
    assert_ok(alcove_on(ALCOVE_EVENT_MESSAGE, NULL, NULL));
    assert_int_equal(alcove_unload(allocator, 0), ALCOVE_EBUSY);
    assert_int_equal(told, 2);
    assert_ok(alcove_on(ALCOVE_EVENT_MESSAGE, note, &told)); /* of what was before nothing is told */
    assert_ok(alcove_refresh());
    assert_int_equal(told, 2);
    opened = plugin_open(allocator, "no_imports", NULL); /* and yet there is something to say */
    assert_int_equal(told, 3);
    assert_string_equal(text, alcove_error_message());
    module_end(opened);
    assert_int_equal(told, 3);
}

static void
host_frees_twice(void)
{
    CHECK(alcove_on(ALCOVE_EVENT_MESSAGE, note, &told) == ALCOVE_OK);
    void *volatile block = CALL(module, blocks_make)(BLOCKS_MALLOC, 3000000);
    free(block);
    free(block);
    CHECK(told == 1 && message.allocator == allocator);
    CHECK(strstr(text, "double free of 0x") != NULL && strchr(text, '\n') == NULL);
    CHECK(alcove_on(ALCOVE_EVENT_MESSAGE, NULL, NULL) == ALCOVE_OK);
    static const char words[] = "as before: ";
    CHECK(write(STDERR_FILENO, words, sizeof words - 1) > 0);
    free(block);
    CHECK(told == 1);
}

static void
test_message_of_the_allocator_is_told_in_place_of_standard_error(void **state)
{
    (void)state;
    char said[1024];
    if (ALCOVE_DEBUG)
        SKIP_BECAUSE("misuse aborts in a debug build");
    int status = child_status(host_frees_twice, said, sizeof said);
    if (status != 0 || strncmp(said, "as before: ", 11) != 0 || strstr(said + 11, "double free of 0x") == NULL)
        fail_msg("status 0x%x: %s", status, said);
}

static void
test_refusal_by_a_limit_is_told_with_the_module(void **state)
{
    (void)state;
    assert_ok(alcove_on(ALCOVE_EVENT_REFUSAL, note, &told));
    alcove_module *limited = plugin_open(allocator, "blocks_two", &(struct alcove_module_options){.name = "small", .limit = 1 << 20});
    errno = 0;
    assert_null(CALL(limited, blocks_make)(BLOCKS_MALLOC, 2 << 20));
    assert_int_equal(errno, ENOMEM);
    assert_int_equal(told, 1);
    assert_ptr_equal(refusal.module, limited);
    assert_ptr_equal(refusal.allocator, allocator);
    assert_int_equal(refusal.heap, alcove_module_heap(limited));
    assert_int_equal(refusal.bytes, 2 << 20);
    assert_int_equal(refusal.missed, 0);
    assert_string_equal(name, "small");
    assert_true(pthread_equal(teller, pthread_self()));

    void *blocks[300];
    unsigned count = 0;
    while (count < 300 && (blocks[count] = CALL(limited, blocks_make)(BLOCKS_MALLOC, 10000)) != NULL)
        count++;
    assert_in_range(refusal.bytes, 10000, 12288);
    assert_int_equal(told, 2);
    while (count > 0)
        CALL(limited, blocks_release)(blocks[--count]);
    void *block = CALL(limited, blocks_make)(BLOCKS_MALLOC, 300000);
    void *larger = realloc(block, 2 << 20);
    if (larger == NULL)
        CALL(limited, blocks_release)(block);
    assert_null(larger);
    assert_int_equal(told, 3);
    assert_int_equal(stats_of(limited).heap.limit_refused, 3);
    void *mine = CALL(module, blocks_make)(BLOCKS_MALLOC, 2 << 20);
    assert_non_null(mine);
    CALL(module, blocks_release)(mine);
    assert_int_equal(told, 3);
    module_end(limited);
}

static void
raise_limit(enum alcove_event event, const void *what, void *unused)
{
    (void)event;
    (void)unused;
    told++;
    const struct alcove_refusal *now = what;
    void *block = CALL(module, blocks_make)(BLOCKS_MALLOC, 100000);
    free(block);
    assert_ok(alcove_module_limit(now->module, 16 << 20));
    assert_null(CALL(now->module, blocks_make)(BLOCKS_MALLOC, 64 << 20)); /* within a handler: counted */
    assert_refused(alcove_module_limit(now->module, 1), ALCOVE_EINVAL, "impossible");
}

static void
test_handler_may_call_the_loader_and_allocate_and_is_not_told_of_itself(void **state)
{
    (void)state;
    assert_ok(alcove_on(ALCOVE_EVENT_REFUSAL, raise_limit, NULL));
    alcove_module *limited = plugin_open(allocator, "blocks_two", &(struct alcove_module_options){.limit = 1 << 20});
    assert_null(CALL(limited, blocks_make)(BLOCKS_MALLOC, 2 << 20));
    assert_int_equal(told, 1);
    void *block = CALL(limited, blocks_make)(BLOCKS_MALLOC, 2 << 20);
    assert_non_null(block);
    assert_ok(alcove_on(ALCOVE_EVENT_REFUSAL, note, &told));
    assert_null(CALL(limited, blocks_make)(BLOCKS_MALLOC, 64 << 20));
    assert_int_equal(told, 2);
    assert_int_equal(refusal.missed, 1);
    CALL(limited, blocks_release)(block);
    module_end(limited);
}

static void
fail_in_between(enum alcove_event event, const void *what, void *unused)
{
    (void)event;
    (void)what;
    (void)unused;
    alcove_module_stats(NULL, NULL);
    free(malloc(100));
}

static void
test_message_is_the_callers_again_after_a_handler_that_failed(void **state)
{
    (void)state;
    assert_ok(alcove_on(ALCOVE_EVENT_MESSAGE, fail_in_between, NULL));
    assert_refused(alcove_unload(allocator, 0), ALCOVE_EBUSY, "1 module is open");
    assert_ok(alcove_on(ALCOVE_EVENT_MESSAGE, NULL, NULL));
}

static void
test_crossings_are_told_with_both_sides(void **state)
{
    (void)state;
    assert_ok(alcove_on(ALCOVE_EVENT_CROSSING, note, &told));
    alcove_module *other = plugin_open(allocator, "blocks_two", &(struct alcove_module_options){.name = "other"});
    told = 0; /* of what libc and the module do when it is opened */
    void *volatile block = CALL(module, blocks_make)(BLOCKS_MALLOC, 100);
    free(block);
    assert_int_equal(told, 1);
    assert_ptr_equal(crossing.block, block);
    assert_in_range(crossing.bytes, 100, 128);
    assert_ptr_equal(crossing.owner, module);
    assert_ptr_equal(crossing.owner_allocator, allocator);
    assert_int_equal(crossing.owner_heap, heap);
    assert_string_equal(name, "blocks.so");
    assert_null(crossing.releaser);
    assert_null(crossing.releaser_allocator);
    assert_null(other_name);
    assert_int_equal(crossing.releaser_heap, ALCOVE_HEAP_NONE);

    CALL(other, blocks_release)(block = CALL(module, blocks_make)(BLOCKS_MALLOC, 100));
    assert_int_equal(told, 2);
    assert_ptr_equal(crossing.block, block);
    assert_ptr_equal(crossing.releaser, other);
    assert_int_equal(crossing.releaser_heap, alcove_module_heap(other));
    assert_string_equal(other_name, "other");
    assert_ptr_equal(crossing.owner, module);

    CALL(other, blocks_release)(block = malloc(100));
    assert_int_equal(told, 3);
    assert_ptr_equal(crossing.block, block);
    assert_ptr_equal(crossing.releaser, other);
    assert_null(crossing.owner);
    assert_null(name);
    assert_int_equal(crossing.owner_heap, ALCOVE_HEAP_NONE);

    void *left = CALL(other, blocks_make)(BLOCKS_MALLOC, 100);
    module_end(other);
    told = 0;
    free(left);
    assert_int_equal(told, 1);
    assert_null(crossing.owner); /* closed */
    assert_string_equal(name, "other");
    CALL(module, blocks_release)(CALL(module, blocks_make)(BLOCKS_MALLOC, 100)); /* that is none */
    assert_int_equal(told, 1);
}

static atomic_int inside, go_on;

static void
wait_inside(enum alcove_event event, const void *what, void *unused)
{
    (void)event;
    (void)what;
    (void)unused;
    atomic_store(&inside, 1);
    while (!atomic_load(&go_on))
        usleep(100);
    usleep(20000);
    atomic_store(&inside, 0);
}

static void *
cross(void *block)
{
    free(block);
    return NULL;
}

static void *
let_go(void *unused)
{
    usleep(20000);
    atomic_store(&go_on, 1);
    return unused;
}

static void
test_handler_that_was_taken_away_is_not_running_any_more(void **state)
{
    (void)state;
    pthread_t thread, other;
    atomic_store(&go_on, 0);
    assert_ok(alcove_on(ALCOVE_EVENT_CROSSING, wait_inside, NULL));
    assert_int_equal(pthread_create(&thread, NULL, cross, CALL(module, blocks_make)(BLOCKS_MALLOC, 100)), 0);
    while (!atomic_load(&inside))
        usleep(100);
    assert_int_equal(pthread_create(&other, NULL, let_go, NULL), 0);
    assert_ok(alcove_on(ALCOVE_EVENT_CROSSING, NULL, NULL));
    assert_int_equal(atomic_load(&inside), 0);
    pthread_join(thread, NULL);
    pthread_join(other, NULL);
}

static void
tell_in_child(void)
{
    CHECK(alcove_on(ALCOVE_EVENT_CROSSING, note, &told) == ALCOVE_OK); /* does not wait for the parent's thread */
    free(CALL(module, blocks_make)(BLOCKS_MALLOC, 100));
    CHECK(told == 1);
}

static void
test_fork_while_another_thread_is_in_a_handler(void **state)
{
    (void)state;
    pthread_t thread;
    atomic_store(&go_on, 0);
    assert_ok(alcove_on(ALCOVE_EVENT_CROSSING, wait_inside, NULL));
    assert_int_equal(pthread_create(&thread, NULL, cross, CALL(module, blocks_make)(BLOCKS_MALLOC, 100)), 0);
    while (!atomic_load(&inside))
        usleep(100);
    in_child(tell_in_child);
    atomic_store(&go_on, 1);
    pthread_join(thread, NULL);
}

static void
test_event_that_does_not_exist_is_refused(void **state)
{
    (void)state;
    assert_refused(alcove_on((enum alcove_event)3, note, NULL), ALCOVE_EINVAL, "no event 3");
}

static void
test_list_has_open_modules_and_closed_ones_with_blocks(void **state)
{
    (void)state;
    struct alcove_module_entry list[4];
    alcove_module *other = plugin_open(allocator, "blocks_two", &(struct alcove_module_options){.name = "other", .limit = 1 << 20});
    plugin_open(allocator, "blocks_two", NULL);
    void *left = CALL(other, blocks_make)(BLOCKS_MALLOC, 100);
    uint32_t count = 4, its_heap = alcove_module_heap(other);
    assert_ok(alcove_modules(list, sizeof *list, &count));
    assert_int_equal(count, 2);
    const struct alcove_module_entry *first = list[0].module == module ? &list[0] : &list[1];
    const struct alcove_module_entry *second = first == &list[0] ? &list[1] : &list[0];
    assert_ptr_equal(first->module, module);
    assert_string_equal(first->name, "blocks.so");
    assert_int_equal(first->opens, 1);
    assert_int_equal(first->heap, heap);
    assert_int_equal(first->live_blocks, 0);
    assert_int_equal(first->limit, 0);
    assert_ptr_equal(second->module, other);
    assert_ptr_equal(second->allocator, allocator);
    assert_string_equal(second->name, "other");
    assert_int_equal(second->opens, 2);
    assert_int_equal(second->live_blocks, 1);
    assert_in_range(second->live_bytes, 100, 128);
    assert_true(second->active_bytes >= 100);
    assert_int_equal(second->limit, 1 << 20);
    assert_int_equal(second->resident, 1);

    module_end(other);
    module_end(other);
    count = 4;
    assert_ok(alcove_modules(list, sizeof *list, &count));
    assert_int_equal(count, 2);
    assert_ptr_equal(list[0].module, module);
    assert_null(list[1].module);
    assert_string_equal(list[1].name, "other");
    assert_int_equal(list[1].heap, its_heap);
    assert_int_equal(list[1].opens, 0);
    assert_int_equal(list[1].live_blocks, 1);
    assert_int_equal(list[1].resident, !DLCLOSE_UNLOADS);
    free(left);
    count = 4;
    assert_ok(alcove_modules(list, sizeof *list, &count));
    assert_int_equal(count, 1);
}

static void *
work_and_wait(void *module_to_use)
{
    CALL(module_to_use, blocks_release)(CALL(module_to_use, blocks_make)(BLOCKS_MALLOC, 100));
    atomic_store(&inside, 1);
    while (!atomic_load(&go_on))
        usleep(100);
    return NULL;
}

/* A thread that sleeps has its heap yet. */
static void
test_list_leaves_out_closed_modules_without_blocks(void **state)
{
    (void)state;
    pthread_t thread;
    struct alcove_module_entry list[4];
    alcove_module *other = plugin_open(allocator, "blocks_two", NULL);
    atomic_store(&inside, 0);
    atomic_store(&go_on, 0);
    assert_int_equal(pthread_create(&thread, NULL, work_and_wait, other), 0);
    while (!atomic_load(&inside))
        usleep(100);
    uint32_t heaps = heaps_now(), count = 4;
    module_end(other);
    assert_int_equal(heaps_now(), heaps);
    assert_ok(alcove_modules(list, sizeof *list, &count));
    assert_int_equal(count, 1);
    assert_ptr_equal(list[0].module, module);
    atomic_store(&go_on, 1);
    pthread_join(thread, NULL);
}

static void
test_list_for_callers_that_know_less_or_more_of_an_entry(void **state)
{
    (void)state;
    struct {
        struct alcove_module_entry today;
        uint64_t more;
    } later[2];
    uint64_t earlier[4] = {1, 2, 3, 4};
    alcove_module *other = plugin_open(allocator, "blocks_two", NULL);
    uint32_t count = 2;
    memset(later, -1, sizeof later);
    assert_ok(alcove_modules(&later[0].today, sizeof *later, &count));
    assert_int_equal(count, 2);
    assert_int_equal(later[0].more, 0);
    assert_int_equal(later[1].more, 0);
    assert_ptr_equal(later[0].today.module == module ? later[1].today.module : later[0].today.module, other);
    assert_ok(alcove_modules((struct alcove_module_entry *)earlier, 8, &count));
    assert_int_equal(earlier[0], (uintptr_t)later[0].today.module);
    assert_int_equal(earlier[1], (uintptr_t)later[1].today.module);
    assert_int_equal(earlier[2], 3);
    count = 1; /* less room than there is */
    assert_ok(alcove_modules((struct alcove_module_entry *)(earlier + 2), 8, &count));
    assert_int_equal(count, 2);
    assert_int_equal(earlier[3], 4);
    count = 0;
    assert_ok(alcove_modules(NULL, 8, &count));
    assert_int_equal(count, 2);
    assert_refused(alcove_modules(NULL, 8, &count), ALCOVE_EINVAL, "`out`");
    assert_refused(alcove_modules(&later[0].today, 8, NULL), ALCOVE_EINVAL, "`count`");
    assert_refused(alcove_modules(&later[0].today, 0, &count), ALCOVE_EINVAL, "stride of 0");
    assert_refused(alcove_modules(&later[0].today, 12, &count), ALCOVE_EINVAL, "stride of 12");
    module_end(other);
}

int
main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, quiet_setup, quiet_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_call_that_fails_is_told_once_with_its_message),
        TEST(test_message_of_the_allocator_is_told_in_place_of_standard_error),
        TEST(test_refusal_by_a_limit_is_told_with_the_module),
        TEST(test_handler_may_call_the_loader_and_allocate_and_is_not_told_of_itself),
        TEST(test_message_is_the_callers_again_after_a_handler_that_failed),
        TEST(test_crossings_are_told_with_both_sides),
        TEST(test_handler_that_was_taken_away_is_not_running_any_more),
        TEST(test_fork_while_another_thread_is_in_a_handler),
        TEST(test_event_that_does_not_exist_is_refused),
        TEST(test_list_has_open_modules_and_closed_ones_with_blocks),
        TEST(test_list_leaves_out_closed_modules_without_blocks),
        TEST(test_list_for_callers_that_know_less_or_more_of_an_entry),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
