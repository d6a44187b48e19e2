/* Lua: a library of C functions. The threads are the bridge's, for Lua has none. */
#include "bridge.h"

#include <lauxlib.h>
#include <lua.h>

static struct functions functions;

static int
answer(lua_State *L, const char *wrong)
{
    return wrong == NULL ? 0 : luaL_error(L, "%s", wrong);
}

static int
host_load(lua_State *L)
{
    void *library;
    answer(L, bridge_load(luaL_checkstring(L, 1), &library, &functions));
    lua_pushlightuserdata(L, library);
    return 1;
}

static int
host_use(lua_State *L)
{
    return answer(L, bridge_use(&functions, (unsigned)luaL_checkinteger(L, 1)));
}

static int
host_unload(lua_State *L)
{
    return answer(L, bridge_unload(lua_touserdata(L, 1)));
}

static int
host_threads_start(lua_State *L)
{
    return answer(L, bridge_threads_start(&functions));
}

static int
host_threads_end(lua_State *L)
{
    return answer(L, bridge_threads_end());
}

int luaopen_host(lua_State *L);

int
luaopen_host(lua_State *L)
{
    static const luaL_Reg host[] = {
        {"load", host_load},
        {"use", host_use},
        {"unload", host_unload},
        {"threads_start", host_threads_start},
        {"threads_end", host_threads_end},
        {NULL, NULL},
    };
    luaL_newlib(L, host);
    return 1;
}
