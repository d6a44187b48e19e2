/*
 * Where a module's allocations go, where releases go, and what is counted: with small plugins built
 * for the purpose, each opened as any host opens one.
 */
#include "host.h"
#include "config.h"

#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../plugins/blocks.h"

void *keeper_first_block(void);
void *keeper_keep(size_t size);
void keeper_release_all(void);
void keeper_release_first(void);

static alcove_allocator *allocator;
static alcove_module *module; /* the plugin blocks */
static uint32_t heap;

static int
setup(void **state)
{
    (void)state;
    allocator = allocator_load();
    alcove_table_of(allocator)->free(alcove_table_of(allocator)->malloc(1)); /* the default heap is made when used */
    module = plugin_open(allocator, "blocks", NULL);
    heap = alcove_module_heap(module);
    return 0;
}

/* Every test leaves nothing behind. */
static int
teardown(void **state)
{
    (void)state;
    if (module != NULL)
        assert_ok(alcove_module_close(module, 0, NULL));
    module = NULL;
    assert_ok(alcove_unload(allocator, 0));
    return 0;
}

static void
test_every_allocation_of_a_module_is_in_its_heap(void **state)
{
    (void)state;
    assert_int_not_equal(heap, ALCOVE_HEAP_DEFAULT);
    assert_int_not_equal(heap, ALCOVE_HEAP_NONE);
    for (int kind = 0; kind < BLOCKS_KINDS; kind++) {
        char *block = CALL(module, blocks_make)((enum blocks_kind)kind, 100);
        assert_non_null(block);
        assert_int_equal(heap_of(allocator, block), heap);
        assert_int_equal(stats_of(module).heap.live_blocks, 1);
        assert_int_equal(CALL(module, blocks_usable)(block), stats_of(module).heap.live_bytes);
        CALL(module, blocks_release)(block);
        assert_int_equal(stats_of(module).heap.live_blocks, 0);
        assert_int_equal(stats_of(module).heap.live_bytes, 0);
    }
    assert_int_equal(stats_of(module).released_outside, 0);
    assert_int_equal(stats_of(module).released_foreign, 0);
}

static void
test_duplicated_strings_are_right(void **state)
{
    (void)state;
    char *whole = CALL(module, blocks_make)(BLOCKS_STRDUP, 0), *cut = CALL(module, blocks_make)(BLOCKS_STRNDUP, 0);
    assert_string_equal(whole, "a string that is duplicated");
    assert_string_equal(cut, "a string");
    CALL(module, blocks_release)(whole);
    CALL(module, blocks_release)(cut);
}

static void
test_host_memory_stays_libcs(void **state)
{
    (void)state;
    void *block = malloc(100);
    assert_int_equal(heap_of(allocator, block), ALCOVE_HEAP_NONE);
    free(block);
    assert_int_equal(stats_of(module).heap.total_allocs, 0);
}

static void
test_host_frees_a_block_of_the_module(void **state)
{
    (void)state;
    void *block = CALL(module, blocks_make)(BLOCKS_MALLOC, 100);
    free(block);
    assert_int_equal(stats_of(module).heap.live_blocks, 0);
    assert_int_equal(stats_of(module).released_outside, 1);
    assert_int_equal(stats_of(module).released_foreign, 0);
}

static void
test_module_frees_a_block_of_the_host(void **state)
{
    (void)state;
    CALL(module, blocks_release)(malloc(100));
    assert_int_equal(stats_of(module).released_foreign, 1);
    assert_int_equal(stats_of(module).released_outside, 0);
}

static void
test_host_reallocs_a_block_of_the_module(void **state)
{
    (void)state;
    char *block = CALL(module, blocks_make)(BLOCKS_MALLOC, 10);
    strcpy(block, "contents");
    block = realloc(block, 100000);
    assert_string_equal(block, "contents");
    assert_int_equal(heap_of(allocator, block), heap);
    block = reallocarray(block, 1000, 200);
    assert_string_equal(block, "contents");
    assert_int_equal(heap_of(allocator, block), heap);
    assert_int_equal(malloc_usable_size(block), stats_of(module).heap.live_bytes);
    CALL(module, blocks_release)(block);
}

static void
test_host_reallocs_a_block_of_the_module_to_nothing(void **state)
{
    (void)state;
    void *left = realloc(CALL(module, blocks_make)(BLOCKS_MALLOC, 100), 0);
    assert_null(left);
    left = reallocarray(CALL(module, blocks_make)(BLOCKS_MALLOC, 100), 0, 8);
    assert_null(left);
    assert_int_equal(stats_of(module).heap.live_blocks, 0);
    assert_int_equal(stats_of(module).released_outside, 2);
}

static void
test_host_reallocarray_that_overflows_is_refused(void **state)
{
    (void)state;
    char *block = CALL(module, blocks_make)(BLOCKS_MALLOC, 10);
    void *volatile same = block;
    volatile size_t half = SIZE_MAX / 2;
    errno = 0;
    assert_null(reallocarray(block, half, 3));
    assert_int_equal(errno, ENOMEM);
    CALL(module, blocks_release)(same);
}

static void
test_module_reallocs_a_block_of_the_host(void **state)
{
    (void)state;
    void *block = malloc(10);
    /* realloc of an existing block stays with its owner: libc */
    void *(*module_realloc)(void *, size_t) = alcove_table_of(allocator)->entry(ALCOVE_ENTRY_realloc, heap);
    block = module_realloc(block, 5000);
    assert_non_null(block);
    assert_int_equal(heap_of(allocator, block), ALCOVE_HEAP_NONE);
    free(block);
}

static void
test_asprintf_gives_libc_memory_that_the_module_may_free(void **state)
{
    (void)state;
    char *text = CALL(module, blocks_printed)(7);
    assert_string_equal(text, "number 7");
    assert_int_equal(heap_of(allocator, text), ALCOVE_HEAP_NONE);
    CALL(module, blocks_release)(text);
    assert_int_equal(stats_of(module).released_foreign, 1);
}

static void
test_getline_grows_a_routed_buffer_inside_libc(void **state)
{
    (void)state;
    char path[] = "/tmp/alcove-lines-XXXXXX";
    FILE *file = fdopen(mkstemp(path), "w");
    for (int line = 0; line < 1000; line++)
        fprintf(file, "%*d\n", line * 7 + 1, line);
    fclose(file);
    size_t lines;
    char *buffer = CALL(module, blocks_longest_line)(path, 1, &lines);
    unlink(path);
    assert_int_equal(lines, 1000);
    assert_int_equal(strlen(buffer), 999 * 7 + 1 + 1);
    assert_string_equal(buffer + strlen(buffer) - 4, "999\n");
    assert_int_equal(heap_of(allocator, buffer), heap);
    CALL(module, blocks_release)(buffer);
    assert_int_equal(stats_of(module).heap.live_blocks, 0);
}

static void
test_pointer_to_free_in_static_data_is_routed(void **state)
{
    (void)state;
    void (**pointer)(void *) = symbol(module, "blocks_free_pointer");
    assert_ptr_not_equal((void *)*pointer, dlsym(RTLD_DEFAULT, "free"));
    (*pointer)(CALL(module, blocks_make)(BLOCKS_MALLOC, 100));
    assert_int_equal(stats_of(module).heap.live_blocks, 0);
    assert_int_equal(stats_of(module).released_outside, 0);
}

/* "r--p" and so on for the page at an address. */
static void
protection_of(const void *address, char out[5])
{
    unsigned long start, end;
    char line[4352];
    FILE *maps = fopen("/proc/self/maps", "r");
    strcpy(out, "none");
    while (fgets(line, sizeof line, maps) != NULL)
        if (sscanf(line, "%lx-%lx", &start, &end) == 2 && (uintptr_t)address >= start && (uintptr_t)address < end)
            sscanf(line, "%*s %4s", out);
    fclose(maps);
}

static void
test_read_only_slots_are_routed_and_read_only_again(void **state)
{
    (void)state;
    char protection[5];
    void *block = CALL(module, blocks_constant_malloc)(100);
    assert_int_equal(heap_of(allocator, block), heap);
    protection_of(CALL(module, blocks_constant_slot)(), protection);
    assert_string_equal(protection, "r--p");
    CALL(module, blocks_release)(block);
}

static void
test_two_modules_are_kept_apart(void **state)
{
    (void)state;
    alcove_module *other = plugin_open(allocator, "blocks_two", NULL);
    assert_int_not_equal(alcove_module_heap(other), heap);
    void *mine = CALL(module, blocks_make)(BLOCKS_MALLOC, 100), *its = CALL(other, blocks_make)(BLOCKS_MALLOC, 100);
    assert_int_equal(heap_of(allocator, mine), heap);
    assert_int_equal(heap_of(allocator, its), alcove_module_heap(other));
    assert_int_not_equal((uintptr_t)mine >> 12, (uintptr_t)its >> 12);
    assert_int_equal(stats_of(module).heap.live_blocks, 1);
    assert_int_equal(stats_of(other).heap.live_blocks, 1);
    CALL(module, blocks_release)(mine);
    assert_int_equal(stats_of(other).heap.live_blocks, 1);
    CALL(other, blocks_release)(its);
    module_end(other);
}

static void
test_block_released_by_the_other_module_counts_for_both(void **state)
{
    (void)state;
    alcove_module *other = plugin_open(allocator, "blocks_two", NULL);
    CALL(other, blocks_release)(CALL(module, blocks_make)(BLOCKS_MALLOC, 100));
    assert_int_equal(stats_of(module).released_outside, 1);
    assert_int_equal(stats_of(module).released_foreign, 0);
    assert_int_equal(stats_of(other).released_foreign, 1);
    assert_int_equal(stats_of(other).released_outside, 0);
    assert_int_equal(stats_of(module).heap.live_blocks, 0);
    module_end(other);
}

static void
test_destructor_of_the_module_frees_into_its_heap(void **state)
{
    (void)state;
    alcove_module *keeper = plugin_open(allocator, "keeper", NULL);
    for (int i = 0; i < 50; i++)
        assert_int_equal(heap_of(allocator, CALL(keeper, keeper_keep)(1000)), alcove_module_heap(keeper));
    assert_int_equal(stats_of(keeper).heap.live_blocks, 50);
    if (!DLCLOSE_UNLOADS)
        CALL(keeper, keeper_release_all)(); /* no destructor runs before the end of the process */
    struct alcove_report report = module_end(keeper);
    assert_int_equal(report.heap.live_blocks, 0);
    assert_int_equal(report.heap.total_frees, 50);
    assert_int_equal(report.released_outside, 0);
    assert_int_equal(report.released_foreign, 1); /* the constructor's block */
    assert_int_equal(report.kept, 0);
}

static void
test_block_of_a_constructor_is_libcs_and_may_be_freed(void **state)
{
    (void)state;
    alcove_module *keeper = plugin_open(allocator, "keeper", NULL);
    assert_int_equal(heap_of(allocator, CALL(keeper, keeper_first_block)()), ALCOVE_HEAP_NONE);
    CALL(keeper, keeper_release_first)();
    module_end(keeper);
}

static uint32_t
heaps_now(void)
{
    struct alcove_info info;
    alcove_table_of(allocator)->info(&info);
    return info.heaps;
}

static void
test_report_has_what_was_left_and_the_heap_stays_until_it_is_freed(void **state)
{
    (void)state;
    static const size_t sizes[] = {1, 100, 5000, 300000};
    void *left[4];
    uint64_t bytes = 0;
    uint32_t heaps = heaps_now();
    alcove_module *other = plugin_open(allocator, "blocks_two", &(struct alcove_module_options){.name = "leaky"});
    for (int i = 0; i < 4; i++) {
        left[i] = CALL(other, blocks_make)(BLOCKS_MALLOC, sizes[i]);
        memset(left[i], 'x', sizes[i]);
        bytes += malloc_usable_size(left[i]);
    }
    for (int i = 0; i < 10; i++)
        CALL(other, blocks_release)(CALL(other, blocks_make)(BLOCKS_MALLOC, 64));
    struct alcove_report report = module_end(other);
    assert_string_equal(report.name, "leaky");
    assert_int_equal(report.heap.live_blocks, 4);
    assert_int_equal(report.heap.live_bytes, bytes);
    assert_int_equal(report.heap.total_allocs, 14);
    assert_int_equal(report.heap.total_frees, 10);
    assert_true(report.heap.peak_bytes >= bytes);
    assert_int_equal(report.kept, 1);

    for (int i = 0; i < 4; i++) {
        assert_int_equal(((char *)left[i])[sizes[i] - 1], 'x');
        free(left[i]);
    }
    assert_int_equal(heaps_now(), heaps + 1);
    alcove_refresh(); /* sees that it is empty */
    assert_int_equal(heaps_now(), heaps + 1);
    nanosleep(&(struct timespec){.tv_nsec = 150000000}, NULL);
    alcove_refresh();
    assert_int_equal(heaps_now(), heaps);
}

static void
test_close_with_drop_leaves_nothing(void **state)
{
    (void)state;
    uint32_t heaps = heaps_now();
    alcove_module *other = plugin_open(allocator, "blocks_two", NULL);
    for (int i = 0; i < 1000; i++)
        assert_non_null(CALL(other, blocks_make)(BLOCKS_MALLOC, 500));
    struct alcove_report report;
    assert_ok(alcove_module_close(other, ALCOVE_CLOSE_DROP, &report));
    assert_int_equal(report.heap.live_blocks, 1000);
    assert_int_equal(report.kept, 0);
    assert_int_equal(heaps_now(), heaps);
}

static void
test_limit_fails_the_module_and_nobody_else(void **state)
{
    (void)state;
    struct alcove_module_options options = {.limit = 1 << 20};
    alcove_module *limited = plugin_open(allocator, "blocks_two", &options);
    void *blocks[1000];
    unsigned count = 0;
    errno = 0;
    while (count < 1000 && (blocks[count] = CALL(limited, blocks_make)(BLOCKS_MALLOC, 10000)) != NULL)
        count++;
    assert_int_equal(errno, ENOMEM);
    assert_in_range(count, 50, 105);
    assert_true(stats_of(limited).heap.active_bytes <= 1 << 20);
    assert_true(stats_of(limited).heap.limit_refused >= 1);
    assert_int_equal(stats_of(limited).heap.limit, 1 << 20);

    void *mine = CALL(module, blocks_make)(BLOCKS_MALLOC, 5 << 20), *libcs = malloc(5 << 20);
    assert_non_null(mine);
    assert_non_null(libcs);
    CALL(module, blocks_release)(mine);
    free(libcs);
    while (count > 0)
        CALL(limited, blocks_release)(blocks[--count]);
    module_end(limited);
}

static void
test_limit_can_be_raised_while_the_module_runs(void **state)
{
    (void)state;
    alcove_module *limited = plugin_open(allocator, "blocks_two", &(struct alcove_module_options){.limit = 1 << 20});
    assert_null(CALL(limited, blocks_make)(BLOCKS_MALLOC, 2 << 20));
    assert_ok(alcove_module_limit(limited, 8 << 20));
    void *block = CALL(limited, blocks_make)(BLOCKS_MALLOC, 2 << 20);
    assert_non_null(block);
    CALL(limited, blocks_release)(block);
    module_end(limited);
}

static void
test_policy_off_leaves_the_module_to_libc(void **state)
{
    (void)state;
    alcove_module *plain = plugin_open(allocator, "blocks_two", &(struct alcove_module_options){.policy = ALCOVE_POLICY_OFF});
    assert_int_equal(alcove_module_heap(plain), ALCOVE_HEAP_NONE);
    void *block = CALL(plain, blocks_make)(BLOCKS_MALLOC, 100);
    assert_int_equal(heap_of(allocator, block), ALCOVE_HEAP_NONE);
    free(block);
    assert_int_equal(stats_of(plain).imports_routed, 0);
    assert_int_equal(stats_of(plain).heap.total_allocs, 0);
    /* yet its releases are guarded like everyone's */
    CALL(plain, blocks_release)(CALL(module, blocks_make)(BLOCKS_MALLOC, 100));
    assert_int_equal(stats_of(module).heap.live_blocks, 0);
    assert_int_equal(stats_of(module).released_outside, 1);
    module_end(plain);
}

/* Run in a child; returns its status, and what it wrote to stderr. */
static int
in_child(void (*run)(void), char *message, size_t size)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], STDERR_FILENO);
        close(ends[0]);
        signal(SIGABRT, SIG_DFL);
        run();
        _exit(0);
    }
    close(ends[1]);
    size_t used = 0;
    for (ssize_t got; used < size - 1 && (got = read(ends[0], message + used, size - 1 - used)) > 0; used += (size_t)got)
        ;
    message[used] = 0;
    close(ends[0]);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

/* Each is one run of pages; freed, they are joined into one free run that has them inside of it. */
static void
host_frees_large_blocks_twice(void)
{
    void *volatile blocks[3];
    for (int i = 0; i < 3; i++)
        blocks[i] = CALL(module, blocks_make)(BLOCKS_MALLOC, 1200000);
    for (int i = 0; i < 6; i++)
        free(blocks[i % 3]);
    if (malloc_usable_size(blocks[0]) + malloc_usable_size(blocks[1]) + malloc_usable_size(blocks[2]) != 0)
        abort();
}

static void
test_host_frees_large_blocks_of_the_module_twice(void **state)
{
    (void)state;
    char message[1024];
    int status = in_child(host_frees_large_blocks_twice, message, sizeof message);
    /* The option abort is on in a debug build: the first message is the last. */
    if (status != (ALCOVE_DEBUG ? SIGABRT : 0))
        fail_msg("status 0x%x: %s", status, message);
    const char *said = message;
    for (int i = 0; i < (ALCOVE_DEBUG ? 1 : 3); i++) {
        said = strstr(said, "double free of 0x");
        assert_non_null(said);
        said++;
    }
}

static alcove_module *strict;

static void
host_frees_strict_block(void)
{
    free(CALL(strict, blocks_make)(BLOCKS_MALLOC, 100));
}

static void
host_reallocs_strict_block_to_nothing(void)
{
    void *left = realloc(CALL(strict, blocks_make)(BLOCKS_MALLOC, 100), 0);
    assert_null(left);
}

static void
strict_frees_host_block(void)
{
    CALL(strict, blocks_release)(malloc(100));
}

static void
strict_frees_other_modules_block(void)
{
    CALL(strict, blocks_release)(CALL(module, blocks_make)(BLOCKS_MALLOC, 100));
}

static void
strict_frees_its_own_block(void)
{
    CALL(strict, blocks_release)(CALL(strict, blocks_make)(BLOCKS_MALLOC, 100));
}

static void
assert_aborts(void (*run)(void), const char *first, const char *second)
{
    char message[1024];
    int status = in_child(run, message, sizeof message);
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGABRT)
        fail_msg("the child ended with status 0x%x, not by SIGABRT: %s", status, message);
    if (strstr(message, "strict") == NULL || strstr(message, first) == NULL || strstr(message, second) == NULL)
        fail_msg("the message \"%s\" does not say \"%s\" and \"%s\"", message, first, second);
}

static void
test_strict_policy_aborts_at_a_crossing_and_names_both_sides(void **state)
{
    (void)state;
    char message[1024], bytes[64];
    strict = plugin_open(allocator, "blocks_two",
                         &(struct alcove_module_options){.name = "strict one", .policy = ALCOVE_POLICY_STRICT});
    void *block = CALL(strict, blocks_make)(BLOCKS_MALLOC, 100);
    snprintf(bytes, sizeof bytes, "a block of %zu bytes", malloc_usable_size(block));
    CALL(strict, blocks_release)(block);

    assert_aborts(host_frees_strict_block, "test_routing", "belongs to module \"strict one\"");
    assert_aborts(host_frees_strict_block, bytes, " at 0x");
    assert_aborts(host_reallocs_strict_block_to_nothing, "test_routing", "belongs to module \"strict one\"");
    assert_aborts(strict_frees_host_block, "module \"strict one\" released", "belongs to libc");
    assert_aborts(strict_frees_other_modules_block, "module \"strict one\" released", "belongs to module \"blocks.so\"");
    assert_int_equal(in_child(strict_frees_its_own_block, message, sizeof message), 0);
    module_end(strict);
}

static void
test_object_loaded_later_is_guarded_after_refresh(void **state)
{
    (void)state;
    void *later = dlopen(plugin_path("blocks_two"), RTLD_LAZY | RTLD_LOCAL);
    assert_non_null(later);
    assert_ok(alcove_refresh());
    ((void (*)(void *))dlsym(later, "blocks_release"))(CALL(module, blocks_make)(BLOCKS_MALLOC, 100));
    assert_int_equal(stats_of(module).heap.live_blocks, 0);
    assert_int_equal(stats_of(module).released_outside, 1);
    (*(void (**)(void *))dlsym(later, "blocks_free_pointer"))(CALL(module, blocks_make)(BLOCKS_MALLOC, 100));
    assert_int_equal(stats_of(module).released_outside, 2);
    dlclose(later);
}

static void
test_library_that_the_host_keeps_open_is_libcs_again_after_close(void **state)
{
    (void)state;
    void *kept = dlopen(plugin_path("blocks_two"), RTLD_NOW | RTLD_LOCAL);
    void *(*make)(enum blocks_kind, size_t) = (void *(*)(enum blocks_kind, size_t))dlsym(kept, "blocks_make");
    alcove_module *other = plugin_open(allocator, "blocks_two", NULL);
    void *routed = make(BLOCKS_MALLOC, 100);
    assert_int_equal(heap_of(allocator, routed), alcove_module_heap(other));
    struct alcove_report report = module_end(other);
    assert_int_equal(report.kept, 1);

    void *plain = make(BLOCKS_MALLOC, 100);
    assert_int_equal(heap_of(allocator, plain), ALCOVE_HEAP_NONE);
    ((void (*)(void *))dlsym(kept, "blocks_release"))(plain);
    ((void (*)(void *))dlsym(kept, "blocks_release"))(routed); /* guarded: goes home */
    dlclose(kept);
}

struct work {
    void *(*make)(enum blocks_kind, size_t);
    void (*release)(void *);
    _Atomic bool stop;
    unsigned damaged;
};

static void *
library_works(void *argument)
{
    struct work *work = argument;
    while (!work->stop) {
        unsigned char *blocks[100];
        for (int i = 0; i < 100; i++) {
            blocks[i] = work->make(BLOCKS_MALLOC, 100);
            if (blocks[i] != NULL)
                memset(blocks[i], i, 100);
            else
                work->damaged++;
        }
        for (int i = 0; i < 100; i++) {
            work->damaged += blocks[i] != NULL && (blocks[i][0] != i || blocks[i][99] != i);
            work->release(blocks[i]);
        }
    }
    return NULL;
}

static void
test_thread_works_in_a_library_that_stays_while_its_module_is_closed(void **state)
{
    (void)state;
    void *kept = dlopen(plugin_path("blocks_two"), RTLD_NOW | RTLD_LOCAL);
    struct work work[2];
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) {
        work[i] = (struct work){.make = (void *(*)(enum blocks_kind, size_t))dlsym(kept, "blocks_make"),
                                .release = (void (*)(void *))dlsym(kept, "blocks_release")};
        pthread_create(&threads[i], NULL, library_works, &work[i]);
    }
    for (int i = 0; i < 1000; i++) {
        alcove_module *other = plugin_open(allocator, "blocks_two", NULL);
        nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
        module_end(other);
    }
    for (int i = 0; i < 2; i++) {
        work[i].stop = true;
        pthread_join(threads[i], NULL);
        assert_int_equal(work[i].damaged, 0);
    }
    dlclose(kept);
}

static void
test_module_can_be_opened_again(void **state)
{
    (void)state;
    for (int i = 0; i < 20; i++) {
        alcove_module *other = plugin_open(allocator, "blocks_two", NULL);
        void *block = CALL(other, blocks_make)(BLOCKS_MALLOC, 100);
        assert_int_equal(heap_of(allocator, block), alcove_module_heap(other));
        CALL(other, blocks_release)(block);
        assert_int_equal(module_end(other).heap.total_allocs, 1);
    }
}

static void
test_unload_puts_the_original_functions_back(void **state)
{
    (void)state;
    void *kept = dlopen(plugin_path("blocks_two"), RTLD_NOW | RTLD_LOCAL);
    void **pointer = dlsym(kept, "blocks_free_pointer"), *original = dlsym(RTLD_DEFAULT, "free");
    assert_ok(alcove_refresh());
    assert_ptr_not_equal(*pointer, original);
    assert_ok(alcove_module_close(module, 0, NULL));
    assert_ok(alcove_unload(allocator, 0));
    assert_ptr_equal(*pointer, original);
    dlclose(kept);
    setup(state);
}

static void *
thread_works(void *unused)
{
    (void)unused;
    for (int i = 0; i < 100; i++)
        CALL(module, blocks_release)(CALL(module, blocks_make)(BLOCKS_MALLOC, 100));
    return NULL;
}

static void
test_thread_that_ends_gives_its_record_back(void **state)
{
    (void)state;
    struct alcove_info info;
    pthread_t thread;
    thread_works(NULL);
    alcove_table_of(allocator)->info(&info);
    uint32_t before = info.threads;
    for (int i = 0; i < 10; i++) {
        pthread_create(&thread, NULL, thread_works, NULL);
        pthread_join(thread, NULL);
    }
    alcove_table_of(allocator)->info(&info);
    assert_int_equal(info.threads, before);
}

static pthread_barrier_t barrier;

static void *
thread_outlives(void *unused)
{
    (void)unused;
    thread_works(NULL);
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier); /* the allocator has gone, and another one come */
    thread_works(NULL);
    return NULL;
}

static void
test_threads_live_on_through_unload_and_reload(void **state)
{
    (void)state;
    pthread_t threads[8];
    pthread_barrier_init(&barrier, NULL, 9);
    for (int i = 0; i < 8; i++)
        pthread_create(&threads[i], NULL, thread_outlives, NULL);
    pthread_barrier_wait(&barrier);
    assert_ok(alcove_module_close(module, 0, NULL));
    assert_ok(alcove_unload(allocator, 0));
    assert_unloaded(allocator_path());
    setup(state);
    pthread_barrier_wait(&barrier);
    for (int i = 0; i < 8; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(stats_of(module).heap.total_allocs, 800);
    assert_int_equal(stats_of(module).heap.live_blocks, 0);
    pthread_barrier_destroy(&barrier);
}

static void
child_uses_everything(void)
{
    thread_works(NULL);
    module_end(plugin_open(allocator, "keeper", NULL));
    struct alcove_report report = module_end(module);
    if (report.heap.live_blocks != 0 || alcove_unload(allocator, 0) != 0)
        abort();
}

static void
test_forked_child_can_use_modules_and_unload(void **state)
{
    (void)state;
    char message[1024];
    int status = in_child(child_uses_everything, message, sizeof message);
    if (status != 0)
        fail_msg("status 0x%x: %s", status, message);
    thread_works(NULL);
}

static void
test_tls_slot_is_lent_in_static_tls(void **state)
{
    (void)state;
    struct alcove_info info;
    alcove_table_of(allocator)->info(&info);
    bool lent = ALCOVE_HAVE_TLSDESC && !ALCOVE_FORCE_DYNAMIC_TLS;
    assert_string_equal(info.tls, lent ? "static" : "dynamic");
}

int
main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_every_allocation_of_a_module_is_in_its_heap),
        TEST(test_duplicated_strings_are_right),
        TEST(test_host_memory_stays_libcs),
        TEST(test_host_frees_a_block_of_the_module),
        TEST(test_module_frees_a_block_of_the_host),
        TEST(test_host_reallocs_a_block_of_the_module),
        TEST(test_host_reallocs_a_block_of_the_module_to_nothing),
        TEST(test_host_reallocarray_that_overflows_is_refused),
        TEST(test_module_reallocs_a_block_of_the_host),
        TEST(test_asprintf_gives_libc_memory_that_the_module_may_free),
        TEST(test_getline_grows_a_routed_buffer_inside_libc),
        TEST(test_pointer_to_free_in_static_data_is_routed),
        TEST(test_read_only_slots_are_routed_and_read_only_again),
        TEST(test_two_modules_are_kept_apart),
        TEST(test_block_released_by_the_other_module_counts_for_both),
        TEST(test_destructor_of_the_module_frees_into_its_heap),
        TEST(test_block_of_a_constructor_is_libcs_and_may_be_freed),
        TEST(test_report_has_what_was_left_and_the_heap_stays_until_it_is_freed),
        TEST(test_close_with_drop_leaves_nothing),
        TEST(test_limit_fails_the_module_and_nobody_else),
        TEST(test_limit_can_be_raised_while_the_module_runs),
        TEST(test_policy_off_leaves_the_module_to_libc),
        TEST(test_host_frees_large_blocks_of_the_module_twice),
        TEST(test_strict_policy_aborts_at_a_crossing_and_names_both_sides),
        TEST(test_object_loaded_later_is_guarded_after_refresh),
        TEST(test_library_that_the_host_keeps_open_is_libcs_again_after_close),
        TEST(test_thread_works_in_a_library_that_stays_while_its_module_is_closed),
        TEST(test_module_can_be_opened_again),
        TEST(test_unload_puts_the_original_functions_back),
        TEST(test_thread_that_ends_gives_its_record_back),
        TEST(test_threads_live_on_through_unload_and_reload),
        TEST(test_forked_child_can_use_modules_and_unload),
        TEST(test_tls_slot_is_lent_in_static_tls),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
