/*
 * Loading without the loader: wherever, however and however often the module is opened, it works, and
 * can be closed again.
 */
#include "module.h"

#include <link.h>
#include <pthread.h>
#include <sys/wait.h>

#include "config.h"
#include "tests/plugins/opener.h"
#include "tests/work.h"

#ifndef RTLD_DEEPBIND /* of glibc alone, as namespaces are */
#define RTLD_DEEPBIND 0
#endif
#ifdef LM_ID_NEWLM
#define HAVE_NAMESPACES 1
#else
#define HAVE_NAMESPACES 0
#define LM_ID_NEWLM 0
#define dlmopen(space, path, flags) NULL
#endif
#define SKIP_WITHOUT_NAMESPACES()                            \
    do {                                                     \
        if (!HAVE_NAMESPACES)                                \
            SKIP_BECAUSE("this libc has no dlmopen");        \
    } while (0)

/* glibc alone has room left for a library that comes later. */
#ifdef __GLIBC__
#define CAN_BE_STATIC (ALCOVE_HAVE_TLSDESC && !ALCOVE_FORCE_DYNAMIC_TLS)
#else
#define CAN_BE_STATIC 0
#endif

static const char *
plugin_path(const char *name)
{
    static char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s.so", getenv("ALCOVE_TEST_PLUGINS"), name);
    return path;
}

static bool
works_in_thread(const struct alcove_table *t)
{
    pthread_t thread;
    void *result = NULL;
    if (pthread_create(&thread, NULL, allocator_works_in_thread, (void *)(uintptr_t)t) != 0)
        return false;
    pthread_join(thread, &result);
    return result != NULL;
}

static bool
module_is_mapped(void)
{
    return mappings_with(strrchr(module_path(), '/')) != 0;
}

static const char *
tls_of(const struct alcove_table *t)
{
    struct alcove_info info;
    t->info(&info);
    return info.tls;
}

/* Open, use from two threads, close. */
static void
cycle(void)
{
    void *handle;
    const struct alcove_table *t = module_open(module_path(), &handle);
    assert_non_null(t);
    assert_true(allocator_works(t));
    assert_true(works_in_thread(t));
    assert_int_equal(dlclose(handle), 0);
    assert_int_equal(module_is_mapped(), !DLCLOSE_UNLOADS);
}

static void
test_every_flag_of_dlopen(void **unused)
{
    (void)unused;
    static const int binding[] = { RTLD_LAZY, RTLD_NOW }, others[] = { RTLD_LOCAL, RTLD_GLOBAL, RTLD_DEEPBIND,
                                                                       RTLD_GLOBAL | RTLD_DEEPBIND };
    void *(*libc_malloc)(size_t) = (void *(*)(size_t))dlsym(RTLD_DEFAULT, "malloc");
    for (unsigned i = 0; i < 8; i++) {
        int flags = binding[i % 2] | others[i / 2];
        void *handle = dlopen(module_path(), flags);
        assert_non_null(handle);
        const struct alcove_table *t = symbol_of(handle, "table");
        assert_true(allocator_works(t));
        assert_true(works_in_thread(t));
        /* Even global, it takes libc's place for nobody. */
        assert_ptr_equal(dlsym(RTLD_DEFAULT, "malloc"), (void *)libc_malloc);
        assert_int_equal(dlclose(handle), 0);
        assert_int_equal(module_is_mapped(), !DLCLOSE_UNLOADS);
    }
}

struct passed {
    void *handle;
    const struct alcove_table *table;
    void *block;
};

static void *
load_and_allocate(void *argument)
{
    struct passed *passed = argument;
    passed->table = module_open(module_path(), &passed->handle);
    if (passed->table == NULL || !allocator_works(passed->table))
        return NULL;
    passed->block = passed->table->malloc(5000);
    return passed->block;
}

static void *
free_and_unload(void *argument)
{
    struct passed *passed = argument;
    passed->table->free(passed->block);
    return allocator_works(passed->table) && dlclose(passed->handle) == 0 ? argument : NULL;
}

static void
test_loaded_by_one_thread_and_unloaded_by_another(void **unused)
{
    (void)unused;
    struct passed passed;
    pthread_t thread;
    void *result;
    assert_int_equal(pthread_create(&thread, NULL, load_and_allocate, &passed), 0);
    pthread_join(thread, &result);
    assert_non_null(result);
    assert_true(allocator_works(passed.table));
    assert_int_equal(pthread_create(&thread, NULL, free_and_unload, &passed), 0);
    pthread_join(thread, &result);
    assert_ptr_equal(result, &passed);
    assert_int_equal(module_is_mapped(), !DLCLOSE_UNLOADS);
}

static void
test_loaded_by_the_constructor_of_a_library(void **unused)
{
    (void)unused;
    void *opener = dlopen(plugin_path("opener"), RTLD_NOW | RTLD_LOCAL);
    assert_non_null(opener);
    const struct alcove_table *t = *(const struct alcove_table **)dlsym(opener, "opener_table");
    assert_non_null(t);
    struct alcove_owner owner;
    assert_int_equal(t->owner(*(void **)dlsym(opener, "opener_block"), &owner), 1);
    assert_true(allocator_works(t));
    assert_true(works_in_thread(t));
    assert_int_equal(dlclose(opener), 0); /* and its destructor unloads it */
    assert_int_equal(module_is_mapped(), !DLCLOSE_UNLOADS);
}

/* glibc has room for the libcs of four namespaces: three beside the program's. */
#define NAMESPACES 3
static void *spaces[NAMESPACES];
static const struct alcove_table *in_space[NAMESPACES];

static int
open_in_namespaces(void **unused)
{
    (void)unused;
    for (int i = 0; HAVE_NAMESPACES && i < NAMESPACES; i++) {
        spaces[i] = dlmopen(LM_ID_NEWLM, module_path(), RTLD_NOW | RTLD_LOCAL);
        if (spaces[i] == NULL) {
            print_error("namespace %d: %s\n", i, dlerror());
            return -1;
        }
        in_space[i] = symbol_of(spaces[i], "table");
    }
    return 0;
}

static int
close_in_namespaces(void **unused)
{
    (void)unused;
    for (int i = 0; HAVE_NAMESPACES && i < NAMESPACES; i++)
        if (dlclose(spaces[i]) != 0)
            return -1;
    return 0;
}

static void
test_several_namespaces_at_once(void **unused)
{
    (void)unused;
    SKIP_WITHOUT_NAMESPACES();
    const struct alcove_table *tables[NAMESPACES + 1];
    void *blocks[NAMESPACES + 1], *handle;
    struct alcove_owner owner;
    memcpy(tables, in_space, sizeof in_space);
    tables[NAMESPACES] = module_open(module_path(), &handle);
    for (int round = 0; round < 3; round++)
        for (int i = 0; i <= NAMESPACES; i++) {
            assert_true(allocator_works(tables[i]));
            assert_true(works_in_thread(tables[i]));
        }
    for (int i = 0; i <= NAMESPACES; i++)
        assert_non_null(blocks[i] = tables[i]->malloc(100));
    for (int i = 0; i <= NAMESPACES; i++)
        for (int j = 0; j <= NAMESPACES; j++)
            assert_int_equal(tables[i]->owner(blocks[j], &owner), i == j);
    for (int i = 0; i <= NAMESPACES; i++)
        tables[i]->free(blocks[i]);
    assert_int_equal(dlclose(handle), 0);
}

/* A second libc numbers its keys from 0 again, but they are places in the same threads as the first's. */
static void
test_thread_keys_of_the_program_are_its_own_beside_a_namespace(void **unused)
{
    (void)unused;
    SKIP_WITHOUT_NAMESPACES();
    pthread_key_t keys[8];
    for (int i = 0; i < 8; i++) {
        assert_int_equal(pthread_key_create(&keys[i], NULL), 0);
        assert_int_equal(pthread_setspecific(keys[i], &keys[i]), 0);
    }
    for (int i = 0; i < NAMESPACES; i++)
        in_space[i]->free(in_space[i]->malloc(100));
    for (int i = 0; i < 8; i++) {
        assert_ptr_equal(pthread_getspecific(keys[i]), &keys[i]);
        pthread_key_delete(keys[i]);
    }
}

static void
test_threads_that_used_it_in_a_namespace_are_forgotten(void **unused)
{
    (void)unused;
    SKIP_WITHOUT_NAMESPACES();
    for (int i = 0; i < 50; i++)
        assert_true(works_in_thread(in_space[0]));
    assert_int_equal(threads_settled(in_space[0], 0), 0);
}

static void *
take_four(void *blocks)
{
    for (int i = 0; i < 4; i++)
        ((void **)blocks)[i] = in_space[0]->malloc(64);
    return NULL;
}

/* The program's fork runs no handler of a namespace's libc. The child's threads are not to take its first one's record. */
static void
test_threads_of_a_child_beside_a_namespace(void **unused)
{
    (void)unused;
    SKIP_WITHOUT_NAMESPACES();
    in_space[0]->free(in_space[0]->malloc(64));
    pid_t child = fork();
    if (child == 0) {
        void *blocks[4], *mine = in_space[0]->malloc(64);
        pthread_t thread;
        in_space[0]->free(mine);
        if (pthread_create(&thread, NULL, take_four, blocks) != 0)
            _exit(2);
        pthread_join(thread, NULL);
        _exit(blocks[0] == NULL || blocks[0] == mine || in_space[0]->malloc(64) != mine);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

#define in_namespaces(function) cmocka_unit_test_setup_teardown(function, open_in_namespaces, close_in_namespaces)

#define COPIES 200

/* Every copy reads options of its own, and has a heap with a name and a limit of its own. */
static void
test_two_hundred_copies_with_heaps_and_options_of_their_own(void **unused)
{
    (void)unused;
    static void *handles[COPIES];
    static const struct alcove_table *tables[COPIES];
    static uint32_t heaps[COPIES];
    static void *blocks[COPIES];
    char folder[] = "/tmp/alcove-copies-XXXXXX", path[64];
    assert_non_null(mkdtemp(folder));
    for (int i = 0; i < COPIES; i++) {
        snprintf(path, sizeof path, "%s/allocator%d.so", folder, i);
        options_set(i % 2 != 0 ? "tcache:false" : "tcache:true");
        assert_true(module_copy(path));
        tables[i] = module_open(path, &handles[i]);
        assert_non_null(tables[i]);
    }
    options_set(NULL);
    for (int i = 0; i < COPIES; i++) {
        snprintf(path, sizeof path, "%s/allocator%d.so", folder, i);
        unlink(path);
    }
    rmdir(folder);

    for (int i = 0; i < COPIES; i++) {
        const struct alcove_heap_options options = { .limit = (uint64_t)(i + 1) << 20 };
        assert_int_equal(tables[i]->heap_create(&options, &heaps[i]), 0);
        assert_non_null(blocks[i] = tables[i]->heap_malloc(heaps[i], (size_t)i * 100 + 1));
        tables[i]->free(tables[i]->heap_malloc(heaps[i], 10)); /* is kept where there are caches */
    }
    for (int i = 0; i < COPIES; i++) {
        struct alcove_heap_stats s;
        assert_int_equal(tables[i]->heap_stats(heaps[i], &s), 0);
        assert_int_equal(s.limit, (uint64_t)(i + 1) << 20);
        assert_int_equal(s.live_blocks, 1);
        assert_int_equal(s.live_bytes, tables[i]->malloc_usable_size(blocks[i]));
        assert_int_equal(s.cached_bytes != 0, i % 2 == 0);
        assert_null(tables[i]->heap_malloc(heaps[i], (size_t)(i + 1) << 20));
        tables[i]->free(blocks[i]);
        assert_int_equal(tables[i]->heap_destroy(heaps[i]), 0);
        assert_true(allocator_works(tables[i]));
    }
    for (int i = 0; i < COPIES; i += 20)
        assert_true(works_in_thread(tables[i]));
    for (int i = 0; i < COPIES; i++)
        assert_int_equal(dlclose(handles[i]), 0);
    assert_int_equal(mappings_with(folder) != 0, !DLCLOSE_UNLOADS);
}

/* Its own functions are in its table, not those of the same name that the program or another library shows. */
static void
test_copy_beside_one_whose_names_are_global(void **unused)
{
    (void)unused;
    char path[] = "/tmp/alcove-copy-XXXXXX";
    void *global = dlopen(module_path(), RTLD_NOW | RTLD_GLOBAL), *handle;
    int file = mkstemp(path);
    assert_true(file >= 0);
    close(file);
    assert_non_null(global);
    const struct alcove_table *t = symbol_of(global, "table");
    assert_true(module_copy(path));
    const struct alcove_table *copy = module_open(path, &handle);
    unlink(path);
    assert_non_null(copy);
    struct alcove_owner owner;
    void *block = copy->malloc(100);
    assert_int_equal(copy->owner(block, &owner), 1);
    assert_int_equal(t->owner(block, &owner), 0);
    copy->free(block);
    assert_int_equal(dlclose(handle), 0);
    assert_int_equal(dlclose(global), 0);
}

static atomic_bool stop;
static atomic_uint started;

static void *
do_nothing(void *result)
{
    atomic_fetch_add(&started, 1);
    return result;
}

static void *
make_threads(void *unused)
{
    (void)unused;
    while (!stop) {
        pthread_t threads[4];
        for (int i = 0; i < 4; i++)
            if (pthread_create(&threads[i], NULL, do_nothing, NULL) != 0)
                return NULL;
        for (int i = 0; i < 4; i++)
            pthread_join(threads[i], NULL);
    }
    return &stop;
}

/* libc gives each of them its place in static TLS, or not, while the module comes and goes. */
static void
test_threads_are_created_meanwhile(void **unused)
{
    (void)unused;
    pthread_t maker;
    void *result;
    stop = false;
    started = 0;
    assert_int_equal(pthread_create(&maker, NULL, make_threads, NULL), 0);
    for (unsigned cycles = 0; cycles < 100 || started < 400; cycles++) {
        void *handle;
        const struct alcove_table *t = module_open(module_path(), &handle);
        assert_non_null(t);
        assert_true(allocator_works(t));
        if (cycles % 8 == 0)
            assert_true(works_in_thread(t));
        assert_int_equal(dlclose(handle), 0);
    }
    stop = true;
    pthread_join(maker, &result);
    assert_ptr_equal(result, &stop);
    assert_int_equal(module_is_mapped(), !DLCLOSE_UNLOADS);
}

static pthread_barrier_t barrier;
static const struct alcove_table *shared;

static void *
wait_and_work(void *unused)
{
    (void)unused;
    pthread_barrier_wait(&barrier); /* all are there */
    pthread_barrier_wait(&barrier); /* and now the module is, too */
    bool good = allocator_works(shared);
    pthread_barrier_wait(&barrier);
    return good ? &barrier : NULL;
}

#define THREADS 16

static void
test_threads_that_were_there_before_it_and_that_come_after_it(void **unused)
{
    (void)unused;
    pthread_t threads[THREADS];
    void *handle, *result;
    pthread_barrier_init(&barrier, NULL, THREADS + 1);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, wait_and_work, NULL), 0);
    pthread_barrier_wait(&barrier);
    shared = module_open(module_path(), &handle);
    assert_non_null(shared);
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], &result);
        assert_ptr_equal(result, &barrier);
    }
    for (int i = 0; i < THREADS; i++)
        assert_true(works_in_thread(shared));
    pthread_barrier_destroy(&barrier);
    assert_int_equal(dlclose(handle), 0);
    assert_int_equal(module_is_mapped(), !DLCLOSE_UNLOADS);
}

/* libc does not take back what it gave of its optional static TLS, so it runs out. */
static void
test_reloads_beyond_the_optional_static_tls(void **unused)
{
    (void)unused;
    unsigned with_static = 0;
    for (int i = 0; i < 150; i++) {
        void *handle;
        const struct alcove_table *t = module_open(module_path(), &handle);
        assert_non_null(t);
        bool is_static = strcmp(tls_of(t), "static") == 0;
        assert_true(is_static == (with_static == (unsigned)i) || !is_static); /* never again, once it was not */
        with_static += is_static;
        assert_true(allocator_works(t));
        assert_true(works_in_thread(t));
        assert_int_equal(dlclose(handle), 0);
    }
    assert_true(with_static < 100);
    cycle();
}

/* Libraries that insist on static TLS take what there is, until libc refuses one. */
static void
test_static_tls_surplus_used_up(void **unused)
{
    (void)unused;
#ifndef __GLIBC__
    SKIP_BECAUSE("this libc has no static TLS to spare");
#endif
    char folder[] = "/tmp/alcove-surplus-XXXXXX", from[PATH_MAX], to[64], command[PATH_MAX + 128];
    void *takers[500];
    int n = 0;
    assert_non_null(mkdtemp(folder));
    snprintf(from, sizeof from, "%s", plugin_path("static_tls"));
    for (;; n++) {
        assert_true(n < 500);
        snprintf(to, sizeof to, "%s/%d.so", folder, n);
        assert_true(file_copy(from, to));
        takers[n] = dlopen(to, RTLD_NOW | RTLD_LOCAL);
        if (takers[n] == NULL)
            break;
    }
    assert_non_null(strstr(dlerror(), "static TLS"));
    assert_true(n > 0);
    snprintf(command, sizeof command, "rm -r %s", folder);
    assert_int_equal(system(command), 0);

    void *handle;
    const struct alcove_table *t = module_open(module_path(), &handle);
    assert_non_null(t);
    assert_string_equal(tls_of(t), "dynamic");
    assert_true(allocator_works(t));
    assert_true(works_in_thread(t));
    assert_int_equal(dlclose(handle), 0);
    cycle();
    while (n-- > 0)
        dlclose(takers[n]);
}

/* What was loaded first has the static place that libc has left for it, if the build can use it. */
static void
test_first_load_has_static_tls(void **unused)
{
    (void)unused;
    void *handle;
    const struct alcove_table *t = module_open(module_path(), &handle);
    assert_non_null(t);
    assert_string_equal(tls_of(t), CAN_BE_STATIC ? "static" : "dynamic");
    assert_int_equal(dlclose(handle), 0);
}

/* What a loader of another ABI version lends is refused, and nothing is changed by that. */
static void
test_services_that_do_not_fit_are_refused(void **unused)
{
    (void)unused;
    SKIP_WITHOUT_UNLOADING(); /* it must not have been in use */
    void *handle;
    const struct alcove_table *t = module_open(module_path(), &handle);
    assert_non_null(t);
    struct alcove_services good = { .abi_version = ALCOVE_ABI_VERSION, .size = sizeof good };
    struct alcove_services bad[] = { good, good, good, good };
    bad[0].abi_version++;
    bad[1].abi_version--;
    bad[2].size = ALCOVE_SERVICES_FIRST - 8;
    bad[3].size = sizeof good - 4;
    for (int i = 0; i < 4; i++)
        assert_int_equal(t->attach(&bad[i]), EINVAL);
    assert_int_equal(t->attach(NULL), EINVAL);
    assert_int_equal(t->attach(&good), 0);
    t->free(t->malloc(100));
    assert_int_equal(t->attach(&good), EBUSY); /* it is in use */
    assert_int_equal(t->detach(), 0);
    assert_int_equal(dlclose(handle), 0);
}

/* A loader that knows of forks may come when one has passed the allocator's own handler, whose locks that holds then. It has one
 * when it is loaded, or beside a loader when figures are asked for. */
static const struct alcove_table *attached_at_fork;
static const struct alcove_services of_forks = { .abi_version = ALCOVE_ABI_VERSION, .size = sizeof of_forks, .forks = 1 };
static int attached;

static void
attach_at_fork(void)
{
    if (attached_at_fork != NULL)
        attached = attached_at_fork->attach(&of_forks);
}

static void
test_services_of_forks_come_in_the_middle_of_a_fork(void **unused)
{
    (void)unused;
    SKIP_WITHOUT_UNLOADING(); /* it must not have been in use */
    void *handle;
    assert_int_equal(pthread_atfork(attach_at_fork, NULL, NULL), 0); /* before it is loaded, so called after its own */
    const struct alcove_table *t = attached_at_fork = module_open(module_path(), &handle);
    assert_non_null(t);
    struct alcove_info info;
    t->info(&info);
    for (int round = 0; round < 2; round++) {
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0)
            _exit(attached != EAGAIN || t->attach(&of_forks) != 0 || t->malloc(100) == NULL);
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_int_equal(status, 0);
    }
    attached_at_fork = NULL;
    assert_int_equal(attached, EAGAIN);
    assert_int_equal(t->attach(&of_forks), 0);
    t->free(t->malloc(100));
    assert_int_equal(t->detach(), 0);
    assert_int_equal(dlclose(handle), 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_first_load_has_static_tls),
        in_namespaces(test_several_namespaces_at_once),
        in_namespaces(test_thread_keys_of_the_program_are_its_own_beside_a_namespace),
        in_namespaces(test_threads_that_used_it_in_a_namespace_are_forgotten),
        in_namespaces(test_threads_of_a_child_beside_a_namespace),
        cmocka_unit_test(test_threads_that_were_there_before_it_and_that_come_after_it),
        cmocka_unit_test(test_services_that_do_not_fit_are_refused),
        cmocka_unit_test(test_services_of_forks_come_in_the_middle_of_a_fork),
        cmocka_unit_test(test_every_flag_of_dlopen),
        cmocka_unit_test(test_loaded_by_one_thread_and_unloaded_by_another),
        cmocka_unit_test(test_loaded_by_the_constructor_of_a_library),
        cmocka_unit_test(test_threads_are_created_meanwhile),
        cmocka_unit_test(test_copy_beside_one_whose_names_are_global),
        cmocka_unit_test(test_two_hundred_copies_with_heaps_and_options_of_their_own),
        cmocka_unit_test(test_reloads_beyond_the_optional_static_tls),
        cmocka_unit_test(test_static_tls_surplus_used_up), /* the last: nothing gives it back */
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
