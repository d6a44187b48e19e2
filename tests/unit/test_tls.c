/*
 * Linked into a program, the variable is in static TLS, and the linker has replaced the instructions that read
 * its descriptor by some that give the offset itself.
 */
#include "unit.h"

#include <pthread.h>

#include "thread/record.h"

static void
test_program_sees_that_its_variable_is_static(void **unused)
{
    (void)unused;
    bool can = ALCOVE_HAVE_TLSDESC && !ALCOVE_FORCE_DYNAMIC_TLS;
    struct alcove_info info;
    tls_init();
    ALCOVE_PUBLIC(table).info(&info);
    assert_string_equal(info.tls, can ? "static" : "dynamic");
}

static void *
place(void *unused)
{
    (void)unused;
    return (void *)((uintptr_t)tls_slot() - (uintptr_t)thread_pointer());
}

static void
test_offset_is_the_same_in_every_thread(void **unused)
{
    (void)unused;
    pthread_t thread;
    void *other;
    assert_int_equal(pthread_create(&thread, NULL, place, NULL), 0);
    pthread_join(thread, &other);
    assert_ptr_equal(place(NULL), other);
    if (tls_offset != TLS_DYNAMIC)
        assert_int_equal(tls_offset, (intptr_t)other);
}

static void *
record_by_the_hot_path(void *unused)
{
    (void)unused;
    return tls_static();
}

/* Where no offset is constant the hot path reads what is at TLS_DYNAMIC. */
static void
test_no_record_is_found_where_tls_is_dynamic(void **unused)
{
    (void)unused;
    pthread_t thread;
    void *other;
    assert_non_null(thread_get());
    intptr_t saved = tls_offset;
    tls_lend(0);
    assert_int_equal(pthread_create(&thread, NULL, record_by_the_hot_path, NULL), 0);
    pthread_join(thread, &other);
    void *own = record_by_the_hot_path(NULL);
    tls_offset = saved;
    assert_null(own);
    assert_null(other);
}

static void
test_hot_path_finds_the_record_that_was_made(void **unused)
{
    (void)unused;
    struct thread *t = thread_get();
    assert_non_null(t);
    assert_ptr_equal(tls_get(), t);
    if (tls_offset != TLS_DYNAMIC)
        assert_ptr_equal(tls_static(), t);
    thread_exit();
    assert_null(tls_get());
    assert_null(tls_static());
}

static void
test_descriptor_that_says_something_else_is_not_believed(void **unused)
{
    (void)unused;
    static __thread int variable;
    intptr_t offset = (char *)&variable - thread_pointer();
    intptr_t good[2] = { 1, offset }, bad[2] = { offset, offset + 8 };
    assert_int_equal(static_tls_offset((intptr_t)good, &variable), offset);
    assert_int_equal(static_tls_offset((intptr_t)bad, &variable), 0);
    assert_int_equal(static_tls_offset(0, &variable), 0);
    assert_int_equal(static_tls_offset((intptr_t)good, bad), 0); /* on the stack: no TLS at all */
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_program_sees_that_its_variable_is_static),
        cmocka_unit_test(test_offset_is_the_same_in_every_thread),
        cmocka_unit_test(test_no_record_is_found_where_tls_is_dynamic),
        cmocka_unit_test(test_hot_path_finds_the_record_that_was_made),
        cmocka_unit_test(test_descriptor_that_says_something_else_is_not_believed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
