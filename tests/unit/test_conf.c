/* Options: each by its name and values; bad ones are refused with a message that names them. */
#include "unit.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "conf/conf.h"

static struct conf conf_at_start;

static const char variable[] = ALCOVE_ENV_PREFIX "MALLOC_CONF";

static bool
parse(const char *text)
{
    return conf_parse(text, "a test");
}

static void
test_defaults(void **unused)
{
    (void)unused;
    if (ALCOVE_MALLOC_CONF[0] != '\0' || getenv(variable) != NULL)
        skip();
    assert_int_equal(conf_at_start.abort, ALCOVE_DEBUG);
    assert_int_equal(conf_at_start.abort_conf, ALCOVE_DEBUG);
    assert_true(conf_at_start.tcache);
    assert_int_equal(conf_at_start.dirty_decay_ms, 10000);
    assert_int_equal(conf_at_start.thp, CONF_THP_DEFAULT);
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
