/*
 * Whatever dlopen would open, called by the same code, module_open opens: names that are searched for, $ORIGIN, files that
 * were deleted or replaced, descriptors, names that hold anything. Each test asks dlopen first.
 * The program is linked to search in the folder of the plugins, and runs with a folder of its own in LD_LIBRARY_PATH.
 */
#include "host.h"

#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <link.h>
#include <locale.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../plugins/asker.h"
#include "../plugins/blocks.h"
#include "loaded.h"

#define LIBRARY_PATH_FOLDER "ALCOVE_TEST_LIBRARY_PATH_FOLDER" /* environment: the one in LD_LIBRARY_PATH */

static char folder[64]; /* of the test that runs; has `own` and `other`, where the asker searches */

static int
entry_remove(const char *path, const struct stat *stat, int kind, struct FTW *walk)
{
    (void)stat;
    (void)kind;
    (void)walk;
    return remove(path);
}

/* A path in the folder, in a buffer that the next but seven calls use again. */
static char *
in_folder(const char *name)
{
    static char paths[8][PATH_MAX];
    static unsigned next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

static int
folder_make(void **state)
{
    strcpy(folder, "/tmp/alcove-paths-XXXXXX");
    if (mkdtemp(folder) == NULL || mkdir(in_folder("own"), 0700) != 0 || mkdir(in_folder("other"), 0700) != 0)
        return -1;
    return setup(state);
}

static int
folder_remove(void **state)
{
    nftw(folder, entry_remove, 16, FTW_DEPTH | FTW_PHYS);
    return teardown(state);
}

static void
file_write(const char *path, const void *bytes, size_t count)
{
    unlink(path);
    int file = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0700);
    assert_true(file >= 0);
    assert_int_equal(write(file, bytes, count), count);
    close(file);
}

/* A plugin's bytes, to be freed. */
static char *
plugin_read(const char *name, size_t *count)
{
    struct stat stat;
    int file = open(plugin_path(name), O_RDONLY | O_CLOEXEC);
    assert_int_equal(fstat(file, &stat), 0);
    char *bytes = malloc((size_t)stat.st_size);
    assert_int_equal(read(file, bytes, (size_t)stat.st_size), stat.st_size);
    close(file);
    *count = (size_t)stat.st_size;
    return bytes;
}

static const char *
plugin_copy(const char *name, const char *path)
{
    size_t count;
    char *bytes = plugin_read(name, &count);
    file_write(path, bytes, count);
    free(bytes);
    return path;
}

static void
plugin_copy_truncated(const char *name, const char *path)
{
    size_t count;
    char *bytes = plugin_read(name, &count);
    file_write(path, bytes, count / 2);
    free(bytes);
}

/* Who opens: the test program, or an asker. */
struct opener {
    void *handle; /* NULL: the program */
    void *(*plain)(const char *path, int flags);
    int (*module)(asker_opener *open, alcove_allocator *allocator, const char *path, const struct alcove_module_options *options,
                  alcove_module **out);
};

static void *
program_dlopen(const char *path, int flags)
{
    void *volatile handle = dlopen(path, flags);
    return handle;
}

static int
program_module_open(asker_opener *open, alcove_allocator *with, const char *path, const struct alcove_module_options *options,
                    alcove_module **out)
{
    volatile int code = open(with, path, options, out);
    return code;
}

static const struct opener program = {.plain = program_dlopen, .module = program_module_open};

/* An asker from a file of its own in the folder, opened by `path`. Close its handle. */
static struct opener
asker_open(const char *path)
{
    plugin_copy("asker", in_folder("asker.so"));
    struct opener asker = {.handle = dlopen(path, RTLD_NOW)};
    if (asker.handle == NULL)
        fail_msg("%s", dlerror());
    asker.plain = (__typeof__(asker.plain))dlsym(asker.handle, "asker_dlopen");
    asker.module = (__typeof__(asker.module))dlsym(asker.handle, "asker_module_open");
    return asker;
}

/* The file that a library's function came from, without links and dots where it is there. */
static void
file_of(const void *function, char *out)
{
    Dl_info info;
    assert_int_not_equal(dladdr(function, &info), 0);
    if (realpath(info.dli_fname, out) == NULL)
        strcpy(out, info.dli_fname);
}

/* dlopen and module_open, one after the other, open the same file, or both none. Returns module_open's code. */
static int
assert_same(const struct opener *opener, const char *path)
{
    char plain_file[PATH_MAX] = "", module_file[PATH_MAX] = "";
    void *plain = opener->plain(path, RTLD_NOW | RTLD_LOCAL);
    if (plain != NULL) {
        file_of(dlsym(plain, "blocks_make"), plain_file);
        dlclose(plain);
    }
    alcove_module *module = NULL;
    int code = opener->module(alcove_module_open, allocator, path, NULL, &module);
    if (plain == NULL) {
        assert_int_not_equal(code, ALCOVE_OK);
        return code;
    }
    if (code != ALCOVE_OK)
        fail_msg("dlopen opens %s, and module_open: error %d: %s", plain_file, code, alcove_error_message());
    file_of(symbol(module, "blocks_make"), module_file);
    assert_string_equal(module_file, plain_file);
    void *block = CALL(module, blocks_make)(BLOCKS_MALLOC, 100);
    assert_int_equal(heap_of(allocator, block), alcove_module_heap(module));
    CALL(module, blocks_release)(block);
    assert_ok(alcove_module_close(module, 0, NULL));
    return code;
}

/* Both open `expected`, where dlopen knows its caller. */
static void
assert_same_file(const struct opener *opener, const char *path, const char *expected)
{
    int code = assert_same(opener, path);
#ifdef __GLIBC__
    assert_int_equal(code, ALCOVE_OK);
    alcove_module *module;
    char file[PATH_MAX], wanted[PATH_MAX];
    assert_ok(opener->module(alcove_module_open, allocator, path, NULL, &module));
    file_of(symbol(module, "blocks_make"), file);
    assert_non_null(realpath(expected, wanted));
    assert_string_equal(file, wanted);
    assert_ok(alcove_module_close(module, 0, NULL));
#else
    (void)code;
    (void)expected;
#endif
}

/* What is loaded, held by the host, is what dlopen and module_open return for the path. */
static void
assert_same_as_loaded(void *held, const char *path)
{
    void *again = dlopen(path, RTLD_NOW);
    if (again != NULL || DLCLOSE_UNLOADS)
        assert_ptr_equal(again, held);
    alcove_module *module;
    int code = alcove_module_open(allocator, path, NULL, &module);
    if (again == NULL) {
        assert_int_not_equal(code, ALCOVE_OK);
        return;
    }
    assert_ok(code);
    assert_ptr_equal(symbol(module, "blocks_make"), dlsym(again, "blocks_make"));
    dlclose(again);
    assert_ok(alcove_module_close(module, 0, NULL));
}

static void
test_name_in_the_programs_folder(void **state)
{
    (void)state;
    assert_same_file(&program, "blocks.so", plugin_path("blocks"));
}

static void
test_name_in_the_folder_of_a_plugin_that_calls(void **state)
{
    (void)state;
    struct opener asker = asker_open(in_folder("asker.so"));
    assert_same_file(&asker, "beside.so", plugin_copy("blocks", in_folder("own/beside.so")));
    assert_int_equal(assert_same(&program, "beside.so"), ALCOVE_ENOENT);
    dlclose(asker.handle);
}

static void
test_name_in_both_folders(void **state)
{
    (void)state;
    struct opener asker = asker_open(in_folder("asker.so"));
    plugin_copy("blocks", in_folder("other/twice.so"));
    assert_same_file(&asker, "twice.so", plugin_copy("blocks_two", in_folder("own/twice.so")));
    dlclose(asker.handle);
}

static void
test_library_path_comes_before_the_callers_folders(void **state)
{
    (void)state;
    if (getenv(LIBRARY_PATH_FOLDER) == NULL)
        SKIP_BECAUSE("an emulator does not start itself");
    struct opener asker = asker_open(in_folder("asker.so"));
    char first[PATH_MAX];
    snprintf(first, sizeof first, "%s/first.so", getenv(LIBRARY_PATH_FOLDER));
    plugin_copy("blocks_two", in_folder("own/first.so"));
    assert_same_file(&asker, "first.so", plugin_copy("blocks", first));
    assert_same_file(&program, "first.so", first);
    dlclose(asker.handle);
}

static void
test_name_in_a_default_folder(void **state)
{
    (void)state;
    struct opener asker = asker_open(in_folder("asker.so"));
    static const char name[] = "libanl.so.1"; /* part of glibc, which nobody links */
    alcove_module *module;
    void *plain = asker.plain(name, RTLD_NOW);
    if (plain != NULL)
        dlclose(plain);
    int code = asker.module(alcove_module_open, allocator, name, NULL, &module);
    assert_int_equal(code, plain != NULL ? ALCOVE_OK : ALCOVE_ENOENT);
    if (code == ALCOVE_OK)
        assert_ok(alcove_module_close(module, 0, NULL));
    dlclose(asker.handle);
}

static void
test_search_passes_by_libraries_of_other_machines(void **state)
{
    (void)state;
    struct opener asker = asker_open(in_folder("asker.so"));
    size_t count;
    char *bytes = plugin_read("blocks", &count);
    ((Elf64_Ehdr *)bytes)->e_machine ^= 1;
    file_write(in_folder("own/foreign.so"), bytes, count);
    ((Elf64_Ehdr *)bytes)->e_machine ^= 1;
    bytes[EI_CLASS] ^= ELFCLASS32 ^ ELFCLASS64;
    file_write(in_folder("own/foreign_two.so"), bytes, count);
    free(bytes);
    assert_same_file(&asker, "foreign.so", plugin_copy("blocks", in_folder("other/foreign.so")));
    assert_same_file(&asker, "foreign_two.so", plugin_copy("blocks", in_folder("other/foreign_two.so")));
    dlclose(asker.handle);
}

static void
test_search_ends_at_what_is_no_library(void **state)
{
    (void)state;
    struct opener asker = asker_open(in_folder("asker.so"));
    file_write(in_folder("own/script.so"), "#!/bin/sh\n", 10);
    plugin_copy("blocks", in_folder("other/script.so"));
    assert_same(&asker, "script.so");
    dlclose(asker.handle);
}

static void
test_truncated_library_that_the_search_finds(void **state)
{
    (void)state;
    struct opener asker = asker_open(in_folder("asker.so"));
    plugin_copy_truncated("blocks", in_folder("own/half.so"));
    alcove_module *module;
    int code = asker.module(alcove_module_open, allocator, "half.so", NULL, &module);
#ifdef __GLIBC__
    assert_int_equal(code, ALCOVE_EFORMAT);
    assert_non_null(strstr(alcove_error_message(), "truncated"));
#else
    assert_int_equal(code, ALCOVE_ENOENT);
#endif
    dlclose(asker.handle);
}

static void
test_soname_that_is_loaded_comes_before_any_folder(void **state)
{
    (void)state;
    struct opener asker = asker_open(in_folder("asker.so"));
    void *held = dlopen(plugin_copy("blocks", in_folder("elsewhere.so")), RTLD_NOW); /* its soname is blocks.so */
    plugin_copy("blocks_two", in_folder("own/blocks.so"));
    assert_same_file(&asker, "blocks.so", in_folder("elsewhere.so"));
    dlclose(held);
    dlclose(asker.handle);
}

static void
test_origin_of_the_program(void **state)
{
    (void)state;
    assert_same_file(&program, "$ORIGIN/../plugins/.libs/blocks.so", plugin_path("blocks"));
    assert_int_equal(assert_same(&program, "$ORIGIN/nothing.so"), ALCOVE_ENOENT);
}

static void
test_origin_of_a_plugin_that_calls(void **state)
{
    (void)state;
    struct opener asker = asker_open(in_folder("asker.so"));
    const char *file = plugin_copy("blocks", in_folder("blocks $ORIGINAL ${ORIGIN.so"));
    assert_same_file(&asker, "$ORIGIN/blocks $ORIGINAL ${ORIGIN.so", file);
    assert_same_file(&asker, "${ORIGIN}/own/../blocks $ORIGINAL ${ORIGIN.so", file);
    dlclose(asker.handle);
}

static void
test_origin_of_a_plugin_that_was_opened_by_a_relative_path(void **state)
{
    (void)state;
    char here[PATH_MAX], *was = getcwd(here, sizeof here);
    assert_non_null(was);
    plugin_copy("asker", in_folder("asker.so"));
    assert_int_equal(chdir(folder), 0);
    struct opener asker = asker_open("./asker.so");
    assert_int_equal(chdir(here), 0);
    assert_same_file(&asker, "$ORIGIN/blocks.so", plugin_copy("blocks", in_folder("blocks.so")));
    assert_same_file(&asker, "beside.so", plugin_copy("blocks", in_folder("own/beside.so")));
    dlclose(asker.handle);
}

static void
test_truncated_library_in_the_origin(void **state)
{
    (void)state;
    struct opener asker = asker_open(in_folder("asker.so"));
    plugin_copy_truncated("blocks", in_folder("half.so"));
    alcove_module *module;
    int code = asker.module(alcove_module_open, allocator, "$ORIGIN/half.so", NULL, &module);
    assert_int_equal(code, DLCLOSE_UNLOADS ? ALCOVE_EFORMAT : ALCOVE_ENOENT);
    dlclose(asker.handle);
}

/* A folder for each that either may stand for. */
static void
test_lib_and_platform(void **state)
{
    (void)state;
    struct opener asker = asker_open(in_folder("asker.so"));
    static const char *const libs[] = {"lib", "lib64", "lib/x86_64-linux-gnu", "lib/aarch64-linux-gnu", "lib/powerpc64le-linux-gnu"};
    const char *platform = (const char *)getauxval(AT_PLATFORM);
    const char *const platforms[] = {platform != NULL ? platform : "none", "haswell", "xeon_phi", "x86_64"};
    for (size_t i = 0; i < sizeof libs / sizeof *libs; i++) {
        assert_int_equal(mkdir(in_folder(libs[i]), 0700), 0);
        plugin_copy("blocks", in_folder(strcat(strcpy((char[256]){0}, libs[i]), "/blocks.so")));
    }
    for (size_t i = 0; i < sizeof platforms / sizeof *platforms; i++) {
        mkdir(in_folder(platforms[i]), 0700);
        plugin_copy("blocks", in_folder(strcat(strcpy((char[256]){0}, platforms[i]), "/blocks.so")));
    }
    int code = assert_same(&asker, "$ORIGIN/$LIB/blocks.so");
    assert_same(&asker, "${ORIGIN}/${PLATFORM}/blocks.so");
    assert_same(&asker, in_folder("$LIB/blocks.so"));
    assert_int_equal(code, DLCLOSE_UNLOADS ? ALCOVE_OK : ALCOVE_ENOENT);
    dlclose(asker.handle);
}

/* The one that is loaded, so it is counted. */
static void
assert_allocator_found(const char *path)
{
    alcove_allocator *again = NULL;
    assert_ok(alcove_load(&again, &(struct alcove_load_options){.path = path}));
    assert_ptr_equal(again, allocator);
    assert_ok(alcove_unload(again, 0));
    void *plain = dlopen(path, RTLD_NOW); /* last: it keeps the name */
    assert_non_null(plain);
    dlclose(plain);
}

static void
test_allocator_as_dlopen_finds_it(void **state)
{
    (void)state;
#ifdef __GLIBC__
    char path[PATH_MAX];
    snprintf(path, sizeof path, "$ORIGIN/../../.libs%s", strrchr(allocator_path(), '/'));
    assert_allocator_found(path);
#endif
    assert_allocator_found(strrchr(allocator_path(), '/') + 1);
}

static void
test_library_that_was_deleted_while_loaded(void **state)
{
    (void)state;
    const char *path = plugin_copy("blocks", in_folder("gone.so"));
    void *held = dlopen(path, RTLD_NOW);
    unlink(path);
    assert_same_as_loaded(held, path);
    dlclose(held);
}

static void
test_library_that_was_deleted_while_loaded_by_two_names(void **state)
{
    (void)state;
    const char *path = plugin_copy("blocks", in_folder("gone.so")), *link = in_folder("link.so");
    assert_int_equal(symlink(path, link), 0);
    void *held = dlopen(path, RTLD_NOW);
    dlclose(dlopen(link, RTLD_NOW)); /* dlopen keeps that name */
    unlink(path);
    unlink(link);
    assert_same_as_loaded(held, link);
    dlclose(held);
}

static void
test_library_that_was_replaced_while_loaded(void **state)
{
    (void)state;
#ifndef __GLIBC__
    SKIP_BECAUSE("this libc's dlopen looks at the file each time");
#endif
    const char *path = plugin_copy("blocks", in_folder("new.so"));
    void *held = dlopen(path, RTLD_NOW);
    file_write(path, "#!/bin/sh\n", 10);
    assert_same_as_loaded(held, path);
    plugin_copy_truncated("blocks", path);
    assert_same_as_loaded(held, path);
    plugin_copy("blocks_two", path);
    assert_same_as_loaded(held, path);
    unlink(path);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_same_as_loaded(held, path);
    dlclose(held);
}

static void
test_new_version_by_another_path_while_the_old_one_is_loaded(void **state)
{
    (void)state;
    const char *path = plugin_copy("blocks", in_folder("new.so")), *other = in_folder("own/../new.so");
    void *held = dlopen(path, RTLD_NOW);
    plugin_copy("blocks_two", path);
    void *plain = dlopen(other, RTLD_NOW);
    assert_non_null(plain);
    assert_ptr_not_equal(plain, held);
    dlclose(plain);
    alcove_module *module;
    assert_ok(alcove_module_open(allocator, other, NULL, &module));
    assert_ptr_not_equal(symbol(module, "blocks_make"), dlsym(held, "blocks_make"));
    assert_ok(alcove_module_close(module, 0, NULL));
    dlclose(held);
}

static void
test_library_that_is_deleted_while_a_module(void **state)
{
    (void)state;
    const char *path = plugin_copy("blocks", in_folder("gone.so"));
    alcove_module *module;
    assert_ok(alcove_module_open(allocator, path, NULL, &module));
    unlink(path);
    CALL(module, blocks_release)(CALL(module, blocks_make)(BLOCKS_MALLOC, 100));
    assert_ok(alcove_module_close(module, 0, NULL));
    assert_int_equal(alcove_module_open(allocator, path, NULL, &module), ALCOVE_ENOENT);
}

/* A success keeps the message of an earlier failure. */
static void
test_message_after_a_deleted_library_was_opened(void **state)
{
    (void)state;
    SKIP_WITHOUT_UNLOADING();
    const char *path = plugin_copy("blocks", in_folder("gone.so"));
    void *held = dlopen(path, RTLD_NOW);
    unlink(path);
    alcove_module *module;
    assert_int_equal(alcove_module_open(allocator, "/no/such/file", NULL, &module), ALCOVE_ENOENT);
    assert_null(dlerror());
    assert_ok(alcove_module_open(allocator, path, NULL, &module));
    assert_non_null(strstr(alcove_error_message(), "/no/such/file"));
    assert_null(dlerror());
    assert_ok(alcove_module_close(module, 0, NULL));
    dlclose(held);
}

/* The module's name, in its own words. */
static void
assert_name(const char *path, const struct alcove_module_options *options, const char *name)
{
    alcove_module *module;
    struct alcove_report report;
    assert_ok(alcove_module_open(allocator, path, options, &module));
    assert_string_equal(stats_of(module).name, name);
    assert_ok(alcove_module_close(module, 0, &report));
    assert_string_equal(report.name, name);
}

static void
test_library_in_memory(void **state)
{
    (void)state;
    size_t count;
    char path[64], *bytes = plugin_read("blocks", &count);
    int file = memfd_create("plugin of the day", MFD_CLOEXEC);
    assert_int_equal(write(file, bytes, count), count);
    free(bytes);
    static const char *const forms[] = {"/proc/self/fd/%d", "/dev/fd/%d", "/proc/thread-self/fd/%d"};
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        snprintf(path, sizeof path, forms[i], file); /* NOLINT: one of those above */
        assert_int_equal(assert_same(&program, path), ALCOVE_OK);
        assert_name(path, NULL, "memfd:plugin of the day");
    }
    close(file);
}

static void
test_name_of_a_descriptor_is_its_files(void **state)
{
    (void)state;
    char path[64];
    int file = open(plugin_path("blocks"), O_RDONLY | O_CLOEXEC);
    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    assert_name(path, NULL, "blocks.so");
    close(file);
    const char *gone = plugin_copy("blocks", in_folder("gone.so"));
    file = open(gone, O_RDONLY | O_CLOEXEC);
    unlink(gone);
    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    assert_name(path, NULL, "gone.so");
    close(file);
}

static void
test_descriptor_that_is_closed(void **state)
{
    (void)state;
    assert_int_equal(assert_same(&program, "/proc/self/fd/12345"), ALCOVE_ENOENT);
}

static void
test_names_that_hold_anything(void **state)
{
    (void)state;
    static const char *const names[] = {
        "a plugin.so", " .so ", "two\nlines.so", "tab\tbell\a.so", "100%s%n%d.so", "\"quoted\" 'too'.so", "back\\slash.so",
        "$HOME.so", "a:b;c.so", "-rf", "\xc3\xa9t\xc3\xa9.so", "\xe6\x97\xa5\xe6\x9c\xac.so", "broken\xff\xfe\x80.so", "12345", "#",
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *path = in_folder(names[i]);
        assert_int_equal(assert_same(&program, path), ALCOVE_ENOENT);
        plugin_copy("blocks", path);
        assert_int_equal(assert_same(&program, path), ALCOVE_OK);
        assert_name(path, NULL, names[i]);
    }
}

static void
test_names_that_hold_anything_in_the_callers_folder(void **state)
{
    (void)state;
    struct opener asker = asker_open(in_folder("asker.so"));
    static const char *const names[] = {"a plugin.so", "two\nlines.so", "100%s%n.so", "$HOME.so", "\xc3\xa9t\xc3\xa9.so", "a:b"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *path = in_folder(strcat(strcpy((char[256]){0}, "own/"), names[i]));
        plugin_copy("blocks", path);
        assert_same_file(&asker, names[i], path);
    }
    dlclose(asker.handle);
}

/* `length` characters that name a file below the folder, whose folders are made. */
static char *
long_path_make(size_t length)
{
    char *path = malloc(length + 1), *at = path + sprintf(path, "%s", folder);
    while ((size_t)(at - path) + 201 < length) {
        *at++ = '/';
        memset(at, 'l', 99);
        at += 99;
        *at = 0;
        assert_int_equal(mkdir(path, 0700), 0);
    }
    size_t rest = length - (size_t)(at - path);
    memset(at, 'f', rest);
    *at = '/';
    path[length] = 0;
    return path;
}

static void
test_path_of_4000_characters(void **state)
{
    (void)state;
    char *path = long_path_make(4000);
    assert_int_equal(assert_same(&program, path), ALCOVE_ENOENT);
    assert_non_null(strstr(alcove_error_message(), "No such file"));
    plugin_copy("blocks", path);
    assert_int_equal(assert_same(&program, path), ALCOVE_OK);
    plugin_copy_truncated("blocks", path);
    assert_refused(alcove_module_open(allocator, path, NULL, &(alcove_module *){NULL}), ALCOVE_EFORMAT, "Copy it again");
    assert_non_null(strstr(alcove_error_message(), folder));
    free(path);
}

/* Longer than any path may be, with a slash and without. */
static void
test_path_of_10000_characters(void **state)
{
    (void)state;
    char path[10001];
    memset(path, 'x', sizeof path - 1);
    path[sizeof path - 1] = 0;
    assert_int_not_equal(assert_same(&program, path), ALCOVE_OK);
    assert_int_equal(strlen(alcove_error_message()) < 1023, 1);
    path[0] = '/';
    assert_int_not_equal(assert_same(&program, path), ALCOVE_OK);
    assert_non_null(strstr(alcove_error_message(), strerror(ENAMETOOLONG)));
}

static void
test_message_is_one_line_of_whole_letters(void **state)
{
    (void)state;
    char path[1024];
    for (size_t shift = 0; shift < 8; shift++) {
        memset(path, 'x', sizeof path);
        path[0] = shift < 4 ? '/' : 'x';
        char *at = path + 1 + shift % 4;
        for (int i = 0; i < (shift < 4 ? 200 : 20); i++)
            at = stpcpy(at, "\xe6\x97\xa5");
        strcpy(at, "\n\033.so");
        assert_int_not_equal(alcove_module_open(allocator, path, NULL, &(alcove_module *){NULL}), ALCOVE_OK);
        const char *message = alcove_error_message();
        assert_null(strchr(message, '\n'));
        assert_null(strchr(message, '\033'));
        assert_non_null(strstr(message, "\\x0a\\x1b.so"));
        assert_true(mbstowcs(NULL, message, 0) != (size_t)-1);
    }
}

static void
test_name_that_is_cut_ends_with_a_whole_letter(void **state)
{
    (void)state;
    for (size_t shift = 0; shift < 3; shift++) {
        char name[128] = "ab", *end = name + shift;
        while (end < name + 96)
            end = stpcpy(end, "\xe6\x97\xa5");
        char expected[64];
        size_t length = 63 - (63 - shift) % 3;
        memcpy(expected, name, length);
        expected[length] = 0;
        assert_name(plugin_path("blocks"), &(struct alcove_module_options){.name = name}, expected);
    }
}

static void
test_empty_name_is_none(void **state)
{
    (void)state;
    assert_name(plugin_path("blocks"), &(struct alcove_module_options){.name = ""}, "blocks.so");
}

/* dlopen takes it for the program. */
static void
test_empty_path_is_an_error(void **state)
{
    (void)state;
    alcove_module *module = untouched;
    assert_refused(alcove_module_open(allocator, "", NULL, &module), ALCOVE_EINVAL, "no path");
    assert_ptr_equal(module, untouched);
}

static void
test_flag_noload(void **state)
{
    (void)state;
    const struct alcove_module_options options = {.dlopen_flags = RTLD_NOW | RTLD_NOLOAD};
    const char *path = plugin_copy("blocks", in_folder("noload.so"));
    alcove_module *module;
    assert_null(dlopen(path, RTLD_NOW | RTLD_NOLOAD));
    assert_refused(alcove_module_open(allocator, path, &options, &module), ALCOVE_ELOAD, "loaded");
    void *held = dlopen(path, RTLD_NOW);
    assert_ok(alcove_module_open(allocator, path, &options, &module));
    assert_ptr_equal(symbol(module, "blocks_make"), dlsym(held, "blocks_make"));
    assert_ok(alcove_module_close(module, 0, NULL));
    dlclose(held);
}

static void
test_flag_nodelete(void **state)
{
    (void)state;
    const struct alcove_module_options options = {.dlopen_flags = RTLD_NOW | RTLD_NODELETE};
    const char *path = plugin_copy("blocks", in_folder("nodelete.so"));
    alcove_module *module;
    assert_ok(alcove_module_open(allocator, path, NULL, &module));
    assert_ok(alcove_module_close(module, 0, NULL));
    assert_int_equal(mappings_with(path) == 0, DLCLOSE_UNLOADS);
    assert_ok(alcove_module_open(allocator, path, &options, &module));
    __typeof__(&blocks_make) make = CALL(module, blocks_make);
    assert_ok(alcove_module_close(module, 0, NULL));
    assert_true(mappings_with(path) != 0);
    void *block = make(BLOCKS_MALLOC, 100); /* libc's */
    assert_int_equal(heap_of(allocator, block), ALCOVE_HEAP_NONE);
    free(block);
}

static void
test_flag_global(void **state)
{
    (void)state;
    const struct alcove_module_options options = {.dlopen_flags = RTLD_NOW | RTLD_GLOBAL};
    const char *path = plugin_copy("blocks", in_folder("global.so"));
    alcove_module *module;
    assert_ok(alcove_module_open(allocator, path, NULL, &module));
    assert_null(dlsym(RTLD_DEFAULT, "blocks_make"));
    assert_ok(alcove_module_close(module, 0, NULL));
    assert_ok(alcove_module_open(allocator, path, &options, &module));
    assert_ptr_equal(dlsym(RTLD_DEFAULT, "blocks_make"), symbol(module, "blocks_make"));
    assert_ok(alcove_module_close(module, 0, NULL));
}

static void
test_flag_global_of_what_is_loaded_and_deleted(void **state)
{
    (void)state;
    SKIP_WITHOUT_UNLOADING();
    const struct alcove_module_options options = {.dlopen_flags = RTLD_NOW | RTLD_GLOBAL};
    const char *path = plugin_copy("asker", in_folder("global.so"));
    alcove_module *module;
    void *held = dlopen(path, RTLD_NOW);
    unlink(path);
    assert_null(dlsym(RTLD_DEFAULT, "asker_asks"));
    assert_ok(alcove_module_open(allocator, path, &options, &module));
    assert_ptr_equal(dlsym(RTLD_DEFAULT, "asker_asks"), symbol(module, "asker_asks"));
    assert_ok(alcove_module_close(module, 0, NULL));
    dlclose(held);
}

/* The program's function stands before the plugin's own of that name, but with RTLD_DEEPBIND. */
int
asker_whose(void)
{
    return ASKER_PROGRAM;
}

static void
test_flag_deepbind(void **state)
{
    (void)state;
#ifdef RTLD_DEEPBIND
    const struct alcove_module_options options = {.dlopen_flags = RTLD_NOW | RTLD_DEEPBIND};
    const char *path = plugin_copy("asker", in_folder("asker.so"));
    alcove_module *module;
    assert_ok(alcove_module_open(allocator, path, NULL, &module));
    assert_int_equal(CALL(module, asker_asks)(), ASKER_PROGRAM);
    assert_ok(alcove_module_close(module, 0, NULL));
    assert_ok(alcove_module_open(allocator, path, &options, &module));
    assert_int_equal(CALL(module, asker_asks)(), ASKER_PLUGIN);
    assert_ok(alcove_module_close(module, 0, NULL));
#else
    SKIP_BECAUSE("this libc has no RTLD_DEEPBIND");
#endif
}

/* Run again with a folder in LD_LIBRARY_PATH, which is read when a program starts. */
static void
library_path_begin(void)
{
    if (emulated() || getenv(LIBRARY_PATH_FOLDER) != NULL)
        return;
    static char made[] = "/tmp/alcove-library-path-XXXXXX";
    const char *before = getenv("LD_LIBRARY_PATH");
    char path[2 * PATH_MAX];
    snprintf(path, sizeof path, "%s%s%s", mkdtemp(made), before != NULL ? ":" : "", before != NULL ? before : "");
    setenv("LD_LIBRARY_PATH", path, 1);
    setenv(LIBRARY_PATH_FOLDER, made, 1);
    execl("/proc/self/exe", "test_paths", (char *)NULL);
    exit(99);
}

int
main(void)
{
    library_path_begin();
    setlocale(LC_CTYPE, "C.UTF-8");
#define TEST(name) cmocka_unit_test_setup_teardown(name, folder_make, folder_remove)
    const struct CMUnitTest tests[] = {
        TEST(test_name_in_the_programs_folder),
        TEST(test_name_in_the_folder_of_a_plugin_that_calls),
        TEST(test_name_in_both_folders),
        TEST(test_library_path_comes_before_the_callers_folders),
        TEST(test_name_in_a_default_folder),
        TEST(test_search_passes_by_libraries_of_other_machines),
        TEST(test_search_ends_at_what_is_no_library),
        TEST(test_truncated_library_that_the_search_finds),
        TEST(test_soname_that_is_loaded_comes_before_any_folder),
        TEST(test_origin_of_the_program),
        TEST(test_origin_of_a_plugin_that_calls),
        TEST(test_origin_of_a_plugin_that_was_opened_by_a_relative_path),
        TEST(test_truncated_library_in_the_origin),
        TEST(test_lib_and_platform),
        TEST(test_allocator_as_dlopen_finds_it),
        TEST(test_library_that_was_deleted_while_loaded),
        TEST(test_library_that_was_deleted_while_loaded_by_two_names),
        TEST(test_library_that_was_replaced_while_loaded),
        TEST(test_new_version_by_another_path_while_the_old_one_is_loaded),
        TEST(test_library_that_is_deleted_while_a_module),
        TEST(test_message_after_a_deleted_library_was_opened),
        TEST(test_library_in_memory),
        TEST(test_name_of_a_descriptor_is_its_files),
        TEST(test_descriptor_that_is_closed),
        TEST(test_names_that_hold_anything),
        TEST(test_names_that_hold_anything_in_the_callers_folder),
        TEST(test_path_of_4000_characters),
        TEST(test_path_of_10000_characters),
        TEST(test_message_is_one_line_of_whole_letters),
        TEST(test_name_that_is_cut_ends_with_a_whole_letter),
        TEST(test_empty_name_is_none),
        TEST(test_empty_path_is_an_error),
        TEST(test_flag_noload),
        TEST(test_flag_nodelete),
        TEST(test_flag_global),
        TEST(test_flag_global_of_what_is_loaded_and_deleted),
        TEST(test_flag_deepbind),
    };
    int result = cmocka_run_group_tests(tests, NULL, NULL);
    const char *made = getenv(LIBRARY_PATH_FOLDER);
    if (made != NULL)
        nftw(made, entry_remove, 16, FTW_DEPTH | FTW_PHYS);
    return result;
}
