/* Slots of one loaded object that hold the address of a function of another. */
#ifndef PLUGINS_SLOTS_H
#define PLUGINS_SLOTS_H

#include <link.h>
#include <string.h>

/* Call a function with each slot that stands for an imported name. */
static inline void
slots_named(const struct dl_phdr_info *info, const char *name, void (*each)(void **slot))
{
    const ElfW(Dyn) *d = NULL;
    const ElfW(Sym) *symbols = NULL;
    const char *strings = NULL;
    const ElfW(Rela) *tables[2] = {NULL, NULL};
    size_t bytes[2] = {0, 0};
    for (int i = 0; i < info->dlpi_phnum; i++)
        if (info->dlpi_phdr[i].p_type == PT_DYNAMIC)
            d = (const void *)(info->dlpi_addr + info->dlpi_phdr[i].p_vaddr);
    for (; d != NULL && d->d_tag != DT_NULL; d++) {
        /* glibc has made addresses of them, musl and the vDSO have not */
        const void *address = (const void *)(d->d_un.d_ptr + (d->d_un.d_ptr < info->dlpi_addr ? info->dlpi_addr : 0));
        switch (d->d_tag) {
        case DT_SYMTAB: symbols = address; break;
        case DT_STRTAB: strings = address; break;
        case DT_RELA: tables[0] = address; break;
        case DT_RELASZ: bytes[0] = d->d_un.d_val; break;
        case DT_JMPREL: tables[1] = address; break;
        case DT_PLTRELSZ: bytes[1] = d->d_un.d_val; break;
        }
    }
    for (int t = 0; t < 2 && symbols != NULL; t++)
        for (size_t i = 0; tables[t] != NULL && i < bytes[t] / sizeof(ElfW(Rela)); i++) {
            const ElfW(Sym) *symbol = &symbols[ELF64_R_SYM(tables[t][i].r_info)];
            if (symbol != symbols && symbol->st_shndx == SHN_UNDEF && strcmp(strings + symbol->st_name, name) == 0)
                each((void **)(info->dlpi_addr + tables[t][i].r_offset));
        }
}

#endif
