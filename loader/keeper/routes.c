/*
 * The table of routed names. Filled once, before the first load, and read-only afterwards.
 */
#include "keeper/thunks.h"

#include <dlfcn.h>
#include <string.h>

route_targets route_original, route_guard, route_resting;
uintptr_t route_libc;

/* A program built without -fPIE that takes the address of free makes every object see that of its
 * own PLT stub, which jumps where the program's import leads. As a value it stands for the
 * original; as an original it would send a guard round in circles. */
static route_targets stub;

static const char *const names[ALCOVE_ENTRY_COUNT] = {
#define NAME(name) [ALCOVE_ENTRY_##name] = #name,
    ALCOVE_ENTRIES(NAME)
#undef NAME
};

/* Which routed name is it? -1: none. */
static int
route_find(const char *name)
{
    for (int which = 0; which < ALCOVE_ENTRY_COUNT; which++)
        if (names[which][0] == name[0] && strcmp(names[which], name) == 0)
            return which;
    return -1;
}

/* The program is the first object reported. */
static int
program_stubs(struct dl_phdr_info *info, size_t size, void *unused)
{
    (void)size;
    (void)unused;
    struct object object;
    struct import import;
    if (object_read(&object, info)) {
        struct import_cursor cursor = imports_of(&object);
        while (import_next(&cursor, &import)) {
            int which = import.stub != 0 ? route_find(import.name) : -1;
            if (which >= 0)
                stub[which] = (void *)import.stub;
        }
    }
    return 1;
}

/* The function behind a program's stub: what the objects after the program see. */
static void *
behind_stub(const char *name, const void *stub_address)
{
    void *self = linker_open(NULL, RTLD_LAZY);
    void *found = NULL;
    const struct link_map *map = self != NULL ? linker_map(self) : NULL;
    for (map = map != NULL ? map->l_next : NULL; map != NULL && found == NULL; map = map->l_next) {
        void *handle = linker_open(map->l_name, RTLD_LAZY | RTLD_NOLOAD);
        if (handle == NULL)
            continue;
        found = linker_symbol(handle, name);
        if (found == stub_address)
            found = NULL;
        linker_close(handle);
    }
    if (self != NULL)
        linker_close(self);
    return found;
}

int
routes_start(void)
{
    objects_walk(program_stubs, NULL);
    for (int which = 0; which < ALCOVE_ENTRY_COUNT; which++) {
        void *original = linker_symbol(RTLD_DEFAULT, names[which]);
        if (original != NULL && original == stub[which])
            original = behind_stub(names[which], stub[which]);
        route_original[which] = original;
    }
    route_libc = (uintptr_t)linker_symbol(RTLD_DEFAULT, "__libc_start_main"); /* glibc's and musl's; nobody replaces it */
    static const enum alcove_entry needed[] = {ALCOVE_ENTRY_malloc, ALCOVE_ENTRY_free, ALCOVE_ENTRY_realloc,
                                               ALCOVE_ENTRY_malloc_usable_size};
    for (size_t i = 0; i < sizeof needed / sizeof needed[0]; i++)
        if (route_original[needed[i]] == NULL)
            return fail(ALCOVE_ESYSTEM, "this process has no function %s to guard", names[needed[i]]);

    route_guard[ALCOVE_ENTRY_free] = (void *)guard_free;
    route_guard[ALCOVE_ENTRY_realloc] = (void *)guard_realloc;
    route_guard[ALCOVE_ENTRY_malloc_usable_size] = (void *)guard_usable_size;
    if (route_original[ALCOVE_ENTRY_reallocarray] != NULL)
        route_guard[ALCOVE_ENTRY_reallocarray] = (void *)guard_reallocarray;
    for (int which = 0; which < ALCOVE_ENTRY_COUNT; which++)
        route_resting[which] = route_guard[which] != NULL ? route_guard[which] : route_original[which];
    return ALCOVE_OK;
}

/* May this import be rewritten? `module`: it is to be a module's, so what thunk it leads to is of an earlier one, whose imports could
 * not be led back. */
static bool
claimable(const struct object *object, const struct import *import, int which, bool module)
{
    void *value = import_value(import);
    if (value == NULL || route_original[which] == NULL)
        return false;
    if (value == route_original[which] || value == route_guard[which] || value == stub[which] || (module && thunk_is(value)))
        return true;
    /* Not bound yet: it leads into the object's own PLT, and not to a function of its own. libc's
     * call of its own realloc is one such. */
    return import->kind == IMPORT_CALL && (uintptr_t)value != import->definition &&
           object_holds(object, (uintptr_t)value);
}

void *
route_led(const char *name, void *address)
{
    int which = route_find(name);
    if (which < 0 || address == NULL || route_resting[which] == NULL)
        return address;
    bool replaced = address == route_original[which] || address == stub[which] ||
                    linker_same_object(address, (const void *)route_libc); /* beside a preloaded allocator nobody else calls libc's */
    return replaced ? route_resting[which] : address;
}

int
routes_claim(const struct object *object, const route_targets to, uint32_t *count, bool *addresses)
{
    struct import_cursor cursor = imports_of(object);
    struct import import;
    while (import_next(&cursor, &import)) {
        int which = route_find(import.name);
        if (which < 0 || to[which] == NULL || import_value(&import) == to[which] || !claimable(object, &import, which, to != route_guard))
            continue;
        int error = import_store(object, &import, to[which]);
        if (error != 0)
            return error;
        ++*count;
        *addresses |= import.kind != IMPORT_CALL;
    }
    return 0;
}

int
routes_return(const struct object *object, const route_targets from, const route_targets to)
{
    struct import_cursor cursor = imports_of(object);
    struct import import;
    int first_error = 0;
    while (import_next(&cursor, &import)) {
        int which = route_find(import.name);
        if (which < 0 || from[which] == NULL || to[which] == NULL || import_value(&import) != from[which])
            continue;
        int error = import_store(object, &import, to[which]);
        if (first_error == 0)
            first_error = error;
    }
    return first_error;
}
