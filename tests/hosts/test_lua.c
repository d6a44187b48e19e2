/*
 * plugins/lua with Debian's own liblua5.4, opened with dlopen like any host's: each state's memory
 * is in a heap of its own, a limit is Lua's own error, and closing a state drops its heap.
 */
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <alcove/loader.h>

#include "lua/alcove_lua.h"

/* As the Lua 5.4 manual gives them. */
#define LUA_OK 0
#define LUA_ERRMEM 4
#define LUA_MULTRET (-1)

struct lua_State;

#define LUA_API(X)                                                                                 \
    X(struct lua_State *, lua_newstate, (void *(*)(void *, void *, size_t, size_t), void *))       \
    X(void, lua_close, (struct lua_State *))                                                       \
    X(void, luaL_openlibs, (struct lua_State *))                                                   \
    X(int, luaL_loadstring, (struct lua_State *, const char *))                                    \
    X(int, lua_pcallk,                                                                             \
      (struct lua_State *, int, int, int, intptr_t, int (*)(struct lua_State *, int, intptr_t)))   \
    X(void, lua_pushcclosure, (struct lua_State *, int (*)(struct lua_State *), int))              \
    X(void, lua_setglobal, (struct lua_State *, const char *))                                     \
    X(double, lua_tonumberx, (struct lua_State *, int, int *))                                     \
    X(const char *, lua_tolstring, (struct lua_State *, int, size_t *))                            \
    X(const void *, lua_topointer, (struct lua_State *, int))                                      \
    X(void *, lua_newuserdatauv, (struct lua_State *, size_t, int))                                \
    X(void, lua_settop, (struct lua_State *, int))

static struct {
#define MEMBER(result, name, parameters) result(*name) parameters;
    LUA_API(MEMBER)
#undef MEMBER
} api;

static void *library;
static alcove_allocator *allocator;
static const struct alcove_table *table;

struct state {
    alcove_lua *lua;
    struct lua_State *L;
};

static struct state
state_open(uint64_t limit)
{
    struct state state;
    struct alcove_lua_options options = { .limit = limit, .name = "test" };
    assert_int_equal(alcove_lua_create(&state.lua, table, &options), 0);
    state.L = api.lua_newstate(alcove_lua_alloc, state.lua);
    assert_non_null(state.L);
    api.luaL_openlibs(state.L);
    return state;
}

static void
state_close(struct state *state, struct alcove_heap_stats *last)
{
    assert_int_equal(alcove_lua_close(state->lua, state->L, api.lua_close, last), 0);
}

/* Returns Lua's code; results or the message are on the stack. */
static int
state_run(struct state *state, const char *script)
{
    api.lua_settop(state->L, 0);
    int code = api.luaL_loadstring(state->L, script);
    return code != LUA_OK ? code : api.lua_pcallk(state->L, 0, LUA_MULTRET, 0, 0, NULL);
}

static uint32_t
heap_of(const void *address)
{
    struct alcove_owner owner;
    return table->owner(address, &owner) ? owner.heap : ALCOVE_HEAP_NONE;
}

static void
test_memory_is_in_the_states_own_heap(void **unused)
{
    (void)unused;
    struct state state = state_open(0);
    uint32_t heap = alcove_lua_heap(state.lua);

    assert_int_not_equal(heap, ALCOVE_HEAP_DEFAULT);
    assert_int_equal(heap_of(state.L), heap);
    assert_int_equal(state_run(&state, "return ('x'):rep(1000), {1, 2, 3}, coroutine.create(print)"), LUA_OK);
    assert_int_equal(heap_of(api.lua_tolstring(state.L, 1, NULL)), heap);
    assert_int_equal(heap_of(api.lua_topointer(state.L, 2)), heap);
    assert_int_equal(heap_of(api.lua_topointer(state.L, 3)), heap);
    assert_int_equal(heap_of(api.lua_newuserdatauv(state.L, 100, 0)), heap);
    assert_int_equal(heap_of(api.lua_newuserdatauv(state.L, 10 << 20, 0)), heap);
    state_close(&state, NULL);
}

static void
test_two_states_are_apart(void **unused)
{
    (void)unused;
    struct state one = state_open(0), two = state_open(0);
    struct alcove_heap_stats before, after;

    assert_int_not_equal(alcove_lua_heap(one.lua), alcove_lua_heap(two.lua));
    assert_int_equal(state_run(&two, "kept = {}; for i = 1, 1000 do kept[i] = 'two ' .. i end"), LUA_OK);
    assert_int_equal(alcove_lua_stats(two.lua, &before), 0);
    assert_int_equal(state_run(&one, "t = {}; for i = 1, 10000 do t[i] = 'one ' .. i end"), LUA_OK);
    state_close(&one, NULL);
    assert_int_equal(alcove_lua_stats(two.lua, &after), 0);
    assert_int_equal(after.live_bytes, before.live_bytes);
    assert_int_equal(after.total_allocs, before.total_allocs);
    assert_int_equal(state_run(&two, "for i = 1, 1000 do assert(kept[i] == 'two ' .. i) end"), LUA_OK);
    state_close(&two, NULL);
}

static const char greedy[] = "local t = {}; for i = 1, 100000 do t[i] = 'a string ' .. i end; return #t";

static void
test_limit_is_luas_own_error_and_the_state_survives(void **unused)
{
    (void)unused;
    struct state state = state_open(2 << 20);
    struct alcove_heap_stats stats;

    assert_int_equal(state_run(&state, greedy), LUA_ERRMEM);
    assert_string_equal(api.lua_tolstring(state.L, -1, NULL), "not enough memory");
    assert_int_equal(alcove_lua_stats(state.lua, &stats), 0);
    assert_int_equal(stats.limit, 2 << 20);
    assert_true(stats.limit_refused > 0);
    assert_true(stats.active_bytes <= 2 << 20);

    assert_int_equal(state_run(&state, "collectgarbage(); local t = {}\n"
                                       "for i = 1, 1000 do t[i] = 'a string ' .. i end\n"
                                       "assert(#t == 1000 and t[1000] == 'a string 1000')"), LUA_OK);
    /* A script can catch it too. */
    assert_int_equal(state_run(&state, "local ok, message = pcall(string.rep, 'x', 8 << 20)\n"
                                       "assert(not ok and message == 'not enough memory')"), LUA_OK);
    state_close(&state, NULL);
}

static void
test_limit_can_be_changed_while_it_runs(void **unused)
{
    (void)unused;
    struct state state = state_open(2 << 20);

    assert_int_equal(state_run(&state, greedy), LUA_ERRMEM);
    assert_int_equal(alcove_lua_limit(state.lua, 0), 0);
    assert_int_equal(state_run(&state, greedy), LUA_OK);
    assert_int_equal((int)api.lua_tonumberx(state.L, -1, NULL), 100000);
    state_close(&state, NULL);
}

static int finalized;

static int
note_finalized(struct lua_State *L)
{
    (void)L;
    finalized++;
    return 0;
}

static void
test_close_runs_finalizers_and_drops_everything(void **unused)
{
    (void)unused;
    struct alcove_info before, after;
    struct alcove_heap_stats last;

    table->info(&before);
    struct state state = state_open(0);
    uint32_t heap = alcove_lua_heap(state.lua);
    api.lua_pushcclosure(state.L, note_finalized, 0);
    api.lua_setglobal(state.L, "note");
    finalized = 0;
    assert_int_equal(state_run(&state, "kept = {}; local meta = { __gc = function() note() end }\n"
                                       "for i = 1, 1000 do kept[i] = setmetatable({ i }, meta) end"), LUA_OK);
    assert_int_equal(finalized, 0);
    state_close(&state, &last);
    assert_int_equal(finalized, 1000);

    assert_true(last.live_blocks > 1000); /* dropped without being freed one by one */
    assert_int_equal(table->heap_stats(heap, &last), EINVAL);
    table->info(&after);
    assert_int_equal(after.heaps, before.heaps);
    assert_int_equal(after.live_blocks, before.live_blocks);
    assert_int_equal(after.live_bytes, before.live_bytes);
}

/* Its garbage is larger than the limit, so it must really be freed, closing or not. */
/* By what Lua tries again after a collection, when the limit is reached: it does not so with the buffers of string.rep. */
static void
test_finalizer_may_make_garbage_at_close(void **unused)
{
    (void)unused;
    struct state state = state_open(8 << 20);

    api.lua_pushcclosure(state.L, note_finalized, 0);
    api.lua_setglobal(state.L, "note");
    finalized = 0;
    assert_int_equal(state_run(&state,
                               "local long = ('x'):rep(100000)\n"
                               "kept = setmetatable({}, { __gc = function()\n"
                               "    for i = 1, 1000 do local s = long .. i end\n"
                               "    note()\n"
                               "end })"), LUA_OK);
    state_close(&state, NULL);
    assert_int_equal(finalized, 1);
}

static void
test_figures_agree_with_luas_own(void **unused)
{
    (void)unused;
    struct state state = state_open(0);
    struct alcove_heap_stats stats;

    assert_int_equal(state_run(&state, "t = {}; for i = 1, 50000 do t[i] = { 'string ' .. i } end\n"
                                       "collectgarbage()\n"
                                       "return collectgarbage('count') * 1024"), LUA_OK);
    double counted = api.lua_tonumberx(state.L, -1, NULL);
    assert_int_equal(alcove_lua_stats(state.lua, &stats), 0);
    assert_true(counted > 4e6);
    assert_true((double)stats.live_bytes >= counted);
    assert_true((double)stats.live_bytes < counted * 1.25); /* what rounding up to size classes costs */
    assert_true(stats.peak_bytes >= stats.live_bytes);
    assert_true(stats.active_bytes >= stats.live_bytes);
    assert_true(stats.live_blocks > 100000);
    assert_int_equal(stats.total_allocs - stats.total_frees, stats.live_blocks);

    assert_int_equal(state_run(&state, "t = nil; collectgarbage()"), LUA_OK);
    assert_int_equal(alcove_lua_stats(state.lua, &stats), 0);
    assert_true((double)stats.live_bytes < counted / 4);
    state_close(&state, NULL);
}

static void
test_close_without_a_state(void **unused)
{
    (void)unused;
    alcove_lua *lua;
    struct alcove_info before, after;

    table->info(&before);
    assert_int_equal(alcove_lua_create(&lua, table, NULL), 0);
    assert_int_equal(alcove_lua_close(lua, NULL, NULL, NULL), 0);
    table->info(&after);
    assert_int_equal(after.heaps, before.heaps);
    assert_int_equal(after.live_blocks, before.live_blocks);
}

static void
test_bad_arguments_are_refused(void **unused)
{
    (void)unused;
    struct alcove_heap_stats stats;
    alcove_lua *lua = NULL;

    assert_int_equal(alcove_lua_create(NULL, table, NULL), EINVAL);
    assert_int_equal(alcove_lua_create(&lua, NULL, NULL), EINVAL);
    assert_int_equal(alcove_lua_create(&lua, table, &(struct alcove_lua_options){ .limit = 1 }), EINVAL);
    assert_int_equal(alcove_lua_create(&lua, table, &(struct alcove_lua_options){ .flags = 1 }), EINVAL);
    assert_int_equal(alcove_lua_create(&lua, table, &(struct alcove_lua_options){ .size = 7 }), EINVAL);
    struct {
        struct alcove_lua_options known;
        uint64_t more;
    } longer = { { .size = sizeof longer }, 1 };
    assert_int_equal(alcove_lua_create(&lua, table, &longer.known), EINVAL);
    assert_null(lua);
    longer.more = 0;
    assert_int_equal(alcove_lua_create(&lua, table, &longer.known), 0);
    assert_int_equal(alcove_lua_close(lua, NULL, NULL, NULL), 0);
    assert_int_equal(alcove_lua_stats(NULL, &stats), EINVAL);
    assert_int_equal(alcove_lua_limit(NULL, 0), EINVAL);
    assert_int_equal(alcove_lua_close(NULL, NULL, NULL, NULL), EINVAL);
    assert_int_equal(alcove_lua_heap(NULL), ALCOVE_HEAP_NONE);

    struct state state = state_open(0);
    assert_int_equal(alcove_lua_close(state.lua, state.L, NULL, NULL), EINVAL);
    assert_int_equal(alcove_lua_stats(state.lua, NULL), EINVAL);
    assert_int_equal(state_run(&state, "return 1"), LUA_OK); /* still open */
    state_close(&state, NULL);
}

static int
no_heap(const struct alcove_heap_options *options, uint32_t *heap)
{
    (void)options;
    (void)heap;
    return EAGAIN;
}

static void
test_no_heap_left_is_told(void **unused)
{
    (void)unused;
    struct alcove_table full = *table;
    alcove_lua *lua;

    full.heap_create = no_heap;
    assert_int_equal(alcove_lua_create(&lua, &full, NULL), EAGAIN);
}

static void *
no_memory(uint32_t heap, void *block, size_t size)
{
    (void)heap;
    (void)block;
    (void)size;
    return NULL;
}

static void
test_shrinking_never_fails(void **unused)
{
    (void)unused;
    struct alcove_table failing = *table;
    alcove_lua *lua;

    failing.heap_realloc = no_memory;
    assert_int_equal(alcove_lua_create(&lua, &failing, NULL), 0);
    void *block = alcove_lua_alloc(lua, NULL, 0, 1000);
    assert_non_null(block);
    assert_null(alcove_lua_alloc(lua, block, 1000, 2000));
    assert_ptr_equal(alcove_lua_alloc(lua, block, 1000, 500), block);
    assert_int_equal(alcove_lua_close(lua, NULL, NULL, NULL), 0);
}

static void *
open_run_close(void *failures)
{
    for (int i = 0; i < 20; i++) {
        struct alcove_lua_options options = { .name = "thread" };
        alcove_lua *lua;
        if (alcove_lua_create(&lua, table, &options) != 0)
            return failures;
        struct state state = { lua, api.lua_newstate(alcove_lua_alloc, lua) };
        api.luaL_openlibs(state.L);
        if (state_run(&state, "local t = {}\n"
                              "for i = 1, 5000 do t[i] = { 's' .. i } end\n"
                              "for i = 1, 5000 do assert(t[i][1] == 's' .. i) end") != LUA_OK)
            return failures;
        if (alcove_lua_close(lua, state.L, api.lua_close, NULL) != 0)
            return failures;
    }
    return NULL;
}

static void
test_states_in_threads(void **unused)
{
    (void)unused;
    pthread_t threads[4];
    struct alcove_info before, after;
    int failures;

    table->info(&before);
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, open_run_close, &failures), 0);
    for (int i = 0; i < 4; i++) {
        void *result;
        assert_int_equal(pthread_join(threads[i], &result), 0);
        assert_null(result);
    }
    table->info(&after);
    assert_int_equal(after.heaps, before.heaps);
    assert_int_equal(after.live_blocks, before.live_blocks);
}

static int
open_all(void **unused)
{
    (void)unused;
    struct alcove_load_options options = { .path = getenv("ALCOVE_TEST_MODULE") };

    if (alcove_load(&allocator, &options) != ALCOVE_OK) {
        print_error("%s\n", alcove_error_message());
        return -1;
    }
    table = alcove_table_of(allocator);
    library = dlopen("liblua5.4.so.0", RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        print_error("%s (Debian: liblua5.4-0)\n", dlerror());
        return -1;
    }
#define LOOK_UP(result, name, parameters)                                                          \
    if ((api.name = (result(*) parameters)dlsym(library, #name)) == NULL)                          \
        return -1;
    LUA_API(LOOK_UP)
#undef LOOK_UP
    return 0;
}

/* Nothing of any state is left, so nothing keeps the allocator. */
static int
close_all(void **unused)
{
    (void)unused;
    if (alcove_unload(allocator, 0) != ALCOVE_OK) {
        print_error("%s\n", alcove_error_message());
        return -1;
    }
    return dlclose(library);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memory_is_in_the_states_own_heap),
        cmocka_unit_test(test_two_states_are_apart),
        cmocka_unit_test(test_limit_is_luas_own_error_and_the_state_survives),
        cmocka_unit_test(test_limit_can_be_changed_while_it_runs),
        cmocka_unit_test(test_close_runs_finalizers_and_drops_everything),
        cmocka_unit_test(test_finalizer_may_make_garbage_at_close),
        cmocka_unit_test(test_figures_agree_with_luas_own),
        cmocka_unit_test(test_close_without_a_state),
        cmocka_unit_test(test_bad_arguments_are_refused),
        cmocka_unit_test(test_no_heap_left_is_told),
        cmocka_unit_test(test_shrinking_never_fails),
        cmocka_unit_test(test_states_in_threads),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
