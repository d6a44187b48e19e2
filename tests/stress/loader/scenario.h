/*
 * What stress_loader is made of. Openers open and close modules in eight threads; others do all else to the same objects meanwhile; blocks
 * go from hand to hand by way of markets. Before and after, one thread looks at what must be the same.
 *
 *   files.c       copies of plugins and allocators
 *   loaders.c     which loader a thread calls
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

#include "tests/plugins/extension.h"
#include "tests/process.h"

#define OPENERS 8
#define LOADERS 8
#define ALLOCATORS LOADERS

extern struct scenario {
    bool load_each; /* whoever uses an allocator loads it first, and unloads it */
    bool open_each; /* so it is with the extension whose loader it calls */
    bool share;     /* who loads one takes what is there */
    unsigned loaders; /* of several, each thread calls one */
    unsigned allocators;
    void *(*opener)(void *);
} now;
extern unsigned cycles;

/* --- what must hold, in any thread */

extern atomic_uint failures;
void complain(const char *file, int line, const char *format, ...) __attribute__((format(printf, 3, 4)));
#define HOLDS(condition) ((condition) ? (void)0 : complain(__FILE__, __LINE__, "%s (%s)", #condition, loader->error_message()))
#define HOLDS_AT_MOST(figure, most)                                                                          \
    ((size_t)(figure) <= (size_t)(most)                                                                      \
         ? (void)0                                                                                           \
         : complain(__FILE__, __LINE__, "%s, %zu, is at most %zu", #figure, (size_t)(figure), (size_t)(most)))

/* --- files.c */

/* In a buffer of the thread's, which the next call uses again. */
const char *file_of(const char *kind, unsigned number);
/* Of the loader, and so libraries that have it inside. */
bool archive_is_built(void);
#define EXTENSIONS "/extension_one-" /* their names */
int files_make(void **unused);
int files_remove(void **unused);

/* --- loaders.c */

extern __thread const struct extension *loader; /* that the thread calls; the program's at first */
extern atomic_uint farewells;                   /* of extensions that were unmapped */
/* Around a run. */
void loaders_begin(void);
void loaders_end(void);
/* Call the loader of this number: 0 is the program's. */
void loader_take(unsigned number);
void loader_give_back(void);

/* --- allocators.c */

extern alcove_allocator *loaded[ALLOCATORS]; /* all the time, or by whoever wants them */
alcove_allocator *load(unsigned number);
void unload(alcove_allocator *a, unsigned number);
/* What one thread needs for a while: a loader, an allocator, and one more that is another loader's if there are several. */
struct lease {
    alcove_allocator *allocator, *other;
    unsigned number, other_number;
};
struct lease borrow(unsigned thread, unsigned turn);
void give_back(const struct lease *lease);

/* --- market.c */

#define MARKETS ALLOCATORS
#define STALLS 64

struct parcel {
    uintptr_t self;
    size_t size;
};
struct parcel *parcel_pack(void *block, size_t size);
void parcel_release(struct parcel *parcel, void (*release)(void *));
/* The thread has the allocators of these two. */
void market_enter(unsigned own, unsigned other);
/* In its own one. What lay there before is released. */
void stall_fill(unsigned at, struct parcel *parcel);
void stall_clear(unsigned market, unsigned at);
/* Take one of either, if there is one. */
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
/* With what is now, after so many cycles more. */
void memory_compare(const struct memory *first, unsigned more);

#endif
