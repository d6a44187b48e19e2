/*
 * Lua: a script that builds tables and drops them, over and over. The library is a module like the
 * others, but Lua asks its host for memory, so nearly all of it comes from the state's own heap,
 * which plugins/lua provides.
 *
 * Prototypes are those of the Lua 5.4 manual.
 */
#include "demo.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "lua/alcove_lua.h"

#define LUA_OK 0
#define LUA_ROWS 20000
#define STATE_LIMIT (256u << 20)

struct lua_State;

#define LUA_API(X)                                                                                 \
    X(struct lua_State *, lua_newstate, (void *(*)(void *, void *, size_t, size_t), void *))       \
    X(void, lua_close, (struct lua_State *))                                                       \
    X(void, luaL_openlibs, (struct lua_State *))                                                   \
    X(int, luaL_loadstring, (struct lua_State *, const char *))                                    \
    X(int, lua_pcallk,                                                                             \
      (struct lua_State *, int, int, int, intptr_t, int (*)(struct lua_State *, int, intptr_t)))   \
    X(void, lua_pushinteger, (struct lua_State *, long long))                                      \
    X(void, lua_pushvalue, (struct lua_State *, int))                                              \
    X(long long, lua_tointegerx, (struct lua_State *, int, int *))                                 \
    X(const char *, lua_tolstring, (struct lua_State *, int, size_t *))                            \
    X(void, lua_settop, (struct lua_State *, int))

static struct {
#define MEMBER(result, name, parameters) result(*name) parameters;
    LUA_API(MEMBER)
#undef MEMBER
} api;

static alcove_lua *heap;
static struct lua_State *state;

/* One round, with its number and the number of rows. expected() below is the same sum. */
static const char script[] =
    "local round, count = ...\n"
    "local rows, by_name, sum = {}, {}, 0\n"
    "for i = 1, count do\n"
    "    local row = { id = i * round, name = 'row ' .. i, tags = { i % 7, i % 11 } }\n"
    "    rows[i], by_name[row.name] = row, row\n"
    "end\n"
    "for i = 1, count, 2 do by_name['row ' .. i], rows[i].tags = nil, nil end\n"
    "for name, row in pairs(by_name) do\n"
    "    sum = sum + row.id + #name + row.tags[1] + row.tags[2]\n"
    "end\n"
    "return sum\n";

static long long
expected(long long round)
{
    long long sum = 0;
    for (int i = 2; i <= LUA_ROWS; i += 2) {
        char name[32];
        sum += i * round + snprintf(name, sizeof name, "row %d", i) + i % 7 + i % 11;
    }
    return sum;
}

static bool
prepare(struct work *work)
{
#define LOOK_UP(result, name, parameters)                                                          \
    if ((api.name = (result(*) parameters)work_symbol(work, #name)) == NULL)                       \
        return false;
    LUA_API(LOOK_UP)
#undef LOOK_UP

    int error = alcove_lua_create(&heap, work->demo->table,
                                  &(struct alcove_lua_options){ .name = "lua state", .limit = STATE_LIMIT });
    return error == 0 || work_fails(work, "a heap for the state: %s", strerror(error));
}

static bool
lua_failed(struct work *work)
{
    const char *message = api.lua_tolstring(state, -1, NULL);
    return work_fails(work, "Lua: %s", message != NULL ? message : "an error without a message");
}

static bool
run(struct work *work)
{
    state = api.lua_newstate(alcove_lua_alloc, heap);
    if (state == NULL)
        return work_fails(work, "lua_newstate: not enough memory");
    api.luaL_openlibs(state);
    if (api.luaL_loadstring(state, script) != LUA_OK)
        return lua_failed(work);

    for (long long round = 1; !work->demo->stop; round++) {
        api.lua_pushvalue(state, 1);
        api.lua_pushinteger(state, round);
        api.lua_pushinteger(state, LUA_ROWS);
        if (api.lua_pcallk(state, 2, 1, 0, 0, NULL) != LUA_OK)
            return lua_failed(work);
        long long sum = api.lua_tointegerx(state, -1, NULL);
        if (sum != expected(round))
            return work_fails(work, "round %lld: the sum is %lld, not %lld", round, sum, expected(round));
        api.lua_settop(state, 1);
        atomic_fetch_add(&work->rounds, 1);
        work_says(work, "%lld rounds of tables", round);
    }
    return true;
}

static bool
finish(struct work *work)
{
    struct alcove_heap_stats last = { 0 };
    char bytes[16], blocks[32];
    double started = demo_clock();

    if (heap == NULL)
        return true;
    int error = alcove_lua_close(heap, state, api.lua_close, &last);
    if (error != 0)
        return work_fails(work, "closing the state: %s", strerror(error));
    printf("lua: state closed, its heap of %s (%s blocks) dropped at once: %.1f ms in all\n",
           format_bytes(last.live_bytes, bytes), format_count(last.live_blocks, blocks),
           (demo_clock() - started) * 1000);
    return true;
}

static void
state_stats(struct work *work, struct alcove_heap_stats *out)
{
    (void)work;
    alcove_lua_stats(heap, out);
}

struct work work_lua = {
    .name = "lua",
    .library = "liblua5.4.so.0",
    .package = "liblua5.4-0",
    .prepare = prepare,
    .run = run,
    .finish = finish,
    .extra_name = "lua state",
    .extra_stats = state_stats,
};
