/* Options: one table, and the parser that works through it. */
#define _GNU_SOURCE
#include "conf/conf.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "ground/attributes.h"
#include "ground/message.h"
#include "config.h"

struct conf conf = {
    .abort = ALCOVE_DEBUG,
    .abort_conf = ALCOVE_DEBUG,
    .tcache = true,
    .dirty_decay_ms = 10000,
    .thp = CONF_THP_DEFAULT,
};

/* Set by the program that embeds the library, before its first call. */
API_WEAK const char *ALCOVE_PUBLIC(malloc_conf);

enum option_kind { OPTION_BOOL, OPTION_MS, OPTION_THP };

static const struct option {
    const char *name;
    enum option_kind kind;
    size_t offset;
} options[] = {
    { "abort", OPTION_BOOL, offsetof(struct conf, abort) },
    { "abort_conf", OPTION_BOOL, offsetof(struct conf, abort_conf) },
    { "tcache", OPTION_BOOL, offsetof(struct conf, tcache) },
    { "dirty_decay_ms", OPTION_MS, offsetof(struct conf, dirty_decay_ms) },
    { "verbose", OPTION_BOOL, offsetof(struct conf, verbose) },
    { "thp", OPTION_THP, offsetof(struct conf, thp) },
};

static bool
text_is(const char *text, size_t length, const char *word)
{
    return strlen(word) == length && memcmp(text, word, length) == 0;
}

/* What a value may be, for a message; NULL when it was set. */
static const char *
option_set(const struct option *o, const char *value, size_t length)
{
    void *target = (char *)&conf + o->offset;
    switch (o->kind) {
    case OPTION_BOOL:
        if (!text_is(value, length, "true") && !text_is(value, length, "false"))
            return "true or false";
        *(bool *)target = value[0] == 't';
        return NULL;
    case OPTION_MS: {
        char digits[24], *end;
        if (length > 0 && length < sizeof digits) {
            memcpy(digits, value, length);
            digits[length] = '\0';
            int saved = errno;
            errno = 0;
            long long ms = strtoll(digits, &end, 10);
            bool good = errno == 0 && *end == '\0' && ms >= -1 && ms <= INT64_MAX / 1000000;
            errno = saved;
            if (good) {
                *(int64_t *)target = ms;
                return NULL;
            }
        }
        return "milliseconds, or -1 for never";
    }
    case OPTION_THP: {
        static const char *const words[] = { "default", "always", "never" };
        for (int i = 0; i < 3; i++) {
            if (text_is(value, length, words[i])) {
                *(enum conf_thp *)target = (enum conf_thp)i;
                return NULL;
            }
        }
        return "default, always or never";
    }
    }
    return "";
}

bool
conf_parse(const char *text, const char *source)
{
    bool good = true;
    while (*text != '\0') {
        size_t length = strcspn(text, ","), name = strcspn(text, ":,");
        const struct option *found = NULL;
        for (size_t i = 0; i < sizeof options / sizeof options[0]; i++)
            if (text_is(text, name, options[i].name))
                found = &options[i];
        const char *wanted = "a value after ':'";
        if (found == NULL) {
            message("%s: no option '%.*s'", source, (int)name, text);
            good = false;
        } else if (name == length ||
                   (wanted = option_set(found, text + name + 1, length - name - 1)) != NULL) {
            message("%s: '%.*s': %s takes %s", source, (int)length, text, found->name, wanted);
            good = false;
        }
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
