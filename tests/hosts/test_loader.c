/*
 * The loader's doors: every wrong argument, file and order of calls has its code and its message,
 * and leaves everything as it was.
 */
#include "host.h"

#include <dlfcn.h>
#include <errno.h>
#include <elf.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../plugins/blocks.h"

static alcove_allocator *allocator;
static alcove_module *const untouched = (alcove_module *)(uintptr_t)0x5a5a;

static int
setup(void **state)
{
    (void)state;
    allocator = allocator_load();
    return 0;
}

static int
teardown(void **state)
{
    (void)state;
    assert_ok(alcove_unload(allocator, 0));
    return 0;
}

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
test_same_library_twice(void **state)
{
    (void)state;
    alcove_module *module = plugin_open(allocator, "blocks", &(struct alcove_module_options){.name = "the first"});
    alcove_module *second = untouched;
    assert_refused(alcove_module_open(allocator, plugin_path("blocks"), NULL, &second), ALCOVE_EBUSY, "the first");
    assert_ptr_equal(second, untouched);
    void *block = CALL(module, blocks_make)(BLOCKS_MALLOC, 10); /* the first is unharmed */
    assert_int_equal(heap_of(allocator, block), alcove_module_heap(module));
    CALL(module, blocks_release)(block);
    module_end(module);
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

static const char *
search_finds(void *context)
{
    return context;
}

/* Loading `path` fails, with a message that names it. */
static void
assert_load_refused(const char *path, int code, const char *words)
{
    alcove_allocator *other = (alcove_allocator *)untouched;
    struct alcove_load_options options = {.path = path};
    assert_refused(alcove_load(&other, &options), code, words);
    assert_ptr_equal(other, untouched);
    assert_non_null(strstr(alcove_error_message(), path));
}

static void
test_no_such_allocator(void **state)
{
    (void)state;
    assert_load_refused("/nonexistent/liballoc.so", ALCOVE_ENOENT, "No such file");
    assert_load_refused("/tmp", ALCOVE_EFORMAT, "a directory");
}

static void
test_empty_path_of_an_allocator(void **state)
{
    (void)state;
    assert_load_refused("", ALCOVE_EINVAL, "the path is \"\"");
    alcove_allocator *other;
    struct alcove_load_options options = {.search = search_finds, .context = (void *)""};
    assert_refused(alcove_load(&other, &options), ALCOVE_EINVAL, "the path is \"\"");
}

static void
test_library_that_is_no_allocator(void **state)
{
    (void)state;
    char words[128];
    snprintf(words, sizeof words, "no symbol %stable", setting("ALCOVE_TEST_PREFIX"));
    assert_load_refused(plugin_path("blocks"), ALCOVE_EABI, words);
}

static void
test_allocator_with_another_prefix(void **state)
{
    (void)state;
    alcove_allocator *other;
    struct alcove_load_options options = {.path = allocator_path(), .prefix = "nobodys_"};
    assert_refused(alcove_load(&other, &options), ALCOVE_EABI, "nobodys_table");
}

static void
test_allocator_of_another_abi_version(void **state)
{
    (void)state;
    assert_load_refused(plugin_path("other_abi"), ALCOVE_EABI, "ABI version 999");
    assert_unloaded(plugin_path("other_abi"));
}

static void
test_allocator_with_a_smaller_table(void **state)
{
    (void)state;
    char words[64];
    snprintf(words, sizeof words, "a table of %zu bytes", sizeof(struct alcove_table) - 8);
    assert_load_refused(plugin_path("small_table"), ALCOVE_EABI, words);
}

static const char *
search_fails(void *context)
{
    *(int *)context += 1;
    return NULL;
}

static void
test_embedders_own_search(void **state)
{
    (void)state;
    alcove_allocator *found = NULL;
    struct alcove_load_options options = {.search = search_finds, .context = (void *)allocator_path()};
    assert_ok(alcove_load(&found, &options));
    assert_string_equal(alcove_table_of(found)->abi_version == ALCOVE_ABI_VERSION ? "right" : "wrong", "right");
    assert_ok(alcove_unload(found, 0));
    options.context = "/nonexistent/from-search.so";
    assert_refused(alcove_load(&found, &options), ALCOVE_ENOENT, "from-search.so");
}

/* The name of the environment variable, which follows the prefix. */
static const char *
variable(void)
{
    static char name[128];
    snprintf(name, sizeof name, "%sMODULE", setting("ALCOVE_TEST_PREFIX"));
    for (char *c = name; *c != 0; c++)
        if (*c >= 'a' && *c <= 'z')
            *c -= 'a' - 'A';
    return name;
}

static void
test_environment_names_the_allocator(void **state)
{
    (void)state;
    alcove_allocator *found = NULL;
    int asked = 0;
    struct alcove_load_options options = {.search = search_fails, .context = &asked};
    setenv(variable(), "/nonexistent/from-environment.so", 1);
    assert_refused(alcove_load(&found, &options), ALCOVE_ENOENT, "from-environment.so");
    assert_int_equal(asked, 1);
    setenv(variable(), allocator_path(), 1);
    assert_ok(alcove_load(&found, NULL));
    unsetenv(variable());
    assert_ok(alcove_unload(found, 0));
}

static void
test_load_is_counted(void **state)
{
    (void)state;
    alcove_allocator *again = allocator_load(), *third = allocator_load();
    assert_ptr_equal(again, allocator);
    assert_ptr_equal(third, allocator);
    assert_ok(alcove_unload(again, 0));
    assert_ok(alcove_unload(third, 0));
    assert_non_null(alcove_table_of(allocator));
}

static void
test_second_allocator_of_another_file(void **state)
{
    (void)state;
    char path[] = "/tmp/alcove-second-XXXXXX", command[9000];
    close(mkstemp(path));
    snprintf(command, sizeof command, "cp '%s' '%s'", allocator_path(), path);
    assert_int_equal(system(command), 0);
    alcove_allocator *other = (alcove_allocator *)untouched;
    assert_refused(alcove_load(&other, &(struct alcove_load_options){.path = path}), ALCOVE_EBUSY, "another allocator");
    assert_ptr_equal(other, untouched);
    unlink(path);
}

static void
test_unload_with_open_modules(void **state)
{
    (void)state;
    alcove_module *module = plugin_open(allocator, "blocks", &(struct alcove_module_options){.name = "still here"});
    assert_refused(alcove_unload(allocator, 0), ALCOVE_EBUSY, "still here");
    assert_refused(alcove_unload(allocator, ALCOVE_UNLOAD_RELEASE), ALCOVE_EBUSY, "still here");
    module_end(module);
}

static void
test_unload_with_live_blocks(void **state)
{
    (void)state;
    char words[64];
    alcove_module *module = plugin_open(allocator, "blocks", &(struct alcove_module_options){.name = "forgetful"});
    void *first = CALL(module, blocks_make)(BLOCKS_MALLOC, 100), *second = CALL(module, blocks_make)(BLOCKS_MALLOC, 100);
    snprintf(words, sizeof words, "2 blocks with %llu bytes", (unsigned long long)stats_of(module).heap.live_bytes);
    assert_int_equal(module_end(module).kept, 1);
    assert_refused(alcove_unload(allocator, 0), ALCOVE_EBUSY, words);
    assert_refused(alcove_unload(allocator, 0), ALCOVE_EBUSY, "2 of forgetful");
    free(first);
    assert_refused(alcove_unload(allocator, 0), ALCOVE_EBUSY, "1 block with");
    free(second);
    assert_ok(alcove_unload(allocator, 0));
    setup(state);
}

static void
test_unload_that_releases_live_blocks(void **state)
{
    (void)state;
    assert_non_null(alcove_table_of(allocator)->malloc(100));
    assert_refused(alcove_unload(allocator, 0), ALCOVE_EBUSY, "the default heap");
    assert_ok(alcove_unload(allocator, ALCOVE_UNLOAD_RELEASE));
    assert_unloaded(allocator_path());
    setup(state);
}

static void
test_unloading_twice(void **state)
{
    (void)state;
    alcove_allocator *old = allocator;
    assert_ok(alcove_unload(old, 0));
    assert_refused(alcove_unload(old, 0), ALCOVE_ECLOSED, "unloaded");
    setup(state);
    assert_refused(alcove_unload(old, 0), ALCOVE_ECLOSED, "unloaded");
    assert_null(alcove_table_of(old));
    alcove_module *module = untouched;
    assert_refused(alcove_module_open(old, plugin_path("blocks"), NULL, &module), ALCOVE_ECLOSED, "unloaded");
}

static void
test_nothing_is_mapped_after_unload(void **state)
{
    (void)state;
    alcove_module *module = plugin_open(allocator, "blocks", NULL);
    for (int i = 0; i < 1000; i++)
        CALL(module, blocks_release)(CALL(module, blocks_make)(BLOCKS_MALLOC, (size_t)i * 50));
    assert_true(lines_mapped(allocator_path()) > 0);
    assert_true(lines_mapped(plugin_path("blocks")) > 0);
    module_end(module);
    assert_ok(alcove_unload(allocator, 0));
    assert_unloaded(allocator_path());
    assert_unloaded(plugin_path("blocks"));
    setup(state);
}

static void
test_load_and_unload_200_times_without_growth(void **state)
{
    (void)state;
    assert_ok(alcove_unload(allocator, 0));
    size_t bytes = 0;
    unsigned lines = 0;
    for (int i = 0; i < 200; i++) {
        setup(state);
        alcove_module *module = plugin_open(allocator, "blocks", NULL);
        void *block = CALL(module, blocks_make)(BLOCKS_MALLOC, 1000);
        free(block);
        module_end(module);
        assert_ok(alcove_unload(allocator, 0));
        if (i == 20) {
            bytes = resident_bytes();
            lines = mappings_with("");
        }
    }
    assert_in_range(resident_bytes(), 0, bytes + (256 << 10));
    /* The page map keeps a table for each GiB that was ever used; qemu goes on to the next where the kernel returns. */
    assert_in_range(mappings_with(""), 0, lines + (emulated() ? 10 : 2));
    setup(state);
}

static void *
load_and_unload(void *unused)
{
    (void)unused;
    for (int i = 0; i < 100; i++) {
        alcove_allocator *mine = NULL;
        struct alcove_load_options options = {.path = allocator_path()};
        if (alcove_load(&mine, &options) != 0)
            return strdup(alcove_error_message());
        void *block = alcove_table_of(mine)->malloc(100);
        alcove_table_of(mine)->free(block);
        if (alcove_unload(mine, ALCOVE_UNLOAD_RELEASE) != 0)
            return strdup(alcove_error_message());
    }
    return NULL;
}

static void
test_threads_load_and_unload_at_once(void **state)
{
    (void)state;
    pthread_t threads[4];
    void *message;
    for (int i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, load_and_unload, NULL);
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], &message);
        if (message != NULL)
            fail_msg("%s", (char *)message);
    }
}

static void *
open_and_close(void *name)
{
    for (int i = 0; i < 200; i++) {
        alcove_module *module;
        if (alcove_module_open(allocator, plugin_path(name), NULL, &module) != 0)
            return strdup(alcove_error_message());
        alcove_module_close(module, 0, NULL);
    }
    return NULL;
}

static void *
dlopen_and_dlclose(void *name)
{
    for (int i = 0; i < 200; i++) {
        void *handle = dlopen(plugin_path(name), RTLD_NOW | RTLD_LOCAL);
        if (handle == NULL)
            return strdup(dlerror());
        dlclose(handle);
    }
    return NULL;
}

static void
test_threads_open_modules_while_others_dlopen(void **state)
{
    (void)state;
    static void *(*const work[])(void *) = {open_and_close, open_and_close, dlopen_and_dlclose, dlopen_and_dlclose};
    static const char *const names[] = {"blocks", "blocks_two", "keeper", "other_abi"};
    pthread_t threads[4];
    void *message;
    for (int i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, work[i], (void *)names[i]);
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], &message);
        if (message != NULL)
            fail_msg("%s", (char *)message);
    }
}

/* Called by the constructor and the destructor of the plugin `caller`, inside dlopen and dlclose. */
void host_callback(const char *moment);
static unsigned constructed, destructed;

void
host_callback(const char *moment)
{
    alcove_module *module;
    __atomic_fetch_add(strcmp(moment, "constructor") == 0 ? &constructed : &destructed, 1, __ATOMIC_RELAXED);
    alcove_refresh();
    if (alcove_module_open(allocator, plugin_path("keeper"), NULL, &module) == 0)
        alcove_module_close(module, 0, NULL);
    alcove_allocator *same;
    if (alcove_load(&same, &(struct alcove_load_options){.path = allocator_path()}) == 0)
        alcove_unload(same, 0);
}

static void
test_constructors_may_call_the_loader(void **state)
{
    (void)state;
    module_end(plugin_open(allocator, "caller", NULL));
    assert_int_equal(constructed, 1);
    assert_int_equal(destructed, DLCLOSE_UNLOADS);
}

static void
test_constructors_of_any_thread_may_call_the_loader(void **state)
{
    (void)state;
    pthread_t threads[3];
    void *message;
    pthread_create(&threads[0], NULL, dlopen_and_dlclose, "caller");
    pthread_create(&threads[1], NULL, open_and_close, "blocks");
    pthread_create(&threads[2], NULL, open_and_close, "blocks_two");
    for (int i = 0; i < 3; i++) {
        pthread_join(threads[i], &message);
        if (message != NULL)
            fail_msg("%s", (char *)message);
    }
    assert_int_equal(constructed, DLCLOSE_UNLOADS ? 201 : 1);
}

/* The last test of all: what is left behind stays so for this process' life. */
static void
test_unload_that_leaves_live_blocks(void **state)
{
    (void)state;
    SKIP_WITHOUT_UNLOADING();
    enum { COUNT = 2000 };
    static char *blocks[COUNT];
    static const size_t sizes[] = {10, 700, 9000, 100000, 6000000};
    alcove_module *module = plugin_open(allocator, "blocks", &(struct alcove_module_options){.name = "leaver"});
    for (int i = 0; i < COUNT; i++) {
        size_t size = i == COUNT - 1 ? sizes[4] : sizes[i % 4];
        blocks[i] = CALL(module, blocks_make)(BLOCKS_MALLOC, size);
        memset(blocks[i], i, size);
    }
    for (int i = 0; i < COUNT - 5; i++)
        free(blocks[i]);
    assert_int_equal(module_end(module).kept, 1);
    assert_refused(alcove_unload(allocator, 4), ALCOVE_EINVAL, "flags 0x4");
    assert_refused(alcove_unload(allocator, ALCOVE_UNLOAD_LEAVE | ALCOVE_UNLOAD_RELEASE), ALCOVE_EINVAL, "one or the other");
    assert_refused(alcove_unload(allocator, 0), ALCOVE_EBUSY, "ALCOVE_UNLOAD_LEAVE");
    size_t before = resident_bytes();
    assert_ok(alcove_unload(allocator, ALCOVE_UNLOAD_LEAVE));
    assert_unloaded(allocator_path());
    assert_true(resident_bytes() < before); /* but for the five, everything has gone */
    for (int round = 0; round < 3; round++) {
        /* With no allocator, with the next, and with none again. */
        for (int i = COUNT - 5; i < COUNT; i++) {
            assert_int_equal(blocks[i][0], (char)i);
            blocks[i][9] = (char)i;
            errno = 0;
            assert_null(realloc(blocks[i], 50));
            assert_int_equal(errno, EINVAL);
            free(blocks[i]);
        }
        if (round == 0) {
            setup(state);
            module = plugin_open(allocator, "blocks", NULL);
            void *own = CALL(module, blocks_make)(BLOCKS_MALLOC, 100);
            size_t (*usable_size)(void *) = (size_t(*)(void *))alcove_table_of(allocator)->entry(
                ALCOVE_ENTRY_malloc_usable_size, heap_of(allocator, own));
            assert_true(usable_size(own) >= 100);
            CALL(module, blocks_release)(own);
            for (int i = COUNT - 5; i < COUNT; i++) {
                assert_int_equal(usable_size(blocks[i]), 0);
                CALL(module, blocks_release)(blocks[i]);
                assert_int_equal(heap_of(allocator, blocks[i]), ALCOVE_HEAP_NONE);
                alcove_table_of(allocator)->free(blocks[i]);
            }
            assert_int_equal(stats_of(module).heap.total_frees, 1);
            module_end(module);
        } else if (round == 1) {
            assert_ok(alcove_unload(allocator, 0));
        }
    }
    free(malloc(100000)); /* libc's own are still libc's */
    setup(state);
}

/* Something else keeps the library mapped: the next load finds it as it was left. */
static void
test_load_after_live_blocks_were_left_by_a_library_that_stays(void **state)
{
    void *pin = dlopen(allocator_path(), RTLD_NOW | RTLD_NOLOAD);
    assert_non_null(pin);
    for (int round = 0; round < 3; round++) {
        char *block = alcove_table_of(allocator)->malloc(1000);
        memset(block, round, 1000);
        assert_ok(alcove_unload(allocator, ALCOVE_UNLOAD_LEAVE));
        setup(state);
        assert_int_equal(block[999], round);
        assert_int_equal(heap_of(allocator, block), ALCOVE_HEAP_NONE);
        free(block);
    }
    dlclose(pin);
}

int
main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_no_such_plugin),
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
        TEST(test_null_arguments),
        TEST(test_impossible_limit),
        TEST(test_limit_of_a_module_without_a_heap),
        TEST(test_unknown_policy_and_flags),
        TEST(test_same_library_twice),
        TEST(test_closing_twice),
        TEST(test_handles_that_never_were),
        TEST(test_no_such_symbol),
        TEST(test_message_belongs_to_its_thread),
        cmocka_unit_test(test_no_such_allocator),
        cmocka_unit_test(test_empty_path_of_an_allocator),
        cmocka_unit_test(test_library_that_is_no_allocator),
        cmocka_unit_test(test_allocator_with_another_prefix),
        cmocka_unit_test(test_allocator_of_another_abi_version),
        cmocka_unit_test(test_allocator_with_a_smaller_table),
        TEST(test_embedders_own_search),
        TEST(test_environment_names_the_allocator),
        TEST(test_load_is_counted),
        TEST(test_second_allocator_of_another_file),
        TEST(test_unload_with_open_modules),
        TEST(test_unload_with_live_blocks),
        TEST(test_unload_that_releases_live_blocks),
        TEST(test_unloading_twice),
        TEST(test_nothing_is_mapped_after_unload),
        TEST(test_load_and_unload_200_times_without_growth),
        cmocka_unit_test(test_threads_load_and_unload_at_once),
        TEST(test_threads_open_modules_while_others_dlopen),
        TEST(test_constructors_may_call_the_loader),
        TEST(test_constructors_of_any_thread_may_call_the_loader),
        TEST(test_unload_that_leaves_live_blocks),
        TEST(test_load_after_live_blocks_were_left_by_a_library_that_stays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
