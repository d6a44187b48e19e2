/*
 * Where dlopen would find a library if the loader's caller called it. dlopen asks whose code it was called from: that object's
 * DT_RUNPATH or DT_RPATH is searched, and $ORIGIN is that object's folder. Called from here, it would take the loader's.
 * musl's dlopen takes the program for its caller, whoever calls, so there is nothing to do. Keeps nothing, takes no lock.
 */
#include "loader.h"

#include "elf/object.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

/* What a library is asked for by, and whether one that is loaded has it. */
struct wanted {
    const char *name;
    bool loaded;
};

/* NULL: it has none. */
static const char *
soname_of(const struct object *object)
{
    if (object->strings == NULL)
        return NULL;
    size_t most = object_room(object, (uintptr_t)object->dynamic, PF_R) / sizeof *object->dynamic;
    for (size_t i = 0; i < most && object->dynamic[i].d_tag != DT_NULL; i++)
        if (object->dynamic[i].d_tag == DT_SONAME)
            return object_string(object, object->dynamic[i].d_un.d_val);
    return NULL;
}

static int
name_compare(struct dl_phdr_info *info, size_t size, void *argument)
{
    (void)size;
    struct wanted *wanted = argument;
    struct object object;
    if (!object_read(&object, info))
        return 0;
    const char *soname = soname_of(&object);
    wanted->loaded = strcmp(object.name, wanted->name) == 0 || (soname != NULL && strcmp(soname, wanted->name) == 0);
    return wanted->loaded;
}

bool
library_is_loaded(const char *name)
{
    struct wanted wanted = {.name = name};
    objects_walk(name_compare, &wanted);
    return wanted.loaded;
}

#ifdef __GLIBC__

/* The length of a token that dlopen replaces in a path, from its '$' on; 0: it is not that one. */
static size_t
token_length(const char *at, const char *token)
{
    if (at[0] != '$')
        return 0;
    bool braces = at[1] == '{';
    size_t length = strlen(token), begin = braces ? 2 : 1;
    if (strncmp(at + begin, token, length) != 0)
        return 0;
    char next = at[begin + length];
    if (braces)
        return next == '}' ? begin + length + 1 : 0;
    bool longer = (next >= 'A' && next <= 'Z') || (next >= 'a' && next <= 'z') || (next >= '0' && next <= '9') || next == '_';
    return longer ? 0 : begin + length;
}

static bool
has_token(const char *path, const char *token)
{
    for (; (path = strchr(path, '$')) != NULL; path++)
        if (token_length(path, token) != 0)
            return true;
    return false;
}

bool
path_has_tokens(const char *path)
{
    return has_token(path, "ORIGIN") || has_token(path, "LIB") || has_token(path, "PLATFORM");
}

static struct link_map *
map_of(const void *address)
{
    Dl_info info;
    struct link_map *map = NULL;
    return dladdr1(address, &info, (void **)&map, RTLD_DL_LINKMAP) != 0 ? map : NULL;
}

/* A handle of a loaded object. NULL: it is in another namespace than the loader. */
static void *
map_open(const struct link_map *map)
{
    struct link_map *opened = NULL;
    void *handle = dlopen(map->l_name[0] != 0 ? map->l_name : NULL, RTLD_LAZY | RTLD_NOLOAD);
    if (handle != NULL && dlinfo(handle, RTLD_DI_LINKMAP, &opened) == 0 && opened == map)
        return handle;
    if (handle != NULL)
        dlclose(handle);
    dlerror();
    return NULL;
}

/* The folder that $ORIGIN stands for, PATH_MAX bytes at `out`. RTLD_DI_ORIGIN follows a null pointer for the program. */
static bool
origin_of(const struct link_map *map, char *out)
{
    bool known = true;
    if (map->l_name[0] == 0) {
        ssize_t length = readlink("/proc/self/exe", out, PATH_MAX - 1);
        out[length > 0 ? length : 0] = 0;
    } else if (map->l_name[0] == '/') {
        snprintf(out, PATH_MAX, "%s", map->l_name);
    } else { /* it was relative to a folder that need not be the current one any more */
        void *handle = map_open(map);
        known = handle != NULL && dlinfo(handle, RTLD_DI_ORIGIN, out) == 0;
        if (handle != NULL)
            dlclose(handle);
        return known;
    }
    char *slash = strrchr(out, '/');
    if (slash != NULL)
        slash[slash == out] = 0;
    return slash != NULL;
}

/* A copy of the path with `origin` for each $ORIGIN. NULL: no memory. */
static char *
origin_insert(const char *path, const char *origin)
{
    size_t bytes = strlen(path) + 1, length = strlen(origin);
    for (const char *at = path; (at = strchr(at, '$')) != NULL; at++)
        bytes += token_length(at, "ORIGIN") != 0 ? length : 0;
    char *result = malloc(bytes), *to = result;
    while (result != NULL && *path != 0) {
        size_t token = token_length(path, "ORIGIN");
        if (token != 0)
            to = stpcpy(to, origin);
        else
            *to++ = *path;
        path += token != 0 ? token : 1;
    }
    if (result != NULL)
        *to = 0;
    return result;
}

static int
origin_expand(const char *path, const struct link_map *caller, char **found)
{
    if (!has_token(path, "ORIGIN") || getauxval(AT_SECURE) != 0) /* which folders that may trust is dlopen's to say */
        return ALCOVE_OK;
    char *origin = malloc(PATH_MAX);
    bool known = origin != NULL && origin_of(caller, origin);
    if (known)
        *found = origin_insert(path, origin);
    bool lacking = origin == NULL || (known && *found == NULL);
    free(origin);
    return lacking ? fail(ALCOVE_ENOMEM, "no memory for a path in the folder of the caller") : ALCOVE_OK;
}

/* The folders that are searched for an object's dlopen, in their order. NULL: unknown. The caller's to free. */
static Dl_serinfo *
folders_of(const struct link_map *map)
{
    Dl_serinfo size, *list = NULL;
    void *handle = map_open(map);
    if (handle != NULL && dlinfo(handle, RTLD_DI_SERINFOSIZE, &size) == 0)
        list = malloc(size.dls_size);
    if (list != NULL && (dlinfo(handle, RTLD_DI_SERINFOSIZE, list) != 0 || dlinfo(handle, RTLD_DI_SERINFO, list) != 0)) {
        free(list);
        list = NULL;
    }
    if (handle != NULL)
        dlclose(handle);
    return list;
}

/* How many of the caller's folders come before those that dlopen searches last for both: the default ones, before which
 * it looks into its cache, and which are in no list apart. */
static unsigned
folders_before(const Dl_serinfo *callers, const Dl_serinfo *own)
{
    unsigned count = callers->dls_cnt, others = own->dls_cnt;
    while (count > 0 && others > 0 &&
           strcmp(callers->dls_serpath[count - 1].dls_name, own->dls_serpath[others - 1].dls_name) == 0) {
        count--;
        others--;
    }
    return count;
}

static int
folders_search(const char *name, const Dl_serinfo *list, unsigned count, char **found)
{
    for (unsigned i = 0; i < count; i++) {
        char *path;
        if (asprintf(&path, "%s/%s", list->dls_serpath[i].dls_name, name) < 0)
            return fail(ALCOVE_ENOMEM, "no memory for a path in the caller's folders");
        if (elf_file_ends_search(path)) {
            *found = path;
            return ALCOVE_OK;
        }
        free(path);
    }
    return ALCOVE_OK;
}

static int
caller_find(const char *path, const void *caller, char **found)
{
    const struct link_map *map = map_of(caller), *own = map_of(&loader);
    if (map == NULL)
        return ALCOVE_OK;
    if (strchr(path, '/') != NULL)
        return origin_expand(path, map, found);
    if (map == own || own == NULL || library_is_loaded(path))
        return ALCOVE_OK;
    Dl_serinfo *callers = folders_of(map), *others = folders_of(own);
    int code = callers != NULL && others != NULL ? folders_search(path, callers, folders_before(callers, others), found)
                                                 : ALCOVE_OK;
    free(callers);
    free(others);
    return code;
}

int
library_find(const char *path, const void *caller, char **found)
{
    *found = NULL;
    linker_enter();
    int code = caller_find(path, caller, found);
    linker_leave();
    return code;
}

#else

bool
path_has_tokens(const char *path)
{
    (void)path;
    return false;
}

int
library_find(const char *path, const void *caller, char **found)
{
    (void)path;
    (void)caller;
    *found = NULL;
    return ALCOVE_OK;
}

#endif
