/*
 * Where a module's allocations go, where releases go, and what is counted: with small plugins built
 * for the purpose, each opened as any host opens one.
 */
#include "host.h"
#include "config.h"

#include <ctype.h>
#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <time.h>
#include <unistd.h>

#include "../plugins/blocks.h"
#include "../plugins/of_thread.h"
#include "routed.h"
#include "tests/child.h"

void *keeper_first_block(void);
void *keeper_keep(size_t size);
void keeper_release_all(void);
void keeper_release_first(void);

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
    char *block = malloc(100);
    block[0] = 'h';
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
    errno = 0;
    void *left = realloc(CALL(module, blocks_make)(BLOCKS_MALLOC, 100), 0);
    assert_null(left);
    left = reallocarray(CALL(module, blocks_make)(BLOCKS_MALLOC, 100), 0, 8);
    assert_null(left);
    assert_int_equal(errno, 0); /* nothing has failed */
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
    void *(*module_realloc)(void *, size_t, size_t) = alcove_table_of(allocator)->entry(ALCOVE_ENTRY_realloc);
    block = module_realloc(block, 5000, heap);
    assert_non_null(block);
    assert_int_equal(heap_of(allocator, block), ALCOVE_HEAP_NONE);
    free(block);
}

/* To resize a block of another is no crossing; to resize it to nothing is a release. */
static void
test_module_reallocs_blocks_of_others_to_nothing(void **state)
{
    (void)state;
    alcove_module *other = plugin_open(allocator, "blocks_two", NULL);
    void *(*module_realloc)(void *, size_t, size_t) = alcove_table_of(allocator)->entry(ALCOVE_ENTRY_realloc);
    void *(*module_reallocarray)(void *, size_t, size_t, size_t) =
        alcove_table_of(allocator)->entry(ALCOVE_ENTRY_reallocarray);
    for (unsigned i = 0; i < 2; i++) {
        void *own = CALL(module, blocks_make)(BLOCKS_MALLOC, 100), *its = CALL(other, blocks_make)(BLOCKS_MALLOC, 100);
        own = module_realloc(own, 1000, heap);
        its = i == 0 ? module_realloc(its, 1000, heap) : module_reallocarray(its, 10, 100, heap);
        assert_int_equal(heap_of(allocator, its), alcove_module_heap(other));
        assert_int_equal(stats_of(module).released_foreign, i * 2);
        assert_int_equal(stats_of(other).released_outside, i);
        errno = 0;
        assert_null(i == 0 ? module_realloc(own, 0, heap) : module_reallocarray(own, 0, 8, heap));
        assert_int_equal(stats_of(module).released_foreign, i * 2);
        assert_null(i == 0 ? module_realloc(its, 0, heap) : module_reallocarray(its, 0, 8, heap));
        assert_int_equal(errno, 0); /* nothing has failed */
        assert_int_equal(stats_of(module).released_foreign, i * 2 + 1);
        void *hosts = malloc(100);
        free(i == 0 ? module_realloc(hosts, 0, heap) : module_reallocarray(hosts, 8, 0, heap)); /* what libc made of it */
        assert_int_equal(stats_of(module).released_foreign, i * 2 + 2);
        assert_int_equal(stats_of(other).released_outside, i + 1);
    }
    assert_int_equal(stats_of(module).released_outside, 0);
    assert_int_equal(stats_of(other).released_foreign, 0);
    assert_int_equal(stats_of(module).heap.live_blocks, 0);
    assert_int_equal(module_end(other).heap.live_blocks, 0);
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
    assert_int_equal(stats_of(keeper).heap.live_blocks, 51); /* the constructor's, too */
    if (!DLCLOSE_UNLOADS)
        CALL(keeper, keeper_release_all)(); /* no destructor runs before the end of the process */
    struct alcove_report report = module_end(keeper);
    assert_int_equal(report.heap.live_blocks, 0);
    assert_int_equal(report.heap.total_frees, 51);
    assert_int_equal(report.released_outside, 0);
    assert_int_equal(report.released_foreign, 0);
    assert_int_equal(report.kept, 0);
}

static void
block_of_a_constructor(void)
{
    alcove_module *keeper = plugin_open(allocator, "keeper", NULL);
    assert_int_equal(heap_of(allocator, CALL(keeper, keeper_first_block)()), alcove_module_heap(keeper));
    CALL(keeper, keeper_release_first)();
    assert_int_equal(stats_of(keeper).heap.live_blocks, 0);
    module_end(keeper);
}

/* Where libraries stay, a constructor runs once in a process: this is the first test that opens it, and a child's. */
static void
test_block_of_a_constructor_is_the_modules(void **state)
{
    (void)state;
    if (DLCLOSE_UNLOADS)
        block_of_a_constructor();
    else
        in_child(block_of_a_constructor);
}

/* Where it was loaded before, they have run. */
static void
test_block_of_a_constructor_that_ran_before_is_libcs_and_may_be_freed(void **state)
{
    (void)state;
    void *before = dlopen(plugin_path("keeper"), RTLD_NOW | RTLD_LOCAL);
    alcove_module *keeper = plugin_open(allocator, "keeper", NULL);
    assert_int_equal(heap_of(allocator, CALL(keeper, keeper_first_block)()), ALCOVE_HEAP_NONE);
    CALL(keeper, keeper_release_first)();
    module_end(keeper);
    dlclose(before);
}

static void
test_object_loaded_later_is_guarded(void **state)
{
    (void)state;
    void *later = dlopen(plugin_path("blocks_two"), RTLD_LAZY | RTLD_LOCAL);
    assert_non_null(later);
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

#define HELD 1500000000 /* ns; more than a second */

static void
hold(int signal)
{
    (void)signal;
    nanosleep(&(struct timespec){.tv_sec = HELD / 1000000000, .tv_nsec = HELD % 1000000000}, NULL);
}

/* Where it is held is in malloc or free as a rule. */
static void
test_thread_is_held_in_a_library_that_stays_while_its_module_is_closed(void **state)
{
    (void)state;
    void *kept = dlopen(plugin_path("blocks_two"), RTLD_NOW | RTLD_LOCAL);
    struct sigaction before;
    assert_int_equal(sigaction(SIGUSR1, &(struct sigaction){.sa_handler = hold}, &before), 0);
    for (int round = 0; round < 3; round++) {
        struct work work = {.make = (void *(*)(enum blocks_kind, size_t))dlsym(kept, "blocks_make"),
                            .release = (void (*)(void *))dlsym(kept, "blocks_release")};
        pthread_t thread;
        alcove_module *other = plugin_open(allocator, "blocks_two", NULL);
        pthread_create(&thread, NULL, library_works, &work);
        nanosleep(&(struct timespec){.tv_nsec = 2000000 + round * 1000}, NULL);
        pthread_kill(thread, SIGUSR1);
        nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
        module_end(other);
        alcove_module *next = plugin_open(allocator, "keeper", NULL);
        uint64_t allocs = stats_of(next).heap.total_allocs;
        work.stop = true;
        pthread_join(thread, NULL);
        assert_int_equal(work.damaged, 0);
        assert_int_equal(stats_of(next).heap.total_allocs, allocs);
        assert_int_equal(stats_of(next).released_foreign, 0);
        module_end(next);
    }
    sigaction(SIGUSR1, &before, NULL);
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

static __thread void (*own_free)(void *);
static __thread void (*own_free_from_the_start)(void *) = free;

/* Of other threads' nobody knows where they are. */
static void
test_variables_of_the_loading_thread_are_led(void **state)
{
    assert_ok(alcove_module_close(module, 0, NULL));
    assert_ok(alcove_unload(allocator, 0));
    void *original = dlsym(RTLD_DEFAULT, "free");
    own_free = free;
    setup(state);
    own_free(CALL(module, blocks_make)(BLOCKS_MALLOC, 100));
    own_free_from_the_start(CALL(module, blocks_make)(BLOCKS_MALLOC, 100));
    assert_int_equal(stats_of(module).released_outside, 2);
    assert_int_equal(stats_of(module).heap.live_blocks, 0);
    assert_ok(alcove_module_close(module, 0, NULL));
    assert_ok(alcove_unload(allocator, 0));
    assert_ptr_equal(own_free, original);
    assert_ptr_equal(own_free_from_the_start, original);
    setup(state);
}

/* --- variables of threads in a module */

static void *
of_thread_works(void *argument)
{
    alcove_module *of_thread = argument;
    void *block = CALL(of_thread, of_thread_make)(100);
    assert_int_equal(heap_of(allocator, block), alcove_module_heap(of_thread));
    CALL(of_thread, of_thread_release)(block);
    CALL(of_thread, of_thread_release)(malloc(100));
    return NULL;
}

/* The opening thread's copy was there before the module was led; others' come later. */
static void
variables_lead_to_the_module(const char *name)
{
    void *before = dlopen(plugin_path(name), RTLD_NOW | RTLD_LOCAL); /* and stays after the module's end */
    if (before == NULL)
        fail_msg("%s", dlerror());
    __typeof__(&of_thread_malloc) make = (__typeof__(&of_thread_malloc))dlsym(before, "of_thread_malloc");
    __typeof__(&of_thread_free) release = (__typeof__(&of_thread_free))dlsym(before, "of_thread_free");
    const void *plain_make = make(), *plain_release = release();
    for (int round = 0; round < 2; round++) {
        pthread_t thread;
        alcove_module *of_thread = plugin_open(allocator, name, NULL);
        of_thread_works(of_thread);
        assert_ptr_not_equal(make(), plain_make);
        assert_int_equal(pthread_create(&thread, NULL, of_thread_works, of_thread), 0);
        pthread_join(thread, NULL);
        assert_int_equal(stats_of(of_thread).heap.total_allocs, 2);
        assert_int_equal(stats_of(of_thread).heap.live_blocks, 0);
        assert_int_equal(stats_of(of_thread).released_outside, 0);
        module_end(of_thread);
        assert_ptr_equal(make(), plain_make);
        assert_ptr_equal(release(), plain_release);
    }
    dlclose(before);
}

/* Not there before, so that its constructors see dispatchers. */
static void
variables_of_what_is_opened_lead_to_it(const char *name)
{
    for (int round = 0; round < 2; round++) {
        alcove_module *of_thread = plugin_open(allocator, name, NULL);
        of_thread_works(of_thread);
        assert_int_equal(stats_of(of_thread).heap.total_allocs, 1);
        assert_int_equal(stats_of(of_thread).released_outside, 0);
        module_end(of_thread);
    }
}

static void
test_thread_local_variables_of_a_module_lead_to_it(void **state)
{
    (void)state;
    variables_of_what_is_opened_lead_to_it("of_thread");
    variables_lead_to_the_module("of_thread");
}

static void
test_static_thread_local_variables_of_a_module_lead_to_it(void **state)
{
    (void)state;
#ifndef __GLIBC__
    SKIP_BECAUSE("this libc gives no static TLS to libraries that come later");
#endif
    variables_of_what_is_opened_lead_to_it("of_thread_static");
    variables_lead_to_the_module("of_thread_static");
}

static void
test_unload_puts_the_original_functions_back(void **state)
{
    (void)state;
    void *kept = dlopen(plugin_path("blocks_two"), RTLD_NOW | RTLD_LOCAL);
    void **pointer = dlsym(kept, "blocks_free_pointer"), *guard = dlsym(RTLD_DEFAULT, "free");
    assert_ptr_equal(*pointer, guard);
    assert_ok(alcove_module_close(module, 0, NULL));
    assert_ok(alcove_unload(allocator, 0));
    assert_ptr_not_equal(dlsym(RTLD_DEFAULT, "free"), guard);
    assert_ptr_equal(*pointer, dlsym(RTLD_DEFAULT, "free"));
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
    CHECK(report.heap.live_blocks == 0);
    CHECK(alcove_unload(allocator, 0) == 0);
}

static void
test_forked_child_can_use_modules_and_unload(void **state)
{
    (void)state;
    in_child(child_uses_everything);
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

/* A block that was freed twice is noticed late, when the module is closed. Who is told of it may ask the loader whose it was. */
static unsigned told;

static void
ask_the_loader(void *unused, const char *line)
{
    (void)unused;
    (void)line;
    told++;
    alcove_table_of(allocator);
}

static void
misuse_by_a_module_that_is_closed(void)
{
    char name[128];
    snprintf(name, sizeof name, "%sMALLOC_CONF", setting("ALCOVE_TEST_PREFIX"));
    for (char *c = name; *c != '\0'; c++)
        *c = (char)toupper((unsigned char)*c);
    setenv(name, "abort:false", 1);
    setup(NULL);
    void *handle = dlopen(allocator_path(), RTLD_NOW | RTLD_NOLOAD);
    snprintf(name, sizeof name, "%smalloc_message", setting("ALCOVE_TEST_PREFIX"));
    void (**message)(void *, const char *) = (void (**)(void *, const char *))dlsym(handle, name);
    *message = ask_the_loader;
    void *blocks[4];
    for (unsigned i = 0; i < 4; i++)
        blocks[i] = CALL(module, blocks_make)(BLOCKS_MALLOC, 100);
    for (unsigned i = 0; i < 4; i++)
        CALL(module, blocks_release)(blocks[i]);
    CALL(module, blocks_release)(blocks[0]);
    assert_ok(alcove_module_close(module, 0, NULL));
    module = NULL;
    alcove_table_of(allocator)->free(alcove_table_of(allocator)->malloc(5 << 20));
    assert_true(told > 0);
    *message = NULL;
    dlclose(handle);
    teardown(NULL);
}

static void
test_who_takes_a_message_may_call_the_loader(void **unused)
{
    (void)unused;
    in_child(misuse_by_a_module_that_is_closed);
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
        TEST(test_module_reallocs_blocks_of_others_to_nothing),
        TEST(test_asprintf_gives_libc_memory_that_the_module_may_free),
        TEST(test_getline_grows_a_routed_buffer_inside_libc),
        TEST(test_pointer_to_free_in_static_data_is_routed),
        TEST(test_read_only_slots_are_routed_and_read_only_again),
        TEST(test_two_modules_are_kept_apart),
        TEST(test_block_released_by_the_other_module_counts_for_both),
        TEST(test_block_of_a_constructor_is_the_modules),
        TEST(test_destructor_of_the_module_frees_into_its_heap),
        TEST(test_block_of_a_constructor_that_ran_before_is_libcs_and_may_be_freed),
        TEST(test_object_loaded_later_is_guarded),
        TEST(test_library_that_the_host_keeps_open_is_libcs_again_after_close),
        TEST(test_thread_works_in_a_library_that_stays_while_its_module_is_closed),
        TEST(test_thread_is_held_in_a_library_that_stays_while_its_module_is_closed),
        TEST(test_module_can_be_opened_again),
        TEST(test_variables_of_the_loading_thread_are_led),
        TEST(test_thread_local_variables_of_a_module_lead_to_it),
        TEST(test_static_thread_local_variables_of_a_module_lead_to_it),
        TEST(test_unload_puts_the_original_functions_back),
        TEST(test_thread_that_ends_gives_its_record_back),
        TEST(test_threads_live_on_through_unload_and_reload),
        TEST(test_forked_child_can_use_modules_and_unload),
        TEST(test_tls_slot_is_lent_in_static_tls),
        cmocka_unit_test(test_who_takes_a_message_may_call_the_loader),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
