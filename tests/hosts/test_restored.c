/*
 * What steering changes is as it was after the last unload, byte for byte: whatever of every object's file is mapped and is no data (symbol tables are
 * there), where imports lead (test_leftovers.c has that), and the protection of every page of every file. Each in a child, which loads for the first time.
 */
#include "host.h"

#include <dlfcn.h>
#include <link.h>

#include "../plugins/blocks.h"
#include "../plugins/ways.h"
#include "tests/child.h"

static alcove_allocator *allocator;

/* Parts of objects that are not for writing, and copies of them. */
#define PARTS_MOST 512
static struct part {
    const char *from;
    size_t bytes;
    char *copy;
} parts[PARTS_MOST];
static unsigned part_count;
static char *protections; /* of the mappings of files */
static bool protections_told; /* not where an emulator makes the list up */

/* A line for each stretch of one file with one protection: the system may list it in several parts. */
static char *
protections_read(void)
{
    char line[4352], last[4352] = "", bits[8], last_bits[8] = "", *text;
    unsigned long from, to, last_to = 0;
    size_t used = 0;
    FILE *maps = fopen("/proc/self/maps", "r");
    text = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(text != MAP_FAILED && maps != NULL);
    while (fgets(line, sizeof line, maps) != NULL) {
        const char *file = strchr(line, '/');
        if (file == NULL || sscanf(line, "%lx-%lx %7s", &from, &to, bits) != 3)
            continue;
        if (from != last_to || strcmp(bits, last_bits) != 0 || strcmp(file, last) != 0)
            used += (size_t)snprintf(text + used, (1 << 20) - used, "%lx %s %s", from, bits, file);
        last_to = to;
        strcpy(last, file);
        strcpy(last_bits, bits);
    }
    fclose(maps);
    return text;
}

/* Without unloading, what was not there before stays: leave its lines out. */
static void
protections_of_those_before(char *text)
{
    char *out = text, *end;
    for (char *line = text; (end = strchr(line, '\n')) != NULL; line = end + 1) {
        const char *file = strchr(line, '/');
        char name[4352];
        snprintf(name, sizeof name, "%.*s", (int)(end + 1 - file), file);
        if (strstr(protections, name) != NULL) {
            memmove(out, line, (size_t)(end + 1 - line));
            out += end + 1 - line;
        }
    }
    *out = '\0';
}

static int
object_keep(struct dl_phdr_info *info, size_t size, void *unused)
{
    (void)size;
    (void)unused;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *p = &info->dlpi_phdr[i];
        if (p->p_type != PT_LOAD || (p->p_flags & PF_W) != 0 || (p->p_flags & PF_R) == 0)
            continue;
        CHECK(part_count < PARTS_MOST);
        struct part *part = &parts[part_count++];
        part->from = (const char *)(info->dlpi_addr + p->p_vaddr);
        part->bytes = p->p_filesz;
        part->copy = mmap(NULL, part->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        CHECK(part->copy != MAP_FAILED);
        memcpy(part->copy, part->from, part->bytes);
    }
    return 0;
}

static void
keep(void)
{
    protections_told = !emulated();
    dl_iterate_phdr(object_keep, NULL);
    CHECK(part_count > 3);
    protections = protections_read();
    char *again = protections_read(); /* binds what that calls */
    protections = protections_read();
    CHECK(strcmp(again, protections) == 0);
}

static unsigned
parts_changed(void)
{
    unsigned changed = 0;
    for (unsigned i = 0; i < part_count; i++)
        changed += memcmp(parts[i].from, parts[i].copy, parts[i].bytes) != 0;
    return changed;
}

static void
check_restored(void)
{
    CHECK(parts_changed() == 0);
    if (protections_told) {
        char *now = protections_read();
        if (!DLCLOSE_UNLOADS)
            protections_of_those_before(now);
        if (strcmp(now, protections) != 0)
            fprintf(stderr, "before:\n%s\nafter:\n%s", protections, now);
        CHECK(strcmp(now, protections) == 0);
        munmap(now, 1 << 20);
    }
}

static void
load(void)
{
    CHECK(alcove_load(&allocator, &(struct alcove_load_options){.path = allocator_path()}) == 0);
}

static void
load_and_use(void)
{
    alcove_module *module;
    load();
    CHECK(alcove_module_open(allocator, plugin_path("blocks"), NULL, &module) == 0);
    free(CALL(module, blocks_make)(BLOCKS_MALLOC, 100));
    CHECK(alcove_module_close(module, 0, NULL) == 0);
}

static void
after_one_load(void)
{
    keep();
    load_and_use();
    CHECK(parts_changed() != 0); /* else the comparison is worth nothing */
    CHECK(alcove_unload(allocator, 0) == 0);
    check_restored();
}

/* Addresses in its text are led elsewhere, and back. */
static void
after_a_load_with_relocated_text(void)
{
    CHECK(dlopen(plugin_path("in_text"), RTLD_NOW | RTLD_LOCAL) != NULL);
    after_one_load();
}

static void
after_many_loads(void)
{
    keep();
    for (int i = 0; i < 100; i++) {
        load_and_use();
        CHECK(alcove_unload(allocator, 0) == 0);
    }
    check_restored();
}

static void
after_failed_opens(void)
{
    alcove_module *module;
    keep();
    load();
    CHECK(alcove_module_open(allocator, plugin_path("no_such"), NULL, &module) == ALCOVE_ENOENT);
    CHECK(alcove_module_open(allocator, "/proc/self/maps", NULL, &module) != 0);
    CHECK(alcove_module_open(allocator, "libc.so.6", NULL, &module) != 0);
    CHECK(alcove_unload(allocator, 0) == 0);
    check_restored();
}

static void
after_a_failed_load(void)
{
    keep();
    CHECK(alcove_load(&allocator, &(struct alcove_load_options){.path = plugin_path("blocks")}) != 0);
    check_restored();
}

static void
after_the_last_of_two_unloads(void)
{
    keep();
    load();
    load();
    CHECK(alcove_unload(allocator, 0) == 0);
    CHECK(parts_changed() != 0);
    CHECK(alcove_unload(allocator, 0) == 0);
    check_restored();
}

static void
after_live_blocks_were_released(void)
{
    keep();
    load();
    CHECK(alcove_table_of(allocator)->malloc(100) != NULL);
    CHECK(alcove_unload(allocator, ALCOVE_UNLOAD_RELEASE) == 0);
    check_restored();
}

/* Guards know what was left, so steering goes on: who releases such a block later does no harm. */
static void
after_live_blocks_were_left(void)
{
    alcove_module *module;
    void *blocks[WAYS];
    keep();
    load();
    CHECK(alcove_module_open(allocator, plugin_path("blocks"), NULL, &module) == 0);
    for (int way = 0; way < WAYS; way++)
        blocks[way] = CALL(module, blocks_make)(BLOCKS_MALLOC, 100);
    CHECK(alcove_module_close(module, 0, NULL) == 0);
    CHECK(alcove_unload(allocator, ALCOVE_UNLOAD_LEAVE) == 0);
    CHECK(parts_changed() != 0);
    void *later = dlopen(plugin_path("ways"), RTLD_NOW | RTLD_LOCAL);
    CHECK(later != NULL);
    __typeof__(&ways_release) release = (__typeof__(&ways_release))dlsym(later, "ways_release");
    for (int way = 0; way < WAYS; way++) {
        release((enum way)way, blocks[way]);
        release((enum way)way, ((__typeof__(&ways_make))dlsym(later, "ways_make"))((enum way)way));
    }
    dlclose(later);
    load_and_use(); /* it can be loaded again, and what was left is left still */
    CHECK(alcove_unload(allocator, 0) == 0);
    free(blocks[0]);
}

static void
test_one_load_leaves_symbol_tables_and_protections_as_they_were(void **state)
{
    (void)state;
    in_child(after_one_load);
}

static void
test_one_load_leaves_relocated_text_as_it_was(void **state)
{
    (void)state;
    in_child(after_a_load_with_relocated_text);
}

static void
test_a_hundred_loads_leave_them_as_they_were(void **state)
{
    (void)state;
    in_child(after_many_loads);
}

static void
test_failed_opens_leave_them_as_they_were(void **state)
{
    (void)state;
    in_child(after_failed_opens);
}

static void
test_failed_load_leaves_them_as_they_were(void **state)
{
    (void)state;
    in_child(after_a_failed_load);
}

static void
test_last_of_two_unloads_restores_them(void **state)
{
    (void)state;
    in_child(after_the_last_of_two_unloads);
}

static void
test_unload_that_releases_live_blocks_restores_them(void **state)
{
    (void)state;
    in_child(after_live_blocks_were_released);
}

static void
test_unload_that_leaves_live_blocks_goes_on_steering(void **state)
{
    (void)state;
    in_child(after_live_blocks_were_left);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_load_leaves_symbol_tables_and_protections_as_they_were),
        cmocka_unit_test(test_one_load_leaves_relocated_text_as_it_was),
        cmocka_unit_test(test_a_hundred_loads_leave_them_as_they_were),
        cmocka_unit_test(test_failed_opens_leave_them_as_they_were),
        cmocka_unit_test(test_failed_load_leaves_them_as_they_were),
        cmocka_unit_test(test_last_of_two_unloads_restores_them),
        cmocka_unit_test(test_unload_that_releases_live_blocks_restores_them),
        cmocka_unit_test(test_unload_that_leaves_live_blocks_goes_on_steering),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
