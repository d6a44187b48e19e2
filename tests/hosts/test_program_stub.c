/*
 * A host built without -fPIE that takes the address of free: every object in the process then sees
 * the program's own jump stub as free's address. Guards must know it, and must not be sent round in
 * circles by it.
 */
#include "host.h"

#include <dlfcn.h>
#include <link.h>
#include <unistd.h>

#include "../plugins/blocks.h"
#include "tests/child.h"

/* In code, so that the linker has to know the addresses, and makes the stubs. Where it does not (POWER), they
 * are in slots that are rewritten like all others: read in functions of their own, not before it is so. */
__attribute__((noinline)) static void (*free_address(void))(void *)
{
    return free;
}

__attribute__((noinline)) static void *(*malloc_address(void))(size_t)
{
    return malloc;
}

static void
test_address_of_free_is_guarded(void **state)
{
    (void)state;
    alarm(60); /* a circle would have no end */
    alcove_allocator *allocator = allocator_load();
    void (*volatile address_of_free)(void *) = free_address();
    void *(*volatile address_of_malloc)(size_t) = malloc_address();
    alcove_module *module = plugin_open(allocator, "blocks", NULL);
    void (**of_plugin)(void *) = symbol(module, "blocks_free_pointer");

    address_of_free(CALL(module, blocks_make)(BLOCKS_MALLOC, 100));
    assert_int_equal(stats_of(module).released_outside, 1);
    (*of_plugin)(CALL(module, blocks_make)(BLOCKS_MALLOC, 100));
    assert_int_equal(stats_of(module).released_outside, 1); /* the plugin's pointer is its own entry */
    assert_int_equal(stats_of(module).heap.live_blocks, 0);
    (*of_plugin)(address_of_malloc(100));
    assert_int_equal(stats_of(module).released_foreign, 1);
    address_of_free(address_of_malloc(100));

    module_end(module);
    assert_ok(alcove_unload(allocator, 0));
    address_of_free(address_of_malloc(100)); /* on POWER still the guard, which stays */
}

static int
interpreter_find(struct dl_phdr_info *info, size_t size, void *out)
{
    (void)size;
    for (size_t i = 0; i < info->dlpi_phnum; i++)
        if (info->dlpi_phdr[i].p_type == PT_INTERP)
            *(const char **)out = (const char *)(info->dlpi_addr + info->dlpi_phdr[i].p_vaddr);
    return 1;
}

static char self[4096];

static void
run_by_the_dynamic_linker(void)
{
    const char *linker = NULL;
    dl_iterate_phdr(interpreter_find, &linker);
    CHECK(linker != NULL);
    execl(linker, linker, self, "again", (char *)NULL);
    CHECK(!"it can be started");
}

/* Then the kernel knows nothing of a base of the dynamic linker's, and this program has base 0. */
static void
test_program_that_is_started_by_the_dynamic_linker(void **state)
{
    (void)state;
    if (emulated())
        SKIP_BECAUSE("an emulator starts no program but its own");
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    assert_true(length > 0);
    in_child(run_by_the_dynamic_linker);
}

int
main(int count, char **arguments)
{
    const struct CMUnitTest again[] = {cmocka_unit_test(test_address_of_free_is_guarded)};
    if (count > 1 && strcmp(arguments[1], "again") == 0)
        return cmocka_run_group_tests(again, NULL, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_address_of_free_is_guarded),
        cmocka_unit_test(test_program_that_is_started_by_the_dynamic_linker),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
