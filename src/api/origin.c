/*
 * Where the library that we are in came from: the start of the program, a dlopen, or a dlmopen. Told from the dynamic
 * linker's list of objects, which has the program first, then what is preloaded, then what those need, in the order in
 * which it was found; what dlopen brings comes behind all of them.
 */
#include "api/origin.h"

#include <dlfcn.h>
#include <link.h>
#include <stddef.h>
#include <string.h>

#include "ground/attributes.h"

#ifdef LM_ID_BASE

/* In the library that we are in. */
static const char here;

static struct link_map *
map_of_us(void)
{
    Dl_info self;
    void *map;
    return dladdr1(&here, &self, &map, RTLD_DL_LINKMAP) != 0 ? map : NULL;
}

/* An object's strings; NULL: it has none. */
static const char *
map_strings(const struct link_map *map)
{
    for (const ElfW(Dyn) *d = map->l_ld; d != NULL && d->d_tag != DT_NULL; d++)
        if (d->d_tag == DT_STRTAB) /* the dynamic linker may have made an address of it, or not (the vDSO's) */
            return (const char *)(d->d_un.d_ptr < map->l_addr ? map->l_addr + d->d_un.d_ptr : d->d_un.d_ptr);
    return NULL;
}

static const char *
last_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : path;
}

/* Is it the object that others need by this name? */
static bool
map_has_name(const struct link_map *map, const char *name)
{
    if (strcmp(last_of(map->l_name), name) == 0 || strcmp(map->l_name, name) == 0)
        return true;
    const char *strings = map_strings(map);
    for (const ElfW(Dyn) *d = map->l_ld; strings != NULL && d->d_tag != DT_NULL; d++)
        if (d->d_tag == DT_SONAME && strcmp(strings + d->d_un.d_val, name) == 0)
            return true;
    return false;
}

/* Where in the list, counted from 0, the object with a name is; 0 if nowhere. */
static unsigned
place_of(const struct link_map *program, const char *name)
{
    unsigned place = 0;
    for (const struct link_map *map = program; map != NULL; map = map->l_next, place++)
        if (map_has_name(map, name))
            return place;
    return 0;
}

bool
origin_is_start(void)
{
    const struct link_map *us = map_of_us(), *program = us;
    if (us == NULL || origin_is_namespace())
        return false;
    while (program->l_prev != NULL)
        program = program->l_prev;
    /* The last place of what is known to have been there. Each object before it may need some that are behind it. */
    unsigned last = 0, place = 0;
    for (const struct link_map *map = program; map != NULL && place <= last; map = map->l_next, place++) {
        if (map == us)
            return true;
        const char *strings = map_strings(map);
        for (const ElfW(Dyn) *d = map->l_ld; strings != NULL && d->d_tag != DT_NULL; d++) {
            unsigned needed = d->d_tag == DT_NEEDED ? place_of(program, strings + d->d_un.d_val) : 0;
            last = needed > last ? needed : last;
        }
    }
    return false;
}

bool
origin_is_namespace(void)
{
    Lmid_t namespace;
    struct link_map *us = map_of_us();
    return us != NULL && dlinfo(us, RTLD_DI_LMID, &namespace) == 0 && namespace != LM_ID_BASE;
}

#else /* dlclose unloads nothing there */

bool
origin_is_start(void)
{
    return false;
}

bool
origin_is_namespace(void)
{
    return false;
}

#endif
