/*
 * Thread-local storage: the module asks for no static TLS, takes it when there is room, and works without.
 */
#include "module.h"

#include <elf.h>
#include <link.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "config.h"

/* The file, in memory. */
static const char *file;
static size_t file_size;

static int
map_file(void **unused)
{
    (void)unused;
    struct stat st;
    int fd = open(module_path(), O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) != 0)
        return -1;
    file_size = (size_t)st.st_size;
    file = mmap(NULL, file_size, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    return file == MAP_FAILED ? -1 : 0;
}

static const ElfW(Phdr) *
program_header(unsigned i)
{
    const ElfW(Ehdr) *h = (const void *)file;
    return i < h->e_phnum ? (const ElfW(Phdr) *)(file + h->e_phoff) + i : NULL;
}

/* What is at an address of the loaded module. */
static const void *
at_address(ElfW(Addr) address)
{
    const ElfW(Phdr) *p;
    for (unsigned i = 0; (p = program_header(i)) != NULL; i++)
        if (p->p_type == PT_LOAD && address >= p->p_vaddr && address < p->p_vaddr + p->p_filesz)
            return file + p->p_offset + (address - p->p_vaddr);
    fail_msg("address %#lx is not in the file", (unsigned long)address);
    return NULL;
}

/* The value of an entry of the dynamic section; 0 if there is none. */
static ElfW(Xword)
dynamic(ElfW(Sxword) tag)
{
    const ElfW(Phdr) *p;
    for (unsigned i = 0; (p = program_header(i)) != NULL; i++) {
        if (p->p_type != PT_DYNAMIC)
            continue;
        for (const ElfW(Dyn) *d = (const void *)(file + p->p_offset); d->d_tag != DT_NULL; d++)
            if (d->d_tag == tag)
                return d->d_un.d_val;
    }
    return 0;
}

static unsigned
count_relocations(ElfW(Sxword) table_tag, ElfW(Sxword) size_tag, unsigned type)
{
    unsigned found = 0;
    size_t n = dynamic(size_tag) / sizeof(ElfW(Rela));
    const ElfW(Rela) *r = n != 0 ? at_address(dynamic(table_tag)) : NULL;
    for (size_t i = 0; i < n; i++)
        found += ELF64_R_TYPE(r[i].r_info) == type;
    return found;
}

static unsigned
relocations(unsigned type)
{
    return count_relocations(DT_RELA, DT_RELASZ, type) + count_relocations(DT_JMPREL, DT_PLTRELSZ, type);
}

#if defined __x86_64__
#define TPOFF R_X86_64_TPOFF64
#define TLSDESC R_X86_64_TLSDESC
#define DTPMOD R_X86_64_DTPMOD64
#elif defined __aarch64__
#define TPOFF R_AARCH64_TLS_TPREL
#define TLSDESC R_AARCH64_TLSDESC
#define DTPMOD R_AARCH64_TLS_DTPMOD
#elif defined __powerpc64__
#define TPOFF R_PPC64_TPREL64
#define DTPMOD R_PPC64_DTPMOD64
#define TLSDESC DTPMOD /* it has no descriptors */
#endif

static void
test_module_has_no_static_tls_flag(void **unused)
{
    (void)unused;
    assert_int_not_equal(dynamic(DT_SYMTAB), 0); /* the section was found */
    assert_int_equal(dynamic(DT_FLAGS) & DF_STATIC_TLS, 0);
}

static void
test_module_has_no_tpoff_relocation(void **unused)
{
    (void)unused;
    assert_true(relocations(TLSDESC) + relocations(DTPMOD) > 0); /* relocations were found */
    assert_int_equal(relocations(TPOFF), 0);
}

static void
test_module_has_one_pointer_of_tls(void **unused)
{
    (void)unused;
    const ElfW(Phdr) *p;
    unsigned found = 0;
    for (unsigned i = 0; (p = program_header(i)) != NULL; i++) {
        if (p->p_type != PT_TLS)
            continue;
        found++;
        if (!ALCOVE_DEBUG)
            assert_int_equal(p->p_memsz, sizeof(void *));
    }
    assert_int_equal(found, 1);
}

#define COPIES 101

struct copy {
    const struct alcove_table *table;
    pthread_barrier_t both;
    void *blocks[2];
};

static void *
use_copy(void *argument)
{
    struct copy *copy = argument;
    const struct alcove_table *t = copy->table;
    void *kept[50];
    int me = pthread_barrier_wait(&copy->both) == PTHREAD_BARRIER_SERIAL_THREAD;
    for (int round = 0; round < 20; round++) {
        for (unsigned i = 0; i < 50; i++)
            fill(kept[i] = t->malloc(i * 40 + 1), i * 40 + 1, i + (unsigned)me);
        for (unsigned i = 0; i < 50; i++) {
            if (!filled(kept[i], i * 40 + 1, i + (unsigned)me))
                return NULL;
            t->free(kept[i]);
        }
    }
    copy->blocks[me] = t->malloc(64);
    return copy;
}

static void
use_from_two_threads(const struct alcove_table *t)
{
    struct copy copy = { .table = t };
    pthread_t threads[2];
    pthread_barrier_init(&copy.both, NULL, 2);
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, use_copy, &copy), 0);
    for (int i = 0; i < 2; i++) {
        void *result;
        pthread_join(threads[i], &result);
        assert_non_null(result);
    }
    pthread_barrier_destroy(&copy.both);
    struct alcove_info info;
    t->info(&info);
    assert_int_equal(info.live_blocks, 2);
    t->free(copy.blocks[0]);
    t->free(copy.blocks[1]);
    t->info(&info);
    assert_int_equal(info.live_blocks, 0);
}

static const struct alcove_table *copies[COPIES];
static void *handles[COPIES];

/* The files stay until all are loaded: dlopen knows a library by its inode, which would be used again. */
static int
load_copies(void **unused)
{
    (void)unused;
    char folder[] = "/tmp/alcove-tls-XXXXXX", path[64];
    if (mkdtemp(folder) == NULL)
        return -1;
    for (int i = 0; i < COPIES; i++) {
        snprintf(path, sizeof path, "%s/copy%d.so", folder, i);
        if (!module_copy(path) || (copies[i] = module_open(path, &handles[i])) == NULL)
            break;
    }
    for (int i = 0; i < COPIES; i++) {
        snprintf(path, sizeof path, "%s/copy%d.so", folder, i);
        unlink(path);
    }
    rmdir(folder);
    return copies[COPIES - 1] != NULL ? 0 : -1;
}

static int
unload_copies(void **unused)
{
    (void)unused;
    for (int i = 0; i < COPIES; i++)
        if (handles[i] != NULL)
            dlclose(handles[i]);
    return 0;
}

static void
test_hundred_and_one_copies_load_and_work_side_by_side(void **unused)
{
    (void)unused;
    for (int i = 0; i < COPIES; i++)
        use_from_two_threads(copies[i]);
}

static const char *
tls_of(const struct alcove_table *t)
{
    struct alcove_info info;
    t->info(&info);
    return info.tls;
}

/* musl's static TLS has room for what is there at the start only. */
#ifdef __GLIBC__
#define LIBC_HAS_ROOM 1
#else
#define LIBC_HAS_ROOM 0
#endif

static void
test_first_copies_have_static_tls_where_the_build_can(void **unused)
{
    (void)unused;
    bool can = ALCOVE_HAVE_TLSDESC && !ALCOVE_FORCE_DYNAMIC_TLS && LIBC_HAS_ROOM;
    assert_string_equal(tls_of(copies[0]), can ? "static" : "dynamic");
    assert_string_equal(tls_of(copies[9]), can ? "static" : "dynamic");
}

static void
test_last_copies_work_without_static_tls(void **unused)
{
    (void)unused;
    assert_string_equal(tls_of(copies[COPIES - 1]), "dynamic");
}

static void
test_copies_know_only_their_own_blocks(void **unused)
{
    (void)unused;
    struct alcove_owner owner;
    void *first = copies[0]->malloc(100), *last = copies[COPIES - 1]->malloc(100);
    assert_int_equal(copies[0]->owner(first, &owner), 1);
    assert_int_equal(copies[0]->owner(last, &owner), 0);
    assert_int_equal(copies[COPIES - 1]->owner(last, &owner), 1);
    assert_int_equal(copies[COPIES - 1]->owner(first, &owner), 0);
    copies[0]->free(first);
    copies[COPIES - 1]->free(last);
}

int
main(void)
{
    const struct CMUnitTest elf[] = {
        cmocka_unit_test(test_module_has_no_static_tls_flag),
        cmocka_unit_test(test_module_has_no_tpoff_relocation),
        cmocka_unit_test(test_module_has_one_pointer_of_tls),
    };
    const struct CMUnitTest loaded[] = {
        cmocka_unit_test(test_hundred_and_one_copies_load_and_work_side_by_side),
        cmocka_unit_test(test_first_copies_have_static_tls_where_the_build_can),
        cmocka_unit_test(test_last_copies_work_without_static_tls),
        cmocka_unit_test(test_copies_know_only_their_own_blocks),
    };
    int failed = cmocka_run_group_tests(elf, map_file, NULL);
    return failed + cmocka_run_group_tests(loaded, load_copies, unload_copies);
}
