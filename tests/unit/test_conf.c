/* Options: each by its name and values; bad ones are refused with a message that names them. */
#include "unit.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "conf/conf.h"
#include "conf/option.h"
#include "ground/attributes.h"

static struct conf conf_at_start;

static const char *const names[] = {
#define OPTION(name, kind, initial, values, text) #name,
#include "ground/options.def"
};
enum { NAMES = sizeof names / sizeof names[0] };

static const char variable[] = ALCOVE_ENV_PREFIX "MALLOC_CONF";

static bool
parse(const char *text)
{
    return conf_parse(text, "a test");
}

/* What an option is at the moment, as a string of options writes it. */
static void
value_write(const struct option *o, char *out, size_t size)
{
    switch (o->kind) {
    case OPTION_BOOL:
        snprintf(out, size, "%s", *(bool *)option_value(o) ? "true" : "false");
        break;
    case OPTION_MS:
        snprintf(out, size, "%" PRId64, *(int64_t *)option_value(o));
        break;
    case OPTION_CHOICE: {
        unsigned word;
        memcpy(&word, option_value(o), sizeof word);
        snprintf(out, size, "%s", o->words[word]);
        break;
    }
    }
}

/* The values at the ends of what an option takes, up to `most` of them; how many there are. */
static unsigned
values_list(const struct option *o, char (*out)[64], unsigned most)
{
    unsigned n = 0;
    switch (o->kind) {
    case OPTION_BOOL:
        snprintf(out[n++], sizeof out[0], "true");
        snprintf(out[n++], sizeof out[0], "false");
        break;
    case OPTION_MS:
        snprintf(out[n++], sizeof out[0], "%" PRId64, o->least);
        snprintf(out[n++], sizeof out[0], "%" PRId64, o->most);
        break;
    case OPTION_CHOICE:
        while (n < most && o->words[n] != NULL) {
            snprintf(out[n], sizeof out[0], "%s", o->words[n]);
            n++;
        }
        break;
    }
    return n;
}

/* Call a function with every option and each of its values. */
static void
each_value(void (*function)(const struct option *o, const char *value))
{
    for (unsigned i = 0; i < NAMES; i++) {
        const struct option *o = option_find(names[i], strlen(names[i]));
        assert_non_null(o);
        char values[16][64];
        unsigned n = values_list(o, values, 16);
        assert_true(n >= 2);
        for (unsigned j = 0; j < n; j++)
            function(o, values[j]);
    }
}

static bool
started_without_options(void)
{
    return ALCOVE_MALLOC_CONF[0] == '\0' && getenv(variable) == NULL;
}

static void
test_each_default_is_what_its_row_says(void **unused)
{
    (void)unused;
    if (!started_without_options())
        skip();
#define OPTION(name, kind, initial, values, text) assert_int_equal(conf_at_start.name, initial);
#include "ground/options.def"
}

static void
test_each_option_is_found_by_its_name_alone(void **unused)
{
    (void)unused;
    for (unsigned i = 0; i < NAMES; i++) {
        size_t length = strlen(names[i]);
        assert_string_equal(option_find(names[i], length)->name, names[i]);
        assert_null(option_find(names[i], 0));
        assert_null(option_find(names[i], length - 1));
        assert_null(option_find(names[i], length + 1));
    }
}

static void
assert_taken_and_read_back(const struct option *o, const char *value)
{
    char text[200], now[64];
    snprintf(text, sizeof text, "%s:%s", o->name, value);
    assert_true(parse(text));
    value_write(o, now, sizeof now);
    assert_string_equal(now, value);
}

static void
test_each_value_is_taken_and_read_back_by_name(void **unused)
{
    (void)unused;
    each_value(assert_taken_and_read_back);
    assert_int_equal(message_count, 0);
}

static void
assert_sets_no_other_option(const struct option *o, const char *value)
{
    char text[200], before[NAMES][64], now[64];
    for (unsigned i = 0; i < NAMES; i++)
        value_write(option_find(names[i], strlen(names[i])), before[i], sizeof before[i]);
    snprintf(text, sizeof text, "%s:%s", o->name, value);
    assert_true(parse(text));
    for (unsigned i = 0; i < NAMES; i++) {
        value_write(option_find(names[i], strlen(names[i])), now, sizeof now);
        if (strcmp(names[i], o->name) != 0)
            assert_string_equal(now, before[i]);
    }
}

static void
test_no_option_sets_another(void **unused)
{
    (void)unused;
    each_value(assert_sets_no_other_option);
}

static void
test_defaults(void **unused)
{
    (void)unused;
    if (!started_without_options())
        skip();
    assert_int_equal(conf_at_start.abort, ALCOVE_DEBUG);
    assert_int_equal(conf_at_start.abort_conf, ALCOVE_DEBUG);
    assert_true(conf_at_start.tcache);
    assert_int_equal(conf_at_start.dirty_decay_ms, 10000);
    assert_int_equal(conf_at_start.thp, CONF_THP_DEFAULT);
    assert_false(conf_at_start.verbose);
}

static void
test_abort(void **unused)
{
    (void)unused;
    assert_true(parse("abort:true"));
    assert_true(conf.abort);
    assert_true(parse("abort:false"));
    assert_false(conf.abort);
}

static void
test_abort_conf(void **unused)
{
    (void)unused;
    assert_true(parse("abort_conf:true"));
    assert_true(conf.abort_conf);
    assert_true(parse("abort_conf:false"));
    assert_false(conf.abort_conf);
}

static void
test_tcache(void **unused)
{
    (void)unused;
    assert_true(parse("tcache:false"));
    assert_false(conf.tcache);
    assert_true(parse("tcache:true"));
    assert_true(conf.tcache);
}

static void
test_dirty_decay_ms(void **unused)
{
    (void)unused;
    assert_true(parse("dirty_decay_ms:2500"));
    assert_int_equal(conf.dirty_decay_ms, 2500);
    assert_true(parse("dirty_decay_ms:0"));
    assert_int_equal(conf.dirty_decay_ms, 0);
    assert_true(parse("dirty_decay_ms:-1"));
    assert_int_equal(conf.dirty_decay_ms, -1);
}

static void
test_thp(void **unused)
{
    (void)unused;
    assert_true(parse("thp:always"));
    assert_int_equal(conf.thp, CONF_THP_ALWAYS);
    assert_true(parse("thp:never"));
    assert_int_equal(conf.thp, CONF_THP_NEVER);
    assert_true(parse("thp:default"));
    assert_int_equal(conf.thp, CONF_THP_DEFAULT);
}

static void
test_several_options_and_the_last_of_one_name_wins(void **unused)
{
    (void)unused;
    assert_true(parse("abort:true,dirty_decay_ms:7,tcache:false,dirty_decay_ms:8"));
    assert_true(conf.abort);
    assert_false(conf.tcache);
    assert_int_equal(conf.dirty_decay_ms, 8);
}

static void
test_empty_string_and_a_comma_at_the_end(void **unused)
{
    (void)unused;
    assert_true(parse(""));
    assert_true(parse("tcache:true,"));
    assert_int_equal(message_count, 0);
}

static void
assert_bad(const char *text, const char *named)
{
    struct conf before = conf;
    int error = errno = 12345;
    messages_clear();
    assert_false(parse(text));
    assert_int_equal(errno, error);
    assert_int_equal(message_count, 1);
    assert_message("a test");
    assert_message(named);
    assert_memory_equal(&before, &conf, sizeof conf);
}

/* Refused, with a message that has the value and what would be taken. */
static void
assert_value_refused(const struct option *o, const char *value)
{
    char text[200], takes[100];
    snprintf(text, sizeof text, "%s:%s", o->name, value);
    assert_bad(text, text);
    option_takes(o, takes, sizeof takes);
    assert_message(takes);
}

static void
assert_prefixes_refused(const struct option *o, const char *value)
{
    char text[64];
    snprintf(text, sizeof text, "%s", value);
    for (size_t length = strlen(value); length-- > 0;) {
        text[length] = '\0';
        if (length == 0 || o->kind != OPTION_MS || strcmp(text, "-") == 0) /* what begins a number is one */
            assert_value_refused(o, text);
    }
}

static void
test_no_option_takes_the_beginning_of_a_value_or_nothing(void **unused)
{
    (void)unused;
    each_value(assert_prefixes_refused);
}

static void
assert_more_refused(const struct option *o, const char *value)
{
    static const char *const more[] = { " ", "x", ":", ".", "-", ":1", "true" };
    char text[100];
    for (unsigned i = 0; i < sizeof more / sizeof more[0]; i++) {
        snprintf(text, sizeof text, "%s%s", value, more[i]);
        assert_value_refused(o, text);
    }
    snprintf(text, sizeof text, "%s:,%s", o->name, value); /* no option takes what comes after the comma */
    messages_clear();
    assert_false(parse(text));
    assert_int_equal(message_count, 2);
}

static void
test_no_option_takes_a_value_with_more_behind_it(void **unused)
{
    (void)unused;
    each_value(assert_more_refused);
}

static void
test_a_number_beyond_its_range_is_said_to_be(void **unused)
{
    (void)unused;
    for (unsigned i = 0; i < NAMES; i++) {
        const struct option *o = option_find(names[i], strlen(names[i]));
        if (o->kind != OPTION_MS)
            continue;
        char text[200], range[100];
        snprintf(range, sizeof range, "': out of range, %" PRId64 " to %" PRId64 ": %s takes ", o->least, o->most, o->name);
        snprintf(text, sizeof text, "%s:%" PRId64, o->name, o->least - 1);
        assert_bad(text, range);
        assert_message(text);
        snprintf(text, sizeof text, "%s:%" PRId64, o->name, o->most + 1);
        assert_bad(text, range);
        assert_message(text);
        snprintf(text, sizeof text, "%s:%0100d", o->name, 0); /* many digits are no large number */
        assert_true(parse(text));
        snprintf(text, sizeof text, "%s:1%0100d", o->name, 0);
        assert_bad(text, range);
    }
}

static void
test_a_number_of_more_than_64_bits_is_beyond_any_range(void **unused)
{
    (void)unused;
    struct option all = *option_find("dirty_decay_ms", strlen("dirty_decay_ms"));
    all.least = INT64_MIN;
    all.most = INT64_MAX;
    static const char most[] = "9223372036854775807", more[] = "9223372036854775808", less[] = "-9223372036854775809";
    assert_int_equal(option_set(&all, most, strlen(most)), OPTION_SET);
    assert_int_equal(conf.dirty_decay_ms, INT64_MAX);
    assert_int_equal(option_set(&all, more, strlen(more)), OPTION_OUT_OF_RANGE);
    assert_int_equal(option_set(&all, less, strlen(less)), OPTION_OUT_OF_RANGE);
}

static void
assert_long_refused(const struct option *o, const char *value)
{
    char text[3000], shown[200], takes[100];
    int start = snprintf(text, sizeof text, "%s:%s", o->name, value);
    memset(text + start, 'x', sizeof text - 1 - (size_t)start);
    text[sizeof text - 1] = '\0';
    snprintf(shown, sizeof shown, "a test: '%.100s", text);
    assert_bad(text, shown);
    option_takes(o, takes, sizeof takes);
    assert_message(takes);
    assert_message("xxx...'");
}

static void
test_an_overlong_value_is_cut_and_what_is_taken_is_said(void **unused)
{
    (void)unused;
    each_value(assert_long_refused);
}

static void
test_unknown_name_is_named(void **unused)
{
    (void)unused;
    assert_bad("no_such_option:1", "no option 'no_such_option'");
    assert_bad("abor:true", "'abor'");
    assert_bad("abort_:true", "'abort_'");
    assert_bad(":true", "''");
}

static void
test_missing_value_is_named(void **unused)
{
    (void)unused;
    assert_bad("abort", "abort takes a value");
    assert_bad("abort:", "abort takes true or false");
    assert_bad("dirty_decay_ms:", "milliseconds");
}

static void
test_bad_boolean_is_named(void **unused)
{
    (void)unused;
    assert_bad("tcache:yes", "'tcache:yes': tcache takes true or false");
    assert_bad("tcache:TRUE", "tcache:TRUE");
    assert_bad("tcache:truely", "tcache:truely");
}

static void
test_bad_number_is_named(void **unused)
{
    (void)unused;
    assert_bad("dirty_decay_ms:soon", "dirty_decay_ms takes milliseconds, or -1 for never");
    assert_bad("dirty_decay_ms:-2", "-2");
    assert_bad("dirty_decay_ms:10s", "10s");
    assert_bad("dirty_decay_ms:99999999999999999999", "milliseconds");
    assert_bad("dirty_decay_ms:9223372036854775807", "milliseconds");
    assert_bad("dirty_decay_ms:1111111111111111111111111111111111111111111111", "milliseconds");
}

static void
test_bad_word_is_named(void **unused)
{
    (void)unused;
    assert_bad("thp:sometimes", "'thp:sometimes': thp takes default, always or never");
}

static void
test_good_options_beside_a_bad_one_are_taken(void **unused)
{
    (void)unused;
    assert_false(parse("tcache:false,nonsense:1,dirty_decay_ms:5"));
    assert_int_equal(message_count, 1);
    assert_false(conf.tcache);
    assert_int_equal(conf.dirty_decay_ms, 5);
}

static void
test_very_long_option_is_cut_in_its_message(void **unused)
{
    (void)unused;
    char text[2000];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    assert_false(parse(text));
    assert_int_equal(message_count, 1);
    assert_in_range(strlen(messages), 100, 600);
    assert_int_equal(messages[strlen(messages) - 1], '\n');
}

static void *
read_bad_options(void *unused)
{
    (void)unused;
    conf_read();
    return NULL;
}

static void
test_options_are_read_in_a_thread_of_16_kib(void **unused)
{
    (void)unused;
    if (SANITIZED)
        skip(); /* its frames are larger */
    char text[3000];
    int start = snprintf(text, sizeof text, "nonsense,dirty_decay_ms:-2,thp:");
    memset(text + start, 'x', sizeof text - 1 - (size_t)start);
    text[sizeof text - 1] = '\0';
    ALCOVE_PUBLIC(malloc_conf) = text;
    pthread_attr_t small;
    pthread_t thread;
    size_t least = (size_t)sysconf(_SC_THREAD_STACK_MIN);
    assert_int_equal(pthread_attr_init(&small), 0);
    assert_int_equal(pthread_attr_setstacksize(&small, least > 16384 ? least : 16384), 0);
    assert_int_equal(pthread_create(&thread, &small, read_bad_options, NULL), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    pthread_attr_destroy(&small);
    ALCOVE_PUBLIC(malloc_conf) = NULL;
    assert_int_equal(message_count, 3);
}

static void
test_environment_wins_over_the_variable(void **unused)
{
    (void)unused;
    ALCOVE_PUBLIC(malloc_conf) = "dirty_decay_ms:1,tcache:false";
    setenv(variable, "dirty_decay_ms:2", 1);
    conf_read();
    unsetenv(variable);
    ALCOVE_PUBLIC(malloc_conf) = NULL;
    assert_int_equal(conf.dirty_decay_ms, 2);
    assert_false(conf.tcache);
}

static void
test_message_names_the_environment_variable(void **unused)
{
    (void)unused;
    setenv(variable, "nonsense", 1);
    conf_read();
    unsetenv(variable);
    assert_message(variable);
}

static void
test_abort_conf_aborts_on_a_bad_option(void **unused)
{
    (void)unused;
    pid_t child = fork();
    if (child == 0) {
        signal(SIGABRT, SIG_DFL); /* cmocka's handler would go on with the next test */
        setenv(variable, "abort_conf:true,nonsense", 1);
        conf_read();
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGABRT);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        fresh_test(test_each_default_is_what_its_row_says),
        fresh_test(test_each_option_is_found_by_its_name_alone),
        fresh_test(test_each_value_is_taken_and_read_back_by_name),
        fresh_test(test_no_option_sets_another),
        fresh_test(test_no_option_takes_the_beginning_of_a_value_or_nothing),
        fresh_test(test_no_option_takes_a_value_with_more_behind_it),
        fresh_test(test_a_number_beyond_its_range_is_said_to_be),
        fresh_test(test_a_number_of_more_than_64_bits_is_beyond_any_range),
        fresh_test(test_an_overlong_value_is_cut_and_what_is_taken_is_said),
        fresh_test(test_options_are_read_in_a_thread_of_16_kib),
        fresh_test(test_defaults),
        fresh_test(test_abort),
        fresh_test(test_abort_conf),
        fresh_test(test_tcache),
        fresh_test(test_dirty_decay_ms),
        fresh_test(test_thp),
        fresh_test(test_several_options_and_the_last_of_one_name_wins),
        fresh_test(test_empty_string_and_a_comma_at_the_end),
        fresh_test(test_unknown_name_is_named),
        fresh_test(test_missing_value_is_named),
        fresh_test(test_bad_boolean_is_named),
        fresh_test(test_bad_number_is_named),
        fresh_test(test_bad_word_is_named),
        fresh_test(test_good_options_beside_a_bad_one_are_taken),
        fresh_test(test_very_long_option_is_cut_in_its_message),
        fresh_test(test_environment_wins_over_the_variable),
        fresh_test(test_message_names_the_environment_variable),
        fresh_test(test_abort_conf_aborts_on_a_bad_option),
    };
    conf_at_start = conf;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
