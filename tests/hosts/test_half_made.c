/*
 * Objects that another thread's dlopen is still at: the loader leaves them alone until they are done, and guards them then. An
 * import that were written too early would have its page made read-only while the dynamic linker has to write there.
 *
 * The loader calls this program's dlopen and dlclose for the dynamic linker's, which know what is to happen meanwhile.
 */
#include "host.h"

#include <dlfcn.h>
#include <link.h>
#include <pthread.h>
#include <stdbool.h>

#include "../plugins/blocks.h"
#include "../plugins/half_made.h"
#include "routed.h"
#include "tests/child.h"

#define SKIP_IF_NONE_IS_HALF_MADE()                                                        \
    do {                                                                                   \
        if (!HALF_MADE_POSSIBLE)                                                           \
            SKIP_BECAUSE("nothing of an object's is called while this libc relocates it"); \
    } while (0)

static void *(*real_dlopen)(const char *, int);
static int (*real_dlclose)(void *);
static int (*real_walk)(int (*)(struct dl_phdr_info *, size_t, void *), void *);

/* Done once, when the allocator is loaded and the loader is going to look at the objects, when it is going to wait for what others open, and
 * when it has waited. */
static void (*before_look)(void), (*before_wait)(void), (*after_wait)(void);
static bool is_open; /* the allocator's file has just been opened */

static void
do_once(void (**what)(void))
{
    void (*now)(void) = *what;
    *what = NULL;
    if (now != NULL)
        now();
}

void *
dlopen(const char *path, int mode)
{
    if (path == NULL)
        do_once(&before_wait);
    void *handle = real_dlopen(path, mode); /* the allocator's constructor walks over the objects, too */
    is_open = path != NULL && strcmp(path, allocator_path()) == 0;
    return handle;
}

int
dl_iterate_phdr(int (*each)(struct dl_phdr_info *, size_t, void *), void *argument)
{
    if (real_walk == NULL) /* a constructor of the loader's */
        real_walk = (int (*)(int (*)(struct dl_phdr_info *, size_t, void *), void *))dlsym(RTLD_NEXT, "dl_iterate_phdr");
    if (is_open)
        do_once(&before_look);
    return real_walk(each, argument);
}

int
dlclose(void *handle)
{
    int error = real_dlclose(handle);
    do_once(&after_wait);
    return error;
}

/* --- A thread that opens the plugin, and stops in the middle. */

static __thread bool stops;
static pthread_barrier_t barrier; /* it is in the middle; it may go on */
static pthread_t thread;
static void *half_made;

void
host_half_made(void)
{
    if (!stops)
        return;
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
}

static void *
open_and_stop(void *path)
{
    stops = true;
    return real_dlopen(path, RTLD_NOW | RTLD_LOCAL);
}

static void
half_open(void)
{
    pthread_barrier_init(&barrier, NULL, 2);
    CHECK(pthread_create(&thread, NULL, open_and_stop, (void *)plugin_path("half_made")) == 0);
    pthread_barrier_wait(&barrier);
}

static void
let_go(void)
{
    pthread_barrier_wait(&barrier);
}

/* It is as any other object: its releases are guarded. */
static void
check_what_was_opened(void)
{
    CHECK(pthread_join(thread, &half_made) == 0 && half_made != NULL);
    module = plugin_open(allocator, "blocks", NULL);
    uint64_t outside = stats_of(module).released_outside;
    CHECK(((int (*)(void))dlsym(half_made, "half_made_is_ready"))() == 1);
    ((void (*)(void *))dlsym(half_made, "half_made_release"))(CALL(module, blocks_make)(BLOCKS_MALLOC, 100));
    CHECK(stats_of(module).released_outside == outside + 1);
    module_end(module);
    CHECK(alcove_unload(allocator, 0) == 0);
    CHECK(real_dlclose(half_made) == 0);
}

/* --- */

static void
load_beside_a_half_made_object(void)
{
    before_look = half_open;
    before_wait = let_go;
    allocator = allocator_load();
    bool waited = before_wait == NULL;
    do_once(&before_wait);
    check_what_was_opened();
    CHECK(waited);
}

static void
test_loader_waits_for_a_half_made_object(void **state)
{
    (void)state;
    SKIP_IF_NONE_IS_HALF_MADE();
    load_beside_a_half_made_object();
}

static void
test_loader_of_a_forked_child_waits_for_other_threads(void **state)
{
    (void)state;
    SKIP_IF_NONE_IS_HALF_MADE();
    in_child(load_beside_a_half_made_object);
}

static void
test_object_half_made_after_the_wait_is_bound_to_guards(void **state)
{
    (void)state;
    SKIP_IF_NONE_IS_HALF_MADE();
    after_wait = half_open;
    allocator = allocator_load();
    assert_null(after_wait);
    let_go();
    check_what_was_opened();
}

/* Most likely at the same address. */
static void
close_and_half_open_again(void)
{
    CHECK(real_dlclose(half_made) == 0);
    half_open();
    before_wait = let_go;
}

static void
test_object_half_made_in_the_place_of_another_is_waited_for(void **state)
{
    (void)state;
    SKIP_IF_NONE_IS_HALF_MADE();
    half_made = real_dlopen(plugin_path("half_made"), RTLD_NOW | RTLD_LOCAL);
    assert_non_null(half_made);
    after_wait = close_and_half_open_again;
    allocator = allocator_load();
    bool waited = before_wait == NULL;
    do_once(&before_wait);
    check_what_was_opened();
    assert_true(waited);
}

static void
do_nothing(void)
{
}

static void
work_in_a_child(void)
{
    before_wait = do_nothing;
    CHECK(alcove_refresh() == 0);
    CHECK(before_wait != NULL); /* whether that would end is up to libc */
    free(CALL(module, blocks_make)(BLOCKS_MALLOC, 100));
    CHECK(stats_of(module).heap.live_blocks == 0);
}

/* The child has the object, and not the thread that would make it whole. */
static void
test_forked_child_does_not_wait_for_threads_of_its_parent(void **state)
{
    (void)state;
    SKIP_IF_NONE_IS_HALF_MADE();
    SKIP_FORK_OF_THREADS_IF_EMULATED();
    char message[1024];
    setup(state);
    half_open();
    int child = child_status(work_in_a_child, message, sizeof message);
    let_go();
    module_end(module);
    check_what_was_opened();
    if (child != 0)
        fail_msg("status 0x%x: %s", child, message);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_loader_waits_for_a_half_made_object),
        cmocka_unit_test(test_loader_of_a_forked_child_waits_for_other_threads),
        cmocka_unit_test(test_object_half_made_after_the_wait_is_bound_to_guards),
        cmocka_unit_test(test_object_half_made_in_the_place_of_another_is_waited_for),
        cmocka_unit_test(test_forked_child_does_not_wait_for_threads_of_its_parent),
    };
    real_dlopen = (void *(*)(const char *, int))dlsym(RTLD_NEXT, "dlopen");
    real_dlclose = (int (*)(void *))dlsym(RTLD_NEXT, "dlclose");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
