/*
 * Objects of other namespaces (dlmopen), which dl_iterate_phdr does not report: each has a libc of its own, with functions of its own. The dynamic
 * linker shows them to debuggers, in a list that it changes under the lock which dl_iterate_phdr holds.
 */
#include "loader.h"

#include "elf/protection.h"

#include <string.h>

#if defined __GLIBC__ && (__GLIBC__ > 2 || __GLIBC_MINOR__ >= 35)

#define HEADERS_MOST 64 /* program headers, in the object's first page */

/* What the program's dynamic section says where the list is. */
static const struct r_debug_extended *
list_of(const struct dl_phdr_info *program)
{
    const ElfW(Dyn) *d = NULL;
    for (size_t i = 0; i < program->dlpi_phnum; i++)
        if (program->dlpi_phdr[i].p_type == PT_DYNAMIC)
            d = (const ElfW(Dyn) *)(program->dlpi_addr + program->dlpi_phdr[i].p_vaddr);
    for (; d != NULL && d->d_tag != DT_NULL; d++)
        if (d->d_tag == DT_DEBUG)
            return (const struct r_debug_extended *)d->d_un.d_ptr;
    return NULL;
}

/* An object's program headers, by the header of its file, which begins its first segment. False: it is not there. */
static bool
headers_read(struct dl_phdr_info *info, const struct link_map *map)
{
    const ElfW(Ehdr) *header = (const ElfW(Ehdr) *)map->l_addr;
    if (map->l_ld == NULL || map->l_addr == 0 || map->l_addr % page_bytes() != 0 || !word_readable(NULL, NULL, map->l_addr) ||
        memcmp(header->e_ident, ELFMAG, SELFMAG) != 0 || header->e_phentsize != sizeof(ElfW(Phdr)) || header->e_phnum > HEADERS_MOST ||
        header->e_phoff % sizeof(void *) != 0 || header->e_phoff + header->e_phnum * sizeof(ElfW(Phdr)) > page_bytes())
        return false;
    info->dlpi_addr = map->l_addr;
    info->dlpi_name = map->l_name;
    info->dlpi_phdr = (const ElfW(Phdr) *)(map->l_addr + header->e_phoff);
    info->dlpi_phnum = header->e_phnum;
    info->dlpi_tls_modid = 0; /* it may have some, but the dynamic linker does not tell where */
    info->dlpi_tls_data = NULL;
    return true;
}

int
namespaces_walk(const struct dl_phdr_info *program, int (*each)(struct dl_phdr_info *, size_t, void *), void *argument, bool *settled)
{
    const struct r_debug_extended *list = list_of(program);
    *settled = true;
    if (list == NULL || list->base.r_version < 2)
        return 0;
    int result = 0;
    for (list = list->r_next; list != NULL && result == 0; list = list->r_next) {
        if (list->base.r_state != RT_CONSISTENT) { /* another thread is at it */
            *settled = false;
            continue;
        }
        for (const struct link_map *map = list->base.r_map; map != NULL && result == 0; map = map->l_next) {
            struct dl_phdr_info info = *program;
            if (headers_read(&info, map))
                result = each(&info, sizeof info, argument);
        }
    }
    return result;
}

#else

int
namespaces_walk(const struct dl_phdr_info *program, int (*each)(struct dl_phdr_info *, size_t, void *), void *argument, bool *settled)
{
    (void)program, (void)each, (void)argument;
    *settled = true;
    return 0;
}

#endif
