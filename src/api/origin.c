/*
 * Where the library that we are in came from: the start of the program, a dlopen, or a dlmopen. Told from the dynamic
 * linker's list of objects, which has the program first, then what is preloaded, then what those need, in the order in
 * which it was found; what dlopen brings comes behind all of them.
 */
#include "api/origin.h"

#include <dlfcn.h>
#include <link.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "ground/attributes.h"
#include "ground/loader_note.h"

/* How much of an object can be read from an address on. */
static size_t
room_at(const struct dl_phdr_info *info, uintptr_t address)
{
    for (size_t i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *segment = &info->dlpi_phdr[i];
        uintptr_t start = info->dlpi_addr + segment->p_vaddr;
        if (segment->p_type == PT_LOAD && (segment->p_flags & PF_R) != 0 && address - start < segment->p_memsz)
            return segment->p_memsz - (address - start);
    }
    return 0;
}

static uint64_t
aligned_up(uint64_t bytes, uint64_t alignment)
{
    return (bytes + alignment - 1) & ~(alignment - 1);
}

static bool
notes_have_loader(const char *at, size_t left, uint64_t alignment)
{
    ElfW(Nhdr) header;
    while (left >= sizeof header) {
        memcpy(&header, at, sizeof header);
        uint64_t text = aligned_up(sizeof header + (uint64_t)header.n_namesz, alignment), end = aligned_up(text + header.n_descsz, alignment);
        if (text > left)
            return false;
        if (header.n_type == LOADER_NOTE_TYPE && header.n_namesz == sizeof LOADER_NOTE_NAME &&
            memcmp(at + sizeof header, LOADER_NOTE_NAME, sizeof LOADER_NOTE_NAME) == 0)
            return true;
        if (end > left)
            return false;
        at += end;
        left -= (size_t)end;
    }
    return false;
}

static int
object_has_loader(struct dl_phdr_info *info, size_t size, void *has)
{
    (void)size;
    for (size_t i = 0; i < info->dlpi_phnum && !*(bool *)has; i++) {
        const ElfW(Phdr) *segment = &info->dlpi_phdr[i];
        uintptr_t start = info->dlpi_addr + segment->p_vaddr;
        size_t room = segment->p_type == PT_NOTE ? room_at(info, start) : 0;
        *(bool *)has = notes_have_loader((const char *)start, segment->p_memsz < room ? segment->p_memsz : room, segment->p_align == 8 ? 8 : 4);
    }
    return *(bool *)has;
}

bool
origin_has_loader(void)
{
    bool has = false;
    dl_iterate_phdr(object_has_loader, &has);
    return has;
}

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
