/*
 * A host program that opens libraries as the distribution ships them, each as a module with a
 * heap of its own, and watches what they use while they work.
 *
 * Glossary
 *   work    a module, the thread that uses it, and the proof that what it computed is right
 *   round   a piece of work that was done and found right
 *   input   the files that the works are fed with, read by the host into libc's memory
 */
#ifndef DEMO_H
#define DEMO_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <alcove/loader.h>

#define DEMO_ROWS 100000

struct input {
    const char *rows_file;
    char *rows_text;
    struct row *rows;         /* DEMO_ROWS lines of rows_file, which is read round and round */
    uint64_t rows_bytes;      /* sum of their lengths */
    const char *xml_file;
    char *xml_text;
    uint64_t xml_elements;    /* as the host's own scanner counts them */
};

struct row {
    const char *text;
    uint32_t length; /* in bytes, without a newline */
    uint32_t copies; /* rows with the same text, this one included */
};

struct demo;

struct work {
    const char *name;
    const char *library; /* what dlopen is given */
    const char *package; /* Debian's package of it */

    /* In the main thread, before the thread starts and after it has ended. */
    bool (*prepare)(struct work *);
    bool (*finish)(struct work *);
    /* In its own thread, until demo->stop. */
    bool (*run)(struct work *);
    /* A second heap that belongs to this work, if it has one, for a line of its own in the table. */
    const char *extra_name;
    void (*extra_stats)(struct work *, struct alcove_heap_stats *);

    struct demo *demo;
    alcove_module *module;
    pthread_t thread;
    bool started;
    _Atomic uint64_t rounds;
    atomic_bool failed;

    pthread_mutex_t lock; /* of the two texts */
    char doing[96];
    char error[256];
    char note[256]; /* something to print under the table; of the work's thread until it has ended */
};

struct demo {
    struct input input;
    struct work *works[3];
    alcove_allocator *allocator;
    const struct alcove_table *table;
    double seconds;         /* how long the works shall run at least */
    double started;         /* on demo_clock() */
    atomic_bool limit_done; /* the part with the limit is over */
    atomic_bool stop;
};

#define DEMO_WORKS (sizeof((struct demo *)0)->works / sizeof(struct work *))

extern struct work work_sqlite, work_lua, work_xml;

/* demo.c */
double demo_clock(void); /* seconds, never going back */
/* What the work does now, for the table. */
void work_says(struct work *, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Notes why the work did not hold; always false, so that it can be returned. */
bool work_fails(struct work *, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* A function of the module; NULL after work_fails(). */
void *work_symbol(struct work *, const char *name);
bool work_stats(struct work *, struct alcove_module_stats *);
bool work_limit(struct work *, uint64_t limit);

/* input.c */
/* False after a message on stderr. */
bool input_read(struct input *);
void input_free(struct input *);
/* Start tags in an XML text: `<` and a name, outside of comments, processing instructions and CDATA. */
uint64_t count_elements(const char *xml);

/* table.c */
void table_draw(struct demo *);
void table_draw_last(struct demo *);
/* "24.1 MiB"; `out` holds 16 bytes. */
const char *format_bytes(uint64_t bytes, char *out);
/* "1,234,567"; `out` holds 32 bytes. */
const char *format_count(uint64_t count, char *out);

/* maps.c */
/* Lines of /proc/self/maps that name `file`, which realpath() made; -1: maps cannot be read. */
int maps_naming(const char *file);
/* Remember which memory is the allocator's now; returns its bytes. */
uint64_t maps_remember(const struct alcove_table *);
/* How many bytes of what was remembered are still mapped. */
uint64_t maps_remembered_left(void);

#endif
