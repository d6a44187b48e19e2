/*
 * The strict policy: what it forbids, what its options allow, and what is said before the process aborts.
 */
#include "host.h"
#include "config.h"

#ifdef __GLIBC__
#include <argz.h>
#endif
#include <dlfcn.h>
#include <malloc.h>
#include <pthread.h>

#include "../plugins/blocks.h"
#include "../plugins/releaser.h"
#include "routed.h"
#include "tests/child.h"

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
strict_frees_what_libc_gave_it(void)
{
    char *text = CALL(strict, blocks_printed)(42);
    CHECK(strcmp(text, "number 42") == 0);
    CALL(strict, blocks_release)(text);
    CALL(strict, blocks_release)(realpath("/", NULL));
    char *line = NULL;
    size_t size = 0;
    FILE *file = fopen("/proc/self/maps", "r");
    CHECK(file != NULL && getline(&line, &size, file) > 0);
    fclose(file);
    CALL(strict, blocks_release)(line);
}

static void
strict_lets_libc_grow_its_block(void)
{
    size_t lines;
    CALL(strict, blocks_release)(CALL(strict, blocks_longest_line)("/proc/self/maps", 1, &lines));
}

#ifdef __GLIBC__
/* libc releases what it was given for that. */
static void
libc_frees_strict_block_for_the_host(void)
{
    size_t length = 2;
    char *words = CALL(strict, blocks_make)(BLOCKS_MALLOC, length);
    memcpy(words, "a", length);
    argz_delete(&words, &length, words);
    CHECK(words == NULL && length == 0);
    CHECK(stats_of(strict).released_outside == 1);
}
#endif

static void
strict_frees_block_of_the_default_heap(void)
{
    CALL(strict, blocks_release)(alcove_table_of(allocator)->malloc(100));
}

static void
strict_frees_other_modules_block(void)
{
    CALL(strict, blocks_release)(CALL(module, blocks_make)(BLOCKS_MALLOC, 100));
}

static void
other_module_frees_strict_block(void)
{
    CALL(module, blocks_release)(CALL(strict, blocks_make)(BLOCKS_MALLOC, 100));
}

static void
realloc_to_nothing(alcove_module *by, void *block)
{
    void *(*by_realloc)(void *, size_t, size_t) = alcove_table_of(allocator)->entry(ALCOVE_ENTRY_realloc);
    bool is_libcs = heap_of(allocator, block) == ALCOVE_HEAP_NONE;
    void *left = by_realloc(block, 0, alcove_module_heap(by));
#ifndef __GLIBC__
    if (is_libcs) { /* musl's realloc leaves a small block */
        free(left);
        return;
    }
#endif
    (void)is_libcs;
    assert_null(left);
}

static void
strict_reallocs_host_block_to_nothing(void)
{
    realloc_to_nothing(strict, malloc(100));
}

static void
strict_reallocs_other_modules_block_to_nothing(void)
{
    realloc_to_nothing(strict, CALL(module, blocks_make)(BLOCKS_MALLOC, 100));
}

static void
other_module_reallocs_strict_block_to_nothing(void)
{
    realloc_to_nothing(module, CALL(strict, blocks_make)(BLOCKS_MALLOC, 100));
}

static void
strict_frees_its_own_block(void)
{
    CALL(strict, blocks_release)(CALL(strict, blocks_make)(BLOCKS_MALLOC, 100));
    realloc_to_nothing(strict, CALL(strict, blocks_make)(BLOCKS_MALLOC, 100));
}

/* One line, which has these words. */
static void
assert_aborts(void (*run)(void), const char *first, const char *second)
{
    char message[2048];
    int status = child_status(run, message, sizeof message);
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGABRT)
        fail_msg("the child ended with status 0x%x, not by SIGABRT: %s", status, message);
    if (strstr(message, "strict") == NULL || strstr(message, first) == NULL || strstr(message, second) == NULL)
        fail_msg("the message \"%s\" does not say \"%s\" and \"%s\"", message, first, second);
    const char *end = strchr(message, '\n');
    assert_non_null(end);
    if (strncmp(end + 1, "qemu:", 5) != 0) /* an emulator has a line of its own to say */
        assert_string_equal(end + 1, "");
}

static void
assert_passes(void (*run)(void))
{
    char message[2048];
    int status = child_status(run, message, sizeof message);
    if (status != 0)
        fail_msg("the child ended with status 0x%x: %s", status, message);
}

static void
strict_open(struct alcove_module_options options)
{
    options.size = sizeof options;
    options.policy = ALCOVE_POLICY_STRICT;
    if (options.name == NULL)
        options.name = "strict one";
    strict = plugin_open(allocator, "blocks_two", &options);
}

static void
test_release_between_modules_or_by_the_host_aborts_and_names_both_sides(void **state)
{
    (void)state;
    char bytes[64];
    strict_open((struct alcove_module_options){.name = "strict one"});
    void *block = CALL(strict, blocks_make)(BLOCKS_MALLOC, 100);
    snprintf(bytes, sizeof bytes, "a block of %zu bytes", malloc_usable_size(block));
    CALL(strict, blocks_release)(block);

    assert_aborts(host_frees_strict_block, "the host released", "belongs to module \"strict one\"");
    assert_aborts(host_frees_strict_block, bytes, " at 0x");
    assert_aborts(host_reallocs_strict_block_to_nothing, "the host released", "belongs to module \"strict one\"");
    assert_aborts(strict_frees_other_modules_block, "module \"strict one\" released", "belongs to module \"blocks.so\"");
    assert_aborts(other_module_frees_strict_block, "module \"blocks.so\" released", "belongs to module \"strict one\"");
    assert_aborts(strict_reallocs_other_modules_block_to_nothing, "module \"strict one\" released",
                  "belongs to module \"blocks.so\"");
    assert_aborts(other_module_reallocs_strict_block_to_nothing, "module \"blocks.so\" released",
                  "belongs to module \"strict one\"");
    assert_aborts(strict_reallocs_other_modules_block_to_nothing, bytes, " at 0x");
    module_end(strict);
}

static void
test_release_of_what_no_module_owns_is_no_violation(void **state)
{
    (void)state;
    strict_open((struct alcove_module_options){.name = NULL});
    assert_passes(strict_frees_its_own_block);
    assert_passes(strict_frees_what_libc_gave_it);
#ifdef __GLIBC__
    assert_passes(libc_frees_strict_block_for_the_host);
#endif
    assert_passes(strict_lets_libc_grow_its_block);
    assert_passes(strict_frees_host_block);
    assert_passes(strict_reallocs_host_block_to_nothing);
    assert_passes(strict_frees_block_of_the_default_heap);
    module_end(strict);
}

static void
test_host_that_is_allowed_may_release(void **state)
{
    (void)state;
    strict_open((struct alcove_module_options){.allow = ALCOVE_ALLOW_HOST});
    assert_passes(host_frees_strict_block);
    assert_passes(host_reallocs_strict_block_to_nothing);
    assert_aborts(other_module_frees_strict_block, "module \"blocks.so\" released", "strict one");
    module_end(strict);
}

static void
test_module_that_is_allowed_by_name_may_release_either_way(void **state)
{
    (void)state;
    strict_open((struct alcove_module_options){.allowed = (const char *const[]){"someone", "blocks.so"}, .allowed_count = 2});
    assert_passes(other_module_frees_strict_block);
    assert_passes(strict_frees_other_modules_block);
    assert_aborts(host_frees_strict_block, "the host released", "strict one");
    module_end(strict);
    strict_open((struct alcove_module_options){.allowed = (const char *const[]){"blocks"}, .allowed_count = 1});
    assert_aborts(other_module_frees_strict_block, "module \"blocks.so\" released", "strict one");
    module_end(strict);
}

static void
test_all_modules_may_be_allowed(void **state)
{
    (void)state;
    strict_open((struct alcove_module_options){.allow = ALCOVE_ALLOW_MODULES});
    assert_passes(other_module_frees_strict_block);
    assert_passes(strict_frees_other_modules_block);
    assert_aborts(host_frees_strict_block, "the host released", "strict one");
    module_end(strict);
}

/* Both sides are asked. */
static void
test_other_strict_side_has_to_allow_it_too(void **state)
{
    (void)state;
    module_end(module);
    struct alcove_module_options options = {.size = sizeof options, .name = "one", .policy = ALCOVE_POLICY_STRICT};
    module = plugin_open(allocator, "blocks", &options);
    strict_open((struct alcove_module_options){.allow = ALCOVE_ALLOW_MODULES});
    assert_aborts(other_module_frees_strict_block, "module \"one\" released", "module \"strict one\"");
    assert_aborts(strict_frees_other_modules_block, "module \"strict one\" released", "module \"one\"");
    module_end(strict);
}

static alcove_allocator *other;
static alcove_module *elsewhere; /* of the other allocator */

static void
module_of_another_allocator_frees_strict_block(void)
{
    CALL(elsewhere, releaser_free)(CALL(strict, blocks_make)(BLOCKS_MALLOC, 100));
}

static void
test_module_of_another_allocator_is_named_and_may_be_allowed(void **state)
{
    (void)state;
    assert_ok(alcove_load(&other, &(struct alcove_load_options){.path = plugin_path("newer_table"), .prefix = "newer_"}));
    elsewhere = plugin_open(other, "releaser", &(struct alcove_module_options){.name = "elsewhere"});
    strict_open((struct alcove_module_options){.name = NULL});
    assert_aborts(module_of_another_allocator_frees_strict_block, "module \"elsewhere\" released", "module \"strict one\"");
    module_end(strict);
    strict_open((struct alcove_module_options){.allowed = (const char *const[]){"elsewhere"}, .allowed_count = 1});
    assert_passes(module_of_another_allocator_frees_strict_block);
    module_of_another_allocator_frees_strict_block();
    assert_int_equal(stats_of(strict).released_outside, 1);
    assert_int_equal(stats_of(elsewhere).released_foreign, 1);
    module_end(strict);
    module_end(elsewhere);
    assert_ok(alcove_unload(other, 0));
}

static void
test_names_are_escaped(void **state)
{
    (void)state;
    strict_open((struct alcove_module_options){.name = "a\"b\\c\nd\033e\xff" "f\xc3\xa4\xe2\x82\xac\xc0\x80g\x7f\xc2\x85\xe0\x80\x80"});
    assert_aborts(host_frees_strict_block,
                  "module \"a\\x22b\\x5cc\\x0ad\\x1be\\xfff\xc3\xa4\xe2\x82\xac\\xc0\\x80g\\x7f\\xc2\\x85\\xe0\\x80\\x80\"", "the host");
    assert_refused(alcove_unload(allocator, 0), ALCOVE_EBUSY, "c\\x0ad\\x1be\\xfff\xc3\xa4");
    module_end(strict);
}

#define STACK_BYTES ((16 << 10) + (20 << 10)) /* of which plugin_path() has the first for itself */
static alcove_module *releaser;

static void
releaser_frees_strict_block(void)
{
    CALL(releaser, releaser_free)(CALL(strict, blocks_make)(BLOCKS_MALLOC, 100));
}

static void
strict_frees_block_from_inside(void)
{
    CALL(releaser, releaser_free)(CALL(module, blocks_make)(BLOCKS_MALLOC, 3000000));
}

static void
other_module_frees_from_a_small_stack(void)
{
    pthread_attr_t attributes;
    pthread_t thread;
    size_t least = (size_t)sysconf(_SC_THREAD_STACK_MIN), bytes = least > STACK_BYTES ? least : STACK_BYTES; /* larger pages need more */
    CHECK(pthread_attr_init(&attributes) == 0 && pthread_attr_setstacksize(&attributes, bytes) == 0);
    void *block = CALL(strict, blocks_make)(BLOCKS_MALLOC, 100);
    CHECK(pthread_create(&thread, &attributes, CALL(releaser, releaser_free), block) == 0);
    pthread_join(thread, NULL);
}

static void
test_code_that_released_is_named(void **state)
{
    (void)state;
    strict_open((struct alcove_module_options){.name = NULL});
    assert_aborts(host_frees_strict_block, "; called from ", "/test_strict+0x");
#ifndef __GLIBC__
    void *unwinder = dlopen("libgcc_s.so.1", RTLD_NOW | RTLD_LOCAL);
    if (unwinder == NULL) {
        module_end(strict);
        SKIP_BECAUSE("there is no libgcc_s.so.1 for this libc, which finds who is behind the allocator on the stack");
    }
    dlclose(unwinder);
#endif
    releaser = plugin_open(allocator, "releaser", NULL); /* a module's code is behind the allocator's on the stack */
    assert_aborts(releaser_frees_strict_block, "/releaser.so+0x", "(releaser_free+0x");
    assert_aborts(other_module_frees_from_a_small_stack, "/releaser.so+0x", "(releaser_free+0x");
    module_end(releaser);
    releaser = plugin_open(allocator, "releaser", &(struct alcove_module_options){.policy = ALCOVE_POLICY_OFF}); /* the host's */
    assert_aborts(releaser_frees_strict_block, "/releaser.so+0x", "(releaser_free+0x");
    module_end(releaser);
    releaser = plugin_open(allocator, "releaser", &(struct alcove_module_options){.policy = ALCOVE_POLICY_STRICT});
    assert_aborts(strict_frees_block_from_inside, "/releaser.so+0x", "(releaser_free+0x");
    module_end(releaser);
    module_end(strict);
}

static void
test_options_that_allow_nothing_sensible_are_refused(void **state)
{
    (void)state;
    static const char *const names[ALCOVE_ALLOWED_MAX + 1] = {"a", "b", "c", "d", "e", "f", "g", "h", "i"};
    const struct {
        struct alcove_module_options options;
        const char *words;
    } bad[] = {
        {{.policy = ALCOVE_POLICY_STRICT, .allow = 8}, "0x8"},
        {{.policy = ALCOVE_POLICY_STRICT, .allowed_count = 1}, "1 names"},
        {{.policy = ALCOVE_POLICY_STRICT, .allowed_count = ALCOVE_ALLOWED_MAX + 1, .allowed = names}, "9 names"},
        {{.policy = ALCOVE_POLICY_STRICT, .allowed_count = 1, .allowed = (const char *const[]){""}}, "allowed[0] is \"\""},
        {{.policy = ALCOVE_POLICY_STRICT, .allowed_count = 1, .allowed = (const char *const[]){NULL}}, "allowed[0] is NULL"},
        {{.allow = ALCOVE_ALLOW_HOST}, "strict policy"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct alcove_module_options options = bad[i].options;
        options.size = sizeof options;
        assert_refused(alcove_module_open(allocator, plugin_path("blocks_two"), &options, &strict), ALCOVE_EINVAL, bad[i].words);
    }
}

static void
test_opening_again_with_others_allowed_is_refused(void **state)
{
    (void)state;
    strict_open((struct alcove_module_options){.allow = ALCOVE_ALLOW_HOST});
    alcove_module *first = strict;
    strict_open((struct alcove_module_options){.allow = 0});
    assert_ptr_equal(strict, first);
    struct alcove_module_options options = {.size = sizeof options, .policy = ALCOVE_POLICY_STRICT, .allow = ALCOVE_ALLOW_MODULES};
    assert_refused(alcove_module_open(allocator, plugin_path("blocks_two"), &options, &strict), ALCOVE_EBUSY, "allows others");
    module_end(first);
    module_end(first);
}

int
main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_release_between_modules_or_by_the_host_aborts_and_names_both_sides),
        TEST(test_release_of_what_no_module_owns_is_no_violation),
        TEST(test_host_that_is_allowed_may_release),
        TEST(test_module_that_is_allowed_by_name_may_release_either_way),
        TEST(test_all_modules_may_be_allowed),
        TEST(test_other_strict_side_has_to_allow_it_too),
        TEST(test_module_of_another_allocator_is_named_and_may_be_allowed),
        TEST(test_names_are_escaped),
        TEST(test_code_that_released_is_named),
        TEST(test_options_that_allow_nothing_sensible_are_refused),
        TEST(test_opening_again_with_others_allowed_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
