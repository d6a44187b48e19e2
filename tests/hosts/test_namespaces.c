/*
 * Who has functions of his own comes, goes, and comes again, at the same addresses as a rule: namespaces of dlmopen, which have a libc of their own, and
 * libraries with an allocator of their own. What is a module's goes home from there, whatever round it is.
 */
#include "host.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>

#include "../plugins/blocks.h"
#include "../plugins/own.h"
#include "routed.h"

enum { ROUNDS = 4 };

#if defined __GLIBC__ && (__GLIBC__ > 2 || __GLIBC_MINOR__ >= 35) && !defined __powerpc64__
#define NAMESPACES_ARE_SEEN 1
#else
#define NAMESPACES_ARE_SEEN 0
#endif

#define SKIP_IF_NAMESPACES_ARE_NOT_SEEN()                                          \
    do {                                                                           \
        if (!NAMESPACES_ARE_SEEN)                                                  \
            SKIP_BECAUSE("namespaces are not seen with this libc or processor");   \
    } while (0)

#if NAMESPACES_ARE_SEEN
/* No call of the loader's between. */
static void
release_in_namespace(void *block)
{
    void *opened = dlmopen(LM_ID_NEWLM, plugin_path("blocks"), RTLD_NOW | RTLD_LOCAL);
    if (opened == NULL)
        fail_msg("%s", dlerror());
    void *libc_free = dlsym(opened, "free");
    assert_non_null(libc_free);
    ((void (*)(void *))libc_free)(block);
    assert_int_equal(dlclose(opened), 0);
}
#endif

static void
test_namespace_that_comes_and_goes_and_comes_again(void **state)
{
    (void)state;
    SKIP_IF_NAMESPACES_ARE_NOT_SEEN();
#if NAMESPACES_ARE_SEEN
    for (uint64_t i = 1; i <= ROUNDS; i++) {
        release_in_namespace(CALL(module, blocks_make)(BLOCKS_MALLOC, 100));
        assert_int_equal(stats_of(module).heap.live_blocks, 0);
        assert_int_equal(stats_of(module).released_outside, i);
    }
#endif
}

#if NAMESPACES_ARE_SEEN
static atomic_bool done;

static void *
look_up(void *unused)
{
    while (!atomic_load(&done))
        dlsym(RTLD_DEFAULT, "no such function");
    return unused;
}
#endif

/* The list of what is in it is not to be read then. */
static void
test_namespace_is_not_taken_for_gone_while_a_thread_changes_it(void **state)
{
    (void)state;
    SKIP_IF_NAMESPACES_ARE_NOT_SEEN();
#if NAMESPACES_ARE_SEEN
    pthread_t thread;
    Lmid_t namespace;
    void *opened = dlmopen(LM_ID_NEWLM, plugin_path("blocks"), RTLD_NOW | RTLD_LOCAL);
    assert_non_null(opened);
    assert_int_equal(dlinfo(opened, RTLD_DI_LMID, &namespace), 0);
    void (*its_free)(void *) = (void (*)(void *))dlsym(opened, "free");
    void *(*its_malloc)(size_t) = (void *(*)(size_t))dlsym(opened, "malloc");
    atomic_store(&done, false);
    assert_int_equal(pthread_create(&thread, NULL, look_up, NULL), 0);
    for (int i = 0; i < 300; i++) {
        void *more = dlmopen(namespace, plugin_path("blocks_two"), RTLD_NOW | RTLD_LOCAL);
        assert_non_null(more);
        its_free(its_malloc(100));
        its_free(CALL(module, blocks_make)(BLOCKS_MALLOC, 100));
        dlclose(more);
    }
    atomic_store(&done, true);
    pthread_join(thread, NULL);
    assert_int_equal(stats_of(module).heap.live_blocks, 0);
    dlclose(opened);
#endif
}

#if NAMESPACES_ARE_SEEN
static __thread volatile int of_the_program;

static void *
look_anew(void *code)
{
    of_the_program++; /* so that the dynamic linker tells where they are */
    *(int *)code = alcove_refresh();
    return code;
}
#endif

/* The dynamic linker tells of no other namespace's thread-local variables where they are. Behind this thread's there is nothing to be read. */
static void
test_variables_of_a_namespace_are_not_looked_for_among_the_programs(void **state)
{
    (void)state;
    SKIP_IF_NAMESPACES_ARE_NOT_SEEN();
#if NAMESPACES_ARE_SEEN
    enum { STACK = 1 << 20, NOTHING = 1 << 20 };
    pthread_t thread;
    pthread_attr_t attributes;
    int code = -1;
    char *stack = mmap(NULL, STACK + NOTHING, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_ptr_not_equal(stack, MAP_FAILED);
    assert_int_equal(mprotect(stack + STACK, NOTHING, PROT_NONE), 0);
    pthread_attr_init(&attributes);
    assert_int_equal(pthread_attr_setstack(&attributes, stack, STACK), 0);
    void *opened = dlmopen(LM_ID_NEWLM, plugin_path("large_tls"), RTLD_NOW | RTLD_LOCAL);
    assert_non_null(opened);
    assert_int_equal(pthread_create(&thread, &attributes, look_anew, &code), 0);
    pthread_join(thread, NULL);
    assert_int_equal(code, ALCOVE_OK);
    dlclose(opened);
    munmap(stack, STACK + NOTHING);
#endif
}

#ifdef RTLD_DEEPBIND
#define SCOPE RTLD_DEEPBIND
#else
#define SCOPE 0
#endif

static void
test_library_with_an_allocator_of_its_own_comes_again(void **state)
{
    (void)state;
    if (SCOPE == 0)
        SKIP_BECAUSE("with this libc no library has a scope of its own");
    for (uint64_t i = 1; i <= ROUNDS; i++) {
        void *own = dlopen(plugin_path("own"), RTLD_NOW | RTLD_LOCAL | SCOPE);
        assert_non_null(own);
#ifdef __powerpc64__ /* where no lookup is seen */
        assert_ok(alcove_refresh());
#endif
        void (*its_free)(void *) = (void (*)(void *))dlsym(own, "free");
        void *(*its_malloc)(size_t) = (void *(*)(size_t))dlsym(own, "malloc");
        unsigned *live = dlsym(own, "own_live");
        its_free(CALL(module, blocks_make)(BLOCKS_MALLOC, 100));
        assert_int_equal(stats_of(module).released_outside, i);
        void *block = its_malloc(100);
        assert_int_equal(*live, 1);
        its_free(block);
        assert_int_equal(*live, 0);
        dlclose(own);
    }
}

int
main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_variables_of_a_namespace_are_not_looked_for_among_the_programs), /* the first, when no namespace is known yet */
        TEST(test_namespace_that_comes_and_goes_and_comes_again),
        TEST(test_namespace_is_not_taken_for_gone_while_a_thread_changes_it),
        TEST(test_library_with_an_allocator_of_its_own_comes_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
