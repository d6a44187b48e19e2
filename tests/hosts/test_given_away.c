/*
 * Addresses of malloc, free and their family that a plugin gave away: while the module lives they are its own, afterwards everybody's, for ever. They
 * charge and blame no other module.
 */
#include "host.h"

#include <dlfcn.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../plugins/blocks.h"
#include "../plugins/giving.h"
#include "../plugins/slots.h"
#include "loaded.h"
#include "tests/child.h"

/* On the heap, where nobody looks for addresses. */
static struct giving *
given_by(alcove_module *module)
{
    struct giving *given = malloc(sizeof *given);
    *given = *(const struct giving *)symbol(module, "giving");
    return given;
}

static struct giving *
given_by_a_closed_module(void)
{
    alcove_module *module = plugin_open(allocator, "giving", NULL);
    struct giving *given = given_by(module);
    assert_int_equal(module_end(module).kept, 0);
    return given;
}

static void
allocates_in(const struct giving *given, uint32_t heap)
{
    void *blocks[] = {given->malloc(100), given->calloc(10, 10), given->realloc(NULL, 100), given->strdup("a text")};
    for (unsigned i = 0; i < 4; i++) {
        assert_non_null(blocks[i]);
        if (allocator != NULL)
            assert_int_equal(heap_of(allocator, blocks[i]), heap);
    }
    assert_string_equal((char *)blocks[3], "a text");
    assert_true(given->malloc_usable_size(blocks[0]) >= 100);
    blocks[0] = given->realloc(blocks[0], 10000);
    assert_non_null(blocks[0]);
    for (unsigned i = 0; i < 4; i++)
        given->free(blocks[i]);
    given->free(NULL);
    given->free(malloc(100));
}

static void
test_they_are_the_modules_while_it_is_open(void **state)
{
    (void)state;
    alcove_module *module = plugin_open(allocator, "giving", NULL);
    struct giving *given = given_by(module);
    allocates_in(given, alcove_module_heap(module));
    assert_int_equal(stats_of(module).heap.total_allocs, stats_of(module).heap.total_frees);
    assert_int_equal(stats_of(module).released_foreign, 1);
    free(given);
    module_end(module);
}

static void
test_they_are_libcs_after_close(void **state)
{
    (void)state;
    struct giving *given = given_by_a_closed_module();
    allocates_in(given, ALCOVE_HEAP_NONE);
    free(given);
}

static void
test_they_release_what_the_module_left(void **state)
{
    (void)state;
    alcove_module *module = plugin_open(allocator, "giving", NULL);
    struct giving *given = given_by(module);
    void *block = given->malloc(100), *second = given->malloc(200);
    assert_int_equal(module_end(module).kept, 1);
    second = given->realloc(second, 5000);
    given->free(second);
    given->free(block);
    allocates_in(given, ALCOVE_HEAP_NONE); /* the heap has ended */
    free(given);
}

static void
test_they_are_libcs_after_unload(void **state)
{
    alcove_module *module = plugin_open(allocator, "giving", NULL);
    struct giving *given = given_by(module);
    module_end(module);
    assert_ok(alcove_unload(allocator, 0));
    allocator = NULL;
    allocates_in(given, ALCOVE_HEAP_NONE);
    setup(state);
    allocates_in(given, ALCOVE_HEAP_NONE);
    free(given);
}

static void
test_they_release_nothing_of_what_was_dropped(void **state)
{
    (void)state;
    alcove_module *module = plugin_open(allocator, "giving", NULL);
    struct giving *given = given_by(module);
    struct alcove_report report;
    void *block = given->malloc(100);
    assert_non_null(block);
    assert_ok(alcove_module_close(module, ALCOVE_CLOSE_DROP, &report));
    assert_int_equal(report.kept, !DLCLOSE_UNLOADS);
    allocates_in(given, ALCOVE_HEAP_NONE);
    if (!DLCLOSE_UNLOADS)
        given->free(block); /* what is live in a library that stays was kept */
    free(given);
}

/* An address that module_symbol gave is as good. */
static void
test_addresses_that_the_host_looked_up(void **state)
{
    (void)state;
    alcove_module *module = plugin_open(allocator, "blocks", NULL);
    struct giving given = {
        (void *(*)(size_t))symbol(module, "malloc"), (void *(*)(size_t, size_t))symbol(module, "calloc"),
        (void *(*)(void *, size_t))symbol(module, "realloc"), (char *(*)(const char *))symbol(module, "strdup"),
        (size_t (*)(void *))symbol(module, "malloc_usable_size"), (void (*)(void *))symbol(module, "free"),
    };
    allocates_in(&given, alcove_module_heap(module));
    module_end(module);
    allocates_in(&given, ALCOVE_HEAP_NONE);
}

/* --- beside other modules */

static void
strict_module_is_not_blamed(void)
{
    struct giving *given = given_by_a_closed_module();
    alcove_module *strict = plugin_open(allocator, "blocks", &(struct alcove_module_options){.policy = ALCOVE_POLICY_STRICT});
    allocates_in(given, ALCOVE_HEAP_NONE);
    CHECK(stats_of(strict).heap.total_allocs == 0);
    CHECK(stats_of(strict).released_foreign == 0);
    module_end(strict);
}

static void
test_strict_module_is_not_blamed(void **state)
{
    (void)state;
    in_child(strict_module_is_not_blamed);
}

static void
test_the_same_plugin_opened_again_is_not_charged(void **state)
{
    (void)state;
    struct giving *given = given_by_a_closed_module();
    alcove_module *again = plugin_open(allocator, "giving", NULL);
    allocates_in(given, ALCOVE_HEAP_NONE);
    assert_int_equal(stats_of(again).heap.total_allocs, 0);
    assert_int_equal(stats_of(again).released_foreign, 0);
    free(given);
    module_end(again);
}

#define SLOWLY (emulated() || getenv("ALCOVE_TEST_VALGRIND") != NULL)

#define OPENS (SLOWLY ? 100 : 5000) /* more than there are numbers of thunks */

/* Any number of modules may come after it that give nothing away. */
static void
after_thousands_of_opens(void)
{
    struct giving *given = given_by_a_closed_module();
    for (int i = 0; i < OPENS; i++)
        module_end(plugin_open(allocator, "keeper", NULL));
    alcove_module *strict = plugin_open(allocator, "keeper", &(struct alcove_module_options){.policy = ALCOVE_POLICY_STRICT});
    uint64_t allocs = stats_of(strict).heap.total_allocs;
    allocates_in(given, ALCOVE_HEAP_NONE);
    CHECK(stats_of(strict).heap.total_allocs == allocs);
    CHECK(stats_of(strict).released_foreign == 0);
    module_end(strict);
}

static void
test_they_are_libcs_after_thousands_of_opens(void **state)
{
    (void)state;
    in_child(after_thousands_of_opens);
}

/* --- by a host that hooks its slots: what it found there it calls for ever */

static void *(*found)(size_t);
static unsigned hooked;

static void *
hook(size_t size)
{
    return found(size);
}

static void
slot_hook(void **slot)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), start = (uintptr_t)slot & ~(page - 1);
    found = (void *(*)(size_t))*slot;
    if (mprotect((void *)start, page, PROT_READ | PROT_WRITE) == 0)
        *slot = (void *)hook;
    hooked++;
}

static int
keeper_hook(struct dl_phdr_info *info, size_t size, void *unused)
{
    (void)size, (void)unused;
    if (strstr(info->dlpi_name, "/keeper.so") == NULL)
        return 0;
    slots_named(info, "malloc", slot_hook);
    return 1;
}

static void
after_the_module_that_was_hooked(void)
{
    alcove_module *module = plugin_open(allocator, "keeper", NULL);
    dl_iterate_phdr(keeper_hook, NULL);
    CHECK(hooked == 1);
    void *block = found(100);
    CHECK(heap_of(allocator, block) == alcove_module_heap(module));
    free(block);
    module_end(module);
    for (int i = 0; i < 200; i++) { /* more than there are numbers in a long row of those that are taken again */
        module = plugin_open(allocator, "blocks", NULL);
        block = found(100);
        CHECK(heap_of(allocator, block) == ALCOVE_HEAP_NONE);
        free(block);
        module_end(module);
    }
}

static void
test_what_a_hooker_found_is_libcs_after_close(void **state)
{
    (void)state;
    in_child(after_the_module_that_was_hooked);
}

#define OPENS_THAT_GIVE (SLOWLY ? 100 : 4000) /* less than that */

static void
after_thousands_of_opens_that_give(void)
{
    struct giving *given = given_by_a_closed_module();
    alcove_module *strict = NULL;
    for (int i = 0; i < OPENS_THAT_GIVE; i++) {
        strict = plugin_open(allocator, "giving", &(struct alcove_module_options){.policy = ALCOVE_POLICY_STRICT});
        uint32_t heap = alcove_module_heap(strict);
        void *block = given->malloc(100);
        CHECK(heap_of(allocator, block) != heap);
        given->free(block);
        CHECK(stats_of(strict).heap.total_allocs == 0 && stats_of(strict).released_foreign == 0);
        module_end(strict);
    }
}

static void
test_they_are_libcs_after_thousands_of_opens_that_give_too(void **state)
{
    (void)state;
    in_child(after_thousands_of_opens_that_give);
}

/* --- heaps that live on for a block */

#define HEAPS 10000
#define COMPARED 100 /* the first and the last so many are compared */

static _Atomic unsigned calls;

/* The loader and the allocator find these in place of libc's. */
int
mprotect(void *address, size_t bytes, int bits)
{
    calls++;
    return (int)syscall(SYS_mprotect, address, bytes, bits);
}

int
madvise(void *address, size_t bytes, int advice)
{
    calls++;
    return (int)syscall(SYS_madvise, address, bytes, advice);
}

static void
ten_thousand_that_leave_a_block(void)
{
    void **blocks = calloc(HEAPS, sizeof *blocks);
    unsigned calls_of_first = 0;
    for (int i = 0; i < HEAPS; i++) {
        if (i == COMPARED)
            calls_of_first = calls;
        if (i == HEAPS - COMPARED)
            calls = 0;
        alcove_module *module = plugin_open(allocator, "blocks", NULL);
        blocks[i] = CALL(module, blocks_make)(BLOCKS_MALLOC, 100);
        CHECK(heap_of(allocator, blocks[i]) == alcove_module_heap(module));
        CHECK(module_end(module).kept == 1);
    }
    if (calls > calls_of_first + COMPARED)
        fprintf(stderr, "the first %d took %u system calls, the last %u\n", COMPARED, calls_of_first, calls);
    CHECK(calls_of_first > 0 && calls <= calls_of_first + COMPARED);
    for (int i = 0; i < HEAPS; i++)
        free(blocks[i]);
    free(blocks);
    /* all numbers are free again */
    for (int i = 0; i < HEAPS; i++) {
        alcove_module *module = plugin_open(allocator, "keeper", NULL);
        CHECK(module_end(module).kept == 0 || !DLCLOSE_UNLOADS);
    }
    CHECK(alcove_unload(allocator, ALCOVE_UNLOAD_RELEASE) == 0);
}

static void
test_ten_thousand_modules_that_leave_a_block_each(void **state)
{
    (void)state;
    if (SLOWLY)
        SKIP_BECAUSE("it would take too long");
    in_child(ten_thousand_that_leave_a_block);
}

static void
past_the_last_heap(void)
{
    alcove_module *module = NULL, *early = plugin_open(allocator, "keeper", NULL);
    void **blocks = calloc(ALCOVE_HEAP_MAX, sizeof *blocks);
    char told[400];
    unsigned count = 0;
    int code = ALCOVE_OK;
    while (count < ALCOVE_HEAP_MAX && (code = alcove_module_open(allocator, plugin_path("blocks"), NULL, &module)) == ALCOVE_OK) {
        blocks[count++] = CALL(module, blocks_make)(BLOCKS_MALLOC, 100);
        CHECK(alcove_module_close(module, 0, NULL) == 0);
    }
    CHECK(code == ALCOVE_ENOMEM && strstr(alcove_error_message(), "heap numbers are taken") != NULL);
    CHECK(count > ALCOVE_HEAP_MAX - 8);
    CHECK(lines_mapped("blocks.so") == 0 || !DLCLOSE_UNLOADS);
    /* what is a module already needs no number */
    alcove_module *again = NULL;
    snprintf(told, sizeof told, "%s", alcove_error_message());
    CHECK(alcove_module_open(allocator, plugin_path("keeper"), NULL, &again) == ALCOVE_OK);
    CHECK(again == early && strcmp(alcove_error_message(), told) == 0);
    CHECK(alcove_module_close(early, 0, NULL) == 0 && alcove_module_close(again, 0, NULL) == 0);
    /* one of the blocks is freed, and there is room for a module */
    free(blocks[count / 2]);
    alcove_refresh();
    for (int i = 0; i < 2000 && (code = alcove_module_open(allocator, plugin_path("blocks"), NULL, &module)) != ALCOVE_OK; i++)
        usleep(1000); /* a heap ends when nobody can be inside */
    CHECK(code == ALCOVE_OK);
    CHECK(alcove_module_close(module, 0, NULL) == 0);
    CHECK(alcove_unload(allocator, ALCOVE_UNLOAD_RELEASE) == 0);
}

static void
test_open_says_so_when_all_heaps_are_taken(void **state)
{
    (void)state;
    if (SLOWLY)
        SKIP_BECAUSE("it would take too long");
    in_child(past_the_last_heap);
}

int
main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_they_are_the_modules_while_it_is_open),
        TEST(test_they_are_libcs_after_close),
        TEST(test_they_release_what_the_module_left),
        TEST(test_they_are_libcs_after_unload),
        TEST(test_they_release_nothing_of_what_was_dropped),
        TEST(test_addresses_that_the_host_looked_up),
        TEST(test_strict_module_is_not_blamed),
        TEST(test_the_same_plugin_opened_again_is_not_charged),
        TEST(test_they_are_libcs_after_thousands_of_opens),
        TEST(test_what_a_hooker_found_is_libcs_after_close),
        TEST(test_they_are_libcs_after_thousands_of_opens_that_give_too),
        TEST(test_ten_thousand_modules_that_leave_a_block_each),
        TEST(test_open_says_so_when_all_heaps_are_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
