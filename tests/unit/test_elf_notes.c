/* What is read of an object's notes, and that nothing else is. The notes end where the readable pages do. */
#include "elf/notes.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { HEADER_LOAD, HEADER_NOTE, HEADERS };

static unsigned char *pages; /* one that may be read, and one that may not */
static size_t page, used;
static ElfW(Phdr) headers[HEADERS];
static struct object object;

static int
setup(void **state)
{
    (void)state;
    page = (size_t)sysconf(_SC_PAGESIZE);
    pages = mmap(NULL, 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(pages != MAP_FAILED);
    assert_int_equal(mprotect(pages, page, PROT_READ | PROT_WRITE), 0);
    used = 0;
    return 0;
}

static int
teardown(void **state)
{
    (void)state;
    munmap(pages, 2 * page);
    return 0;
}

/* The object, with `bytes` of notes at the end of its page. */
static struct note_cursor
notes_begin(size_t bytes, size_t alignment)
{
    headers[HEADER_LOAD] = (ElfW(Phdr)){.p_type = PT_LOAD, .p_flags = PF_R, .p_memsz = page};
    headers[HEADER_NOTE] = (ElfW(Phdr)){.p_type = PT_NOTE, .p_vaddr = page - bytes, .p_memsz = bytes, .p_align = alignment};
    struct dl_phdr_info info = {.dlpi_addr = (ElfW(Addr))pages, .dlpi_name = "", .dlpi_phdr = headers, .dlpi_phnum = HEADERS};
    object_read(&object, &info);
    return notes_of(&object);
}

/* A note of that name with a text of so many bytes, at the place for the next one of `total`. */
static void
note_add(size_t total, size_t alignment, const char *name, uint32_t type, uint32_t bytes)
{
    ElfW(Nhdr) header = {.n_namesz = (ElfW(Word))strlen(name) + 1, .n_descsz = bytes, .n_type = type};
    unsigned char *at = pages + page - total + used;
    memcpy(at, &header, sizeof header);
    memcpy(at + sizeof header, name, header.n_namesz);
    size_t text = (sizeof header + header.n_namesz + alignment - 1) / alignment * alignment;
    memset(at + text, (int)type, bytes);
    used += (text + bytes + alignment - 1) / alignment * alignment;
}

static void
assert_note(struct note_cursor *cursor, const char *name, uint32_t type, size_t bytes)
{
    struct note note;
    assert_true(note_next(cursor, &note));
    assert_string_equal(note.name, name);
    assert_int_equal(note.name_bytes, strlen(name) + 1);
    assert_int_equal(note.type, type);
    assert_int_equal(note.bytes, bytes);
    for (size_t i = 0; i < bytes; i++)
        assert_int_equal(((const unsigned char *)note.text)[i], type);
}

static void
assert_no_more(struct note_cursor *cursor)
{
    struct note note;
    assert_false(note_next(cursor, &note));
    assert_false(note_next(cursor, &note));
}

static void
test_notes_of_either_alignment_are_found_one_after_the_other(void **state)
{
    (void)state;
    static const size_t totals[] = {[4] = 28 + 36 + 16, [8] = 32 + 40 + 16};
    for (size_t alignment = 4; alignment <= 8; alignment += 4) {
        size_t total = totals[alignment];
        used = 0;
        note_add(total, alignment, "alcove", 1, 8);
        note_add(total, alignment, "GNU", 3, 20);
        note_add(total, alignment, "GNU", 5, 0);
        assert_int_equal(used, total);
        struct note_cursor cursor = notes_begin(total, alignment);
        assert_note(&cursor, "alcove", 1, 8);
        assert_note(&cursor, "GNU", 3, 20);
        assert_note(&cursor, "GNU", 5, 0);
        assert_no_more(&cursor);
    }
}

static void
test_last_note_need_not_be_filled_up(void **state)
{
    (void)state;
    note_add(21, 4, "alcove", 1, 1);
    struct note_cursor cursor = notes_begin(21, 4);
    assert_note(&cursor, "alcove", 1, 1);
    assert_no_more(&cursor);
}

static void
test_lengths_that_lead_beyond_the_end_are_not_followed(void **state)
{
    (void)state;
    static const uint32_t lengths[] = {9, 0x7fffffff, 0xfffffff0, 0xfffffffc, 0xffffffff};
    for (size_t i = 0; i < 2 * sizeof lengths / sizeof lengths[0]; i++) {
        used = 0;
        note_add(28, 4, "alcove", 1, 8);
        ElfW(Nhdr) *header = (ElfW(Nhdr) *)(pages + page - 28);
        if (i % 2 == 0)
            header->n_namesz = lengths[i / 2];
        else
            header->n_descsz = lengths[i / 2];
        struct note_cursor cursor = notes_begin(28, 4);
        assert_no_more(&cursor);
    }
}

static void
test_segment_that_is_longer_than_what_is_mapped_is_read_to_there(void **state)
{
    (void)state;
    note_add(28, 4, "alcove", 1, 8);
    struct note_cursor cursor = notes_begin(28, 4);
    headers[HEADER_NOTE].p_memsz = SIZE_MAX;
    assert_note(&cursor, "alcove", 1, 8);
    assert_no_more(&cursor);
}

static void
test_segment_in_no_readable_page_is_not_read(void **state)
{
    (void)state;
    struct note_cursor cursor = notes_begin(28, 4);
    headers[HEADER_NOTE].p_vaddr = page;
    assert_no_more(&cursor);
    cursor = notes_begin(28, 4);
    headers[HEADER_LOAD].p_flags = PF_X;
    assert_no_more(&cursor);
}

static void
test_rest_that_is_shorter_than_a_header_is_no_note(void **state)
{
    (void)state;
    for (size_t rest = 0; rest < sizeof(ElfW(Nhdr)); rest++) {
        struct note_cursor cursor = notes_begin(rest, 4);
        assert_no_more(&cursor);
    }
}

int
main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_notes_of_either_alignment_are_found_one_after_the_other),
        TEST(test_last_note_need_not_be_filled_up),
        TEST(test_lengths_that_lead_beyond_the_end_are_not_followed),
        TEST(test_segment_that_is_longer_than_what_is_mapped_is_read_to_there),
        TEST(test_segment_in_no_readable_page_is_not_read),
        TEST(test_rest_that_is_shorter_than_a_header_is_no_note),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
