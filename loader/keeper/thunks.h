/*
 * Thunks: what a module's imports are rewritten to. They are text of ours, and so an address of one that a plugin gave away stays
 * good for ever: it leads to the allocator's entry with the module's heap while the module is open, and afterwards to
 * where everybody's imports lead. Everything here is done with the loader's lock held; whoever calls a thunk needs none.
 *
 * Glossary
 *   number  of a module's thunks, one for each function; not its heap's
 *   way     where a thunk leads: an entry and a heap's number, or a function that takes no number and does not mind one
 */
#ifndef KEEPER_THUNKS_H
#define KEEPER_THUNKS_H

#include "keeper/routes.h"
#include "keeper/thunk_sizes.h"

#define THUNK_NONE 0u

#pragma GCC visibility push(hidden)

/* A number whose thunks lead nowhere yet. THUNK_NONE: all are taken. */
uint32_t thunks_take(void);

/* The address of a thunk. */
void *thunk_of(enum alcove_entry which, uint32_t number);

/* Is it one, of whatever name and number? */
bool thunk_is(const void *address);
enum alcove_entry thunk_name(const void *thunk);

/* Is it a word that tells where one leads? */
bool thunk_way_is(const void *word);

/* Lead it to an entry and a heap. */
void thunk_lead(enum alcove_entry which, uint32_t number, void *entry, uint32_t heap);

/* Lead it to where everybody's imports of that variant lead. */
void thunk_rest(enum alcove_entry which, uint32_t number, unsigned variant);

/* Resting thunks may be another module's. `given_away`: somebody may still have an address of one: then as late as possible. */
void thunks_give(uint32_t number, bool given_away);

/* Drop the pages of text that the system mapped around a page of ours, before any thunk was used. */
void thunks_forget_pages(void);

#pragma GCC visibility pop
#endif
