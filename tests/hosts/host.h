/*
 * What the tests of the loader share: where the built files are, and short ways to load, open and
 * look up that fail the test with the loader's message.
 */
#ifndef HOSTS_HOST_H
#define HOSTS_HOST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <alcove/loader.h>

#include "tests/process.h"

static inline const char *
setting(const char *name)
{
    const char *value = getenv(name);
    if (value == NULL) {
        fprintf(stderr, "%s is not set; run this through make check\n", name);
        exit(99);
    }
    return value;
}

static inline const char *
allocator_path(void)
{
    return setting("ALCOVE_TEST_MODULE");
}

/* The file of a plugin, in a buffer of the thread's that the next but three calls use again. */
static inline const char *
plugin_path(const char *name)
{
    static __thread char paths[4][4096];
    static __thread unsigned next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s.so", setting("ALCOVE_TEST_PLUGINS"), name);
    return path;
}

#define assert_ok(call)                                                    \
    do {                                                                   \
        int assert_code = (call);                                          \
        if (assert_code != 0)                                              \
            fail_msg("%s: error %d: %s", #call, assert_code, alcove_error_message()); \
    } while (0)

/* The call fails with this code, and the message has these words. */
#define assert_refused(call, expected, words)                              \
    do {                                                                   \
        assert_int_equal((call), (expected));                              \
        if (strstr(alcove_error_message(), (words)) == NULL)               \
            fail_msg("the message \"%s\" does not say \"%s\"", alcove_error_message(), (words)); \
    } while (0)

static inline alcove_allocator *
allocator_load(void)
{
    alcove_allocator *allocator = NULL;
    assert_ok(alcove_load(&allocator, &(struct alcove_load_options){.path = allocator_path()}));
    assert_non_null(allocator);
    return allocator;
}

static inline alcove_module *
plugin_open(alcove_allocator *allocator, const char *name, const struct alcove_module_options *options)
{
    alcove_module *module = NULL;
    assert_ok(alcove_module_open(allocator, plugin_path(name), options, &module));
    assert_non_null(module);
    return module;
}

static inline void *
symbol(alcove_module *module, const char *name)
{
    void *address = alcove_module_symbol(module, name);
    if (address == NULL)
        fail_msg("%s", alcove_error_message());
    return address;
}

/* A plugin's function, with the type of its declaration. */
#define CALL(module, function) ((__typeof__(&function))symbol(module, #function))

/* The heap that a block belongs to; ALCOVE_HEAP_NONE: not the allocator's. */
static inline uint32_t
heap_of(alcove_allocator *allocator, const void *block)
{
    struct alcove_owner owner = {.heap = ALCOVE_HEAP_NONE};
    return alcove_table_of(allocator)->owner(block, &owner) ? owner.heap : ALCOVE_HEAP_NONE;
}

static inline struct alcove_module_stats
stats_of(alcove_module *module)
{
    struct alcove_module_stats stats;
    assert_ok(alcove_module_stats(module, &stats));
    return stats;
}

static inline struct alcove_report
module_end(alcove_module *module)
{
    struct alcove_report report;
    assert_ok(alcove_module_close(module, 0, &report));
    return report;
}

/* Lines of /proc/self/maps that name the file. */
static inline unsigned
lines_mapped(const char *file)
{
    const char *slash = strrchr(file, '/');
    return mappings_with(slash != NULL ? slash : file);
}

/* The file is closed for good: as far as the C library unloads anything, it is gone. */
static inline void
assert_unloaded(const char *file)
{
    assert_int_equal(lines_mapped(file) != 0, !DLCLOSE_UNLOADS);
}

#endif
