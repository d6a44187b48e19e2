/*
 * What module tests share: the built allocator, reached as a stranger reaches it, through dlopen
 * and dlsym; its messages, kept instead of written; and where memory stands.
 */
#ifndef TESTS_MODULE_H
#define TESTS_MODULE_H

#include <ctype.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "alcove/table.h"
#include "tests/process.h"

#define UNUSED __attribute__((unused))

/* The module that most tests use; group_open() opens it. */
static void *module UNUSED;
static const struct alcove_table *table UNUSED;

static char messages[8192];
static unsigned message_count;

static void
messages_keep(void *unused, const char *line)
{
    (void)unused;
    size_t used = strlen(messages);
    snprintf(messages + used, sizeof messages - used, "%s", line);
    message_count++;
}

static UNUSED void
messages_clear(void)
{
    messages[0] = '\0';
    message_count = 0;
}

#define assert_message(part)                                                          \
    do {                                                                              \
        if (strstr(messages, (part)) == NULL)                                         \
            fail_msg("no message with '%s', but %u: %s", (part), message_count, messages); \
    } while (0)

static const char *
module_path(void)
{
    const char *path = getenv("ALCOVE_TEST_MODULE");
    if (path == NULL) {
        fprintf(stderr, "ALCOVE_TEST_MODULE is not set: run this through make check\n");
        exit(1);
    }
    return path;
}

/* The address of a public symbol, by its name without the prefix. */
static void *
symbol_of(void *handle, const char *name)
{
    char full[128];
    const char *prefix = getenv("ALCOVE_TEST_PREFIX");
    snprintf(full, sizeof full, "%s%s", prefix != NULL ? prefix : "alcove_", name);
    void *address = dlsym(handle, full);
    if (address == NULL)
        print_error("%s\n", dlerror());
    return address;
}

/* Set or (NULL) unset the environment variable with the options of allocators loaded from now on. */
static UNUSED void
options_set(const char *options)
{
    char name[128];
    const char *prefix = getenv("ALCOVE_TEST_PREFIX");
    snprintf(name, sizeof name, "%sMALLOC_CONF", prefix != NULL ? prefix : "alcove_");
    for (char *c = name; *c != '\0'; c++)
        *c = (char)toupper((unsigned char)*c);
    if (options != NULL)
        setenv(name, options, 1);
    else
        unsetenv(name);
}

/* Open an allocator and check its table. NULL: an error was printed. */
static const struct alcove_table *
module_open(const char *path, void **handle)
{
    *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (*handle == NULL) {
        print_error("%s\n", dlerror());
        return NULL;
    }
    const struct alcove_table *t = symbol_of(*handle, "table");
    if (t == NULL || t->abi_version != ALCOVE_ABI_VERSION || t->size < sizeof *t) {
        print_error("%s has no table, or another ABI's\n", path);
        return NULL;
    }
    return t;
}

/* Let an allocator tell its messages to messages_keep(). */
static UNUSED void
module_listen(void *handle)
{
    void (**hook)(void *, const char *) = symbol_of(handle, "malloc_message");
    *hook = messages_keep;
}

static UNUSED int
group_open(void **unused)
{
    (void)unused;
    table = module_open(module_path(), &module);
    if (table == NULL)
        return -1;
    module_listen(module);
    return 0;
}

/* Copy a file. False: errno tells why. */
static UNUSED bool
file_copy(const char *from, const char *to)
{
    static char buffer[1 << 16];
    int in = open(from, O_RDONLY | O_CLOEXEC), out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0700);
    ssize_t n = -1;
    if (in >= 0 && out >= 0)
        while ((n = read(in, buffer, sizeof buffer)) > 0)
            if (write(out, buffer, (size_t)n) != n) {
                n = -1;
                break;
            }
    if (in >= 0)
        close(in);
    if (out >= 0)
        close(out);
    return n == 0;
}

/* A copy of the module's file, which dlopen takes for another library. False: errno tells why. */
static UNUSED bool
module_copy(const char *to)
{
    return file_copy(module_path(), to);
}

static UNUSED struct alcove_heap_stats
stats_of(uint32_t heap)
{
    struct alcove_heap_stats s;
    assert_int_equal(table->heap_stats(heap, &s), 0);
    return s;
}

static UNUSED struct alcove_info
info_now(void)
{
    struct alcove_info info;
    table->info(&info);
    return info;
}

/* The same numbers at every run, from a state that is not 0. */
static UNUSED uint32_t
random_next(uint32_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}

static UNUSED void
fill(void *block, size_t size, unsigned seed)
{
    memset(block, (int)(seed * 37 + size) & 255, size);
}

static UNUSED bool
filled(const void *block, size_t size, unsigned seed)
{
    const unsigned char *p = block, wanted = (unsigned char)(seed * 37 + size);
    for (size_t i = 0; i < size; i++)
        if (p[i] != wanted)
            return false;
    return true;
}

#endif
