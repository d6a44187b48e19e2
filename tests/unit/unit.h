/*
 * What unit tests share: cmocka with what it needs, an allocator that starts afresh, and its messages kept
 * instead of written.
 */
#ifndef TESTS_UNIT_H
#define TESTS_UNIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "alcove/alcove.h"
#include "ground/conf.h"
#include "pages/pool.h"

/* Messages since messages_clear(). */
static char messages[8192];
static unsigned message_count;

static inline void
messages_keep(void *unused, const char *line)
{
    (void)unused;
    size_t used = strlen(messages);
    snprintf(messages + used, sizeof messages - used, "%s", line);
    message_count++;
}

static inline void
messages_clear(void)
{
    messages[0] = '\0';
    message_count = 0;
}

/* Setup of a test: nothing is mapped, nothing was allocated, no option was set but that dirty pages stay. */
static inline int
fresh(void **unused)
{
    (void)unused;
    ALCOVE_PUBLIC(table).detach();
    conf = (struct conf){ .tcache = true, .dirty_decay_ms = -1 };
    pool_init(-1);
    ALCOVE_PUBLIC(malloc_message) = messages_keep;
    messages_clear();
    return 0;
}

#define fresh_test(function) cmocka_unit_test_setup(function, fresh)

#define assert_message(part)                                                          \
    do {                                                                              \
        if (strstr(messages, (part)) == NULL)                                         \
            fail_msg("no message with '%s', but %u: %s", (part), message_count, messages); \
    } while (0)

#endif
