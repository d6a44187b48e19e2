/*
 * A program that is linked with libalcove.so, which is so there from the start of the process, and ends while its threads
 * are inside the allocator. A library whose destructor runs after the allocator's still uses it.
 */
#include "host.h"

#include <alcove/alcove.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>

#include "tests/child.h"
#include "tests/plugins/late.h"

#define THREADS 3
#define ROUNDS 20
#define BLOCKS 64

static char *left;
static atomic_uint *ends; /* that went well; shared with children */
static atomic_uint working;

static void *
work_for_ever(void *argument)
{
    unsigned seed = (unsigned)(uintptr_t)argument;
    void *blocks[BLOCKS] = {NULL};
    for (unsigned i = 0;; i++) {
        seed = seed * 1103515245 + 12345;
        void **block = &blocks[seed >> 16 & (BLOCKS - 1)];
        size_t size = 16 + (seed >> 8 & 4095);
        alcove_free(*block);
        *block = alcove_malloc(size);
        CHECK(*block != NULL);
        memset(*block, 7, size);
        if (i == 1000)
            working++;
    }
    return NULL;
}

/* The last to run in the process. */
static void
use_late(void)
{
    struct alcove_owner owner;
    usleep(10000); /* the threads work on */
    CHECK(alcove_owner(left, &owner) == 1 && owner.live);
    char *block = alcove_malloc(100);
    CHECK(block != NULL);
    alcove_free(block);
    left = alcove_realloc(left, 5000);
    CHECK(left != NULL && strcmp(left, "left") == 0);
    alcove_free(left);
    ++*ends;
}

static void
end_in_the_middle(void)
{
    pthread_t thread;
    left = alcove_malloc(100);
    strcpy(left, "left");
    late_call = use_late;
    for (uintptr_t i = 1; i <= THREADS; i++)
        CHECK(pthread_create(&thread, NULL, work_for_ever, (void *)i) == 0);
    while (working < THREADS)
        usleep(1000);
    exit(0);
}

static void
test_process_ends_while_threads_are_inside(void **state)
{
    (void)state;
    for (int i = 0; i < ROUNDS; i++)
        in_child(end_in_the_middle);
    assert_int_equal(*ends, ROUNDS);
}

/* It comes with the program, so opening and closing it once more changes nothing. */
static void
test_dlclose_of_what_the_program_needs(void **state)
{
    (void)state;
    char *block = alcove_malloc(100);
    void *handle = dlopen(allocator_path(), RTLD_NOW | RTLD_LOCAL);
    assert_non_null(handle);
    assert_int_equal(dlclose(handle), 0);
    memset(block, 1, 100);
    alcove_free(block);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_process_ends_while_threads_are_inside),
        cmocka_unit_test(test_dlclose_of_what_the_program_needs),
    };
    ends = mmap(NULL, sizeof *ends, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
