/*
 * A heap of its own for each Lua state: an allocator function for lua_newstate() with a limit and
 * statistics, and a close that drops the state's memory at once instead of block by block.
 *
 * It works with any allocator that has an alcove table, under any prefix, and with Lua 5.1 to 5.5:
 * it never calls Lua itself except the lua_close() that the host passes, so nothing is linked.
 *
 *     alcove_lua *lua;
 *     alcove_lua_create(&lua, table, &(struct alcove_lua_options){ .name = "script" });
 *     lua_State *L = lua_newstate(alcove_lua_alloc, lua);
 *     ...
 *     alcove_lua_close(lua, L, lua_close, NULL);
 *
 * Functions that can fail return 0 or an errno value, the codes of struct alcove_table's. A state
 * is used by one thread at a time, as Lua asks; statistics and limit may be used from any thread
 * until the state is closed.
 */
#ifndef ALCOVE_LUA_H
#define ALCOVE_LUA_H

#include <stddef.h>
#include <stdint.h>

#include <alcove/table.h>

#ifdef __cplusplus
extern "C" {
#endif

struct lua_State;

typedef struct alcove_lua alcove_lua; /* what one state allocates from */

/* Options. All zero, or a null pointer, is the default. */
struct alcove_lua_options {
    uint32_t size;    /* sizeof(struct alcove_lua_options); 0: up to `name`. It may grow at its end, as those of alcove/table.h */
    uint32_t flags;   /* none yet: 0 */
    uint64_t limit;   /* most bytes of pages that the state may hold; 0: none. At least 64 KiB. */
    const char *name; /* of the heap, at most 63 bytes are kept; NULL: "lua" */
};

/* Make the heap of one state to be.
 * table: of the loaded allocator, which must stay loaded until the state is closed.
 * *out: set on success; it is the `ud` of lua_newstate().
 * Returns 0; EINVAL: a null pointer, an impossible limit, or options that this version does not know; EAGAIN: no heap number is free; ENOMEM. */
int alcove_lua_create(alcove_lua **out, const struct alcove_table *table,
                      const struct alcove_lua_options *options);

/* The lua_Alloc for lua_newstate() (Lua 5.4 manual, section 4.6). `lua` is an alcove_lua *. When
 * the limit is reached it returns NULL, and Lua collects its garbage, tries again, and then raises
 * its own error "not enough memory". */
void *alcove_lua_alloc(void *lua, void *block, size_t old_size, size_t new_size);

/* Close the state and drop its heap with everything in it. Every __gc and __close runs as ever and
 * may allocate; only the frees of single blocks are skipped.
 * state: what lua_newstate() returned, or NULL if it failed or the host has closed the state.
 * close: the address of lua_close(); not used if state is NULL.
 * last: the figures after the finalizers ran, just before the heap went; what is live in them is
 * what was dropped at once. May be NULL.
 * Nothing that was allocated for the state may be used any more, nor `lua` itself.
 * Returns 0; EINVAL: a null pointer, and then nothing was done. */
int alcove_lua_close(alcove_lua *lua, struct lua_State *state, void (*close)(struct lua_State *),
                     struct alcove_heap_stats *last);

/* What the state uses now. Returns 0; EINVAL: a null pointer. */
int alcove_lua_stats(alcove_lua *lua, struct alcove_heap_stats *out);

/* Change the limit in bytes, 0: none. Returns 0; EINVAL: a null pointer or an impossible limit. */
int alcove_lua_limit(alcove_lua *lua, uint64_t limit);

/* The state's heap number, for the functions of the table; ALCOVE_HEAP_NONE for a null pointer. */
uint32_t alcove_lua_heap(alcove_lua *lua);

#ifdef __cplusplus
}
#endif
#endif
