/*
 * Loading and unloading the allocator: what is refused, with which message; what is counted; and who may do it at once.
 */
#include "host.h"

#include <ctype.h>
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../plugins/blocks.h"
#include "loaded.h"
#include "tests/child.h"

static const char *
search_finds(void *context)
{
    return context;
}

/* Loading `path` fails, with a message that names it. */
static void
assert_load_refused(const char *path, int code, const char *words)
{
    alcove_allocator *other = (alcove_allocator *)untouched;
    struct alcove_load_options options = {.path = path};
    assert_refused(alcove_load(&other, &options), code, words);
    assert_ptr_equal(other, untouched);
    assert_non_null(strstr(alcove_error_message(), path));
}

static void
test_no_such_allocator(void **state)
{
    (void)state;
    assert_load_refused("/nonexistent/liballoc.so", ALCOVE_ENOENT, "No such file");
    assert_load_refused("/tmp", ALCOVE_EFORMAT, "a directory");
}

static void
test_empty_path_of_an_allocator(void **state)
{
    (void)state;
    assert_load_refused("", ALCOVE_EINVAL, "the path is \"\"");
    alcove_allocator *other;
    struct alcove_load_options options = {.search = search_finds, .context = (void *)""};
    assert_refused(alcove_load(&other, &options), ALCOVE_EINVAL, "the path is \"\"");
}

static void
test_library_that_is_no_allocator(void **state)
{
    (void)state;
    char words[128];
    snprintf(words, sizeof words, "no symbol %stable", setting("ALCOVE_TEST_PREFIX"));
    assert_load_refused(plugin_path("blocks"), ALCOVE_EABI, words);
}

static void
test_allocator_with_another_prefix(void **state)
{
    (void)state;
    alcove_allocator *other;
    struct alcove_load_options options = {.path = allocator_path(), .prefix = "nobodys_"};
    assert_refused(alcove_load(&other, &options), ALCOVE_EABI, "nobodys_table");
}

static void
test_allocator_of_another_abi_version(void **state)
{
    (void)state;
    assert_load_refused(plugin_path("other_abi"), ALCOVE_EABI, "ABI version 999");
    assert_unloaded(plugin_path("other_abi"));
}

static void
test_allocator_with_a_smaller_table(void **state)
{
    (void)state;
    char words[64];
    snprintf(words, sizeof words, "a table of %zu bytes", (size_t)ALCOVE_TABLE_FIRST - 8);
    assert_load_refused(plugin_path("small_table"), ALCOVE_EABI, words);
}

static const char *
search_fails(void *context)
{
    *(int *)context += 1;
    return NULL;
}

static void
test_embedders_own_search(void **state)
{
    (void)state;
    alcove_allocator *found = NULL;
    struct alcove_load_options options = {.search = search_finds, .context = (void *)allocator_path()};
    assert_ok(alcove_load(&found, &options));
    assert_string_equal(alcove_table_of(found)->abi_version == ALCOVE_ABI_VERSION ? "right" : "wrong", "right");
    assert_ok(alcove_unload(found, 0));
    options.context = "/nonexistent/from-search.so";
    assert_refused(alcove_load(&found, &options), ALCOVE_ENOENT, "from-search.so");
}

/* The name of an environment variable, which follows the prefix. Lives until the next call but one. */
static const char *
variable(const char *what)
{
    static char names[2][128];
    static unsigned next;
    char *name = names[next++ % 2];
    snprintf(name, sizeof names[0], "%s%s", setting("ALCOVE_TEST_PREFIX"), what);
    for (char *c = name; *c != 0; c++)
        *c = (char)toupper((unsigned char)*c);
    return name;
}

static void
test_environment_names_the_allocator(void **state)
{
    (void)state;
    alcove_allocator *found = NULL;
    int asked = 0;
    struct alcove_load_options options = {.search = search_fails, .context = &asked};
    const char *name = variable("ALLOCATOR"), *former = variable("MODULE");
    setenv(name, "/nonexistent/from-environment.so", 1);
    assert_refused(alcove_load(&found, &options), ALCOVE_ENOENT, "from-environment.so");
    assert_int_equal(asked, 1);
    setenv(former, "/nonexistent/from-former-name.so", 1);
    assert_refused(alcove_load(&found, NULL), ALCOVE_ENOENT, "from-environment.so");
    setenv(name, allocator_path(), 1);
    assert_ok(alcove_load(&found, NULL));
    assert_ok(alcove_unload(found, 0));
    setenv(name, "", 1);
    assert_refused(alcove_load(&found, NULL), ALCOVE_ENOENT, "from-former-name.so");
    unsetenv(name);
    setenv(former, allocator_path(), 1);
    assert_ok(alcove_load(&found, NULL));
    assert_ok(alcove_unload(found, 0));
    unsetenv(former);
}

static void
test_load_is_counted(void **state)
{
    (void)state;
    alcove_allocator *again = allocator_load(), *third = allocator_load();
    assert_ptr_equal(again, allocator);
    assert_ptr_equal(third, allocator);
    assert_ok(alcove_unload(again, 0));
    assert_ok(alcove_unload(third, 0));
    assert_non_null(alcove_table_of(allocator));
}

/* Each has its modules and heaps, whose blocks go home whoever releases them. */
static void
test_two_allocators_at_once(void **state)
{
    (void)state;
    char path[] = "/tmp/alcove-second-XXXXXX", command[9000];
    close(mkstemp(path));
    snprintf(command, sizeof command, "cp '%s' '%s'", allocator_path(), path);
    assert_int_equal(system(command), 0);
    alcove_allocator *other;
    assert_ok(alcove_load(&other, &(struct alcove_load_options){.path = path}));
    assert_ptr_not_equal(other, allocator);
    assert_ptr_not_equal(alcove_table_of(other), alcove_table_of(allocator));
    alcove_module *one = plugin_open(allocator, "blocks", NULL), *two = plugin_open(other, "blocks_two", NULL);
    assert_refused(alcove_unload(other, 0), ALCOVE_EBUSY, "1 module is open");
    void *of_one = CALL(one, blocks_make)(BLOCKS_MALLOC, 100), *of_two = CALL(two, blocks_make)(BLOCKS_MALLOC, 5000000);
    assert_int_equal(heap_of(allocator, of_one), alcove_module_heap(one));
    assert_int_equal(heap_of(allocator, of_two), ALCOVE_HEAP_NONE);
    assert_int_equal(heap_of(other, of_two), alcove_module_heap(two));
    of_one = realloc(of_one, 9000);
    assert_int_equal(heap_of(allocator, of_one), alcove_module_heap(one));
    CALL(two, blocks_release)(of_one);
    assert_int_equal(stats_of(one).heap.live_blocks, 0);
    assert_int_equal(stats_of(one).released_outside, 1);
    assert_int_equal(stats_of(two).released_foreign, 1);
    free(of_two);
    assert_int_equal(stats_of(two).heap.live_blocks, 0);
    void *left = CALL(two, blocks_make)(BLOCKS_MALLOC, 100);
    module_end(two);
    assert_refused(alcove_unload(other, 0), ALCOVE_EBUSY, "1 block");
    CALL(one, blocks_release)(left);
    assert_ok(alcove_unload(other, 0));
    assert_unloaded(path);
    CALL(one, blocks_release)(CALL(one, blocks_make)(BLOCKS_MALLOC, 100));
    module_end(one);
    unlink(path);
}

static void
test_unload_with_open_modules(void **state)
{
    (void)state;
    alcove_module *module = plugin_open(allocator, "blocks", &(struct alcove_module_options){.name = "still here"});
    assert_refused(alcove_unload(allocator, 0), ALCOVE_EBUSY, "still here");
    assert_refused(alcove_unload(allocator, ALCOVE_UNLOAD_RELEASE), ALCOVE_EBUSY, "still here");
    module_end(module);
}

static void
test_unload_with_live_blocks(void **state)
{
    (void)state;
    char words[64];
    alcove_module *module = plugin_open(allocator, "blocks", &(struct alcove_module_options){.name = "forgetful"});
    void *first = CALL(module, blocks_make)(BLOCKS_MALLOC, 100), *second = CALL(module, blocks_make)(BLOCKS_MALLOC, 100);
    snprintf(words, sizeof words, "2 blocks with %llu bytes", (unsigned long long)stats_of(module).heap.live_bytes);
    assert_int_equal(module_end(module).kept, 1);
    assert_refused(alcove_unload(allocator, 0), ALCOVE_EBUSY, words);
    assert_refused(alcove_unload(allocator, 0), ALCOVE_EBUSY, "2 of module \"forgetful\"");
    free(first);
    assert_refused(alcove_unload(allocator, 0), ALCOVE_EBUSY, "1 block with");
    free(second);
    assert_ok(alcove_unload(allocator, 0));
    setup(state);
}

/* A heap of the host's own that has the number of one that has gone. Numbers that were given up longest ago come first. */
static uint32_t
heap_of_number(uint32_t number)
{
    const struct alcove_table *table = alcove_table_of(allocator);
    uint32_t heap;
    for (uint32_t i = 0; i < ALCOVE_HEAP_MAX; i++) {
        assert_int_equal(table->heap_create(NULL, &heap), 0);
        if (heap == number)
            return heap;
        assert_int_equal(table->heap_destroy(heap), 0);
    }
    fail_msg("no new heap has the number %u", (unsigned)number);
    return 0;
}

static void *released;

static void
release(void)
{
    free(released);
}

static void
close_empty(alcove_module *module)
{
    module_end(module);
}

static void
close_before_the_last_block(alcove_module *module)
{
    char message[1024];
    released = CALL(module, blocks_make)(BLOCKS_MALLOC, 100);
    assert_int_equal(module_end(module).kept, 1);
    assert_refused(alcove_unload(allocator, 0), ALCOVE_EBUSY, "1 of module \"severe\"");
    int status = child_status(release, message, sizeof message);
    if (DLCLOSE_UNLOADS) {
        assert_true(WIFSIGNALED(status));
        assert_non_null(strstr(message, "belongs to module \"severe\""));
    } else if (status != 0) { /* of a library that stays the policy ends with the module */
        fail_msg("status 0x%x: %s", (unsigned)status, message);
    }
    alcove_table_of(allocator)->free(released);
    assert_ok(alcove_refresh());
}

static void
close_and_drop(alcove_module *module)
{
    struct alcove_report report;
    void *block = CALL(module, blocks_make)(BLOCKS_MALLOC, 100);
    assert_non_null(block);
    assert_ok(alcove_module_close(module, ALCOVE_CLOSE_DROP, &report));
    assert_int_equal(report.kept, !DLCLOSE_UNLOADS);
    if (!DLCLOSE_UNLOADS) { /* what is live in a library that stays is kept */
        alcove_table_of(allocator)->free(block);
        assert_ok(alcove_refresh());
    }
}

static void
close_and_load_again(alcove_module *module)
{
    void *block = CALL(module, blocks_make)(BLOCKS_MALLOC, 100);
    assert_non_null(block);
    module_end(module);
    if (!DLCLOSE_UNLOADS) /* an unload that releases leaves what is live in a library that stays */
        alcove_table_of(allocator)->free(block);
    assert_ok(alcove_unload(allocator, ALCOVE_UNLOAD_RELEASE));
    allocator = allocator_load();
}

static void
test_name_and_policy_of_a_module_end_with_its_heap(void **state)
{
    (void)state;
    static void (*const closings[])(alcove_module *) = {close_empty, close_before_the_last_block, close_and_drop,
                                                        close_and_load_again};
    for (size_t i = 0; i < sizeof closings / sizeof closings[0]; i++) {
        alcove_module *module = plugin_open(
            allocator, "blocks", &(struct alcove_module_options){.name = "severe", .policy = ALCOVE_POLICY_STRICT});
        uint32_t number = alcove_module_heap(module);
        closings[i](module);
        uint32_t heap = heap_of_number(number);
        released = alcove_table_of(allocator)->heap_malloc(heap, 100);
        char message[1024], words[32];
        snprintf(words, sizeof words, "(1 of heap %u)", (unsigned)heap);
        assert_refused(alcove_unload(allocator, 0), ALCOVE_EBUSY, words);
        if (child_status(release, message, sizeof message) != 0)
            fail_msg("closing %zu: %s", i, message);
        release();
        assert_int_equal(alcove_table_of(allocator)->heap_destroy(heap), 0);
    }
}

static void
test_unload_that_releases_live_blocks(void **state)
{
    (void)state;
    assert_non_null(alcove_table_of(allocator)->malloc(100));
    assert_refused(alcove_unload(allocator, 0), ALCOVE_EBUSY, "the default heap");
    assert_ok(alcove_unload(allocator, ALCOVE_UNLOAD_RELEASE));
    assert_unloaded(allocator_path());
    setup(state);
}

static void
test_unloading_twice(void **state)
{
    (void)state;
    alcove_allocator *old = allocator;
    assert_ok(alcove_unload(old, 0));
    assert_refused(alcove_unload(old, 0), ALCOVE_ECLOSED, "unloaded");
    setup(state);
    assert_refused(alcove_unload(old, 0), ALCOVE_ECLOSED, "unloaded");
    assert_null(alcove_table_of(old));
    alcove_module *module = untouched;
    assert_refused(alcove_module_open(old, plugin_path("blocks"), NULL, &module), ALCOVE_ECLOSED, "unloaded");
}

static void
test_nothing_is_mapped_after_unload(void **state)
{
    (void)state;
    alcove_module *module = plugin_open(allocator, "blocks", NULL);
    for (int i = 0; i < 1000; i++)
        CALL(module, blocks_release)(CALL(module, blocks_make)(BLOCKS_MALLOC, (size_t)i * 50));
    assert_true(lines_mapped(allocator_path()) > 0);
    assert_true(lines_mapped(plugin_path("blocks")) > 0);
    module_end(module);
    assert_ok(alcove_unload(allocator, 0));
    assert_unloaded(allocator_path());
    assert_unloaded(plugin_path("blocks"));
    setup(state);
}

static void
test_load_and_unload_200_times_without_growth(void **state)
{
    (void)state;
    assert_ok(alcove_unload(allocator, 0));
    size_t bytes = 0;
    unsigned lines = 0;
    for (int i = 0; i < 200; i++) {
        setup(state);
        alcove_module *module = plugin_open(allocator, "blocks", NULL);
        void *block = CALL(module, blocks_make)(BLOCKS_MALLOC, 1000);
        free(block);
        module_end(module);
        assert_ok(alcove_unload(allocator, 0));
        if (i == 20) {
            bytes = resident_bytes();
            lines = mappings_with("");
        }
    }
    assert_in_range(resident_bytes(), 0, bytes + (256 << 10));
    /* The page map keeps a table for each GiB that was ever used; qemu goes on to the next where the kernel returns. */
    assert_in_range(mappings_with(""), 0, lines + (emulated() ? 10 : 2));
    setup(state);
}

static void *
load_and_unload(void *unused)
{
    (void)unused;
    for (int i = 0; i < 100; i++) {
        alcove_allocator *mine = NULL;
        struct alcove_load_options options = {.path = allocator_path()};
        if (alcove_load(&mine, &options) != 0)
            return strdup(alcove_error_message());
        void *block = alcove_table_of(mine)->malloc(100);
        alcove_table_of(mine)->free(block);
        if (alcove_unload(mine, ALCOVE_UNLOAD_RELEASE) != 0)
            return strdup(alcove_error_message());
    }
    return NULL;
}

static void
test_threads_load_and_unload_at_once(void **state)
{
    (void)state;
    pthread_t threads[4];
    void *message;
    for (int i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, load_and_unload, NULL);
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], &message);
        if (message != NULL)
            fail_msg("%s", (char *)message);
    }
}

static void *
open_and_close(void *name)
{
    for (int i = 0; i < 200; i++) {
        alcove_module *module;
        if (alcove_module_open(allocator, plugin_path(name), NULL, &module) != 0)
            return strdup(alcove_error_message());
        alcove_module_close(module, 0, NULL);
    }
    return NULL;
}

static void *
dlopen_and_dlclose(void *name)
{
    for (int i = 0; i < 200; i++) {
        void *handle = dlopen(plugin_path(name), RTLD_NOW | RTLD_LOCAL);
        if (handle == NULL)
            return strdup(dlerror());
        dlclose(handle);
    }
    return NULL;
}

static void
test_threads_open_modules_while_others_dlopen(void **state)
{
    (void)state;
    static void *(*const work[])(void *) = {open_and_close, open_and_close, dlopen_and_dlclose, dlopen_and_dlclose};
    static const char *const names[] = {"blocks", "blocks_two", "keeper", "other_abi"};
    pthread_t threads[4];
    void *message;
    for (int i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, work[i], (void *)names[i]);
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], &message);
        if (message != NULL)
            fail_msg("%s", (char *)message);
    }
}

/* Called by the constructor and the destructor of the plugin `caller`, inside dlopen and dlclose. */
void host_callback(const char *moment);
static unsigned constructed, destructed;

void
host_callback(const char *moment)
{
    alcove_module *module;
    __atomic_fetch_add(strcmp(moment, "constructor") == 0 ? &constructed : &destructed, 1, __ATOMIC_RELAXED);
    alcove_refresh();
    if (alcove_module_open(allocator, plugin_path("keeper"), NULL, &module) == 0)
        alcove_module_close(module, 0, NULL);
    alcove_allocator *same;
    if (alcove_load(&same, &(struct alcove_load_options){.path = allocator_path()}) == 0)
        alcove_unload(same, 0);
}

static void
test_constructors_may_call_the_loader(void **state)
{
    (void)state;
    module_end(plugin_open(allocator, "caller", NULL));
    assert_int_equal(constructed, 1);
    assert_int_equal(destructed, DLCLOSE_UNLOADS);
}

static void
test_constructors_of_any_thread_may_call_the_loader(void **state)
{
    (void)state;
    pthread_t threads[3];
    void *message;
    pthread_create(&threads[0], NULL, dlopen_and_dlclose, "caller");
    pthread_create(&threads[1], NULL, open_and_close, "blocks");
    pthread_create(&threads[2], NULL, open_and_close, "blocks_two");
    for (int i = 0; i < 3; i++) {
        pthread_join(threads[i], &message);
        if (message != NULL)
            fail_msg("%s", (char *)message);
    }
    assert_int_equal(constructed, DLCLOSE_UNLOADS ? 201 : 1);
}

/* The loader calls this one for the system's. */
static bool mprotect_refused, mprotect_allocates;

int
mprotect(void *address, size_t bytes, int protection)
{
    if (mprotect_allocates)
        free(((void *(*)(size_t))dlsym(RTLD_DEFAULT, "malloc"))(10));
    if (!mprotect_refused)
        return (int)syscall(SYS_mprotect, address, bytes, protection);
    errno = ENOMEM;
    return -1;
}

/* What the loader itself calls while it opens a module, with its lock held, is no code of that module. */
static void
test_who_allocates_in_the_middle_of_an_opening_is_no_module(void **state)
{
    (void)state;
    mprotect_allocates = true;
    alcove_module *keeper = plugin_open(allocator, "keeper", NULL);
    mprotect_allocates = false;
    assert_int_equal(stats_of(keeper).heap.total_allocs, DLCLOSE_UNLOADS);
    module_end(keeper);
}

static void
assert_works_with_libc(void *(*make)(int, size_t))
{
    void *block = make(BLOCKS_MALLOC, 100);
    assert_non_null(block);
    assert_int_equal(heap_of(allocator, block), ALCOVE_HEAP_NONE);
    free(block);
}

/* Its imports are in pages that are read-only, and others hold it open. They go on to lead to its thunks, which lead to libc then. */
static void
test_closed_module_whose_imports_cannot_be_led_back(void **state)
{
    void *held = dlopen(plugin_path("blocks_two"), RTLD_NOW | RTLD_LOCAL);
    assert_non_null(held);
    void *(*make)(int, size_t) = (void *(*)(int, size_t))dlsym(held, "blocks_make");
    for (unsigned flags = 0; flags <= ALCOVE_CLOSE_DROP; flags++) {
        alcove_module *module = plugin_open(allocator, "blocks_two", &(struct alcove_module_options){.name = "clinging"});
        mprotect_refused = true;
        assert_ok(alcove_module_close(module, flags, NULL));
        assert_works_with_libc(make);
        mprotect_refused = false;
        alcove_module *next = plugin_open(allocator, "blocks", NULL); /* has thunks of its own */
        assert_works_with_libc(make);
        assert_int_equal(stats_of(next).heap.total_allocs, 0);
        module_end(next);
        module = plugin_open(allocator, "blocks_two", NULL);
        void *block = make(BLOCKS_MALLOC, 100);
        assert_int_equal(heap_of(allocator, block), alcove_module_heap(module));
        free(block);
        module_end(module);
    }
    assert_ok(alcove_unload(allocator, 0));
    free(make(BLOCKS_MALLOC, 100));
    dlclose(held);
    setup(state);
}

/* The last test of all: what is left behind stays so for this process' life. */
static void
test_unload_that_leaves_live_blocks(void **state)
{
    (void)state;
    SKIP_WITHOUT_UNLOADING();
    enum { COUNT = 2000 };
    static char *blocks[COUNT];
    static const size_t sizes[] = {10, 700, 9000, 100000, 6000000};
    alcove_module *module = plugin_open(allocator, "blocks", &(struct alcove_module_options){.name = "leaver"});
    for (int i = 0; i < COUNT; i++) {
        size_t size = i == COUNT - 1 ? sizes[4] : sizes[i % 4];
        blocks[i] = CALL(module, blocks_make)(BLOCKS_MALLOC, size);
        memset(blocks[i], i, size);
    }
    size_t before = resident_bytes();
    for (int i = 0; i < COUNT - 5; i++)
        free(blocks[i]);
    assert_int_equal(module_end(module).kept, 1);
    assert_refused(alcove_unload(allocator, 4), ALCOVE_EINVAL, "flags 0x4");
    assert_refused(alcove_unload(allocator, ALCOVE_UNLOAD_LEAVE | ALCOVE_UNLOAD_RELEASE), ALCOVE_EINVAL, "one or the other");
    assert_refused(alcove_unload(allocator, 0), ALCOVE_EBUSY, "ALCOVE_UNLOAD_LEAVE");
    assert_ok(alcove_unload(allocator, ALCOVE_UNLOAD_LEAVE));
    assert_unloaded(allocator_path());
    assert_true(resident_bytes() + (40 << 20) < before); /* but for the five, everything has gone */
    void *late = dlopen(plugin_path("blocks_two"), RTLD_NOW | RTLD_LOCAL);
    assert_non_null(late);
    assert_ok(alcove_refresh());
    void (*late_release)(void *) = (void (*)(void *))dlsym(late, "blocks_release");
    for (int round = 0; round < 3; round++) {
        /* With no allocator, with the next, and with none again. */
        for (int i = COUNT - 5; i < COUNT; i++) {
            assert_int_equal(blocks[i][0], (char)i);
            blocks[i][9] = (char)i;
            errno = 0;
            assert_null(realloc(blocks[i], 0));
            assert_int_equal(errno, 0); /* nothing has failed */
            char *volatile stays = blocks[i], *moved = realloc(stays, 9);
            assert_memory_equal(moved, stays, 9);
            free(moved);
            moved = realloc(stays, 20 << 20); /* more than there can be */
            assert_memory_equal(moved, stays, 9);
            free(moved);
            late_release(blocks[i]);
            free(blocks[i]);
        }
        if (round == 0) {
            setup(state);
            module = plugin_open(allocator, "blocks", NULL);
            void *own = CALL(module, blocks_make)(BLOCKS_MALLOC, 100);
            size_t (*usable_size)(void *, size_t) =
                (size_t(*)(void *, size_t))alcove_table_of(allocator)->entry(ALCOVE_ENTRY_malloc_usable_size);
            assert_true(usable_size(own, heap_of(allocator, own)) >= 100);
            CALL(module, blocks_release)(own);
            for (int i = COUNT - 5; i < COUNT; i++) {
                assert_int_equal(usable_size(blocks[i], alcove_module_heap(module)), 0);
                CALL(module, blocks_release)(blocks[i]);
                assert_int_equal(heap_of(allocator, blocks[i]), ALCOVE_HEAP_NONE);
            }
            assert_int_equal(stats_of(module).heap.total_frees, 1);
            module_end(module);
        } else if (round == 1) {
            assert_ok(alcove_unload(allocator, 0));
        }
    }
    free(malloc(100000)); /* libc's own are still libc's */
    late_release(malloc(100000));
    dlclose(late);
    setup(state);
}

/* Something else keeps the library mapped: the next load finds it as it was left. */
static void
test_load_after_live_blocks_were_left_by_a_library_that_stays(void **state)
{
    void *pin = dlopen(allocator_path(), RTLD_NOW | RTLD_NOLOAD);
    assert_non_null(pin);
    for (int round = 0; round < 3; round++) {
        char *block = alcove_table_of(allocator)->malloc(1000);
        memset(block, round, 1000);
        assert_ok(alcove_unload(allocator, ALCOVE_UNLOAD_LEAVE));
        setup(state);
        assert_int_equal(block[999], round);
        assert_int_equal(heap_of(allocator, block), ALCOVE_HEAP_NONE);
        free(block);
    }
    dlclose(pin);
}

int
main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_such_allocator),
        cmocka_unit_test(test_empty_path_of_an_allocator),
        cmocka_unit_test(test_library_that_is_no_allocator),
        cmocka_unit_test(test_allocator_with_another_prefix),
        cmocka_unit_test(test_allocator_of_another_abi_version),
        cmocka_unit_test(test_allocator_with_a_smaller_table),
        TEST(test_embedders_own_search),
        TEST(test_environment_names_the_allocator),
        TEST(test_load_is_counted),
        TEST(test_two_allocators_at_once),
        TEST(test_unload_with_open_modules),
        TEST(test_unload_with_live_blocks),
        TEST(test_name_and_policy_of_a_module_end_with_its_heap),
        TEST(test_unload_that_releases_live_blocks),
        TEST(test_unloading_twice),
        TEST(test_nothing_is_mapped_after_unload),
        TEST(test_load_and_unload_200_times_without_growth),
        cmocka_unit_test(test_threads_load_and_unload_at_once),
        TEST(test_threads_open_modules_while_others_dlopen),
        TEST(test_constructors_may_call_the_loader),
        TEST(test_who_allocates_in_the_middle_of_an_opening_is_no_module),
        TEST(test_constructors_of_any_thread_may_call_the_loader),
        TEST(test_closed_module_whose_imports_cannot_be_led_back),
        TEST(test_unload_that_leaves_live_blocks),
        TEST(test_load_after_live_blocks_were_left_by_a_library_that_stays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
