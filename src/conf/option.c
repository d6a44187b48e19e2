/* The table of options, and how a value of each kind is read. No lock: values are set while the library is loaded. */
#include "conf/option.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct option options[] = {
#define OPTION(key, is, initial, values, text) \
    { .name = #key, .kind = OPTION_##is, .offset = offsetof(struct conf, key), values },
#define ANY
#define RANGE(from, to) .least = from, .most = to
#define WORDS(list) .words = (const char *const[]){ list NULL }
#define WORD(constant, word) [constant] = word,
#include "ground/options.def"
};

static bool
text_is(const char *text, size_t length, const char *word)
{
    return strlen(word) == length && memcmp(text, word, length) == 0;
}

const struct option *
option_find(const char *name, size_t length)
{
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++)
        if (text_is(name, length, options[i].name))
            return &options[i];
    return NULL;
}

static enum option_result
bool_set(const struct option *o, const char *value, size_t length)
{
    bool on = text_is(value, length, "true");
    if (!on && !text_is(value, length, "false"))
        return OPTION_REFUSED;
    *(bool *)option_value(o) = on;
    return OPTION_SET;
}

static enum option_result
number_set(const struct option *o, const char *value, size_t length)
{
    char *end;
    int saved = errno;
    errno = 0;
    long long number = strtoll(value, &end, 10); /* which stops at the ',' */
    bool overflow = errno == ERANGE;
    errno = saved;
    if (length == 0 || end != value + length)
        return OPTION_REFUSED;
    if (overflow || number < o->least || number > o->most)
        return OPTION_OUT_OF_RANGE;
    *(int64_t *)option_value(o) = number;
    return OPTION_SET;
}

static enum option_result
choice_set(const struct option *o, const char *value, size_t length)
{
    for (unsigned i = 0; o->words[i] != NULL; i++) {
        if (text_is(value, length, o->words[i])) {
            memcpy(option_value(o), &i, sizeof i);
            return OPTION_SET;
        }
    }
    return OPTION_REFUSED;
}

enum option_result
option_set(const struct option *o, const char *value, size_t length)
{
    switch (o->kind) {
    case OPTION_BOOL:
        return bool_set(o, value, length);
    case OPTION_MS:
        return number_set(o, value, length);
    case OPTION_CHOICE:
        return choice_set(o, value, length);
    }
    return OPTION_REFUSED;
}

static void
words_write(const char *const *words, char *out, size_t size)
{
    for (size_t i = 0, used = 0; words[i] != NULL && used < size; i++) {
        const char *between = i == 0 ? "" : words[i + 1] == NULL ? " or " : ", ";
        used += (size_t)snprintf(out + used, size - used, "%s%s", between, words[i]);
    }
}

void
option_takes(const struct option *o, char *out, size_t size)
{
    switch (o->kind) {
    case OPTION_BOOL:
        snprintf(out, size, "true or false");
        break;
    case OPTION_MS:
        snprintf(out, size, "milliseconds, or -1 for never");
        break;
    case OPTION_CHOICE:
        words_write(o->words, out, size);
        break;
    }
}
