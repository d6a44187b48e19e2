/*
 * Opening modules: every wrong file and argument has its code and its message, and leaves everything as it was.
 */
#include "host.h"

#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../plugins/blocks.h"
#include "loaded.h"

/* A copy of a plugin's first `bytes` bytes, in a file of its own. Remove it with unlink. */
static void
plugin_copy(const char *name, size_t bytes, char path[64])
{
    strcpy(path, "/tmp/alcove-copy-XXXXXX");
    int from = open(plugin_path(name), O_RDONLY), to = mkstemp(path);
    char buffer[4096];
    ssize_t got;
    while (bytes > 0 && (got = read(from, buffer, bytes < sizeof buffer ? bytes : sizeof buffer)) > 0) {
        assert_int_equal(write(to, buffer, (size_t)got), got);
        bytes -= (size_t)got;
    }
    close(from);
    close(to);
}

static void
bytes_write(const char *path, size_t offset, const void *bytes, size_t count)
{
    int file = open(path, O_WRONLY);
    assert_int_equal(pwrite(file, bytes, count, (off_t)offset), count);
    close(file);
}

/* Opening `path` as a module fails, with a message that names it, and changes nothing. */
static void
assert_open_refused(const char *path, int code, const char *words)
{
    alcove_module *module = untouched;
    struct alcove_info info, before;
    alcove_table_of(allocator)->info(&before);
    assert_refused(alcove_module_open(allocator, path, NULL, &module), code, words);
    assert_ptr_equal(module, untouched);
    if (strstr(alcove_error_message(), path) == NULL)
        fail_msg("the message \"%s\" does not name %s", alcove_error_message(), path);
    alcove_table_of(allocator)->info(&info);
    assert_int_equal(info.heaps, before.heaps);
}

static void
test_no_such_plugin(void **state)
{
    (void)state;
    assert_open_refused("/nonexistent/plugin.so", ALCOVE_ENOENT, "No such file");
    assert_open_refused("libalcove-no-such-thing.so.7", ALCOVE_ENOENT, "none of the folders");
}

static void
test_name_without_a_slash_that_is_a_file_here(void **state)
{
    (void)state;
    char here[4096], *was = getcwd(here, sizeof here);
    assert_non_null(was);
    assert_int_equal(chdir(setting("ALCOVE_TEST_PLUGINS")), 0);
    assert_open_refused("blocks.so", ALCOVE_ENOENT, "write ./blocks.so");
    assert_int_equal(chdir(here), 0);
}

/* Of a program whose $ORIGIN nobody has asked for yet. */
static void
test_no_such_plugin_in_the_programs_folder(void **state)
{
    (void)state;
    assert_refused(alcove_module_open(allocator, "$ORIGIN/nothing.so", NULL, &(alcove_module *){NULL}), ALCOVE_ENOENT, "/nothing.so");
}

static void
test_library_found_by_its_soname(void **state)
{
    (void)state;
    alcove_module *module;
    assert_ok(alcove_module_open(allocator, "libcmocka.so.0", &(struct alcove_module_options){.policy = ALCOVE_POLICY_OFF},
                                 &module));
    assert_ok(alcove_module_close(module, 0, NULL));
}

static void
test_plugin_that_is_text(void **state)
{
    (void)state;
    char path[] = "/tmp/alcove-text-XXXXXX";
    int file = mkstemp(path);
    assert_int_equal(write(file, "#!/bin/sh\necho hello\n", 21), 21);
    close(file);
    assert_open_refused(path, ALCOVE_EFORMAT, "not an ELF file");
    assert_refused(alcove_module_open(allocator, path, NULL, &(alcove_module *){NULL}), ALCOVE_EFORMAT, "#!/bin/sh");
    assert_refused(alcove_module_open(allocator, path, NULL, &(alcove_module *){NULL}), ALCOVE_EFORMAT, "21 bytes");
    unlink(path);
}

static void
test_plugin_that_is_empty(void **state)
{
    (void)state;
    char path[64];
    plugin_copy("blocks", 0, path);
    assert_open_refused(path, ALCOVE_EFORMAT, "0 bytes");
    unlink(path);
}

static void
test_plugin_that_is_a_directory(void **state)
{
    (void)state;
    assert_open_refused("/tmp", ALCOVE_EFORMAT, "a directory");
}

static void
test_plugin_that_is_a_pipe(void **state)
{
    (void)state;
    char path[] = "/tmp/alcove-pipe-XXXXXX";
    close(mkstemp(path));
    unlink(path);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_open_refused(path, ALCOVE_EFORMAT, "pipe");
    unlink(path);
}

static void
test_plugin_of_another_machine(void **state)
{
    (void)state;
    char path[64];
#if defined(__aarch64__)
    uint16_t other = EM_X86_64;
    const char *name = "x86-64";
#else
    uint16_t other = EM_AARCH64;
    const char *name = "AArch64";
#endif
    plugin_copy("blocks", SIZE_MAX, path);
    bytes_write(path, offsetof(Elf64_Ehdr, e_machine), &other, sizeof other);
    assert_open_refused(path, ALCOVE_EFORMAT, name);
    unlink(path);
}

static void
test_plugin_of_another_word_size(void **state)
{
    (void)state;
    char path[64], class = sizeof(void *) == 8 ? ELFCLASS32 : ELFCLASS64;
    plugin_copy("blocks", SIZE_MAX, path);
    bytes_write(path, EI_CLASS, &class, 1);
    assert_open_refused(path, ALCOVE_EFORMAT, "32-bit");
    unlink(path);
}

static void
test_plugin_that_is_an_object_file(void **state)
{
    (void)state;
    char path[64];
    uint16_t type = ET_REL;
    plugin_copy("blocks", SIZE_MAX, path);
    bytes_write(path, offsetof(Elf64_Ehdr, e_type), &type, sizeof type);
    assert_open_refused(path, ALCOVE_EFORMAT, "object file");
    unlink(path);
}

static void
test_plugin_that_is_truncated(void **state)
{
    (void)state;
    static const size_t lengths[] = {20, 100, 5000};
    for (int i = 0; i < 3; i++) {
        char path[64];
        plugin_copy("blocks", lengths[i], path);
        assert_open_refused(path, ALCOVE_EFORMAT, "truncated");
        unlink(path);
    }
}

static void
test_plugin_whose_program_headers_are_nowhere(void **state)
{
    (void)state;
    static const uint64_t offsets[] = {UINT64_MAX, UINT64_MAX - 63, (uint64_t)1 << 62, (uint64_t)1 << 40};
    for (int i = 0; i < 4; i++) {
        char path[64];
        plugin_copy("blocks", SIZE_MAX, path);
        bytes_write(path, offsetof(Elf64_Ehdr, e_phoff), &offsets[i], sizeof offsets[i]);
        assert_open_refused(path, ALCOVE_EFORMAT, "damaged");
        unlink(path);
    }
}

static void
test_plugin_that_the_dynamic_linker_refuses(void **state)
{
    (void)state;
    char path[64];
    Elf64_Ehdr header;
    Elf64_Phdr segment;
    plugin_copy("blocks", SIZE_MAX, path);
    int file = open(path, O_RDONLY);
    assert_int_equal(pread(file, &header, sizeof header, 0), sizeof header);
    size_t at = header.e_phoff;
    while (pread(file, &segment, sizeof segment, (off_t)at) == sizeof segment && segment.p_type != PT_DYNAMIC)
        at += sizeof segment;
    close(file);
    segment.p_type = PT_NULL; /* there is nothing to link then */
    bytes_write(path, at, &segment, sizeof segment);
    assert_open_refused(path, ALCOVE_ELOAD, "dynamic linker refused");
    unlink(path);
}

static void
test_plugin_that_would_lead_in_circles(void **state)
{
    (void)state;
    assert_open_refused(allocator_path(), ALCOVE_EINVAL, "it is the allocator");
#if defined(__GLIBC__)
    assert_open_refused("libc.so.6", ALCOVE_EINVAL, "cannot be a module");
#endif
}

/* The kernel maps it, and it has no file. */
static void
test_code_of_the_kernel_is_no_plugin(void **state)
{
    (void)state;
    static const char *const names[] = {"linux-vdso.so.1", "linux-vdso64.so.1", "linux-gate.so.1"};
    bool known = false;
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
        void *handle = dlopen(names[i], RTLD_NOW | RTLD_NOLOAD);
        if (handle == NULL)
            continue;
        known = true;
        assert_open_refused(names[i], ALCOVE_EINVAL, "cannot be a module: it is the kernel's");
        dlclose(handle);
    }
    if (!known)
        SKIP_BECAUSE("the dynamic linker knows of no code of the kernel's here");
}

static void
test_null_arguments(void **state)
{
    (void)state;
    alcove_module *module = untouched;
    struct alcove_module_stats stats;
    assert_refused(alcove_load(NULL, NULL), ALCOVE_EINVAL, "out");
    assert_refused(alcove_module_open(allocator, NULL, NULL, &module), ALCOVE_EINVAL, "path");
    assert_refused(alcove_module_open(allocator, "", NULL, &module), ALCOVE_EINVAL, "path");
    assert_refused(alcove_module_open(allocator, plugin_path("blocks"), NULL, NULL), ALCOVE_EINVAL, "out");
    assert_refused(alcove_module_open(NULL, plugin_path("blocks"), NULL, &module), ALCOVE_EINVAL, "allocator handle is NULL");
    assert_ptr_equal(module, untouched);
    assert_refused(alcove_module_stats(NULL, &stats), ALCOVE_EINVAL, "NULL");
    assert_refused(alcove_module_limit(NULL, 0), ALCOVE_EINVAL, "NULL");
    assert_refused(alcove_module_close(NULL, 0, NULL), ALCOVE_EINVAL, "NULL");
    assert_refused(alcove_unload(NULL, 0), ALCOVE_EINVAL, "NULL");
    assert_int_equal(alcove_module_heap(NULL), ALCOVE_HEAP_NONE);
    assert_null(alcove_module_symbol(NULL, "x"));
    assert_null(alcove_table_of(NULL));
    module = plugin_open(allocator, "blocks", NULL);
    assert_null(alcove_module_symbol(module, NULL));
    assert_refused(alcove_module_stats(module, NULL), ALCOVE_EINVAL, "out");
    module_end(module);
}

static void
test_impossible_limit(void **state)
{
    (void)state;
    static const uint64_t limits[] = {1, 65535, ((uint64_t)1 << 47) + 1, UINT64_MAX};
    alcove_module *module = untouched;
    for (int i = 0; i < 4; i++) {
        char number[32];
        snprintf(number, sizeof number, "%llu", (unsigned long long)limits[i]);
        struct alcove_module_options options = {.limit = limits[i]};
        assert_refused(alcove_module_open(allocator, plugin_path("blocks"), &options, &module), ALCOVE_EINVAL, number);
    }
    assert_ptr_equal(module, untouched);
    module = plugin_open(allocator, "blocks", &(struct alcove_module_options){.limit = 65536});
    assert_refused(alcove_module_limit(module, 65535), ALCOVE_EINVAL, "65535");
    assert_int_equal(stats_of(module).heap.limit, 65536);
    assert_ok(alcove_module_limit(module, 0));
    assert_int_equal(stats_of(module).heap.limit, 0);
    module_end(module);
}

static void
test_limit_of_a_module_without_a_heap(void **state)
{
    (void)state;
    alcove_module *module = plugin_open(allocator, "blocks", &(struct alcove_module_options){.policy = ALCOVE_POLICY_OFF});
    assert_refused(alcove_module_limit(module, 1 << 20), ALCOVE_EINVAL, "policy is off");
    module_end(module);
}

static void
test_unknown_policy_and_flags(void **state)
{
    (void)state;
    alcove_module *module;
    struct alcove_module_options options = {.policy = (enum alcove_policy)7};
    assert_refused(alcove_module_open(allocator, plugin_path("blocks"), &options, &module), ALCOVE_EINVAL, "policy 7");
    module = plugin_open(allocator, "blocks", NULL);
    assert_refused(alcove_module_close(module, 0x80, NULL), ALCOVE_EINVAL, "0x80");
    assert_refused(alcove_unload(allocator, 0x80), ALCOVE_EINVAL, "0x80");
    module_end(module);
}

static void
test_same_library_twice_is_one_module_that_is_closed_twice(void **state)
{
    (void)state;
    alcove_module *module = plugin_open(allocator, "blocks", &(struct alcove_module_options){.name = "the first"});
    assert_ptr_equal(plugin_open(allocator, "blocks", NULL), module);
    void *block = CALL(module, blocks_make)(BLOCKS_MALLOC, 10);
    struct alcove_report report;
    assert_ok(alcove_module_close(module, ALCOVE_CLOSE_DROP, &report)); /* drops nothing: the other one uses it */
    assert_int_equal(report.opens, 1);
    assert_int_equal(report.resident, 1);
    assert_int_equal(report.heap.live_blocks, 1);
    assert_string_equal(report.name, "the first");
    assert_int_equal(heap_of(allocator, block), alcove_module_heap(module));
    CALL(module, blocks_release)(block);
    assert_refused(alcove_unload(allocator, 0), ALCOVE_EBUSY, "the first");
    report = module_end(module);
    assert_int_equal(report.opens, 0);
    assert_int_equal(report.resident, !DLCLOSE_UNLOADS);
    assert_unloaded(plugin_path("blocks"));
    assert_refused(alcove_module_close(module, 0, NULL), ALCOVE_ECLOSED, "closed");
}

static void
test_same_library_with_options_that_it_has_is_the_same_module(void **state)
{
    (void)state;
    struct alcove_module_options options = {.name = "one", .limit = 1 << 20, .policy = ALCOVE_POLICY_STRICT};
    alcove_module *module = plugin_open(allocator, "blocks", &options);
    assert_ptr_equal(plugin_open(allocator, "blocks", &options), module);
    assert_ok(alcove_module_limit(module, 2 << 20));
    assert_ptr_equal(plugin_open(allocator, "blocks", &(struct alcove_module_options){.limit = 2 << 20}), module);
    for (int i = 0; i < 3; i++)
        module_end(module);
    assert_unloaded(plugin_path("blocks"));
}

static void
test_same_library_with_other_options_is_refused_and_both_are_named(void **state)
{
    (void)state;
    alcove_module *module = plugin_open(allocator, "blocks", &(struct alcove_module_options){.name = "one", .limit = 1 << 20});
    static const struct {
        struct alcove_module_options options;
        const char *first, *second;
    } others[] = {
        {{.name = "two"}, "\"one\"", "\"two\""},
        {{.limit = 2 << 20}, "1048576", "2097152"},
        {{.policy = ALCOVE_POLICY_STRICT}, "guard", "strict"},
        {{.policy = ALCOVE_POLICY_OFF}, "guard", "off"},
    };
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        alcove_module *second = untouched;
        assert_refused(alcove_module_open(allocator, plugin_path("blocks"), &others[i].options, &second), ALCOVE_EBUSY, others[i].first);
        assert_non_null(strstr(alcove_error_message(), others[i].second));
        assert_non_null(strstr(alcove_error_message(), plugin_path("blocks")));
        assert_ptr_equal(second, untouched);
    }
    assert_int_equal(module_end(module).opens, 0);
    assert_unloaded(plugin_path("blocks"));
}

static void
test_module_of_another_allocator_is_refused(void **state)
{
    (void)state;
    alcove_allocator *other;
    assert_ok(alcove_load(&other, &(struct alcove_load_options){.path = plugin_path("first_table"), .prefix = "first_"}));
    alcove_module *module = plugin_open(allocator, "blocks", &(struct alcove_module_options){.name = "mine"}), *second = untouched;
    assert_refused(alcove_module_open(other, plugin_path("blocks"), NULL, &second), ALCOVE_EBUSY, "another allocator");
    assert_non_null(strstr(alcove_error_message(), "\"mine\""));
    assert_ptr_equal(second, untouched);
    module_end(module);
    module_end(plugin_open(other, "blocks", &(struct alcove_module_options){.flags = ALCOVE_OPEN_PARTIAL})); /* that one lacks a function */
    assert_ok(alcove_unload(other, 0));
}

static void
test_closing_twice(void **state)
{
    (void)state;
    alcove_module *module = plugin_open(allocator, "blocks", NULL);
    module_end(module);
    assert_refused(alcove_module_close(module, 0, NULL), ALCOVE_ECLOSED, "closed");
    alcove_module *next = plugin_open(allocator, "blocks", NULL);
    assert_refused(alcove_module_close(module, 0, NULL), ALCOVE_ECLOSED, "closed");
    struct alcove_module_stats stats;
    assert_refused(alcove_module_stats(module, &stats), ALCOVE_ECLOSED, "closed");
    assert_refused(alcove_module_limit(module, 0), ALCOVE_ECLOSED, "closed");
    assert_null(alcove_module_symbol(module, "blocks_make"));
    assert_int_equal(alcove_module_heap(module), ALCOVE_HEAP_NONE);
    module_end(next);
}

static void
test_handles_that_never_were(void **state)
{
    (void)state;
    int on_stack;
    assert_refused(alcove_module_close((alcove_module *)&on_stack, 0, NULL), ALCOVE_ECLOSED, "never was one");
    assert_refused(alcove_module_close((alcove_module *)allocator, 0, NULL), ALCOVE_ECLOSED, "never was one");
    assert_refused(alcove_unload((alcove_allocator *)&on_stack, 0), ALCOVE_ECLOSED, "never was one");
    assert_null(alcove_table_of((alcove_allocator *)&on_stack));
}

static void
test_no_such_symbol(void **state)
{
    (void)state;
    alcove_module *module = plugin_open(allocator, "blocks", &(struct alcove_module_options){.name = "mine"});
    assert_null(alcove_module_symbol(module, "no_such_function"));
    assert_non_null(strstr(alcove_error_message(), "\"mine\""));
    assert_non_null(strstr(alcove_error_message(), "no_such_function"));
    module_end(module);
}

static void *
read_message(void *out)
{
    *(char *)out = alcove_error_message()[0];
    return NULL;
}

static void
test_message_belongs_to_its_thread(void **state)
{
    (void)state;
    char first = 'x';
    pthread_t thread;
    assert_null(alcove_table_of(NULL));
    assert_string_not_equal(alcove_error_message(), "");
    pthread_create(&thread, NULL, read_message, &first);
    pthread_join(thread, NULL);
    assert_int_equal(first, 0);
}

int
main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_no_such_plugin),
        TEST(test_no_such_plugin_in_the_programs_folder),
        TEST(test_name_without_a_slash_that_is_a_file_here),
        TEST(test_library_found_by_its_soname),
        TEST(test_plugin_that_is_text),
        TEST(test_plugin_that_is_empty),
        TEST(test_plugin_that_is_a_directory),
        TEST(test_plugin_that_is_a_pipe),
        TEST(test_plugin_of_another_machine),
        TEST(test_plugin_of_another_word_size),
        TEST(test_plugin_that_is_an_object_file),
        TEST(test_plugin_that_is_truncated),
        TEST(test_plugin_whose_program_headers_are_nowhere),
        TEST(test_plugin_that_the_dynamic_linker_refuses),
        TEST(test_plugin_that_would_lead_in_circles),
        TEST(test_code_of_the_kernel_is_no_plugin),
        TEST(test_null_arguments),
        TEST(test_impossible_limit),
        TEST(test_limit_of_a_module_without_a_heap),
        TEST(test_unknown_policy_and_flags),
        TEST(test_same_library_twice_is_one_module_that_is_closed_twice),
        TEST(test_same_library_with_options_that_it_has_is_the_same_module),
        TEST(test_same_library_with_other_options_is_refused_and_both_are_named),
        TEST(test_module_of_another_allocator_is_refused),
        TEST(test_closing_twice),
        TEST(test_handles_that_never_were),
        TEST(test_no_such_symbol),
        TEST(test_message_belongs_to_its_thread),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
