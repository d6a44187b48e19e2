/* What is read of an object, and that nothing else is: sound ones, those of this process, and damaged ones. */
#include "elf.h"

static struct fake fake;
static struct object object;

static int
setup(void **state)
{
    (void)state;
    fake_make(&fake);
    return 0;
}

static int
teardown(void **state)
{
    (void)state;
    fake_free(&fake);
    return 0;
}

static struct told
tell(void)
{
    return object_read(&object, &fake.info) ? object_tell(&object) : (struct told){.symbols = 0};
}

static void
test_sound_object_tells_all(void **state)
{
    (void)state;
    struct told told = tell();
    for (int kind = 0; kind <= IMPORT_CHOSEN; kind++)
        assert_int_equal(told.imports[kind], kind == IMPORT_ADDRESS ? 0 : 1);
    assert_int_equal(told.symbols, 3);
    assert_int_equal(told.versions, 3);
}

static void
test_pointers_with_the_base_added_are_the_same(void **state)
{
    (void)state;
    static const int pointers[] = {DYN_SYMTAB, DYN_STRTAB, DYN_RELA, DYN_JMPREL, DYN_GNU_HASH, DYN_HASH, DYN_VERSYM, DYN_VERDEF, DYN_VERNEED};
    for (size_t i = 0; i < sizeof pointers / sizeof pointers[0]; i++)
        fake.data->dynamic[pointers[i]].d_un.d_ptr += fake.info.dlpi_addr;
    struct told told = tell();
    assert_int_equal(told.imports[IMPORT_CALL] + told.imports[IMPORT_DATA], 2);
    assert_int_equal(told.versions, 3);
}

static void
test_callers_who_do_not_ask_see_no_copies_and_choices(void **state)
{
    (void)state;
    assert_true(object_read(&object, &fake.info));
    struct import_cursor cursor = imports_of(&object);
    struct import import;
    size_t count = 0;
    for (; import_next(&cursor, &import); count++)
        assert_true(import.kind <= IMPORT_DATA);
    assert_int_equal(count, 2);
}

static void
test_copied_variable_has_its_size(void **state)
{
    (void)state;
    assert_true(object_read(&object, &fake.info));
    struct import_cursor cursor = imports_of_kinds(&object, IMPORTS_OF(IMPORT_COPY));
    struct import import;
    assert_true(import_next(&cursor, &import));
    assert_string_equal(import.name, "variable");
    assert_ptr_equal(import.slot, &fake.data->slots[SLOT_VARIABLE]);
    assert_int_equal(import.bytes, FAKE_VARIABLE_BYTES);
    assert_false(import_next(&cursor, &import));
}

static void
test_import_tells_the_version_that_it_wants(void **state)
{
    (void)state;
    assert_true(object_read(&object, &fake.info));
    struct import_cursor cursor = imports_of_kinds(&object, IMPORTS_OF(IMPORT_CALL));
    struct import import;
    assert_true(import_next(&cursor, &import));
    assert_string_equal(symbol_version(&object, import.symbol), "NEEDED");
}

static void
test_index_beyond_the_symbols_is_no_import(void **state)
{
    (void)state;
    fake.tables->calls[0].r_info = ELF64_R_INFO((uint64_t)FAKE_SYMBOLS, FAKE_CALL);
    assert_int_equal(tell().imports[IMPORT_CALL], 0);
    fake.tables->calls[0].r_info = ELF64_R_INFO((uint64_t)UINT32_MAX, FAKE_CALL);
    assert_int_equal(tell().imports[IMPORT_CALL], 0);
}

static void
test_symbols_end_where_another_table_begins(void **state)
{
    (void)state;
    fake.data->dynamic[DYN_HASH].d_tag = DT_DEBUG;
    fake.data->dynamic[DYN_GNU_HASH].d_un.d_ptr = fake_offset(&fake, &fake.tables->gnu_hash);
    assert_true(object_read(&object, &fake.info));
    assert_int_equal(object.symbol_count, FAKE_SYMBOLS);
}

static void
test_there_are_as_many_symbols_as_the_hash_table_has(void **state)
{
    (void)state;
    fake.tables->hash[1] = FAKE_VARIABLE;
    struct told told = tell();
    assert_int_equal(told.imports[IMPORT_CALL], 1);
    assert_int_equal(told.imports[IMPORT_COPY], 0);
}

static void
test_tables_that_are_not_aligned_are_none(void **state)
{
    (void)state;
    fake.data->dynamic[DYN_JMPREL].d_un.d_ptr -= 4;
    struct told told = tell();
    assert_int_equal(told.imports[IMPORT_CALL], 0);
    assert_int_equal(told.imports[IMPORT_DATA], 1);
    fake.headers[HEADER_DYNAMIC].p_vaddr += 4;
    assert_int_equal(tell().symbols, 0);
    assert_int_equal(object.strings_bytes, 0);
}

static void
test_name_beyond_the_strings_is_no_import(void **state)
{
    (void)state;
    fake.tables->symbols[FAKE_MALLOC].st_name = sizeof fake.tables->strings;
    assert_int_equal(tell().imports[IMPORT_CALL], 0);
}

static void
test_name_without_an_end_is_no_import(void **state)
{
    (void)state;
    fake.data->dynamic[DYN_STRSZ].d_un.d_val = NAME_FREE + 2;
    struct told told = tell();
    assert_int_equal(told.imports[IMPORT_CALL], 1);
    assert_int_equal(told.imports[IMPORT_DATA], 0);
    memset(fake.tables->strings, 'x', sizeof fake.tables->strings);
    fake.data->dynamic[DYN_STRSZ].d_un.d_val = UINTPTR_MAX;
    told = tell();
    assert_int_equal(told.imports[IMPORT_CALL], 0);
    assert_int_equal(told.symbols, 0);
}

static void
test_relocations_beyond_their_segment_are_none(void **state)
{
    (void)state;
    size_t room = page() - (size_t)((unsigned char *)fake.tables->data - (fake.area + page()));
    fake.data->dynamic[DYN_RELASZ].d_un.d_val = room + 1;
    assert_int_equal(tell().imports[IMPORT_DATA], 0);
    fake.data->dynamic[DYN_RELASZ].d_un.d_val = UINTPTR_MAX;
    assert_int_equal(tell().imports[IMPORT_DATA], 0);
    fake.data->dynamic[DYN_RELASZ].d_un.d_val = 2 * sizeof(ElfW(Rela)) - 1;
    assert_int_equal(tell().imports[IMPORT_DATA], 1);
}

static void
test_relocations_and_symbols_of_another_size_are_none(void **state)
{
    (void)state;
    static const int sizes[] = {DYN_RELAENT, DYN_PLTREL, DYN_SYMENT};
    static const enum import_kind gone[] = {IMPORT_DATA, IMPORT_CALL, IMPORT_CALL};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        ElfW(Dyn) saved = fake.data->dynamic[sizes[i]];
        fake.data->dynamic[sizes[i]].d_un.d_val = 17; /* DT_REL, too */
        assert_int_equal(tell().imports[gone[i]], 0);
        fake.data->dynamic[sizes[i]] = saved;
    }
    assert_int_equal(tell().imports[IMPORT_DATA], 1);
}

static void
test_dynamic_section_without_an_end_ends_with_its_segment(void **state)
{
    (void)state;
    fake.data->dynamic[DYN_NULL].d_tag = DT_DEBUG;
    fake.headers[HEADER_DYNAMIC].p_memsz = UINTPTR_MAX;
    assert_int_equal(tell().imports[IMPORT_CALL], 1);
}

static void
test_dynamic_section_outside_of_the_segments_tells_nothing(void **state)
{
    (void)state;
    fake.headers[HEADER_DYNAMIC].p_vaddr = 2 * page();
    assert_int_equal(tell().imports[IMPORT_CALL], 0);
}

static void
test_segment_that_wraps_around_holds_nothing(void **state)
{
    (void)state;
    fake.headers[HEADER_TABLES].p_memsz = UINTPTR_MAX - (uintptr_t)fake.area;
    struct told told = tell();
    assert_int_equal(told.imports[IMPORT_CALL] + told.symbols, 0);
    assert_false(object_holds(&object, (uintptr_t)fake.tables));
    assert_true(object_holds(&object, (uintptr_t)fake.data));
    assert_int_equal(object.start, (uintptr_t)fake.area + 3 * page());
}

static void
test_what_lies_between_segments_is_not_the_objects(void **state)
{
    (void)state;
    assert_true(object_read(&object, &fake.info));
    assert_true(object_holds(&object, (uintptr_t)fake.area + page()));
    assert_false(object_holds(&object, (uintptr_t)fake.area + 2 * page()));
    assert_int_equal(object_room(&object, (uintptr_t)fake.area + 4 * page() - 1, PF_R | PF_W), 1);
}

static void
test_segments_that_cannot_be_read_are_not(void **state)
{
    (void)state;
    fake.headers[HEADER_TABLES].p_flags = PF_X;
    mprotect(fake.area + page(), page(), PROT_NONE);
    struct told told = tell();
    assert_int_equal(told.imports[IMPORT_CALL] + told.symbols, 0);
}

static void
test_slot_outside_of_what_may_be_written_is_no_import(void **state)
{
    (void)state;
    const uintptr_t wrong[] = {fake_offset(&fake, fake.tables), 2 * page(), 4 * page() - 7, (uintptr_t)-8, 0};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        fake.tables->calls[0].r_offset = wrong[i];
        assert_int_equal(tell().imports[IMPORT_CALL], 0);
    }
    fake.tables->symbols[FAKE_VARIABLE].st_size = page();
    assert_int_equal(tell().imports[IMPORT_COPY], 0);
}

static void
test_text_relocations_are_imports_where_they_are_announced(void **state)
{
    (void)state;
    fake.tables->calls[0].r_offset = fake_offset(&fake, fake.tables);
    fake.data->dynamic[DYN_NULL] = (ElfW(Dyn)){.d_tag = DT_TEXTREL};
    assert_int_equal(tell().imports[IMPORT_CALL], 1);
}

/* Values that a field is given: those where sums overflow, signs change, and tables end. */
static uint64_t
evil(unsigned which, uint64_t was)
{
    const uint64_t values[] = {0, 1, 2, 7, was + 1, was - 1, was * 2, was ^ 0x8000, was + 8, was + page(), page(), 4 * page() - 1, 0x7fff, 0xffff,
                               INT32_MAX, UINT32_MAX, INT64_MAX, UINT64_MAX, UINT64_MAX - 7, (uint64_t)fake.area, -(uint64_t)fake.area,
                               -(uint64_t)fake.area - 8, (uint64_t)1 << 32, (uint64_t)1 << 47};
    return which < sizeof values / sizeof values[0] ? values[which] : UINT64_MAX / 3;
}
#define EVILS 25

static void
each_field_damaged(void *start, size_t bytes, size_t field_bytes)
{
    for (size_t at = 0; at + field_bytes <= bytes; at += field_bytes) {
        unsigned char *field = (unsigned char *)start + at;
        uint64_t was = 0, is;
        memcpy(&was, field, field_bytes);
        for (unsigned which = 0; which < EVILS; which++) {
            is = evil(which, was);
            memcpy(field, &is, field_bytes);
            tell();
        }
        memcpy(field, &was, field_bytes);
    }
}

static void
all_fields_damaged(void)
{
    static const size_t sizes[] = {8, 4, 2};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        each_field_damaged(fake.tables, sizeof *fake.tables, sizes[i]);
        each_field_damaged(fake.data->dynamic, sizeof fake.data->dynamic, sizes[i]);
    }
    assert_int_equal(tell().symbols, 3);
}

static void
test_no_damaged_field_leads_outside(void **state)
{
    (void)state;
    all_fields_damaged();
    fake.data->dynamic[DYN_HASH].d_tag = DT_DEBUG;
    all_fields_damaged();
    fake.data->dynamic[DYN_HASH].d_tag = DT_HASH;
    fake.data->dynamic[DYN_GNU_HASH].d_tag = DT_DEBUG;
    all_fields_damaged();
}

/* A header's place and size: what is mapped is known to nobody but who wrote it, so they must shrink, or wrap. */
static void
test_segments_that_end_anywhere_are_not_left(void **state)
{
    (void)state;
    for (size_t cut = 1; cut < sizeof *fake.tables; cut++) {
        size_t bytes = page() - cut;
        fake.headers[HEADER_TABLES].p_memsz = bytes;
        assert_true(object_read(&object, &fake.info));
        object_tell(&object);
        assert_true(object.strings_bytes == 0 || (uintptr_t)object.strings + object.strings_bytes <= (uintptr_t)fake.area + page() + bytes);
    }
}

static int
object_of_process(struct dl_phdr_info *info, size_t size, void *out)
{
    (void)size;
    struct told *sum = out;
    struct object each;
    if (object_read(&each, info)) {
        struct told told = object_tell(&each);
        for (int kind = 0; kind <= IMPORT_CHOSEN; kind++)
            sum->imports[kind] += told.imports[kind];
        sum->symbols += told.symbols;
        sum->versions += told.versions;
        struct import import;
        struct import_cursor cursor = imports_of(&each);
        while (import_next(&cursor, &import))
            sum->words += strcmp(import.name, "free") == 0 && import_value(&import) == (void *)free;
    }
    return 0;
}

static void
test_objects_of_this_process_tell(void **state)
{
    (void)state;
    struct told sum = {.symbols = 0};
    dl_iterate_phdr(object_of_process, &sum);
    assert_true(sum.imports[IMPORT_CALL] + sum.imports[IMPORT_ADDRESS] > 20);
    assert_true(sum.symbols > 1000);
    assert_true(sum.words > 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_sound_object_tells_all),
        TEST(test_pointers_with_the_base_added_are_the_same),
        TEST(test_callers_who_do_not_ask_see_no_copies_and_choices),
        TEST(test_copied_variable_has_its_size),
        TEST(test_import_tells_the_version_that_it_wants),
        TEST(test_index_beyond_the_symbols_is_no_import),
        TEST(test_symbols_end_where_another_table_begins),
        TEST(test_there_are_as_many_symbols_as_the_hash_table_has),
        TEST(test_tables_that_are_not_aligned_are_none),
        TEST(test_name_beyond_the_strings_is_no_import),
        TEST(test_name_without_an_end_is_no_import),
        TEST(test_relocations_beyond_their_segment_are_none),
        TEST(test_relocations_and_symbols_of_another_size_are_none),
        TEST(test_dynamic_section_without_an_end_ends_with_its_segment),
        TEST(test_dynamic_section_outside_of_the_segments_tells_nothing),
        TEST(test_segment_that_wraps_around_holds_nothing),
        TEST(test_what_lies_between_segments_is_not_the_objects),
        TEST(test_segments_that_cannot_be_read_are_not),
        TEST(test_slot_outside_of_what_may_be_written_is_no_import),
        TEST(test_text_relocations_are_imports_where_they_are_announced),
        TEST(test_no_damaged_field_leads_outside),
        TEST(test_segments_that_end_anywhere_are_not_left),
        TEST(test_objects_of_this_process_tell),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
