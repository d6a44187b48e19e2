/*
 * What stress_loader is made of. Openers open and close modules in eight threads; others do all else to the same objects meanwhile; blocks
 * go from hand to hand by way of the market. Before and after, one thread looks at what must be the same.
 *
 *   files.c       copies of plugins and allocators
 *   allocators.c  who loads and unloads
 *   market.c      blocks that others release
 *   openers.c     threads that open and close
 *   others.c      threads that do all else
 *   leftovers.c   words and memory are as before
 *   ../stress_loader.c  the scenarios
 */
#ifndef STRESS_SCENARIO_H
#define STRESS_SCENARIO_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <alcove/loader.h>

#include "tests/process.h"

#define OPENERS 8
#define ALLOCATORS 2

extern struct scenario {
    bool load_each; /* whoever uses an allocator loads it first, and unloads it */
    unsigned allocators;
    void *(*opener)(void *);
} now;
extern unsigned cycles;

/* --- what must hold, in any thread */

extern atomic_uint failures;
void complain(const char *what, const char *file, int line);
#define HOLDS(condition) ((condition) ? (void)0 : complain(#condition, __FILE__, __LINE__))

/* --- files.c */

/* In a buffer of the thread's, which the next call uses again. */
const char *file_of(const char *kind, unsigned number);
int files_make(void **unused);
int files_remove(void **unused);

/* --- allocators.c */

extern alcove_allocator *loaded[ALLOCATORS]; /* all the time, or by whoever wants them */
alcove_allocator *load(unsigned number);
void unload(alcove_allocator *a);
/* What one thread needs for a while. */
alcove_allocator *borrow(unsigned number);
void give_back(alcove_allocator *a);

/* --- market.c */

#define STALLS 64

struct parcel {
    uintptr_t self;
    size_t size;
};
struct parcel *parcel_pack(void *block, size_t size);
void parcel_release(struct parcel *parcel, void (*release)(void *));
/* What lay there before is released. */
void stall_fill(unsigned at, struct parcel *parcel);
void stall_clear(unsigned at);
/* Take one, if there is one; whoever calls has an allocator. */
struct parcel *parcel_take(unsigned seed);

/* --- openers.c: threads, by number, until all tickets are taken */

extern atomic_uint tickets;
extern _Atomic(alcove_module *) open_modules[OPENERS];
void *open_blocks(void *opener);
void *open_keeper(void *opener);
void *open_walker(void *opener);

/* --- others.c: threads, by number, until they are to stop */

#define OTHERS 6
extern atomic_bool stop;
void others_begin(void); /* once */
void *do_others(void *other);

/* --- leftovers.c */

void words_note(void);         /* before all */
void words_note_steered(void); /* while an allocator is loaded */
void words_compare(void);

struct memory {
    size_t resident, in_use; /* of libc's heap, where it tells */
    unsigned mappings;
};
struct memory memory_now(void);
/* After so many cycles, and so many more. */
void memory_compare(const struct memory *first, unsigned before, unsigned after);

#endif
