/*
 * Loader, allocator and host of different releases: today's loader with an allocator that has the first table of the ABI
 * version, and with a later one; loaders that are earlier and later with today's allocator; hosts likewise with today's
 * loader.
 */
#include "host.h"

#include <ctype.h>
#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>

#include "tests/plugins/blocks.h"
#include "tests/plugins/first_table.h"
#include "tests/plugins/newer_table.h"
#include "tests/work.h"

static alcove_allocator *
version_load(const char *plugin, const char *prefix)
{
    alcove_allocator *allocator = NULL;
    assert_ok(alcove_load(&allocator, &(struct alcove_load_options){.path = plugin_path(plugin), .prefix = prefix}));
    return allocator;
}

/* A module makes, hands out and leaves blocks as with any allocator. One that lacks a function of those that it imports is to be accepted. */
static void
assert_module_works(alcove_allocator *allocator)
{
    alcove_module *module = plugin_open(allocator, "blocks", &(struct alcove_module_options){.limit = (uint64_t)64 << 20, .flags = ALCOVE_OPEN_PARTIAL});
    char *block = CALL(module, blocks_make)(BLOCKS_MALLOC, 1000);
    assert_int_equal(heap_of(allocator, block), alcove_module_heap(module));
    assert_int_equal(stats_of(module).heap.live_blocks, 1);
    assert_int_equal(stats_of(module).heap.limit, (uint64_t)64 << 20);
    free(block);
    assert_int_equal(stats_of(module).released_outside, 1);
    block = malloc(100);
    assert_int_equal(CALL(module, blocks_usable)(block), malloc_usable_size(block));
    CALL(module, blocks_release)(block);
    assert_int_equal(stats_of(module).released_foreign, 1);
    CALL(module, blocks_make)(BLOCKS_MALLOC, 10);
    assert_int_equal(module_end(module).heap.live_blocks, 1);
}

static void
test_loader_with_the_first_table(void **state)
{
    (void)state;
    for (int round = 0; round < 2; round++) {
        alcove_allocator *allocator = version_load("first_table", "first_");
        const struct alcove_table *table = alcove_table_of(allocator);
        assert_true(table->size >= sizeof *table); /* what it lacks may be asked for */
        assert_true(allocator_works(table));
        assert_module_works(allocator);
        assert_ok(alcove_refresh());
        assert_refused(alcove_unload(allocator, 0), ALCOVE_EBUSY, "1 block");
        assert_ok(alcove_unload(allocator, ALCOVE_UNLOAD_RELEASE));
        assert_unloaded(plugin_path("first_table"));
    }
}

/* The module is refused, or if the host accepts that the import stays where it was, at libc's: the others are routed. */
static void
test_entry_that_the_allocator_does_not_know(void **state)
{
    (void)state;
    alcove_allocator *allocator = version_load("first_table", "first_");
    alcove_module *module = NULL;
    assert_int_equal(alcove_module_open(allocator, plugin_path("blocks"), NULL, &module), ALCOVE_EPARTIAL);
    assert_non_null(strstr(alcove_error_message(), "strndup (and 0 imports more) is a function that this allocator does not have"));
    module = plugin_open(allocator, "blocks", &(struct alcove_module_options){.flags = ALCOVE_OPEN_PARTIAL});
    char *strange = CALL(module, blocks_make)(BLOCKS_STRNDUP, 100), *own = CALL(module, blocks_make)(BLOCKS_STRDUP, 100);
    assert_int_equal(heap_of(allocator, strange), ALCOVE_HEAP_NONE);
    assert_int_equal(heap_of(allocator, own), alcove_module_heap(module));
    CALL(module, blocks_release)(strange);
    CALL(module, blocks_release)(own);
    assert_int_equal(module_end(module).heap.live_blocks, 0);
    assert_ok(alcove_unload(allocator, 0));
}

static void
test_loader_with_a_later_table(void **state)
{
    (void)state;
    alcove_allocator *allocator = version_load("newer_table", "newer_");
    const struct newer_table *table = (const struct newer_table *)alcove_table_of(allocator);
    assert_int_equal(table->today.size, sizeof *table); /* a host that is later than its loader finds the rest */
    uint32_t heap;
    struct newer_heap_options options = {.today = {.size = sizeof options, .name = "new"}, .colour = 7};
    assert_int_equal(table->today.heap_create(&options.today, &heap), 0);
    assert_int_equal(table->last_colour(), 7);
    assert_int_equal(table->today.heap_destroy(heap), 0);
    assert_true(allocator_works(&table->today));
    alcove_module *module = plugin_open(allocator, "blocks", NULL);
    assert_int_equal(table->last_colour(), 7); /* the loader sets none */
    struct alcove_module_stats stats = stats_of(module);
    assert_int_equal(stats.heap.size, offsetof(struct alcove_heap_stats, room) + 8);
    assert_int_equal(stats.heap.room[0], NEWER_FIGURE);
    assert_int_equal(module_end(module).heap.room[0], NEWER_FIGURE);
    assert_module_works(allocator);
    assert_ok(alcove_unload(allocator, ALCOVE_UNLOAD_RELEASE));
    assert_unloaded(plugin_path("newer_table"));
}

static void
test_table_without_a_function_is_refused(void **state)
{
    (void)state;
    alcove_allocator *allocator = NULL;
    assert_refused(alcove_load(&allocator, &(struct alcove_load_options){.path = plugin_path("lacking_table")}), ALCOVE_EABI,
                   "has no attach in its table");
    assert_null(allocator);
}

/* Today's allocator, before anybody has used it, as a loader finds it. */
static const void *
table_of_today(void **handle)
{
    char name[128];
    snprintf(name, sizeof name, "%stable", setting("ALCOVE_TEST_PREFIX"));
    *handle = dlopen(allocator_path(), RTLD_NOW | RTLD_LOCAL);
    assert_non_null(*handle);
    const void *table = dlsym(*handle, name);
    assert_non_null(table);
    return table;
}

static void
nothing_crossed(void *lender, uint32_t caller, uint32_t owner, void *block, size_t usable)
{
    (void)lender, (void)caller, (void)owner, (void)block, (void)usable;
}

static void
foreign_free(void *lender, void *block)
{
    (void)lender;
    free(block);
}

static void
test_earlier_loader_with_this_allocator(void **state)
{
    (void)state;
    SKIP_WITHOUT_UNLOADING();
    void *handle;
    const struct first_table *table = table_of_today(&handle);
    assert_int_equal(table->abi_version, FIRST_ABI_VERSION);
    assert_true(table->size >= sizeof *table);
    struct first_services services = {.abi_version = FIRST_ABI_VERSION, .size = sizeof services, .crossed = nothing_crossed,
                                      .foreign_free = foreign_free};
    assert_int_equal(table->attach(&services), 0);
    uint32_t heap;
    struct first_heap_options options = {.size = sizeof options, .limit = 1 << 20, .name = "old"};
    assert_int_equal(table->heap_create(&options, &heap), 0);
    void *block = table->heap_malloc(heap, 100);
    struct {
        struct first_heap_stats stats;
        uint64_t behind;
    } figures = {.behind = 4711};
    memset(&figures.stats, -1, sizeof figures.stats);
    assert_int_equal(table->heap_stats(heap, &figures.stats), 0);
    assert_int_equal(figures.behind, 4711);
    assert_true(figures.stats.size >= offsetof(struct first_heap_stats, room));
    assert_int_equal(figures.stats.live_blocks, 1);
    assert_int_equal(figures.stats.limit, 1 << 20);
    for (size_t i = figures.stats.size / 8; i < sizeof figures.stats / 8; i++)
        assert_int_equal(((const uint64_t *)&figures.stats)[i], 0);
    struct {
        struct first_owner owner;
        uint64_t behind;
    } owner = {.behind = 4711};
    assert_int_equal(table->owner(block, &owner.owner), 1);
    assert_int_equal(owner.behind, 4711);
    assert_int_equal(owner.owner.heap, heap);
    struct {
        struct first_info info;
        uint64_t behind;
    } info = {.behind = 4711};
    table->info(&info.info);
    assert_int_equal(info.behind, 4711);
    assert_int_equal(info.info.heaps, 2);
    void (*entry_free)(void *, size_t) = (void (*)(void *, size_t))table->entry(FIRST_ENTRY_FREE);
    entry_free(block, heap);
    entry_free(malloc(10), heap);
    assert_int_equal(table->heap_destroy(heap), 0);
    assert_int_equal(table->detach(), 0);
    assert_int_equal(dlclose(handle), 0);
}

/* Options with a member more than the allocator knows: zero asks for nothing. */
struct later_heap_options {
    struct alcove_heap_options today;
    uint64_t more;
};

static void
test_later_loader_with_this_allocator(void **state)
{
    (void)state;
    SKIP_WITHOUT_UNLOADING();
    void *handle;
    const struct alcove_table *table = table_of_today(&handle);
    struct {
        struct alcove_services today;
        void (*more)(void);
    } services = {.today = {.abi_version = ALCOVE_ABI_VERSION, .size = sizeof services}, .more = abort};
    assert_int_equal(table->attach(&services.today), 0);
    uint32_t heap = 4711;
    struct later_heap_options options = {.today = {.size = sizeof options}, .more = 1};
    assert_int_equal(table->heap_create(&options.today, &heap), EINVAL);
    assert_int_equal(heap, 4711);
    options.more = 0;
    assert_int_equal(table->heap_create(&options.today, &heap), 0);
    assert_null(table->entry((enum alcove_entry)ALCOVE_ENTRY_COUNT));
    assert_true(allocator_works(table));
    assert_int_equal(table->heap_destroy(heap), 0);
    assert_int_equal(table->detach(), 0);
    assert_int_equal(dlclose(handle), 0);
}

static int
started_beyond_the_size(void *lender)
{
    (void)lender;
    abort();
}

/* The least that was ever lent. What is behind `size` is not read. */
static void
test_loader_that_lends_little(void **state)
{
    (void)state;
    SKIP_WITHOUT_UNLOADING();
    void *handle;
    const struct alcove_table *table = table_of_today(&handle);
    struct alcove_services services = {.abi_version = ALCOVE_ABI_VERSION, .size = ALCOVE_SERVICES_FIRST,
                                       .thread_started = started_beyond_the_size};
    assert_int_equal(table->attach(&services), 0);
    assert_true(allocator_works(table));
    assert_int_equal(table->detach(), 0);
    assert_int_equal(dlclose(handle), 0);
}

static void
test_loader_of_another_abi_version_is_refused(void **state)
{
    (void)state;
    SKIP_WITHOUT_UNLOADING();
    for (int more = -1; more <= 1; more += 2) {
        void *handle;
        const struct alcove_table *table = table_of_today(&handle);
        struct alcove_services services = {.abi_version = ALCOVE_ABI_VERSION + (uint32_t)more, .size = sizeof services};
        assert_int_equal(table->attach(&services), EINVAL);
        assert_true(allocator_works(table));
        assert_int_equal(dlclose(handle), 0);
    }
}

static void
test_hosts_that_are_earlier_or_later_than_the_loader(void **state)
{
    (void)state;
    struct {
        struct alcove_load_options today;
        uint64_t more;
    } load = {.today = {.size = sizeof load, .path = allocator_path()}, .more = 1};
    struct {
        struct alcove_module_options today;
        uint64_t more;
    } open = {.today = {.size = sizeof open, .name = "later"}, .more = 1};
    alcove_allocator *allocator = NULL;
    alcove_module *module = NULL;
    assert_refused(alcove_load(&allocator, &load.today), ALCOVE_EINVAL, "not understood");
    load.more = 0;
    load.today.flags = 2;
    assert_refused(alcove_load(&allocator, &load.today), ALCOVE_EINVAL, "flags 0x2");
    load.today.flags = 0;
    assert_ok(alcove_load(&allocator, &load.today));
    assert_refused(alcove_module_open(allocator, plugin_path("blocks"), &open.today, &module), ALCOVE_EINVAL, "not understood");
    open.more = 0;
    open.today.flags = 2;
    assert_refused(alcove_module_open(allocator, plugin_path("blocks"), &open.today, &module), ALCOVE_EINVAL, "flags 0x2");
    open.today.flags = 0;
    assert_ok(alcove_module_open(allocator, plugin_path("blocks"), &open.today, &module));
    assert_string_equal(stats_of(module).name, "later");
    module_end(module);
    /* A struct that ends after the name, for a loader that has more. */
    open.today = (struct alcove_module_options){.size = 16, .name = "earlier", .policy = (enum alcove_policy)99};
    assert_ok(alcove_module_open(allocator, plugin_path("blocks"), &open.today, &module));
    assert_string_equal(stats_of(module).name, "earlier");

    struct alcove_module_stats stats;
    memset(&stats, -1, sizeof stats);
    assert_ok(alcove_module_stats(module, &stats));
    assert_int_equal(stats.size, offsetof(struct alcove_module_stats, room));
    for (unsigned i = 0; i < sizeof stats.room / 8; i++)
        assert_int_equal(stats.room[i], 0);
    struct alcove_report report;
    memset(&report, -1, sizeof report);
    assert_ok(alcove_module_close(module, 0, &report));
    assert_int_equal(report.size, offsetof(struct alcove_report, room));
    for (unsigned i = 0; i < sizeof report.room / 8; i++)
        assert_int_equal(report.room[i], 0);
    assert_ok(alcove_unload(allocator, 0));
}

/* A module's heap is the loader's, whoever knows its number. */
static void
test_heap_of_a_module_is_destroyed_by_the_loader_only(void **state)
{
    (void)state;
    alcove_allocator *allocator = allocator_load();
    const struct alcove_table *table = alcove_table_of(allocator);
    alcove_module *module = plugin_open(allocator, "blocks", NULL);
    char *block = CALL(module, blocks_make)(BLOCKS_MALLOC, 1000);
    memset(block, 1, 1000);
    assert_int_equal(table->heap_destroy(alcove_module_heap(module)), EPERM);
    assert_int_equal(table->heap_end(alcove_module_heap(module)), EPERM);
    assert_int_equal(block[999], 1);
    assert_int_equal(stats_of(module).heap.live_blocks, 1);
    uint32_t heap = alcove_module_heap(module);
    struct alcove_heap_stats stats;
    struct alcove_report report;
    assert_ok(alcove_module_close(module, ALCOVE_CLOSE_DROP, &report));
    assert_int_equal(report.kept, !DLCLOSE_UNLOADS);
    if (!DLCLOSE_UNLOADS) { /* what is live in a library that stays is kept */
        assert_int_equal(block[999], 1);
        free(block);
        assert_ok(alcove_refresh());
    }
    assert_int_equal(table->heap_stats(heap, &stats), EINVAL);
    assert_ok(alcove_unload(allocator, 0));
}

static void
call_refresh(alcove_allocator *allocator, alcove_module *module)
{
    (void)allocator, (void)module;
    assert_ok(alcove_refresh());
}

static void
call_table_of(alcove_allocator *allocator, alcove_module *module)
{
    (void)module;
    assert_non_null(alcove_table_of(allocator));
}

static void
call_module_symbol(alcove_allocator *allocator, alcove_module *module)
{
    (void)allocator;
    assert_non_null(alcove_module_symbol(module, "blocks_make"));
}

static void
call_module_stats(alcove_allocator *allocator, alcove_module *module)
{
    (void)allocator;
    stats_of(module);
}

static void
call_module_heap(alcove_allocator *allocator, alcove_module *module)
{
    (void)allocator;
    assert_true(alcove_module_heap(module) != ALCOVE_HEAP_NONE);
}

static void
call_module_limit(alcove_allocator *allocator, alcove_module *module)
{
    (void)allocator;
    assert_ok(alcove_module_limit(module, 0));
}

/* A host that only looks now and then: pages that were used decay by its calls, whichever one it is. */
static void
test_calls_of_the_loader_let_pages_decay(void **state)
{
    (void)state;
    SKIP_WITHOUT_UNLOADING(); /* an allocator reads its options when it is loaded */
    char name[128];
    snprintf(name, sizeof name, "%sMALLOC_CONF", setting("ALCOVE_TEST_PREFIX"));
    for (char *c = name; *c != 0; c++)
        *c = (char)toupper((unsigned char)*c);
    setenv(name, "dirty_decay_ms:50", 1);
    alcove_allocator *allocator = allocator_load();
    unsetenv(name);
    const struct alcove_table *table = alcove_table_of(allocator);
    alcove_module *module = plugin_open(allocator, "blocks", NULL);
    static void (*const calls[])(alcove_allocator *, alcove_module *) = {
        call_refresh, call_table_of, call_module_symbol, call_module_stats, call_module_heap, call_module_limit};
    for (size_t call = 0; call < sizeof calls / sizeof calls[0]; call++) {
        void *block = table->malloc(16 << 20);
        memset(block, 1, 16 << 20);
        table->free(block);
        struct alcove_info info;
        table->info(&info);
        assert_true(info.dirty_bytes != 0);
        for (int i = 0; i < 3000 && info.dirty_bytes != 0; i++) {
            usleep(10000);
            calls[call](allocator, module);
            table->info(&info);
        }
        assert_int_equal(info.dirty_bytes, 0);
    }
    module_end(module);
    assert_ok(alcove_unload(allocator, 0));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_loader_with_the_first_table),
        cmocka_unit_test(test_entry_that_the_allocator_does_not_know),
        cmocka_unit_test(test_loader_with_a_later_table),
        cmocka_unit_test(test_table_without_a_function_is_refused),
        cmocka_unit_test(test_earlier_loader_with_this_allocator),
        cmocka_unit_test(test_later_loader_with_this_allocator),
        cmocka_unit_test(test_loader_that_lends_little),
        cmocka_unit_test(test_loader_of_another_abi_version_is_refused),
        cmocka_unit_test(test_hosts_that_are_earlier_or_later_than_the_loader),
        cmocka_unit_test(test_heap_of_a_module_is_destroyed_by_the_loader_only),
        cmocka_unit_test(test_calls_of_the_loader_let_pages_decay),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
