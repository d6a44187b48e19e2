/* Whose code it is: where the code of open modules lies, by the number of their thunks. Written by who opens the module, or closes it;
 * read by all. */
#ifndef KEEPER_CODE_H
#define KEEPER_CODE_H

#include "keeper/thunks.h"

#include "elf/object.h"

#pragma GCC visibility push(hidden)

/* A module's object is known, and of which names it has thunks (a bit for each); or it is closed. */
void code_enter(uint32_t number, const struct object *object, uint32_t names);
void code_leave(uint32_t number);

/* Is a return address in that module's code? Not if the number is THUNK_NONE. */
bool code_is_of(uint32_t number, const void *caller);

/* The thunk of the module in whose code it is. NULL: it is in none. It takes time in proportion to how many were ever open at a time. */
void *code_thunk(const void *caller, enum alcove_entry which);

#pragma GCC visibility pop
#endif
