/*
 * What an unloaded allocator leaves behind in the process: nothing. Everything of it that could be
 * seen is read before it is loaded and after it is gone, with the loader and with a bare dlopen: mappings,
 * descriptors, threads, thread keys, signal handlers, and where the imports of every object lead.
 */
#include "host.h"

#include <dirent.h>
#include <dlfcn.h>
#include <link.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config.h"
#include "tests/child.h"
#include "tests/plugins/blocks.h"
#include "tests/work.h"

#define TEXT_BYTES ((size_t)1 << 20)
#define SLOTS_MOST 100000
#define SIGNALS_MOST 64

struct slot {
    void *const *at;
    void *value;
};

/* In mappings of its own, which are made before anything is compared. */
struct traces {
    char mappings[TEXT_BYTES], descriptors[TEXT_BYTES], threads[TEXT_BYTES];
    unsigned keys;
    struct sigaction actions[SIGNALS_MOST + 1];
    struct slot slots[SLOTS_MOST];
    size_t slot_count;
};
static struct traces *before, *after;

/* A table of the allocator's page map, or of the loader's map of territory, which speaks of 1 TiB; an emulator may lay memory where none speaks of
 * yet. */
static bool
may_be_a_table(const char *line)
{
    unsigned long begin = 0, end = 0;
    return emulated() && strchr(line, '/') == NULL && sscanf(line, "%lx-%lx", &begin, &end) == 2 && (end - begin == (2ul << 20) || end - begin == (256ul << 10));
}

/* All lines but those of libc's heap and of the stack, which grow by other's doings. */
static void
mappings_read(char *text)
{
    char line[4352];
    size_t used = 0;
    FILE *maps = fopen("/proc/self/maps", "r");
    while (fgets(line, sizeof line, maps) != NULL)
        if (strstr(line, "[heap]") == NULL && strstr(line, "[stack]") == NULL && !may_be_a_table(line))
            used += (size_t)snprintf(text + used, TEXT_BYTES - used, "%s", line);
    fclose(maps);
    assert_true(used < TEXT_BYTES - 1);
}

/* Names in a folder, and for links where they lead. */
static void
folder_read(const char *path, char *text)
{
    size_t used = 0;
    DIR *folder = opendir(path);
    for (const struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        char target[4096] = "";
        if (entry->d_type == DT_LNK && atoi(entry->d_name) != dirfd(folder))
            assert_true(readlinkat(dirfd(folder), entry->d_name, target, sizeof target - 1) >= 0);
        used += (size_t)snprintf(text + used, TEXT_BYTES - used, "%s %s\n", entry->d_name, target);
    }
    closedir(folder);
    assert_true(used < TEXT_BYTES - 1);
}

/* As many as there are, less those that can still be made. */
static unsigned
keys_in_use(void)
{
    pthread_key_t keys[PTHREAD_KEYS_MAX];
    unsigned made = 0;
    while (made < PTHREAD_KEYS_MAX && pthread_key_create(&keys[made], NULL) == 0)
        made++;
    for (unsigned i = 0; i < made; i++)
        pthread_key_delete(keys[i]);
    return PTHREAD_KEYS_MAX - made;
}

/* The places that the dynamic linker fills with an address of another object. */
static void
slots_add(struct traces *traces, const struct dl_phdr_info *object, const ElfW(Rela) *relocations, size_t bytes)
{
    for (size_t i = 0; i < bytes / sizeof *relocations; i++) {
        if (ELF64_R_SYM(relocations[i].r_info) == 0 || relocations[i].r_offset % sizeof(void *) != 0)
            continue;
        assert_true(traces->slot_count < SLOTS_MOST);
        struct slot *slot = &traces->slots[traces->slot_count++];
        slot->at = (void *const *)(object->dlpi_addr + relocations[i].r_offset);
        slot->value = *slot->at;
    }
}

static int
slots_of(struct dl_phdr_info *object, size_t size, void *argument)
{
    (void)size;
    const ElfW(Rela) *relocations = NULL, *calls = NULL;
    size_t relocation_bytes = 0, call_bytes = 0;
    for (int i = 0; i < object->dlpi_phnum; i++) {
        if (object->dlpi_phdr[i].p_type != PT_DYNAMIC)
            continue;
        const ElfW(Dyn) *d = (const void *)(object->dlpi_addr + object->dlpi_phdr[i].p_vaddr);
        for (; d->d_tag != DT_NULL; d++) {
            /* glibc has made addresses of them, but not in the vDSO */
            const void *address = (const void *)(d->d_un.d_ptr + (d->d_un.d_ptr < object->dlpi_addr ? object->dlpi_addr : 0));
            switch (d->d_tag) {
            case DT_RELA: relocations = address; break;
            case DT_RELASZ: relocation_bytes = d->d_un.d_val; break;
            case DT_JMPREL: calls = address; break;
            case DT_PLTRELSZ: call_bytes = d->d_un.d_val; break;
            }
        }
    }
    slots_add(argument, object, relocations, relocation_bytes);
    slots_add(argument, object, calls, call_bytes);
    return 0;
}

static void
traces_read(struct traces *traces)
{
    folder_read("/proc/self/fd", traces->descriptors);
    folder_read("/proc/self/task", traces->threads);
    traces->keys = keys_in_use();
    for (int i = 1; i <= SIGNALS_MOST; i++)
        sigaction(i, NULL, &traces->actions[i]);
    traces->slot_count = 0;
    dl_iterate_phdr(slots_of, traces);
    mappings_read(traces->mappings);
}

static struct traces *
traces_new(void)
{
    struct traces *traces = mmap(NULL, sizeof *traces, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(traces != MAP_FAILED);
    memset(traces, 0, sizeof *traces);
    return traces;
}

static void
assert_same_traces(void)
{
    assert_string_equal(after->mappings, before->mappings);
    assert_string_equal(after->descriptors, before->descriptors);
    assert_string_equal(after->threads, before->threads);
    assert_int_equal(after->keys, before->keys);
    for (int i = 1; i <= SIGNALS_MOST; i++)
        assert_memory_equal(&after->actions[i].sa_handler, &before->actions[i].sa_handler, sizeof(void *));
    assert_true(before->slot_count > 100);
    assert_int_equal(after->slot_count, before->slot_count);
    for (size_t i = 0; i < before->slot_count; i++)
        if (after->slots[i].at != before->slots[i].at || after->slots[i].value != before->slots[i].value)
            fail_msg("the import at %p led to %p, and leads to %p now", (const void *)before->slots[i].at,
                     before->slots[i].value, after->slots[i].value);
}

/* Where the allocator was nothing can be: whoever calls it still is ended. Returns the place. */
static void *
module_place(size_t *size)
{
    char line[4352];
    uintptr_t from = 0, to = 0, start, end;
    const char *name = strrchr(allocator_path(), '/');
    FILE *maps = fopen("/proc/self/maps", "r");
    while (fgets(line, sizeof line, maps) != NULL)
        if (strstr(line, name) != NULL && sscanf(line, "%zx-%zx", &start, &end) == 2) {
            from = from == 0 ? start : from;
            to = end;
        }
    fclose(maps);
    assert_true(from != 0);
    *size = to - from;
    return (void *)from;
}

/* That the system lists: two links less than there are of the folder. */
static unsigned
threads_listed(void)
{
    struct stat folder;
    assert_int_equal(stat("/proc/self/task", &folder), 0);
    return (unsigned)folder.st_nlink;
}

static void
work_from_two_threads(const struct alcove_table *table)
{
    pthread_t threads[2];
    void *result;
    unsigned listed = threads_listed();
    assert_true(allocator_works(table));
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, allocator_works_in_thread, (void *)(uintptr_t)table), 0);
    for (int i = 0; i < 2; i++) {
        pthread_join(threads[i], &result);
        assert_non_null(result);
    }
    for (int i = 0; i < 2000 && threads_listed() > listed; i++)
        usleep(1000); /* one that is joined may be listed for a moment, an emulator's for longer */
}

static void *place;
static size_t place_bytes;

static void
cycle_bare(void)
{
    char name[128];
    void *handle = dlopen(allocator_path(), RTLD_NOW | RTLD_LOCAL);
    assert_non_null(handle);
    snprintf(name, sizeof name, "%stable", setting("ALCOVE_TEST_PREFIX"));
    work_from_two_threads(dlsym(handle, name));
    place = module_place(&place_bytes);
    assert_int_equal(dlclose(handle), 0);
}

static void
cycle_with_loader(void)
{
    alcove_allocator *allocator = allocator_load();
    alcove_module *module = plugin_open(allocator, "blocks", NULL);
    work_from_two_threads(alcove_table_of(allocator));
    free(CALL(module, blocks_make)(BLOCKS_STRDUP, 0)); /* a guard's work */
    place = module_place(&place_bytes);
    assert_int_equal(module_end(module).released_outside, 1);
    assert_ok(alcove_unload(allocator, 0));
}

static void
assert_leaves_nothing(void (*cycle)(void))
{
    /* The first time libc keeps the stacks of threads, and the loader the page map and its key. */
    for (int i = 0; i < 3; i++)
        cycle();
    traces_read(before);
    traces_read(after);
    assert_same_traces(); /* and binds what this calls, which is bound lazily */
    traces_read(before);
    for (int i = 0; i < 5; i++) {
        cycle();
        traces_read(after);
        assert_same_traces();
    }
}

static void
test_bare_dlclose_leaves_no_trace(void **state)
{
    (void)state;
    SKIP_WITHOUT_UNLOADING();
    assert_leaves_nothing(cycle_bare);
}

static void
test_unload_leaves_no_trace(void **state)
{
    (void)state;
    assert_leaves_nothing(cycle_with_loader);
}

/* The second look finds what the first did not: else the comparison above would be worth nothing. */
static void
test_traces_of_a_loaded_allocator_are_seen(void **state)
{
    (void)state;
    SKIP_WITHOUT_UNLOADING();
    traces_read(before);
    alcove_allocator *allocator = allocator_load();
    traces_read(after);
    assert_string_not_equal(after->mappings, before->mappings);
    size_t guards = 0;
    for (size_t i = 0, j = 0; i < after->slot_count && j < before->slot_count; i++)
        if (after->slots[i].at == before->slots[j].at)
            guards += after->slots[i].value != before->slots[j++].value;
    assert_true(guards > 5);
    assert_ok(alcove_unload(allocator, 0));
}

#define LOADS 1000 /* a bare dlopen has used up libc's optional static TLS after 64 */

/* The place that the loader lends for the thread's record is as good in the last load as in the first. */
static void
test_last_of_many_loads_has_the_tls_of_the_first(void **state)
{
    (void)state;
    char first[16] = "";
    const char *loads = getenv("ALCOVE_TEST_LOADS");
    for (int i = 0, n = loads != NULL ? atoi(loads) : LOADS; i < n; i++) {
        struct alcove_info info;
        alcove_allocator *allocator = allocator_load();
        const struct alcove_table *t = alcove_table_of(allocator);
        t->free(t->malloc(100));
        t->info(&info);
        if (i == 0)
            snprintf(first, sizeof first, "%s", info.tls);
        assert_string_equal(info.tls, first);
        assert_ok(alcove_unload(allocator, 0));
    }
    assert_string_equal(first, ALCOVE_HAVE_TLSDESC && !ALCOVE_FORCE_DYNAMIC_TLS ? "static" : "dynamic");
}

static pthread_barrier_t barrier;
static const struct alcove_table *table;

static void *
use_and_outlive(void *unused)
{
    (void)unused;
    table->free(table->malloc(100));
    pthread_barrier_wait(&barrier); /* used */
    pthread_barrier_wait(&barrier); /* gone */
    return NULL;
}

/* In a child: unload while a thread that used it lives, put a trap where it was, and do everything
 * at which a library may have asked to be called. */
static void
spring_the_trap(bool with_loader)
{
    pthread_t thread;
    alcove_allocator *allocator = NULL;
    void *handle = NULL;
    char name[128];
    int status;
    if (with_loader) {
        allocator = allocator_load();
        table = alcove_table_of(allocator);
    } else {
        handle = dlopen(allocator_path(), RTLD_NOW | RTLD_LOCAL);
        snprintf(name, sizeof name, "%stable", setting("ALCOVE_TEST_PREFIX"));
        table = dlsym(handle, name);
    }
    place = module_place(&place_bytes);
    pthread_barrier_init(&barrier, NULL, 2);
    CHECK(pthread_create(&thread, NULL, use_and_outlive, NULL) == 0);
    pthread_barrier_wait(&barrier);
    table->free(table->malloc(100));
    CHECK(with_loader ? alcove_unload(allocator, 0) == 0 : dlclose(handle) == 0);
    CHECK(mmap(place, place_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == place);
    pthread_barrier_wait(&barrier);
    CHECK(pthread_join(thread, NULL) == 0); /* its end */
    pid_t child = fork(); /* fork handlers */
    if (child == 0)
        exit(0); /* exit handlers and destructors, twice */
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    free(strdup("guards are gone"));
    free(realloc(malloc(10), 100000));
    exit(0);
}

static void
spring_the_trap_bare(void)
{
    spring_the_trap(false);
}

static void
spring_the_trap_with_loader(void)
{
    spring_the_trap(true);
}

static void
test_nobody_calls_it_after_a_bare_dlclose(void **state)
{
    (void)state;
    SKIP_WITHOUT_UNLOADING();
    in_child(spring_the_trap_bare);
}

static void
test_nobody_calls_it_after_unload(void **state)
{
    (void)state;
    SKIP_WITHOUT_UNLOADING();
    in_child(spring_the_trap_with_loader);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bare_dlclose_leaves_no_trace),
        cmocka_unit_test(test_unload_leaves_no_trace),
        cmocka_unit_test(test_traces_of_a_loaded_allocator_are_seen),
        cmocka_unit_test(test_last_of_many_loads_has_the_tls_of_the_first),
        cmocka_unit_test(test_nobody_calls_it_after_a_bare_dlclose),
        cmocka_unit_test(test_nobody_calls_it_after_unload),
    };
#ifdef M_ARENA_MAX
    mallopt(M_ARENA_MAX, 1); /* libc's own memory is not to be taken for ours */
#endif
    before = traces_new();
    after = traces_new();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
