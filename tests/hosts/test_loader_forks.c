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

static int (*mutex_unlock)(pthread_mutex_t *), (*rwlock_unlock)(pthread_rwlock_t *);

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

int
pthread_rwlock_unlock(pthread_rwlock_t *lock)
{
    place();
    int error = rwlock_unlock(lock);
    place();
    return error;
}

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
    if (opened != NULL)
        module_end(opened);
    for (int round = 0; round < 2; round++) {
        alcove_allocator *allocator = allocator_load();
        CHECK(pthread_create(&thread, NULL, use_and_end, allocator) == 0);
        CHECK(pthread_join(thread, NULL) == 0);
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

/* Threads that ask, on and on, which objects there are: no child finds the dynamic linker's lock taken. */
static atomic_bool forked_enough;

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
    enum { THREADS = 4, FORKS = 200 };
    alcove_allocator *allocator = allocator_load();
    opened = plugin_open(allocator, "blocks", NULL);
    pthread_t threads[THREADS];
    int status;
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, ask_on_and_on, NULL) == 0);
    for (int i = 0; i < FORKS; i++) {
        pid_t child = fork();
        if (child == 0) {
            alarm(CHILD_SECONDS);
            check_child();
            _exit(0);
        }
        CHECK(waitpid(child, &status, 0) == child && status == 0);
    }
    atomic_store(&forked_enough, true);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
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

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fork_while_the_first_allocator_is_loaded),
        cmocka_unit_test(test_fork_while_another_thread_loads_and_unloads),
        cmocka_unit_test(test_fork_while_another_thread_uses_the_loader),
        cmocka_unit_test(test_fork_while_threads_ask_which_objects_there_are),
    };
    mutex_unlock = (int (*)(pthread_mutex_t *))dlsym(RTLD_NEXT, "pthread_mutex_unlock");
    rwlock_unlock = (int (*)(pthread_rwlock_t *))dlsym(RTLD_NEXT, "pthread_rwlock_unlock");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
