/*
 * The routed names (ALCOVE_ENTRIES), the functions of this process that they stand for, and where imports of them lead.
 *
 * What counts is where a word leads, not what it is called: an address of a function that we know is rewritten whichever way it came
 * there, and what leads to anything else, an object's own malloc, stays. There may be several functions of one name:
 * libc's, and before it that of a preloaded library or of the program; a wrapper that only some versions of the name lead to; other
 * names of a release (cfree, operator delete).
 *
 * Glossary
 *   original  a function of the process that a name stands for
 *   variant   which of the originals of one name; 0 is what an import finds as a rule
 *   way       where an original's address may be rewritten to: ours of the same name and variant
 */
#ifndef KEEPER_ROUTES_H
#define KEEPER_ROUTES_H

#include "loader.h"

#include "elf/imports.h"

#pragma GCC visibility push(hidden)

/* For functions that are made once for each variant. */
#define EACH_DISPATCHED(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7)
#define EACH_UNDISPATCHED(X) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15) X(16) X(17) X(18) X(19) X(20) X(21) X(22) X(23)

/* What the names stand for: the entries, and functions that are only looked over the shoulder of. */
enum { ROUTE_dlsym = ALCOVE_ENTRY_COUNT, ROUTE_dlvsym, ROUTE_COUNT };

#define VARIANTS 24u      /* of a name, as there are of free where a library replaces C++'s operator delete */
#define DISPATCHED 8u     /* that have a dispatcher, and a guard if they are no releases of one block */

/* Addresses, in rising order, that words of data are looked for by. */
#define VALUES_MOST (2 * VARIANTS + 3 * ROUTE_COUNT * DISPATCHED)
struct values {
    size_t count;
    uintptr_t of[VALUES_MOST];
};

/* What we know. Filled before the first load; what has a definer is added and dropped later, with the loader's lock held. The scan for words
 * leaves it alone. */
struct routes {
    void *original[ROUTE_COUNT][VARIANTS]; /* NULL: it has gone */
    unsigned variants[ROUTE_COUNT];
    const void *definer[ROUTE_COUNT][VARIANTS]; /* dynamic section of an object that has functions of its own; NULL: the process' own */
    uint8_t local[ROUTE_COUNT][VARIANTS]; /* on POWER: how far behind it a function is entered from its own object */
    void *stub[ROUTE_COUNT]; /* what a program that is not PIE shows as the address of a function, instead of the original; or NULL */
    uintptr_t linker; /* base of the dynamic linker; 0: unknown */
    uintptr_t libc; /* an address in the C library, which may not be where malloc is */
    struct values released; /* what is to lead elsewhere in everybody's data: originals that have a guard, and dispatchers */
    struct values ours;     /* guards and dispatchers */
    struct values known;    /* all */
};
extern struct routes routes;

/* A function that we know: of which name and variant. */
struct route {
    unsigned which;
    unsigned variant;
    bool theirs; /* of an object with functions of its own */
    enum { ROUTE_NONE, ROUTE_ORIGINAL, ROUTE_GUARD, ROUTE_DISPATCHER, ROUTE_THUNK } kind;
};

/* What an address is. ROUTE_NONE: nothing that we know. Where two names have one function, the first of them; `wanted`, if it
 * is one of them. -1: any. */
struct route route_of(const void *address, int wanted);

/* Which name is it, or another name of which one? -1: none. */
int route_named(const char *name);

/* Where an import of the name leads that is no module's: a guard, or the original where there is none. */
void *route_resting(unsigned which, unsigned variant);

/* Functions of ours in tables of ours, which are not to be taken for words that lead there. */
#define HIDDEN_AS(function) ((char *)(function) + 1)
#define HIDDEN_FUNCTION(hidden) ((void *)((char *)(hidden) - 1))

/* The guard of a variant (keeper/guards.c, and for lookups scan.c), and the dispatcher (keeper/dispatch.c). NULL: there is none. */
void *guard_of(unsigned which, unsigned variant);
void *lookup_guard_of(unsigned which, unsigned variant);
void *dispatcher_of(unsigned which, unsigned variant);

/* Is another thread's dlopen at this object? (keeper/scan.c) */
bool object_is_half_made(const struct object *object);

/* Is an allocator in this object? With the loader's lock held. (keeper/scan.c) */
bool object_is_allocator(const struct object *object);

/* What the dynamic linker says, which is asked without any lock: another thread may be in a constructor, have its lock, and want ours. */
struct route_answers {
    void *stub[ROUTE_COUNT];  /* as in struct routes */
    void *found[ROUTE_COUNT]; /* by name */
    struct {
        unsigned which;
        void *address;
    } versioned[2 * ROUTE_COUNT]; /* in the versions that libc has them in */
    size_t versioned_count;
    uintptr_t libc, linker;
};
void routes_ask(struct route_answers *answers);

/* Find the originals. Once, before anything is rewritten, one thread at a time. 0 or a code. */
int routes_start(const struct route_answers *answers);

/* The names of all functions, and what they stand for. */
extern const size_t route_name_count;
const char *route_name(size_t i, unsigned *which);

/* Add a function of an object's own, or drop it; routes_values_collect() is to follow. */
enum variant_added { VARIANT_KNOWN, VARIANT_NEW, VARIANT_NO_PLACE };
enum variant_added variant_add_of(unsigned which, void *address, const void *definer);
void variant_drop(unsigned which, unsigned variant);
void routes_values_collect(void);

#pragma GCC visibility pop
#endif
