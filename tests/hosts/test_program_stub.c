/*
 * A host built without -fPIE that takes the address of free: every object in the process then sees
 * the program's own jump stub as free's address. Guards must know it, and must not be sent round in
 * circles by it.
 */
#include "host.h"

#include <dlfcn.h>
#include <unistd.h>

#include "../plugins/blocks.h"

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

int
main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_address_of_free_is_guarded)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
