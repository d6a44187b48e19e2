/*
 * Misuse: each kind is told in a message that names the address, and changes nothing: the figures
 * are as before, and other blocks keep their contents.
 */
#include "config.h"
#include "module.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

static struct alcove_heap_stats before;
static void *witnesses[8];
static const size_t witness_sizes[8] = { 16, 64, 1000, 10000, 50000, 300000, 1500000, 6000000 };

static int
open_quietly(void **state)
{
    options_set("abort:false"); /* a debug build's default is true */
    return group_open(state);
}

/* Other blocks, of every kind, that a misuse must not touch. */
static int
start(void **unused)
{
    (void)unused;
    for (unsigned i = 0; i < 8; i++) {
        witnesses[i] = table->malloc(witness_sizes[i]);
        if (witnesses[i] == NULL)
            return -1;
        fill(witnesses[i], witness_sizes[i], i);
    }
    table->purge();
    messages_clear();
    return 0;
}

static int
stop(void **unused)
{
    (void)unused;
    for (unsigned i = 0; i < 8; i++) {
        if (!filled(witnesses[i], witness_sizes[i], i)) {
            print_error("a block of %zu bytes was touched\n", witness_sizes[i]);
            return -1;
        }
        table->free(witnesses[i]);
    }
    if (strchr(messages, '\n') != NULL && strstr(messages, "<alcove>") == NULL) {
        print_error("a message without the library's name: %s\n", messages);
        return -1;
    }
    return 0;
}

#define misuse_test(function) cmocka_unit_test_setup_teardown(function, start, stop)

static void
watch(void)
{
    before = stats_of(0);
    messages_clear();
}

static void
assert_told(const void *address, const char *what)
{
    char text[32];
    struct alcove_heap_stats after = stats_of(0);
    snprintf(text, sizeof text, "%p", address);
    assert_int_equal(message_count, 1);
    assert_message(text);
    assert_message(what);
    assert_int_equal(after.live_blocks, before.live_blocks);
    assert_int_equal(after.live_bytes, before.live_bytes);
    assert_int_equal(after.active_bytes, before.active_bytes);
    assert_int_equal(after.total_allocs, before.total_allocs);
    assert_int_equal(after.total_frees, before.total_frees);
}

static void
assert_free_refused(void *address, const char *what)
{
    watch();
    errno = 4711;
    table->free(address);
    assert_int_equal(errno, 4711);
    assert_told(address, what);
}

/* What is not ours, to all that take a block. */
static void
assert_foreign(void *address)
{
    struct alcove_owner owner;
    assert_int_equal(table->owner(address, &owner), 0);
    assert_int_equal(owner.heap, ALCOVE_HEAP_NONE);
    assert_free_refused(address, "not a block of this allocator");
    watch();
    errno = 0;
    assert_null(table->realloc(address, 100));
    assert_int_equal(errno, EINVAL);
    assert_told(address, "realloc of");
    watch();
    assert_int_equal(table->malloc_usable_size(address), 0);
    assert_told(address, "malloc_usable_size of");
}

/* Out of the compilers' sight, who know what must not be freed. */
static void *
hide(const void *address)
{
    const void *volatile hidden = address;
    return (void *)(uintptr_t)hidden;
}

static void
test_address_on_the_stack(void **unused)
{
    (void)unused;
    int here = 0;
    assert_foreign(hide(&here));
}

static void
test_address_of_static_data(void **unused)
{
    (void)unused;
    static int data;
    assert_foreign(hide(&data));
    assert_foreign(hide("a string"));
}

static void
test_address_of_code(void **unused)
{
    (void)unused;
    assert_foreign((void *)(uintptr_t)assert_foreign);
    assert_foreign((void *)(uintptr_t)table->malloc);
}

static void
test_block_of_libc(void **unused)
{
    (void)unused;
    void *small = malloc(100), *large = malloc(10 << 20);
    memset(small, 1, 100);
    assert_foreign(hide(small));
    assert_foreign(hide(large));
    assert_int_equal(*(char *)small, 1);
    free(small);
    free(large);
}

static void
test_address_that_is_not_mapped(void **unused)
{
    (void)unused;
    char *hole = mmap(NULL, 1 << 20, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    munmap(hole, 1 << 20);
    assert_foreign(hole);
    assert_foreign((void *)1);
    assert_foreign((void *)4096);
}

static void
test_non_canonical_address(void **unused)
{
    (void)unused;
    assert_foreign((void *)((uintptr_t)1 << 48));
    assert_foreign((void *)(uintptr_t)0x1234567812345678);
    assert_foreign((void *)((uintptr_t)1 << 63));
}

static void
test_top_of_the_address_space(void **unused)
{
    (void)unused;
    assert_foreign((void *)UINTPTR_MAX);
    assert_foreign((void *)(UINTPTR_MAX - 4095));
    assert_foreign((void *)(((uintptr_t)1 << 47) - 1));
}

/* Each class of its own: the same path serves them, but not the same table entries. */
static void
test_double_free_at_once(void **unused)
{
    (void)unused;
    for (size_t size = 1; size <= 1 << 20; size = size * 3 / 2 + 8) {
        void *block = table->malloc(size);
        table->free(block);
        assert_free_refused(block, "double free");
    }
}

static void
test_double_free_of_a_large_block(void **unused)
{
    (void)unused;
    void *block = table->malloc(1500000);
    table->free(block);
    assert_free_refused(block, "free of");
}

static void
test_double_free_of_a_huge_block(void **unused)
{
    (void)unused;
    void *block = table->malloc(10 << 20);
    table->free(block);
    assert_free_refused(block, "free of");
}

/* Freed, they are one free span that has them inside of it. */
static void
test_double_free_of_huge_blocks_beside_each_other(void **unused)
{
    (void)unused;
    void *blocks[3];
    for (int i = 0; i < 3; i++)
        blocks[i] = table->malloc((size_t)30 << 20);
    for (int i = 0; i < 3; i++)
        table->free(blocks[i]);
    for (int i = 0; i < 3; i++)
        assert_free_refused(blocks[i], "double free");
}

static void
test_double_free_after_the_cache_was_emptied(void **unused)
{
    (void)unused;
    for (size_t size = 1; size <= 1 << 20; size = size * 3 / 2 + 8) {
        void *keep = table->malloc(size), *block = table->malloc(size);
        table->free(block);
        table->purge();
        assert_free_refused(block, "free of");
        table->free(keep);
    }
}

static void
assert_all_differ(void **blocks, int count)
{
    for (int i = 0; i < count; i++)
        for (int j = 0; j < i; j++)
            assert_ptr_not_equal(blocks[i], blocks[j]);
}

static void
test_double_free_with_another_freed_between(void **unused)
{
    (void)unused;
    for (size_t size = 1; size <= 1 << 20; size = size * 3 / 2 + 8) {
        void *blocks[16], *first = table->malloc(size), *second = table->malloc(size);
        table->free(first);
        table->free(second);
        assert_free_refused(first, "double free");
        for (int i = 0; i < 16; i++)
            blocks[i] = table->malloc(size);
        assert_all_differ(blocks, 16);
        for (int i = 0; i < 16; i++)
            table->free(blocks[i]);
    }
}

/* A heap with a limit looks at more of them, and at where a block begins. */
static void
test_misuse_in_a_limited_heap_is_told_at_once(void **unused)
{
    (void)unused;
    uint32_t heap;
    assert_int_equal(table->heap_create(&(struct alcove_heap_options){ .limit = 64 << 20 }, &heap), 0);
    for (size_t size = 32; size <= 1 << 20; size = size * 3 / 2 + 8) {
        enum { BETWEEN = 7 };
        char *first = table->heap_malloc(heap, size), *between[BETWEEN];
        for (int i = 0; i < BETWEEN; i++)
            between[i] = table->heap_malloc(heap, size);
        assert_free_refused(first + 16, "not the start of a block");
        table->free(first);
        for (int i = 0; i < BETWEEN; i++) {
            table->free(between[i]);
            assert_free_refused(first, "double free");
        }
    }
    assert_int_equal(table->heap_destroy(heap), 0);
}

/* Hidden under others in the cache: told when the cache gives its blocks back. */
static void
test_double_free_that_a_cache_hides(void **unused)
{
    (void)unused;
    for (size_t size = 1; size <= 200000; size = size * 3 / 2 + 8) {
        void *a = table->malloc(size), *b = table->malloc(size), *c = table->malloc(size);
        table->free(a);
        table->free(b);
        table->free(c);
        watch();
        table->free(a);
        table->purge();
        assert_int_equal(message_count, 1);
        assert_message("double");
        assert_int_equal(stats_of(0).live_blocks, before.live_blocks);
        assert_int_equal(stats_of(0).cached_bytes, 0);
    }
}

/* The first half of the cache that goes back empties the slab, and its pages go, before the second comes. */
static void
test_double_free_of_a_block_whose_slab_has_gone(void **unused)
{
    (void)unused;
    enum { MANY = 6000 };
    static void *blocks[MANY];
    for (int i = 0; i < MANY; i++)
        blocks[i] = table->malloc(256);
    for (int i = 0; i < MANY; i++)
        table->free(blocks[i]);
    messages_clear();
    for (int i = 0; i < MANY; i += 3)
        table->free(blocks[i]);
    table->purge();
    assert_true(message_count > 0);
    assert_message("free of");
    assert_int_equal(stats_of(0).cached_bytes, 0);
}

static void
test_pointer_into_a_small_block(void **unused)
{
    (void)unused;
    char *block = table->malloc(200);
    fill(block, 200, 3);
    watch();
    table->free(block + 16);
    table->purge();
    assert_told(block + 16, "free of");
    assert_true(filled(block, 200, 3));
    table->free(block);
}

/* Where no block can begin it is told at once, whatever the size. */
static void
test_pointer_that_is_not_aligned(void **unused)
{
    (void)unused;
    for (size_t size = 16; size <= 10 << 20; size = size * 3 / 2 + 8) {
        char *block = table->malloc(size);
        assert_free_refused(block + 1, "not the start of a block");
        assert_free_refused(block + 8, "not the start of a block");
        assert_free_refused(block + 15, "not the start of a block");
        watch();
        assert_null(table->realloc(block + 8, size));
        assert_told(block + 8, "realloc of");
        table->free(block);
    }
}

static void
test_pointer_into_a_large_block(void **unused)
{
    (void)unused;
    static const size_t sizes[] = { 40000, 300000, 1500000 };
    for (int i = 0; i < 3; i++) {
        char *block = table->malloc(sizes[i]);
        assert_free_refused(block + 8192, "not the start of a block");
        assert_free_refused(block + sizes[i] - 1, "not the start of a block");
        table->free(block);
    }
}

/* A block of a size that this thread's cache has a place for. */
static void *
malloc_of_a_used_size(size_t size)
{
    table->free(table->malloc(size));
    return table->malloc(size);
}

/* There a large block is pushed by its page alone; when it goes back it is seen that it is none. The slow path, which is the only
 * one in a debug build and where TLS is dynamic, sees it at once. */
static const char *
told_of_a_pointer_into_a_block(void)
{
    return ALCOVE_DEBUG || strcmp(info_now().tls, "dynamic") == 0 ? "not the start of a block" : "inside of a block";
}

static void
test_pointer_into_the_first_page_of_a_large_block(void **unused)
{
    (void)unused;
    static const size_t sizes[] = { 40000, 300000, 1000000 };
    for (int i = 0; i < 3; i++) {
        char *block = malloc_of_a_used_size(sizes[i]);
        fill(block, sizes[i], 3);
        watch();
        table->free(block + 32);
        table->purge();
        assert_told(block + 32, told_of_a_pointer_into_a_block());
        assert_true(filled(block, sizes[i], 3));
        table->free(block);
        table->purge();
    }
}

#define GROWN_FROM ((size_t)20480)
#define GROWN_TO ((size_t)21501)
#define GROWN_ROOM (2 * GROWN_TO) /* a block of which it gets, if the cache keeps one */

/* A block that grows is not put over a live one. */
static void
test_growing_realloc_passes_over_a_pointer_into_a_block(void **unused)
{
    (void)unused;
    char *block = malloc_of_a_used_size(GROWN_ROOM), *growing = table->malloc(GROWN_FROM);
    fill(block, GROWN_ROOM, 3);
    watch();
    table->free(block + 32);
    growing = table->realloc(growing, GROWN_TO);
    assert_non_null(growing);
    assert_ptr_not_equal(growing, block);
    assert_int_equal(message_count, 1);
    assert_message(told_of_a_pointer_into_a_block());
    memset(growing, 0, table->malloc_usable_size(growing));
    assert_true(filled(block, GROWN_ROOM, 3));
    assert_int_equal(stats_of(0).live_blocks, before.live_blocks);
    table->free(growing);
    table->free(block);
    table->purge();
    assert_int_equal(message_count, 1);
}

static pthread_barrier_t in_turn;
static void *freed_by_two;

/* Has the block in its cache when that goes, with its pages. */
static void *
grow_after_another_freed(void *unused)
{
    (void)unused;
    table->free(freed_by_two);
    pthread_barrier_wait(&in_turn);
    pthread_barrier_wait(&in_turn);
    char *growing = table->malloc(GROWN_FROM);
    fill(growing, GROWN_FROM, 5);
    return table->realloc(growing, GROWN_TO);
}

static void
test_growing_realloc_passes_over_a_block_that_two_threads_freed(void **unused)
{
    (void)unused;
    pthread_t thread;
    void *grown;
    freed_by_two = table->malloc(GROWN_ROOM);
    watch();
    pthread_barrier_init(&in_turn, NULL, 2);
    assert_int_equal(pthread_create(&thread, NULL, grow_after_another_freed, NULL), 0);
    pthread_barrier_wait(&in_turn);
    table->free(freed_by_two);
    table->purge();
    pthread_barrier_wait(&in_turn);
    assert_int_equal(pthread_join(thread, &grown), 0);
    pthread_barrier_destroy(&in_turn);
    assert_int_equal(message_count, 1);
    assert_message("double free");
    assert_non_null(grown);
    assert_true(table->malloc_usable_size(grown) >= GROWN_TO);
    assert_int_equal(((unsigned char *)grown)[GROWN_FROM - 1], (unsigned char)(5 * 37 + GROWN_FROM));
    assert_int_equal(stats_of(0).live_blocks, before.live_blocks);
    table->free(grown);
    table->purge();
    assert_int_equal(message_count, 1);
    assert_int_equal(stats_of(0).live_blocks, before.live_blocks - 1);
}

static void
test_pointer_into_a_huge_block(void **unused)
{
    (void)unused;
    char *block = table->malloc(20 << 20);
    assert_free_refused(block + 1, "not the start of a block");
    assert_free_refused(block + 4096, "not the start of a block");
    assert_free_refused(block + (8 << 20), "not the start of a block");
    assert_free_refused(block + (20 << 20) - 1, "not the start of a block");
    table->free(block);
}

static void
test_realloc_of_a_pointer_into_a_block(void **unused)
{
    (void)unused;
    static const size_t sizes[] = { 200, 40000, 1500000, 20 << 20 };
    for (int i = 0; i < 4; i++) {
        char *block = table->malloc(sizes[i]);
        watch();
        errno = 0;
        assert_null(table->realloc(block + 32, 5000));
        assert_int_equal(errno, EINVAL);
        assert_told(block + 32, "realloc of");
        table->free(block);
    }
}

static void
test_realloc_of_a_freed_block(void **unused)
{
    (void)unused;
    static const size_t sizes[] = { 200, 3000, 40000, 1500000, 20 << 20 };
    for (int i = 0; i < 5; i++) {
        void *keep = table->malloc(sizes[i]), *block = table->malloc(sizes[i]);
        table->free(block);
        table->purge();
        watch();
        errno = 0;
        assert_null(table->realloc(block, sizes[i] * 2));
        assert_int_equal(errno, EINVAL);
        assert_told(block, "realloc of");
        table->free(keep);
    }
}

/* Still in the thread's cache, if it has a place there, on top or below others. */
static void
test_realloc_of_a_block_freed_just_now(void **unused)
{
    (void)unused;
    for (size_t size = 16; size <= 10 << 20; size = size * 3 / 2 + 8) {
        for (int freed_after = 0; freed_after < 4; freed_after++) {
            void *block = table->malloc(size), *others[4];
            for (int i = 0; i < 4; i++)
                others[i] = table->malloc(size);
            table->free(block);
            for (int i = 0; i < freed_after; i++)
                table->free(others[i]);
            watch();
            errno = 0;
            assert_null(table->realloc(block, size * 2));
            assert_int_equal(errno, EINVAL);
            assert_told(block, "realloc of");
            for (int i = freed_after; i < 4; i++)
                table->free(others[i]);
        }
    }
}

/* One that grew where another had, and is kept for the next. */
static void
test_double_free_of_a_block_that_was_lent(void **unused)
{
    (void)unused;
    char *block = NULL;
    for (int i = 0; i < 3; i++) {
        for (size_t size = 4000; size <= 300000; size += size / 3)
            assert_non_null(block = table->realloc(block, size));
        assert_free_refused(block + 16, "not the start of a block");
        table->free(block);
        assert_free_refused(block, "double free");
        watch();
        assert_null(table->realloc(block, 1000));
        assert_told(block, "realloc of");
        block = NULL;
    }
}

/* One that is not moved. */
static void
test_realloc_of_a_large_freed_block_to_its_own_size(void **unused)
{
    (void)unused;
    for (size_t size = 40000; size <= 10 << 20; size *= 2) {
        void *block = table->malloc(size);
        table->free(block);
        watch();
        errno = 0;
        assert_null(table->realloc(block, size));
        assert_int_equal(errno, EINVAL);
        assert_told(block, "realloc of");
    }
}

static void
test_usable_size_of_a_freed_block(void **unused)
{
    (void)unused;
    for (size_t size = 1; size <= 10 << 20; size = size * 3 / 2 + 8) {
        void *keep = table->malloc(size), *block = table->malloc(size);
        table->free(block);
        if (size <= 32768) /* larger ones are noticed in the cache too */
            table->purge();
        watch();
        assert_int_equal(table->malloc_usable_size(block), 0);
        assert_told(block, "malloc_usable_size of");
        table->free(keep);
    }
}

static void
test_usable_size_of_a_pointer_into_a_block(void **unused)
{
    (void)unused;
    static const size_t sizes[] = { 200, 40000, 1500000, 20 << 20 };
    for (int i = 0; i < 4; i++) {
        char *block = table->malloc(sizes[i]);
        watch();
        assert_int_equal(table->malloc_usable_size(block + 32), 0);
        assert_told(block + 32, "malloc_usable_size of");
        table->free(block);
    }
}

static void
test_free_of_a_block_whose_heap_was_destroyed(void **unused)
{
    (void)unused;
    uint32_t heap;
    assert_int_equal(table->heap_create(NULL, &heap), 0);
    void *small = table->heap_malloc(heap, 100), *large = table->heap_malloc(heap, 100000),
         *huge = table->heap_malloc(heap, 10 << 20);
    assert_int_equal(table->heap_destroy(heap), 0);
    assert_free_refused(small, "free of");
    assert_free_refused(large, "free of");
    assert_free_refused(huge, "free of");
}

static void
test_a_heap_that_does_not_exist(void **unused)
{
    (void)unused;
    static const uint32_t numbers[] = { 77, ALCOVE_HEAP_MAX - 1, ALCOVE_HEAP_MAX, ALCOVE_HEAP_NONE, UINT32_MAX };
    for (int i = 0; i < 5; i++) {
        watch();
        assert_null(table->heap_malloc(numbers[i], 100));
        assert_null(table->heap_malloc(numbers[i], 5000000));
        assert_null(table->heap_calloc(numbers[i], 1, 100));
        assert_null(table->heap_aligned_alloc(numbers[i], 64, 100));
        assert_null(table->heap_realloc(numbers[i], NULL, 100));
        assert_int_equal(stats_of(0).live_blocks, before.live_blocks);
    }
}

/* Run in a child with an allocator of its own, loaded with these options. Returns the wait status,
 * and what the child wrote to standard error. */
static int
child(const char *options, void (*misuse)(const struct alcove_table *), char *written, size_t room)
{
    char path[] = "/tmp/alcove-misuse-XXXXXX";
    int ends[2], file = mkstemp(path), status;
    assert_true(file >= 0);
    close(file);
    assert_true(module_copy(path));
    assert_int_equal(pipe(ends), 0);
    pid_t pid = fork();
    if (pid == 0) {
        void *handle;
        signal(SIGABRT, SIG_DFL);
        dup2(ends[1], STDERR_FILENO);
        options_set(options);
        const struct alcove_table *t = module_open(path, &handle);
        if (t == NULL)
            _exit(99);
        misuse(t);
        _exit(0);
    }
    close(ends[1]);
    size_t used = 0;
    ssize_t n;
    while (used < room - 1 && (n = read(ends[0], written + used, room - 1 - used)) > 0)
        used += (size_t)n;
    written[used] = '\0';
    close(ends[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    unlink(path);
    return status;
}

static void
free_foreign(const struct alcove_table *t)
{
    int here = 0;
    t->free(hide(&here));
}

static void
free_twice(const struct alcove_table *t)
{
    void *block = t->malloc(64);
    t->free(block);
    t->free(block);
}

/* The thread is to be cancelled where it next may be. */
static void *
free_twice_cancelled(void *t)
{
    pthread_cancel(pthread_self());
    free_twice(t);
    return t;
}

static void
free_twice_in_a_thread(const struct alcove_table *t)
{
    pthread_t thread;
    void *result = NULL;
    pthread_create(&thread, NULL, free_twice_cancelled, (void *)t);
    pthread_join(thread, &result);
    if (result != t)
        _exit(98);
}

enum { HANDLED = 3, HUNG = 10 }; /* seconds, where a hang is the fault */

static const struct alcove_table *handler_table;

static void
allocate_and_free(void)
{
    void *blocks[600];
    for (int i = 0; i < 600; i++)
        blocks[i] = handler_table->malloc(48);
    for (int i = 0; i < 600; i++)
        handler_table->free(blocks[i]);
    handler_table->purge();
}

static void
on_abort(int unused)
{
    (void)unused;
    allocate_and_free();
    _exit(HANDLED);
}

/* Noticed where blocks go back from the cache: when it is full. */
static void
free_twice_unnoticed(const struct alcove_table *t)
{
    enum { MANY = 400 };
    void *blocks[MANY];
    alarm(HUNG);
    handler_table = t;
    signal(SIGABRT, on_abort);
    for (int i = 0; i < MANY; i++)
        blocks[i] = t->malloc(48);
    for (int i = 0; i < 3; i++)
        t->free(blocks[i]);
    for (int i = 0; i < MANY; i++)
        t->free(blocks[i]);
    t->purge();
}

static void
test_handler_of_an_abort_may_allocate(void **unused)
{
    (void)unused;
    char written[1024];
    int status = child("abort:true", free_twice_unnoticed, written, sizeof written);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), HANDLED);
    assert_non_null(strstr(written, "double free of 0x"));
}

static unsigned taken;

static void
take_message(void *unused, const char *line)
{
    (void)unused;
    (void)line;
    taken++;
    allocate_and_free();
}

static void
take_messages_of_double_frees(const struct alcove_table *t)
{
    Dl_info allocator;
    dladdr((void *)t, &allocator);
    void *handle = dlopen(allocator.dli_fname, RTLD_NOW | RTLD_NOLOAD);
    *(void (**)(void *, const char *))symbol_of(handle, "malloc_message") = take_message;
    free_twice_unnoticed(t);
    if (taken != 3)
        _exit(1);
}

static void
test_who_takes_messages_may_allocate(void **unused)
{
    (void)unused;
    char written[1024];
    int status = child("abort:false", take_messages_of_double_frees, written, sizeof written);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void
test_option_abort_aborts_after_the_message(void **unused)
{
    (void)unused;
    char written[1024];
    void (*kinds[])(const struct alcove_table *) = { free_foreign, free_twice };
    for (int i = 0; i < 2; i++) {
        int status = child("abort:true", kinds[i], written, sizeof written);
        assert_true(WIFSIGNALED(status));
        assert_int_equal(WTERMSIG(status), SIGABRT);
        assert_non_null(strstr(written, "free of 0x"));
    }
}

static void
test_messages_go_to_standard_error_if_nobody_listens(void **unused)
{
    (void)unused;
    char written[1024];
    int status = child("abort:false", free_twice, written, sizeof written);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    assert_non_null(strstr(written, "<alcove>: double free of 0x"));
    assert_int_equal(written[strlen(written) - 1], '\n');
}

static void
nothing(const struct alcove_table *t)
{
    t->free(t->malloc(1));
}

static void
test_bad_option_is_told_and_the_library_works(void **unused)
{
    (void)unused;
    char written[1024];
    int status = child("tcache:perhaps,abort_conf:false", nothing, written, sizeof written);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    assert_non_null(strstr(written, "'tcache:perhaps'"));
}

static void
double_free_of_all(const struct alcove_table *t)
{
    for (size_t size = 1; size <= (size_t)8 << 20; size = size * 3 / 2 + 8) {
        void *a = t->malloc(size), *b = t->malloc(size);
        t->free(a);
        t->free(a);
        t->free((char *)b + 1);
        t->free(b);
        t->free(a);
        t->free(b);
        struct alcove_info info;
        t->info(&info);
        if (info.live_blocks != 0)
            _exit(1);
    }
}

/* Without caches every one is told at once. */
static void
test_misuse_without_thread_caches(void **unused)
{
    (void)unused;
    static char written[100000];
    int status = child("tcache:false,abort:false", double_free_of_all, written, sizeof written);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    assert_non_null(strstr(written, "double free"));
    assert_non_null(strstr(written, "not the start"));
}

#define ROUNDS 2000
static const size_t raced_sizes[] = { 100, 30000, 100000, 1500000, 5000000 };
#define RACED_SIZES (sizeof raced_sizes / sizeof *raced_sizes)

static const struct alcove_table *raced_table;
static void *_Atomic raced;
static atomic_uint round_begun, round_ended;

/* Without a pause at first, so that both begin at the same time. */
static void
round_wait(atomic_uint *is, unsigned round)
{
    for (unsigned tries = 0; atomic_load(is) != round; tries++)
        if (tries > 10000)
            sched_yield();
}

static void *
free_in_each_round(void *unused)
{
    for (unsigned round = 1; round <= RACED_SIZES * ROUNDS; round++) {
        round_wait(&round_begun, round);
        raced_table->free(atomic_load(&raced));
        atomic_store(&round_ended, round);
    }
    return unused;
}

static void
free_in_two_threads_at_once(const struct alcove_table *t)
{
    pthread_t thread;
    struct alcove_info info;
    signal(SIGSEGV, SIG_DFL);
    signal(SIGFPE, SIG_DFL);
    alarm(HUNG);
    raced_table = t;
    if (pthread_create(&thread, NULL, free_in_each_round, NULL) != 0)
        _exit(2);
    for (unsigned round = 1; round <= RACED_SIZES * ROUNDS; round++) {
        void *block = t->malloc(raced_sizes[round % RACED_SIZES]);
        atomic_store(&raced, block);
        atomic_store(&round_begun, round);
        for (unsigned later = round % 64; later > 0; later--)
            atomic_load(&round_ended);
        t->free(block);
        round_wait(&round_ended, round);
    }
    pthread_join(thread, NULL);
    t->purge();
    t->info(&info);
    if (info.live_blocks != 0 || info.active_bytes != 0 || info.dirty_bytes != 0)
        _exit(3);
}

/* One of the two frees it, and the other is told. */
static void
test_block_that_two_threads_free_at_once(void **unused)
{
    (void)unused;
    static char written[RACED_SIZES * ROUNDS * 200];
    int status = child("tcache:false,abort:false", free_in_two_threads_at_once, written, sizeof written);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    unsigned told = 0;
    for (const char *at = written; (at = strstr(at, "free of 0x")) != NULL; at++)
        told++;
    assert_int_equal(told, RACED_SIZES * ROUNDS);
}

#if ALCOVE_DEBUG
static void
test_debug_build_notices_a_double_free_behind_others(void **unused)
{
    (void)unused;
    void *first = table->malloc(64), *second = table->malloc(64);
    table->free(first);
    table->free(second);
    watch();
    table->free(first);
    assert_told(first, "double free");
}

static void
test_debug_build_notices_a_pointer_into_a_small_block(void **unused)
{
    (void)unused;
    char *block = table->malloc(64);
    watch();
    table->free(block + 16);
    assert_told(block + 16, "not the start of a block");
    table->free(block);
}
#endif

static void
test_messages_are_no_cancellation_point(void **unused)
{
    (void)unused;
    char written[300];
    assert_int_equal(child("abort:false", free_twice_in_a_thread, written, sizeof written), 0);
    assert_non_null(strstr(written, "free of 0x"));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        misuse_test(test_address_on_the_stack),
        misuse_test(test_address_of_static_data),
        misuse_test(test_address_of_code),
        misuse_test(test_block_of_libc),
        misuse_test(test_address_that_is_not_mapped),
        misuse_test(test_non_canonical_address),
        misuse_test(test_top_of_the_address_space),
        misuse_test(test_double_free_at_once),
        misuse_test(test_double_free_of_a_large_block),
        misuse_test(test_double_free_of_a_huge_block),
        misuse_test(test_double_free_of_huge_blocks_beside_each_other),
        misuse_test(test_double_free_after_the_cache_was_emptied),
        misuse_test(test_double_free_with_another_freed_between),
        misuse_test(test_misuse_in_a_limited_heap_is_told_at_once),
        misuse_test(test_double_free_that_a_cache_hides),
        misuse_test(test_double_free_of_a_block_whose_slab_has_gone),
        misuse_test(test_pointer_into_a_small_block),
        misuse_test(test_pointer_that_is_not_aligned),
        misuse_test(test_pointer_into_a_large_block),
        misuse_test(test_pointer_into_the_first_page_of_a_large_block),
        misuse_test(test_growing_realloc_passes_over_a_pointer_into_a_block),
        misuse_test(test_growing_realloc_passes_over_a_block_that_two_threads_freed),
        misuse_test(test_pointer_into_a_huge_block),
        misuse_test(test_realloc_of_a_pointer_into_a_block),
        misuse_test(test_realloc_of_a_freed_block),
        misuse_test(test_realloc_of_a_block_freed_just_now),
        misuse_test(test_double_free_of_a_block_that_was_lent),
        misuse_test(test_realloc_of_a_large_freed_block_to_its_own_size),
        misuse_test(test_usable_size_of_a_freed_block),
        misuse_test(test_usable_size_of_a_pointer_into_a_block),
        misuse_test(test_free_of_a_block_whose_heap_was_destroyed),
        misuse_test(test_a_heap_that_does_not_exist),
        misuse_test(test_option_abort_aborts_after_the_message),
        misuse_test(test_handler_of_an_abort_may_allocate),
        misuse_test(test_who_takes_messages_may_allocate),
        misuse_test(test_messages_go_to_standard_error_if_nobody_listens),
        misuse_test(test_messages_are_no_cancellation_point),
        misuse_test(test_bad_option_is_told_and_the_library_works),
        misuse_test(test_misuse_without_thread_caches),
        misuse_test(test_block_that_two_threads_free_at_once),
#if ALCOVE_DEBUG
        misuse_test(test_debug_build_notices_a_double_free_behind_others),
        misuse_test(test_debug_build_notices_a_pointer_into_a_small_block),
#endif
    };
    return cmocka_run_group_tests(tests, open_quietly, NULL);
}
