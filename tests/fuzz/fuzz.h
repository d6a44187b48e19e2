/*
 * Malformed libraries: whatever plain dlopen survives, we survive.
 *
 * Glossary
 *   library   a good one, as the linker made it
 *   table     a part of it that dynamic linkers read: its header, the program headers, a section
 *   write     so many bytes at a place in a table are to be others
 *   variant   a library with a few writes, or cut off somewhere. The same seed and number make the same one
 *   trial     a variant is opened in a child of its own, in one of the ways below
 *   finding   a variant that ends well in the plain trial, wherever it is, and badly in one with the loader
 */
#ifndef FUZZ_FUZZ_H
#define FUZZ_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TABLES_MOST 40
#define WRITES_MOST 512
#define TEXT_BYTES (WRITES_MOST * 56) /* of a variant, written out */

struct shape;

struct table {
    const char *name; /* of the section, or "header" and so on; lent by the library */
    size_t offset, bytes; /* in the file */
    const struct shape *shape;
};

struct library {
    const char *path, *name; /* the file, and it without its folder */
    unsigned char *bytes;
    size_t size;
    struct table tables[TABLES_MOST];
    unsigned table_count;
};

struct write {
    unsigned table, width;
    size_t offset; /* from the table's start */
    uint64_t value;
};

struct variant {
    const struct library *library;
    size_t size; /* of the file; the library's unless it is cut off */
    unsigned count;
    struct write writes[WRITES_MOST];
};

/* --- variant.c. Errors end the program with a message. */
void library_read(struct library *library, const char *path);
void variant_make(struct variant *variant, const struct library *library, uint64_t seed, uint64_t number);
/* As text, and from it: "liba.so: .dynamic+0x18:8=0x0 size=0x400". False: no such thing in this library. */
void variant_print(const struct variant *variant, char *text);
bool variant_parse(struct variant *variant, const struct library *library, const char *text);
/* Its bytes; they are the next call's again. */
const unsigned char *variant_bytes(const struct variant *variant);

/* --- trial.c */
enum trial {
    TRIAL_PLAIN,   /* dlopen, dlsym, dlclose; no loader */
    TRIAL_MODULE,  /* the loader opens it as a module */
    TRIAL_EARLIER, /* it is there when the loader comes */
    TRIAL_LATER,   /* somebody opens it when the loader is there */
    TRIALS
};
extern const char *const trial_names[TRIALS];

/* How a child ended: one of the first two is well. */
#define ENDED_OPENED 40
#define ENDED_REFUSED 41

/* Try a file in this process. Returns one of the two, if it does. */
int trial_here(enum trial trial, const char *allocator, const char *file);
/* In a child. Returns one of the two or, if it ended otherwise, its wait status from 256 on. */
int trial_run(enum trial trial, const char *allocator, const char *file);
/* Does plain dlopen survive it in these surroundings only? The dynamic linker reads and writes beside a malformed library
 * itself, and what it meets there differs when the loader is in the process, whatever the loader does. And a library whose imports
 * are mixed up may release what is no block, which not every allocator takes amiss. */
bool trial_by_luck(const char *allocator, const char *file);
void trial_describe(int ended, char *text, size_t size);

#endif
