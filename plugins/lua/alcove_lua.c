/*
 * A heap for each Lua state; see alcove_lua.h. No locks: a state belongs to one thread at a time,
 * and statistics and limit go straight to the allocator.
 */
#include "alcove_lua.h"

#include <errno.h>

#include "ground/versions.h"

/* What options without a size have. */
#define LUA_OPTIONS_FIRST (offsetof(struct alcove_lua_options, name) + sizeof(const char *))

/* So many blocks freed in a row, and none allocated, are a state that is taken apart and no garbage that a finalizer makes. */
#define DROP_AFTER 1000

/* Lives in the heap that it describes, so that dropping the heap drops it too. */
struct alcove_lua {
    const struct alcove_table *table;
    uint32_t heap;
    int dropping;         /* the heap is about to go: freeing single blocks is wasted work */
    unsigned freed_in_row; /* since then */
};

int
alcove_lua_create(alcove_lua **out, const struct alcove_table *table,
                  const struct alcove_lua_options *options)
{
    struct alcove_lua_options known = { 0 };
    uint32_t heap;

    if (out == NULL || table == NULL)
        return EINVAL;
    if (options != NULL && (!options_read(&known, sizeof known, options, options->size, LUA_OPTIONS_FIRST) || known.flags != 0))
        return EINVAL;

    struct alcove_heap_options heap_options = {
        .size = sizeof heap_options,
        .limit = known.limit,
        .name = known.name != NULL ? known.name : "lua",
    };
    int error = table->heap_create(&heap_options, &heap);
    if (error != 0)
        return error;

    alcove_lua *lua = table->heap_malloc(heap, sizeof *lua);
    if (lua == NULL) {
        table->heap_destroy(heap);
        return ENOMEM;
    }
    lua->table = table;
    lua->heap = heap;
    lua->dropping = 0;
    lua->freed_in_row = 0;
    *out = lua;
    return 0;
}

void *
alcove_lua_alloc(void *context, void *block, size_t old_size, size_t new_size)
{
    alcove_lua *lua = context;

    if (new_size == 0) {
        if (!lua->dropping || ++lua->freed_in_row <= DROP_AFTER)
            lua->table->free(block);
        return NULL;
    }
    lua->freed_in_row = 0;

    /* A block that is new has no old size: old_size is then the kind of object. */
    void *new_block = block == NULL ? lua->table->heap_malloc(lua->heap, new_size)
                                    : lua->table->heap_realloc(lua->heap, block, new_size);
    if (new_block != NULL)
        return new_block;

    /* A finalizer reached the limit: the garbage that Lua collects now must really be freed. */
    lua->dropping = 0;

    /* Lua relies on it that shrinking never fails. */
    return block != NULL && new_size <= old_size ? block : NULL;
}

int
alcove_lua_close(alcove_lua *lua, struct lua_State *state, void (*close)(struct lua_State *),
                 struct alcove_heap_stats *last)
{
    if (lua == NULL || (state != NULL && close == NULL))
        return EINVAL;

    if (state != NULL) {
        lua->dropping = 1;
        close(state);
    }
    if (last != NULL)
        lua->table->heap_stats(lua->heap, last);
    return lua->table->heap_destroy(lua->heap);
}

int
alcove_lua_stats(alcove_lua *lua, struct alcove_heap_stats *out)
{
    if (lua == NULL || out == NULL)
        return EINVAL;
    return lua->table->heap_stats(lua->heap, out);
}

int
alcove_lua_limit(alcove_lua *lua, uint64_t limit)
{
    if (lua == NULL)
        return EINVAL;
    return lua->table->heap_limit(lua->heap, limit);
}

uint32_t
alcove_lua_heap(alcove_lua *lua)
{
    return lua != NULL ? lua->heap : ALCOVE_HEAP_NONE;
}
