/*
 * The sweep's own view of what the dynamic linker has mapped: the relocations of every object, read without any code
 * of the loader's, which the sweep is to judge.
 *
 *   word    what a relocation fills; here one of the size of a pointer
 *   slot    a word whose symbol is of the malloc family, or that leads to one of its functions under whatever name
 *   family  the names that are routed (ALCOVE_ENTRIES), with the other names that a libc has for the same functions
 */
#ifndef SWEEP_SLOTS_H
#define SWEEP_SLOTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <alcove/table.h>

#define SLOT_TEXT 512 /* bytes of a name, final 0 included; what is longer is cut */

struct slot {
    char object[SLOT_TEXT]; /* path of the object; "" for the program */
    char name[SLOT_TEXT];   /* of the symbol; "" if the relocation has none */
    const void *dynamic;    /* the object's dynamic section, which tells objects apart */
    uintptr_t base, offset; /* the word is at their sum */
    int which;              /* enum alcove_entry if it leads to a function of the process' own family; -1 if not */
};

struct slots {
    struct slot *list;
    size_t count;
};

/* Remember where the process' own family is. Before anything else, and before an allocator is loaded. */
void family_find(void);
/* The routed name that a symbol's name stands for; -1: none. */
int family_name(const char *name);
const char *family_text(int which);

/* All slots of all objects, each word once. */
struct slots slots_collect(void);
void slots_free(struct slots *slots);
/* The word at an address. */
void *word_value(uintptr_t address);

/* An address in words that are the same in every process: "path+0xoffset", or "nowhere". */
const char *place_text(char out[static 2 * SLOT_TEXT], const void *address);
/* The dynamic section of the object that holds the address; NULL: none does. */
const void *place_object(const void *address);

/* The base address of the object with this path. False: it is not mapped. */
bool object_base(const char *path, uintptr_t *base);
/* Call `each` for the path of every object that is mapped. */
void objects_list(void (*each)(const char *path, void *context), void *context);

#endif
