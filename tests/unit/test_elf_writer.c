/* A word is stored whatever its page allows, and afterwards the page allows what it did before. */
#include "elf.h"

#include "elf/writer.h"

#include "tests/child.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#define OLD ((void *)(uintptr_t)0x1111)
#define NEW ((void *)(uintptr_t)0x2222)

static struct fake fake;
static struct object object;

/* The writer calls this one for the system's. */
static unsigned calls, calls_allowed;
static int first_protection;

int
mprotect(void *address, size_t bytes, int protection)
{
    if (calls == 0)
        first_protection = protection;
    if (calls++ < calls_allowed)
        return (int)syscall(SYS_mprotect, address, bytes, protection);
    errno = ENOMEM;
    return -1;
}

static int
setup(void **state)
{
    (void)state;
    calls = 0;
    calls_allowed = 1000;
    fake_make(&fake);
    fake.headers[HEADER_DATA].p_memsz += page(); /* the guard behind is of use here */
    assert_int_equal(mprotect(fake.area + 4 * page(), page(), PROT_READ | PROT_WRITE), 0);
    assert_true(object_read(&object, &fake.info));
    for (size_t i = 0; i < FAKE_SLOTS; i++)
        fake.data->slots[i] = OLD;
    calls = 0;
    return 0;
}

static int
teardown(void **state)
{
    (void)state;
    fake_free(&fake);
    return 0;
}

static void
protect(size_t which, int protection)
{
    assert_int_equal(syscall(SYS_mprotect, fake.area + which * page(), page(), protection), 0);
}

static int
protection_now(size_t which)
{
    return protection_of(NULL, NULL, (uintptr_t)fake.area + which * page() + 5);
}

static void
test_protection_is_what_the_system_says(void **state)
{
    (void)state;
    static const int each[] = {PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE, PROT_READ | PROT_EXEC, PROT_READ | PROT_WRITE | PROT_EXEC};
    for (size_t i = 0; i < sizeof each / sizeof each[0]; i++) {
        if (syscall(SYS_mprotect, fake.area + 3 * page(), page(), each[i]) != 0)
            continue; /* a system that has nothing writable be executed */
        assert_int_equal(protection_of(NULL, &object, (uintptr_t)fake.area + 4 * page() - 1), each[i]);
    }
    munmap(fake.area + 3 * page(), page());
    assert_int_equal(protection_now(3), -1);
}

/* Lines begin anywhere in what is read at a time. */
static void
test_protection_is_found_among_many(void **state)
{
    (void)state;
    enum { MANY = 400 };
    unsigned char *many = mmap(NULL, MANY * page(), PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(many != MAP_FAILED);
    for (size_t i = 0; i < MANY; i += 2)
        syscall(SYS_mprotect, many + i * page(), page(), PROT_READ | PROT_WRITE);
    for (size_t i = 0; i < MANY; i += 7)
        assert_int_equal(protection_of(NULL, NULL, (uintptr_t)many + i * page()), i % 2 == 0 ? PROT_READ | PROT_WRITE : PROT_READ);
    munmap(many, MANY * page());
}

static void
test_protection_that_is_known_is_not_asked_again(void **state)
{
    (void)state;
    struct protection known = {.start = 0};
    assert_int_equal(protection_of(&known, NULL, (uintptr_t)fake.area + 3 * page()), PROT_READ | PROT_WRITE);
    assert_true(known.start <= (uintptr_t)fake.area + 3 * page() && known.end >= (uintptr_t)fake.area + 5 * page());
    protect(3, PROT_READ);
    assert_int_equal(protection_of(&known, NULL, (uintptr_t)fake.area + 3 * page()), PROT_READ | PROT_WRITE);
}

static void
test_program_headers_are_asked_where_proc_is_not_there(void **state)
{
    (void)state;
    struct rlimit saved, none;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &saved), 0);
    none = (struct rlimit){.rlim_cur = 0, .rlim_max = saved.rlim_max};
    object.relro_start = (uintptr_t)fake.area + 3 * page();
    object.relro_end = object.relro_start + page();
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    errno = 77;
    int relro = protection_of(NULL, &object, object.relro_start + 8);
    int tables = protection_of(NULL, &object, (uintptr_t)fake.tables);
    int data = protection_of(NULL, &object, (uintptr_t)fake.area + 4 * page());
    int nobody = protection_of(NULL, NULL, (uintptr_t)fake.tables);
    assert_int_equal(errno, 77);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &saved), 0);
    assert_int_equal(relro, PROT_READ);
    assert_int_equal(tables, PROT_READ);
    assert_int_equal(data, PROT_READ | PROT_WRITE);
    assert_int_equal(nobody, -1);
}

static void
test_system_tells_what_may_be_read_and_written(void **state)
{
    (void)state;
    if (getenv("ALCOVE_TEST_VALGRIND") != NULL)
        skip(); /* it takes the question for a use */
    static const int each[] = {PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE};
    for (size_t i = 0; i < sizeof each / sizeof each[0]; i++) {
        protect(3, each[i]);
        assert_int_equal(word_readable(NULL, &object, (uintptr_t)fake.data), (each[i] & PROT_READ) != 0);
        assert_int_equal(word_writable(NULL, &object, (uintptr_t)fake.data), (each[i] & PROT_WRITE) != 0);
    }
    assert_ptr_equal(fake.data->slots[0], OLD);
}

static void
test_writable_word_is_stored_without_a_change_of_protection(void **state)
{
    (void)state;
    assert_int_equal(word_store(&object, &fake.data->slots[0], OLD, NEW), 0);
    assert_ptr_equal(fake.data->slots[0], NEW);
    assert_int_equal(calls, 0);
}

/* Its headers say that the page is writable. */
static void
test_page_that_a_library_protected_itself_is_written_and_stays_protected(void **state)
{
    (void)state;
    static const int each[] = {PROT_READ, PROT_READ | PROT_EXEC};
    for (size_t i = 0; i < sizeof each / sizeof each[0]; i++) {
        fake.data->slots[1] = OLD;
        protect(3, each[i]);
        assert_int_equal(word_store(&object, &fake.data->slots[1], OLD, NEW), 0);
        assert_ptr_equal(fake.data->slots[1], NEW);
        assert_int_equal(protection_now(3), each[i]);
        protect(3, PROT_READ | PROT_WRITE);
    }
}

static void
test_symbol_of_an_executable_segment_is_written(void **state)
{
    (void)state;
    protect(1, PROT_READ | PROT_EXEC);
    ElfW(Sym) *symbol = &fake.tables->symbols[FAKE_WORK];
    assert_int_equal(word_store(&object, &symbol->st_value, (void *)(uintptr_t)FAKE_WORK_OFFSET, NEW), 0);
    assert_int_equal(symbol->st_value, (uintptr_t)NEW);
    assert_int_equal(first_protection, PROT_READ | PROT_WRITE | PROT_EXEC); /* another thread may be in there */
    assert_int_equal(protection_now(1), PROT_READ | PROT_EXEC);
}

static void
test_word_that_changed_is_left_alone(void **state)
{
    (void)state;
    protect(3, PROT_READ);
    assert_int_equal(word_store(&object, &fake.data->slots[0], NEW, NEW), WORD_CHANGED);
    assert_ptr_equal(fake.data->slots[0], OLD);
    assert_int_equal(protection_now(3), PROT_READ);
}

static void
test_word_across_two_pages_is_stored(void **state)
{
    (void)state;
    static const int each[] = {PROT_READ, PROT_READ | PROT_WRITE, PROT_READ | PROT_EXEC};
    void *word = fake.area + 4 * page() - 3, *holds;
    for (size_t first = 0; first < 3; first++)
        for (size_t second = 0; second < 3; second++) {
            protect(3, PROT_READ | PROT_WRITE);
            protect(4, PROT_READ | PROT_WRITE);
            memcpy(word, &(void *){OLD}, sizeof word);
            protect(3, each[first]);
            protect(4, each[second]);
            if (protection_now(3) != each[first] || protection_now(4) != each[second])
                continue; /* qemu tells of pages side by side what the first allows */
            assert_int_equal(word_store(&object, word, OLD, NEW), 0);
            memcpy(&holds, word, sizeof holds);
            assert_ptr_equal(holds, NEW);
            assert_int_equal(protection_now(3), each[first]);
            assert_int_equal(protection_now(4), each[second]);
        }
}

static void
test_stores_into_a_page_share_its_opening(void **state)
{
    (void)state;
    protect(1, PROT_READ);
    protect(3, PROT_READ);
    struct writer writer = writer_of(&object);
    for (size_t i = 0; i < FAKE_SLOTS; i++)
        assert_int_equal(writer_store(&writer, &fake.data->slots[i], OLD, NEW), 0);
    assert_int_equal(writer_store(&writer, &fake.tables->symbols[FAKE_WORK].st_value, (void *)(uintptr_t)FAKE_WORK_OFFSET, NEW), 0);
    assert_int_equal(protection_now(3), PROT_READ);
    assert_int_equal(writer_end(&writer), 0);
    assert_int_equal(calls, 4);
    assert_int_equal(protection_now(1), PROT_READ);
}

static void
test_page_is_opened_again_after_another(void **state)
{
    (void)state;
    protect(1, PROT_READ);
    protect(3, PROT_READ);
    struct writer writer = writer_of(&object);
    ElfW(Addr) *value = &fake.tables->symbols[FAKE_WORK].st_value;
    assert_int_equal(writer_store(&writer, &fake.data->slots[0], OLD, NEW), 0);
    assert_int_equal(writer_store(&writer, &fake.data->slots[1], OLD, NEW), 0);
    assert_int_equal(writer_store(&writer, value, (void *)(uintptr_t)FAKE_WORK_OFFSET, NEW), 0);
    assert_int_equal(writer_store(&writer, &fake.data->slots[2], OLD, NEW), 0);
    assert_int_equal(writer_end(&writer), 0);
    assert_int_equal(protection_now(3), PROT_READ);
}

static void
system_calls_refuse(unsigned number)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &(struct sock_fprog){sizeof filter / sizeof filter[0], filter}, 0, 0) != 0)
        _exit(0); /* an emulator */
}

static void
work_without_futex(void)
{
    system_calls_refuse(SYS_futex);
    static const int each[] = {PROT_READ, PROT_READ | PROT_WRITE, PROT_READ | PROT_EXEC};
    for (size_t i = 0; i < sizeof each / sizeof each[0]; i++) {
        protect(3, PROT_READ | PROT_WRITE);
        fake.data->slots[0] = OLD;
        protect(3, each[i]);
        CHECK(word_store(&object, &fake.data->slots[0], OLD, NEW) == 0);
        CHECK(fake.data->slots[0] == NEW);
        CHECK(protection_now(3) == each[i]);
    }
    const uintptr_t value = (uintptr_t)NEW;
    void **word;
    struct word_cursor cursor = words_of(&object, &value, 1);
    CHECK(word_next(&cursor, &word) && word == &fake.data->slots[0]);
    protect(3, PROT_NONE);
    cursor = words_of(&object, &value, 1);
    CHECK(!word_next(&cursor, &word));
}

static void
test_protections_are_read_where_futex_is_refused(void **state)
{
    (void)state;
    in_child(work_without_futex);
}

static void
test_refused_protection_is_told(void **state)
{
    (void)state;
    protect(3, PROT_READ);
    calls_allowed = 0;
    assert_int_equal(word_store(&object, &fake.data->slots[0], OLD, NEW), ENOMEM);
    assert_ptr_equal(fake.data->slots[0], OLD);
    calls = 0;
    calls_allowed = 1;
    assert_int_equal(word_store(&object, &fake.data->slots[0], OLD, NEW), -ENOMEM);
    assert_ptr_equal(fake.data->slots[0], NEW);
}

static void
test_word_that_is_not_mapped_is_an_error(void **state)
{
    (void)state;
    if (getenv("ALCOVE_TEST_VALGRIND") != NULL)
        skip();
    munmap(fake.area + 3 * page(), page());
    assert_int_equal(word_store(&object, &fake.data->slots[0], OLD, NEW), EFAULT);
}

static void
test_errno_is_left_as_it_was(void **state)
{
    (void)state;
    protect(3, PROT_READ);
    errno = 77;
    assert_int_equal(word_store(&object, &fake.data->slots[0], OLD, NEW), 0);
    assert_int_equal(errno, 77);
}

static void
test_import_that_is_not_aligned_is_stored(void **state)
{
    (void)state;
    fake.tables->calls[0].r_offset = 4 * page() - 3;
    memset(fake.area + 4 * page() - 3, 0, sizeof(void *));
    fake.data->dynamic[DYN_NULL].d_tag = DT_NULL;
    struct import_cursor cursor = imports_of_kinds(&object, IMPORTS_OF(IMPORT_CALL));
    struct import import = {.slot = NULL};
    assert_true(import_next(&cursor, &import));
    protect(4, PROT_READ);
    assert_int_equal(import_store(&object, &import, NEW), 0);
    assert_ptr_equal(import_value(&import), NEW);
    assert_int_equal(protection_now(4), PROT_READ);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_protection_is_what_the_system_says),
        TEST(test_protection_is_found_among_many),
        TEST(test_protection_that_is_known_is_not_asked_again),
        TEST(test_program_headers_are_asked_where_proc_is_not_there),
        TEST(test_system_tells_what_may_be_read_and_written),
        TEST(test_writable_word_is_stored_without_a_change_of_protection),
        TEST(test_page_that_a_library_protected_itself_is_written_and_stays_protected),
        TEST(test_symbol_of_an_executable_segment_is_written),
        TEST(test_word_that_changed_is_left_alone),
        TEST(test_word_across_two_pages_is_stored),
        TEST(test_stores_into_a_page_share_its_opening),
        TEST(test_page_is_opened_again_after_another),
        TEST(test_protections_are_read_where_futex_is_refused),
        TEST(test_refused_protection_is_told),
        TEST(test_word_that_is_not_mapped_is_an_error),
        TEST(test_errno_is_left_as_it_was),
        TEST(test_import_that_is_not_aligned_is_stored),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
