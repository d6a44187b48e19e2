/* Strings of options: where they come from, and what is said of one that is not understood. */
#define _GNU_SOURCE
#include "conf/conf.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "conf/option.h"
#include "ground/attributes.h"
#include "ground/message.h"
#include "config.h"

/* Set by the program that embeds the library, before its first call. */
API_WEAK const char *ALCOVE_PUBLIC(malloc_conf);

/* As much of an option as a message shows, so that what it should be still has room there. */
enum { SHOWN = 128 };

static int
shown_length(size_t length)
{
    return length > SHOWN ? SHOWN : (int)length;
}

static const char *
shown_end(size_t length)
{
    return length > SHOWN ? "..." : "";
}

/* Say what is wrong with one "name:value" that its option does not take. */
static void
refusal_tell(const struct option *o, enum option_result result, const char *pair, size_t length, const char *source)
{
    char takes[SHOWN];
    option_takes(o, takes, sizeof takes);
    if (result == OPTION_OUT_OF_RANGE)
        message("%s: '%.*s%s': out of range, %" PRId64 " to %" PRId64 ": %s takes %s",
                source, shown_length(length), pair, shown_end(length), o->least, o->most, o->name, takes);
    else
        message("%s: '%.*s%s': %s takes %s",
                source, shown_length(length), pair, shown_end(length), o->name, takes);
}

/* Read one "name:value". */
static bool
pair_read(const char *pair, size_t length, const char *source)
{
    const char *colon = memchr(pair, ':', length);
    size_t name = colon != NULL ? (size_t)(colon - pair) : length;
    const struct option *o = option_find(pair, name);
    if (o == NULL) {
        message("%s: no option '%.*s%s'", source, shown_length(name), pair, shown_end(name));
        return false;
    }
    if (colon == NULL) {
        message("%s: '%s': %s takes a value after ':'", source, o->name, o->name);
        return false;
    }
    enum option_result result = option_set(o, colon + 1, length - name - 1);
    if (result != OPTION_SET)
        refusal_tell(o, result, pair, length, source);
    return result == OPTION_SET;
}

bool
conf_parse(const char *text, const char *source)
{
    bool good = true;
    while (*text != '\0') {
        size_t length = strcspn(text, ",");
        good &= pair_read(text, length, source);
        text += length;
        if (*text == ',')
            text++;
    }
    return good;
}

void
conf_read(void)
{
    static const char variable[] = ALCOVE_ENV_PREFIX "MALLOC_CONF";
    bool good = conf_parse(ALCOVE_MALLOC_CONF, "--with-malloc-conf");
    if (ALCOVE_PUBLIC(malloc_conf) != NULL)
        good &= conf_parse(ALCOVE_PUBLIC(malloc_conf), ALCOVE_PREFIX "malloc_conf");
    const char *environment = secure_getenv(variable);
    if (environment != NULL)
        good &= conf_parse(environment, variable);
    if (!good && conf.abort_conf) {
        message("abort_conf is set: aborting");
        abort();
    }
}
