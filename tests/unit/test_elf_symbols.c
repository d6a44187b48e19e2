/* Which symbols an object defines, by each of the ways to find them. */
#include "elf.h"

#include <dlfcn.h>

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

static void
hash_leave(int tag)
{
    fake.data->dynamic[DYN_HASH].d_tag = tag == DT_HASH ? DT_HASH : DT_DEBUG;
    fake.data->dynamic[DYN_GNU_HASH].d_tag = tag == DT_GNU_HASH ? DT_GNU_HASH : DT_DEBUG;
    if (tag == DT_NULL) { /* nothing tells then that these two are no symbols */
        memset(fake.tables->gnu_hash, 0, sizeof fake.tables->gnu_hash);
        memset(fake.tables->hash, 0, sizeof fake.tables->hash);
    }
    assert_true(object_read(&object, &fake.info));
}

static const int ways[] = {DT_HASH, DT_GNU_HASH, DT_NULL};

static void
test_all_entries_of_a_name_are_found(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        hash_leave(ways[i]);
        struct symbol_cursor cursor = symbols_named(&object, "work");
        struct symbol symbol;
        assert_true(symbol_next(&cursor, &symbol));
        assert_ptr_equal(symbol.entry, &fake.tables->symbols[FAKE_WORK]);
        assert_int_equal(symbol.address, (uintptr_t)fake.area + FAKE_WORK_OFFSET);
        assert_false(symbol.hidden);
        assert_string_equal(symbol_version(&object, symbol.index), "TWO");
        assert_true(symbol_next(&cursor, &symbol));
        assert_int_equal(symbol.index, FAKE_WORK_HIDDEN);
        assert_true(symbol.hidden);
        assert_string_equal(symbol_version(&object, symbol.index), "ONE");
        assert_false(symbol_next(&cursor, &symbol));
    }
}

static void
test_what_an_object_imports_it_does_not_define(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        hash_leave(ways[i]);
        struct symbol_cursor cursor = symbols_named(&object, "free");
        struct symbol symbol;
        assert_false(symbol_next(&cursor, &symbol));
        cursor = symbols_of(&object);
        size_t count = 0;
        for (; symbol_next(&cursor, &symbol); count++)
            assert_true(symbol.index >= FAKE_WORK);
        assert_int_equal(count, FAKE_SYMBOLS - FAKE_WORK);
    }
}

static void
test_absolute_and_thread_local_symbols_are_no_addresses_of_the_object(void **state)
{
    (void)state;
    fake.tables->symbols[FAKE_OTHER].st_shndx = SHN_ABS;
    fake.tables->symbols[FAKE_WORK].st_info = ELF64_ST_INFO(STB_GLOBAL, STT_TLS);
    hash_leave(DT_GNU_HASH);
    struct symbol_cursor cursor = symbols_named(&object, "other");
    struct symbol symbol;
    assert_true(symbol_next(&cursor, &symbol));
    assert_int_equal(symbol.address, FAKE_OTHER_OFFSET);
    cursor = symbols_named(&object, "work");
    assert_true(symbol_next(&cursor, &symbol));
    assert_int_equal(symbol.address, 0);
}

static void
test_chain_that_is_a_ring_ends(void **state)
{
    (void)state;
    fake.tables->hash[3 + FAKE_OTHER] = FAKE_WORK;
    hash_leave(DT_HASH);
    struct symbol_cursor cursor = symbols_named(&object, "none");
    struct symbol symbol;
    assert_false(symbol_next(&cursor, &symbol));
}

static void
test_chain_without_an_end_ends_with_its_segment(void **state)
{
    (void)state;
    for (size_t i = 7; i < sizeof fake.tables->gnu_hash / sizeof fake.tables->gnu_hash[0]; i++)
        fake.tables->gnu_hash[i] &= ~1u;
    memset(fake.tables->hash, 0, (size_t)((unsigned char *)fake.tables + sizeof *fake.tables - (unsigned char *)fake.tables->hash));
    hash_leave(DT_GNU_HASH);
    struct symbol_cursor cursor = symbols_named(&object, "none");
    struct symbol symbol;
    assert_false(symbol_next(&cursor, &symbol));
    cursor = symbols_of(&object);
    size_t count = 0;
    while (symbol_next(&cursor, &symbol))
        count++;
    assert_int_equal(count, FAKE_SYMBOLS - FAKE_WORK);
}

static void
test_hash_table_that_does_not_fit_is_none(void **state)
{
    (void)state;
    fake.tables->hash[0] = UINT32_MAX;
    fake.tables->gnu_hash[2] = UINT32_MAX;
    assert_true(object_read(&object, &fake.info));
    assert_int_equal(object.hash.bucket_count + object.gnu_hash.bucket_count, 0);
    struct symbol_cursor cursor = symbols_named(&object, "other");
    struct symbol symbol;
    assert_true(symbol_next(&cursor, &symbol));
}

static void
test_list_of_versions_that_leads_away_names_none(void **state)
{
    (void)state;
    fake.tables->defined[0].vd_next = UINT32_MAX & ~3u;
    fake.tables->needed.vn_aux = 3;
    assert_true(object_read(&object, &fake.info));
    assert_string_equal(symbol_version(&object, FAKE_WORK_HIDDEN), "ONE");
    assert_null(symbol_version(&object, FAKE_WORK));
    assert_null(symbol_version(&object, FAKE_MALLOC));
    assert_null(symbol_version(&object, FAKE_SYMBOLS + 100));
}

static void
test_objects_own_version_has_no_name(void **state)
{
    (void)state;
    fake.tables->defined[0].vd_ndx = 1;
    assert_true(object_read(&object, &fake.info));
    assert_int_equal(fake.tables->versions[FAKE_FREE], 1);
    assert_null(symbol_version(&object, FAKE_FREE));
}

/* Whoever has a hash table finds by name all that is in the table. */
static int
found_again(struct dl_phdr_info *info, size_t size, void *out)
{
    (void)size;
    struct object each;
    struct symbol symbol, same;
    if (!object_read(&each, info))
        return 0;
    struct symbol_cursor all = symbols_of(&each);
    while (symbol_next(&all, &symbol)) {
        if (ELF64_ST_BIND(symbol.entry->st_info) == STB_LOCAL)
            continue;
        struct symbol_cursor named = symbols_named(&each, symbol.name);
        bool found = false;
        while (!found && symbol_next(&named, &same))
            found = same.entry == symbol.entry;
        if (!found)
            fail_msg("%s: %s, symbol %zu of %zu, is not found by its name", each.name, symbol.name, symbol.index, each.symbol_count);
        ++*(size_t *)out;
    }
    return 0;
}

static void
test_all_symbols_of_this_process_are_found_by_name(void **state)
{
    (void)state;
    size_t count = 0;
    dl_iterate_phdr(found_again, &count);
    assert_true(count > 1000);
}

static int
defines_what_dlsym_says(struct dl_phdr_info *info, size_t size, void *out)
{
    (void)size;
    static const char *const names[] = {"malloc", "free", "realloc", "calloc", "memcpy", "qsort"};
    struct object each;
    if (!object_read(&each, info))
        return 0;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        uintptr_t expected = (uintptr_t)dlsym(RTLD_DEFAULT, names[i]);
        struct symbol_cursor cursor = symbols_named(&each, names[i]);
        struct symbol symbol;
        while (symbol_next(&cursor, &symbol))
            if (symbol.address == expected || ELF64_ST_TYPE(symbol.entry->st_info) == STT_GNU_IFUNC)
                *(unsigned *)out |= 1u << i;
    }
    return 0;
}

static void
test_functions_of_libc_are_where_dlsym_finds_them(void **state)
{
    (void)state;
    unsigned found = 0;
    dl_iterate_phdr(defines_what_dlsym_says, &found);
    assert_int_equal(found, 0x3f);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_all_entries_of_a_name_are_found),
        TEST(test_what_an_object_imports_it_does_not_define),
        TEST(test_absolute_and_thread_local_symbols_are_no_addresses_of_the_object),
        TEST(test_chain_that_is_a_ring_ends),
        TEST(test_chain_without_an_end_ends_with_its_segment),
        TEST(test_hash_table_that_does_not_fit_is_none),
        TEST(test_list_of_versions_that_leads_away_names_none),
        TEST(test_objects_own_version_has_no_name),
        TEST(test_all_symbols_of_this_process_are_found_by_name),
        TEST(test_functions_of_libc_are_where_dlsym_finds_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
