/*
 * A build that is configured for smaller pages than the system has says so when it is loaded, and does no harm. The
 * system is this program, whose sysconf comes before libc's.
 */
#include "host.h"
#include "config.h"

#include <dlfcn.h>
#include <errno.h>
#include <unistd.h>

#define CONFIGURED (1L << ALCOVE_LG_PAGE)

static long told; /* the page's size; 0: the truth */

long
sysconf(int name)
{
    if (name == _SC_PAGESIZE && told != 0)
        return told;
    return ((long (*)(int))dlsym(RTLD_NEXT, "sysconf"))(name);
}

static int
pages_are_larger(void **unused)
{
    (void)unused;
    told = 4 * CONFIGURED;
    return 0;
}

static int
pages_are_true(void **unused)
{
    (void)unused;
    told = 0;
    return 0;
}

static void
assert_says_both_sizes(const char *words)
{
    char sizes[128];
    snprintf(sizes, sizeof sizes, "pages of %ld KiB, this system has %ld KiB", CONFIGURED / 1024, told / 1024);
    if (strstr(words, sizes) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", words, sizes);
    snprintf(sizes, sizeof sizes, "--with-lg-page=%d", ALCOVE_LG_PAGE + 2);
    if (strstr(words, sizes) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", words, sizes);
}

static void
test_loader_refuses_pages_that_are_too_large(void **unused)
{
    (void)unused;
    alcove_allocator *none = NULL;
    assert_int_equal(alcove_load(&none, &(struct alcove_load_options){ .path = allocator_path() }), ALCOVE_ESYSTEM);
    assert_says_both_sizes(alcove_error_message());
    assert_null(none);
    assert_int_equal(lines_mapped(allocator_path()), 0);
}

static void
test_loader_goes_on_where_they_fit(void **unused)
{
    (void)unused;
    assert_ok(alcove_unload(allocator_load(), 0));
}

static void
test_allocator_without_loader_says_so_and_has_no_memory(void **unused)
{
    (void)unused;
    char said[512] = "", name[128];
    int ends[2], error_output = dup(STDERR_FILENO);
    assert_int_equal(pipe(ends), 0);
    dup2(ends[1], STDERR_FILENO);
    void *handle = dlopen(allocator_path(), RTLD_NOW | RTLD_LOCAL);
    dup2(error_output, STDERR_FILENO);
    close(error_output);
    close(ends[1]);
    assert_non_null(handle);
    assert_true(read(ends[0], said, sizeof said - 1) > 0);
    close(ends[0]);
    assert_says_both_sizes(said);

    snprintf(name, sizeof name, "%stable", setting("ALCOVE_TEST_PREFIX"));
    const struct alcove_table *table = dlsym(handle, name);
    uint32_t heap;
    errno = 0;
    assert_null(table->malloc(100));
    assert_int_equal(errno, ENOMEM);
    assert_null(table->malloc(10 << 20));
    assert_int_equal(table->heap_create(NULL, &heap), ENOMEM);
    table->free(NULL);
    dlclose(handle);
}

int
main(void)
{
#define WITH_LARGER_PAGES(test) cmocka_unit_test_setup_teardown(test, pages_are_larger, pages_are_true)
    const struct CMUnitTest tests[] = {
        WITH_LARGER_PAGES(test_loader_refuses_pages_that_are_too_large),
        WITH_LARGER_PAGES(test_allocator_without_loader_says_so_and_has_no_memory),
        cmocka_unit_test(test_loader_goes_on_where_they_fit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
