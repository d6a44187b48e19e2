/*
 * A fork while another thread is inside of the loader, at every place where that lets go of a lock: just before and just after.
 * The child has that thread's locks, counts and half-done work, but not the thread, and the loader works in it all the same.
 *
 * The loader calls this program's functions for those that let a lock go, which know where to stop.
 */
#include "host.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "../plugins/blocks.h"
#include "tests/child.h"

static int (*mutex_unlock)(pthread_mutex_t *), (*rwlock_unlock)(pthread_rwlock_t *), (*rwlock_trywrlock)(pthread_rwlock_t *);

static __thread bool counted;      /* this thread stops */
static unsigned places, stop_at;   /* of the places that it has come to, at which */
static pthread_barrier_t barrier;  /* it is there; it may go on */

static void
place(void)
{
    if (!counted || places++ != stop_at)
        return;
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
}

int
pthread_mutex_unlock(pthread_mutex_t *lock)
{
    place();
    int error = mutex_unlock(lock);
    place();
    return error;
}

/* A fork that has begun has it to read, and who wants it to write is not in the child. */
int
pthread_rwlock_trywrlock(pthread_rwlock_t *lock)
{
    place();
    return rwlock_trywrlock(lock);
}

/* Not before it: a fork waits for who has that one to write. */
int
pthread_rwlock_unlock(pthread_rwlock_t *lock)
{
    int error = rwlock_unlock(lock);
    place();
    return error;
}

/* A fork handler that is older than the loader's, and so is called between those, asks what they guard: that waits for no fork. */
static bool asks_at_forks, unloads_at_forks;
static _Thread_local bool asking;
static unsigned asked, waits; /* in a handler */

int
nanosleep(const struct timespec *time, struct timespec *left)
{
    waits += asking;
    return clock_nanosleep(CLOCK_REALTIME, 0, time, left);
}

static void
ask_at_a_fork(void)
{
    if (!asks_at_forks)
        return;
    asking = true;
    CHECK(dlsym(RTLD_DEFAULT, "malloc") != NULL);
    CHECK(alcove_refresh() == 0);
    alcove_allocator *another = NULL;
    CHECK(alcove_load(&another, &(struct alcove_load_options){.path = allocator_path()}) == 0); /* it is loaded: counted */
    CHECK(alcove_unload(another, 0) == 0);
    if (unloads_at_forks)
        CHECK(alcove_unload(another, 0) == ALCOVE_EBUSY && strstr(alcove_error_message(), "fork handler") != NULL);
    asking = false;
    asked++;
}

static void
register_before_the_loader(void)
{
    pthread_atfork(ask_at_a_fork, ask_at_a_fork, ask_at_a_fork);
}

/* Before any library's constructor; musl has no such thing, and calls it never. */
static void (*const before_all)(void) __attribute__((section(".preinit_array"), used)) = register_before_the_loader;

static void *process_malloc; /* what dlsym finds while no module is being opened */
static alcove_allocator *loaded;
static alcove_module *opened; /* before the thread began: of the plugin blocks */

/* Everything that takes a lock in a thread, and with the allocator a record, which its end gives back. */
static void *
use_the_loader(void *unused)
{
    counted = true;
    alcove_allocator *allocator = allocator_load();
    alcove_table_of(allocator)->free(alcove_table_of(allocator)->malloc(100));
    if (opened != NULL)
        CHECK(alcove_module_symbol(opened, "blocks_make") != NULL);
    alcove_module *other = plugin_open(allocator, "blocks_two", &(struct alcove_module_options){.limit = 1 << 20});
    CALL(other, blocks_release)(CALL(other, blocks_make)(BLOCKS_MALLOC, 100));
    CHECK(alcove_module_limit(other, 2 << 20) == 0);
    CHECK(alcove_module_heap(other) != ALCOVE_HEAP_NONE && stats_of(other).heap.live_blocks == 0);
    module_end(other);
    CHECK(alcove_refresh() == 0);
    CHECK(alcove_unload(allocator, 0) == 0);
    return unused;
}

static void *
use_and_end(void *allocator)
{
    const struct alcove_table *table = alcove_table_of(allocator);
    table->free(table->malloc(100));
    return allocator;
}

/* Give up all references, the other thread's too. False: a module of its is half open or half closed, and so stays. */
static bool
unload_for_good(alcove_allocator *allocator)
{
    int code = ALCOVE_OK;
    while (code == ALCOVE_OK && alcove_table_of(allocator) != NULL)
        code = alcove_unload(allocator, ALCOVE_UNLOAD_RELEASE);
    if (code != ALCOVE_OK && strstr(alcove_error_message(), "1 module is open: blocks_two") == NULL) {
        fprintf(stderr, "place %u: unload: %s\n", stop_at, alcove_error_message());
        _exit(1);
    }
    return code == ALCOVE_OK;
}

/* In the child of the fork. */
static void
check_child(void)
{
    pthread_t thread;
    CHECK(alcove_refresh() == 0);
    CHECK(dlsym(RTLD_DEFAULT, "malloc") == process_malloc);
    if (opened != NULL)
        module_end(opened);
    for (int round = 0; round < 2; round++) {
        alcove_allocator *allocator = allocator_load();
        struct alcove_info before, after;
        alcove_table_of(allocator)->info(&before);
        CHECK(pthread_create(&thread, NULL, use_and_end, allocator) == 0);
        CHECK(pthread_join(thread, NULL) == 0);
        alcove_table_of(allocator)->info(&after);
        CHECK(after.threads == before.threads); /* the allocator was told of the thread's end */
        module_end(plugin_open(allocator, "keeper", NULL));
        if (!unload_for_good(allocator))
            return;
    }
}

/* One thread's way through the loader, with a stop and a fork at one place. */
static void
fork_at_a_place(void)
{
    pthread_t thread;
    int status;
    pthread_barrier_init(&barrier, NULL, 2);
    CHECK(pthread_create(&thread, NULL, use_the_loader, NULL) == 0);
    pthread_barrier_wait(&barrier);
    pid_t child = fork();
    if (child == 0) {
        alarm(CHILD_SECONDS);
        check_child();
        _exit(0);
    }
    pthread_barrier_wait(&barrier);
    pthread_join(thread, NULL);
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

static void
count_places(void)
{
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, use_the_loader, NULL) == 0);
    pthread_join(thread, NULL);
}

static void
fork_at_each_place(void)
{
    stop_at = UINT32_MAX;
    count_places();
    unsigned last = places;
    CHECK(last > 20);
    for (stop_at = 0; stop_at < last; stop_at++) {
        places = 0;
        fork_at_a_place();
    }
}

/* Each in a process of its own, which has never loaded an allocator. */
static void
test_fork_while_the_first_allocator_is_loaded(void **state)
{
    enum { FIRST_PLACES = 20 }; /* until it is loaded */
    (void)state;
    SKIP_FORK_OF_THREADS_IF_EMULATED();
    for (stop_at = 0; stop_at < FIRST_PLACES; stop_at++)
        in_child(fork_at_a_place);
}

static void
test_fork_while_another_thread_loads_and_unloads(void **state)
{
    (void)state;
    SKIP_FORK_OF_THREADS_IF_EMULATED();
    in_child(fork_at_each_place);
}

static void
fork_at_each_place_of_a_loaded_one(void)
{
    alcove_allocator *allocator = allocator_load();
    opened = plugin_open(allocator, "blocks", NULL);
    fork_at_each_place();
    module_end(opened);
    CHECK(alcove_unload(allocator, 0) == 0);
}

static void
test_fork_while_another_thread_uses_the_loader(void **state)
{
    (void)state;
    SKIP_FORK_OF_THREADS_IF_EMULATED();
    in_child(fork_at_each_place_of_a_loaded_one);
}

/* In the child the call of the loader's in which the fork was goes on. */
static const char *
fork_and_find(void *child)
{
    *(pid_t *)child = fork();
    if (*(pid_t *)child == 0)
        alarm(CHILD_SECONDS);
    return allocator_path();
}

static void
fork_in_a_search(void)
{
    pid_t child = -1;
    int status = 0;
    alcove_allocator *allocator;
    struct alcove_load_options options = {.size = sizeof options, .search = fork_and_find, .context = &child};
    CHECK(alcove_load(&allocator, &options) == 0);
    for (int i = 0; i < 3; i++) {
        CHECK(alcove_unload(allocator, 0) == 0);
        allocator = allocator_load();
    }
    if (child == 0)
        _exit(0);
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

static void
test_fork_within_a_load(void **state)
{
    (void)state;
    in_child(fork_in_a_search);
}

static void
fork_with_an_older_handler(void)
{
    alcove_allocator *allocator = allocator_load();
    int status;
    asks_at_forks = true;
    for (int i = 0; i < 3; i++) {
        unloads_at_forks = i > 0;
        pid_t child = fork();
        if (child == 0)
            _exit(asked != 2 * (unsigned)i + 2 || waits != 0);
        CHECK(waitpid(child, &status, 0) == child && status == 0);
    }
    asks_at_forks = false;
    CHECK(asked == 6 && waits == 0);
    CHECK(alcove_unload(allocator, 0) == 0);
}

static void
test_older_fork_handler_asks_the_loader(void **state)
{
    (void)state;
#ifndef __GLIBC__
    SKIP_BECAUSE("musl calls nothing of a program's before the constructors of libraries");
#endif
    in_child(fork_with_an_older_handler);
}

static atomic_bool forked_enough;

/* Start threads, fork over and over among them, each child doing something, and end them. */
static void
fork_among(void *(*const *bodies)(void *), unsigned threads, unsigned forks, void (*in_each)(void))
{
    enum { MOST = 16 };
    pthread_t ids[MOST];
    int status;
    CHECK(threads <= MOST);
    atomic_store(&forked_enough, false);
    for (unsigned i = 0; i < threads; i++)
        CHECK(pthread_create(&ids[i], NULL, bodies[i], NULL) == 0);
    for (unsigned i = 0; i < forks; i++) {
        pid_t child = fork();
        if (child == 0) {
            alarm(CHILD_SECONDS);
            in_each();
            _exit(0);
        }
        CHECK(waitpid(child, &status, 0) == child && status == 0);
    }
    atomic_store(&forked_enough, true);
    for (unsigned i = 0; i < threads; i++)
        pthread_join(ids[i], NULL);
}

/* Threads that ask, on and on, which objects there are: no child finds the dynamic linker's lock taken. */

static void *
ask_on_and_on(void *unused)
{
    while (!atomic_load(&forked_enough))
        CHECK(alcove_refresh() == 0);
    return unused;
}

static void
fork_amid_walks(void)
{
    static void *(*const bodies[])(void *) = {ask_on_and_on, ask_on_and_on, ask_on_and_on, ask_on_and_on};
    alcove_allocator *allocator = allocator_load();
    opened = plugin_open(allocator, "blocks", NULL);
    fork_among(bodies, 4, 200, check_child);
    module_end(opened);
    CHECK(alcove_unload(allocator, 0) == 0);
}

static void
test_fork_while_threads_ask_which_objects_there_are(void **state)
{
    (void)state;
    SKIP_FORK_OF_THREADS_IF_EMULATED();
    in_child(fork_amid_walks);
}

/* A thread for each kind of call, on and on: of the dynamic linker, too, none of whose locks a child finds taken. */

static void *
look_up(void *unused)
{
    while (!atomic_load(&forked_enough)) {
        CHECK(alcove_module_symbol(opened, "blocks_make") != NULL);
        CHECK(alcove_module_symbol(opened, "there_is_none") == NULL);
    }
    return unused;
}

static void *
open_and_close(void *unused)
{
    while (!atomic_load(&forked_enough)) {
        alcove_allocator *allocator = allocator_load();
        module_end(plugin_open(allocator, "blocks_two", NULL));
        CHECK(alcove_unload(allocator, 0) == 0);
    }
    return unused;
}

static void *
open_in_vain(void *unused)
{
    alcove_module *module;
    while (!atomic_load(&forked_enough)) {
        CHECK(alcove_module_open(loaded, "there-is-none.so", NULL, &module) == ALCOVE_ENOENT);
        CHECK(strstr(alcove_error_message(), "there-is-none.so") != NULL);
    }
    return unused;
}

static void *
ask_for_figures(void *unused)
{
    while (!atomic_load(&forked_enough))
        CHECK(stats_of(opened).size != 0 && alcove_module_heap(opened) != ALCOVE_HEAP_NONE);
    return unused;
}

static void
check_child_of_all(void)
{
    CHECK(stats_of(opened).size != 0 && alcove_module_heap(opened) != ALCOVE_HEAP_NONE);
    CHECK(CALL(opened, blocks_make) != NULL && alcove_table_of(loaded) != NULL);
    CHECK(alcove_module_limit(opened, 1 << 20) == 0);
    CHECK(alcove_unload(loaded, 99) == ALCOVE_EINVAL && strstr(alcove_error_message(), "0x63") != NULL);
    check_child();
}

static void
fork_amid_all(void)
{
    static void *(*const bodies[])(void *) = {ask_on_and_on, look_up, open_and_close, open_in_vain, ask_for_figures};
    loaded = allocator_load();
    opened = plugin_open(loaded, "blocks", NULL);
    fork_among(bodies, sizeof bodies / sizeof bodies[0], 300, check_child_of_all);
    module_end(opened);
    CHECK(alcove_unload(loaded, 0) == 0);
}

static void
test_fork_while_threads_are_in_every_call(void **state)
{
    (void)state;
    SKIP_FORK_OF_THREADS_IF_EMULATED();
    in_child(fork_amid_all);
}

/* No module is open: it is loaded for the first time and unloaded for good. */
static void
load_and_unload_once(void)
{
    CHECK(alcove_unload(allocator_load(), 0) == 0);
}

static void *
load_and_unload(void *unused)
{
    while (!atomic_load(&forked_enough))
        load_and_unload_once();
    return unused;
}

static void
fork_amid_loads(void)
{
    static void *(*const bodies[])(void *) = {load_and_unload, load_and_unload, ask_on_and_on};
#ifndef __GLIBC__
    load_and_unload_once(); /* musl refuses a child what another thread loads for the first time at the fork (doc/unloading.md) */
#endif
    fork_among(bodies, sizeof bodies / sizeof bodies[0], 300, check_child);
}

static void
test_fork_while_threads_load_and_unload(void **state)
{
    (void)state;
    SKIP_FORK_OF_THREADS_IF_EMULATED();
    in_child(fork_amid_loads);
}

/* A stream that waits for the module's heap, a flush of all that waits for the stream, and a fork that waits for both: not in a circle. */
static __typeof__(&blocks_longest_line) longest_line;
static __typeof__(&blocks_release) release;
static char lines_path[] = "/tmp/alcove-lines-XXXXXX";

static void *
read_lines(void *unused)
{
    size_t lines;
    while (!atomic_load(&forked_enough))
        release(longest_line(lines_path, 1, &lines));
    return unused;
}

static void *
flush_all(void *unused)
{
    while (!atomic_load(&forked_enough))
        fflush(NULL);
    return unused;
}

/* The list of streams is good in the child. */
static void
use_streams(void)
{
    size_t lines;
    CHECK(fflush(NULL) == 0);
    release(longest_line(lines_path, 1, &lines));
    CHECK(lines == 100);
}

static void
write_lines(void)
{
    int file = mkstemp(lines_path);
    FILE *out = fdopen(file, "w");
    CHECK(out != NULL);
    for (int i = 0; i < 100; i++)
        fprintf(out, "%*d\n", i * 100, i);
    CHECK(fclose(out) == 0);
}

static void
fork_amid_streams(void)
{
    static void *(*const bodies[])(void *) = {read_lines, read_lines, read_lines, read_lines, flush_all, flush_all};
    alcove_allocator *allocator = allocator_load();
    opened = plugin_open(allocator, "blocks", NULL);
    longest_line = CALL(opened, blocks_longest_line);
    release = CALL(opened, blocks_release);
    fork_among(bodies, 6, 300, use_streams);
    module_end(opened);
    CHECK(alcove_unload(allocator, 0) == 0);
}

static void
test_fork_while_a_module_reads_lines_and_all_streams_are_flushed(void **state)
{
    (void)state;
    SKIP_FORK_OF_THREADS_IF_EMULATED();
#ifndef __GLIBC__
    SKIP_BECAUSE("musl locks its list of streams after every fork handler, so it cannot be had before the heaps");
#endif
    write_lines();
    in_child(fork_amid_streams);
    unlink(lines_path);
}

int
main(void)
{
    process_malloc = dlsym(RTLD_DEFAULT, "malloc");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fork_while_the_first_allocator_is_loaded),
        cmocka_unit_test(test_fork_while_another_thread_loads_and_unloads),
        cmocka_unit_test(test_fork_while_another_thread_uses_the_loader),
        cmocka_unit_test(test_fork_within_a_load),
        cmocka_unit_test(test_older_fork_handler_asks_the_loader),
        cmocka_unit_test(test_fork_while_threads_ask_which_objects_there_are),
        cmocka_unit_test(test_fork_while_threads_are_in_every_call),
        cmocka_unit_test(test_fork_while_threads_load_and_unload),
        cmocka_unit_test(test_fork_while_a_module_reads_lines_and_all_streams_are_flushed),
    };
    mutex_unlock = (int (*)(pthread_mutex_t *))dlsym(RTLD_NEXT, "pthread_mutex_unlock");
    rwlock_trywrlock = (int (*)(pthread_rwlock_t *))dlsym(RTLD_NEXT, "pthread_rwlock_trywrlock");
    rwlock_unlock = (int (*)(pthread_rwlock_t *))dlsym(RTLD_NEXT, "pthread_rwlock_unlock");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
