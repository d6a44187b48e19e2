/* Words are found by their value wherever an object may write, and pages that may not be read are left alone. */
#include "elf.h"

#define PAGES 600 /* more than a segment has that is read as a whole, with pages of 4 KiB */

static unsigned char *area;
static ElfW(Phdr) headers[3];
static struct dl_phdr_info info;
static struct object object;
static const uintptr_t values[] = {0x1000, 0x2000, 0x123456789a, (uintptr_t)-2};

/* A read-only page, then a segment of `bytes` from the next page's byte `from` on; a guard behind. */
static void
object_make(size_t from, size_t bytes)
{
    area = mmap(NULL, PAGES * page(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(area != MAP_FAILED);
    madvise(area, PAGES * page(), MADV_NOHUGEPAGE);
    size_t end = (from + bytes + page() - 1) / page() * page() + page();
    assert_int_equal(mprotect(area + end, PAGES * page() - end, PROT_NONE), 0);
    headers[0] = (ElfW(Phdr)){.p_type = PT_LOAD, .p_flags = PF_R, .p_memsz = page()};
    headers[1] = (ElfW(Phdr)){.p_type = PT_LOAD, .p_flags = PF_R | PF_W, .p_vaddr = page() + from, .p_memsz = bytes};
    headers[2] = (ElfW(Phdr)){.p_type = PT_DYNAMIC, .p_vaddr = page() + from};
    info = (struct dl_phdr_info){.dlpi_addr = (ElfW(Addr))area, .dlpi_name = "words", .dlpi_phdr = headers, .dlpi_phnum = 3};
    assert_true(object_read(&object, &info));
}

static int
teardown(void **state)
{
    (void)state;
    munmap(area, PAGES * page());
    return 0;
}

static void
put(size_t offset, uintptr_t value)
{
    memcpy(area + offset, &value, sizeof value);
}

/* The offsets found are these, and no others. */
static void
assert_found(const size_t *offsets, size_t count)
{
    struct word_cursor cursor = words_of(&object, values, sizeof values / sizeof values[0]);
    void **word;
    for (size_t i = 0; i < count; i++) {
        assert_true(word_next(&cursor, &word));
        assert_int_equal((unsigned char *)word - area, offsets[i]);
    }
    assert_false(word_next(&cursor, &word));
    assert_false(word_next(&cursor, &word));
}

static void
test_words_of_each_value_are_found(void **state)
{
    (void)state;
    object_make(0, 3 * page());
    const size_t offsets[] = {page(), page() + 8, 2 * page(), 2 * page() + 36, 3 * page() - 4, 4 * page() - 8};
    static const unsigned of[] = {0, 1, 2, 0, 1, 3};
    for (size_t i = 0; i < 6; i++)
        put(offsets[i], values[of[i]]);
    put(2 * page() + 16, 0x1001);
    put(2 * page() + 24, 0x1fff);
    put(2 * page() + 50, 0x2000); /* at no multiple of 4 */
    put(8, 0x1000);               /* not writable by its headers */
    assert_found(offsets, 6);
}

static void
test_segment_ends_are_kept(void **state)
{
    (void)state;
    object_make(4, page());
    put(page(), 0x1000);
    put(page() + 8, 0x1000);
    put(2 * page() - 8, 0x1000);
    put(2 * page(), 0x1000); /* four bytes of it are the segment's */
    assert_found((const size_t[]){page() + 8, 2 * page() - 8}, 2);
    put(page(), 0);
    put(2 * page() - 8, 0);
    put(page() + 4, 0x1000); /* the segment's first word, over what was the second, and its last one */
    put(2 * page() - 4, 0x1000);
    assert_found((const size_t[]){page() + 4, 2 * page() - 4}, 2);
}

static void
test_no_values_find_nothing(void **state)
{
    (void)state;
    object_make(0, page());
    struct word_cursor cursor = words_of(&object, values, 0);
    void **word;
    assert_false(word_next(&cursor, &word));
}

static void
test_pages_that_cannot_be_read_are_left_alone(void **state)
{
    (void)state;
    if (getenv("ALCOVE_TEST_VALGRIND") != NULL)
        skip(); /* it takes the question for a use */
    object_make(0, 4 * page());
    put(page(), 0x1000);
    put(2 * page(), 0x1000);
    put(3 * page() + 8, 0x1000);
    put(2 * page() - 4, 0x2000); /* in part */
    put(3 * page() - 4, 0x2000);
    assert_int_equal(mprotect(area + 2 * page(), page(), PROT_NONE), 0);
    assert_found((const size_t[]){page(), 3 * page() + 8}, 2);
    munmap(area + page(), page());
    assert_found((const size_t[]){3 * page() + 8}, 1);
}

static void
test_read_only_pages_are_looked_at(void **state)
{
    (void)state;
    object_make(0, 2 * page());
    put(page(), 0x2000);
    assert_int_equal(mprotect(area + page(), page(), PROT_READ), 0);
    assert_found((const size_t[]){page()}, 1);
}

static void
test_large_segment_is_not_made_resident(void **state)
{
    (void)state;
    const size_t bytes = (PAGES - 4) * page();
    object_make(0, bytes);
    const size_t offsets[] = {page() + 8, 300 * page(), (PAGES - 4) * page() + 16};
    for (size_t i = 0; i < 3; i++)
        put(offsets[i], values[i]);
    assert_found(offsets, 3);
    unsigned char resident[PAGES];
    size_t count = 0;
    assert_int_equal(mincore(area + page(), bytes, resident), 0);
    for (size_t i = 0; i < PAGES - 4; i++)
        count += resident[i] & 1;
    if (bytes > (size_t)1 << 20)
        assert_true(count < 100); /* the system may make more than one page resident at a fault */
}

static volatile uintptr_t in_bss, in_data = 0x5a5a0001;

static int
program_words(struct dl_phdr_info *program, size_t size, void *out)
{
    (void)size;
    struct object each;
    if (object_read(&each, program)) {
        const uintptr_t wanted[] = {0x5a5a0001, 0x5a5a0002};
        struct word_cursor cursor = words_of(&each, wanted, 2);
        void **word;
        while (word_next(&cursor, &word))
            *(unsigned *)out |= (uintptr_t)word == (uintptr_t)&in_data ? 1 : (uintptr_t)word == (uintptr_t)&in_bss ? 2 : 0;
    }
    return 1;
}

static void
test_words_of_this_program_are_found(void **state)
{
    (void)state;
    unsigned found = 0;
    in_bss = 0x5a5a0002;
    dl_iterate_phdr(program_words, &found);
    assert_int_equal(found, 3);
}

#define TEST(name) cmocka_unit_test_teardown(name, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_words_of_each_value_are_found),
        TEST(test_segment_ends_are_kept),
        TEST(test_no_values_find_nothing),
        TEST(test_pages_that_cannot_be_read_are_left_alone),
        TEST(test_read_only_pages_are_looked_at),
        TEST(test_large_segment_is_not_made_resident),
        cmocka_unit_test(test_words_of_this_program_are_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
