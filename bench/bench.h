/*
 * The benchmark: allocators side by side, each dlopen'ed, each piece of work in a fresh process.
 *
 * Glossary
 *   peer       an allocator that is measured: alcove, libc, and those a user would pick instead
 *   work       one piece of work, one row of the table, in one unit
 *   child      the fresh process that does one work with one peer, once
 *   round      every work with every peer, once; rounds are repeated so that a disturbance of the
 *              machine hits all alike
 *   cell       what the rounds gave for one (work, peer)
 *   reference  what a work that only alcove can do is compared with, on alcove itself
 *   floor      the row "empty": two calls of functions that do nothing
 *   target     what a row must reach, from issues 3 and 8
 *   cycle      an allocator is loaded, used by two threads, and unloaded while they live; they end
 *   growth     what a cycle leaves behind
 */
#ifndef BENCH_H
#define BENCH_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <alcove/table.h>

#include "ground/lock_counts.h"

#define MAX_PEERS 12
#define MAX_ROUNDS 64
#define MAX_TARGETS 2
#define MAX_POINTS 16

/* ---- peers.c: the allocators ---- */

/* The peers' order: the measured one first, libc second. */
enum { PEER_ALCOVE, PEER_LIBC };

struct peer {
    const char *name;    /* column */
    const char *path;    /* for dlopen; NULL: the C library that is there */
    const char *prefix;  /* of its functions */
    const char *install; /* what to do when it is missing */
    int big_tls;         /* loads only if the process starts with a large static TLS surplus */
    int has_table;       /* exports <prefix>table: can do the works of alcove alone */
    int missing;         /* and `why` says so */
    char why[200];
};

/* A loaded allocator, as functions got by dlsym. */
struct api {
    void *handle;
    void *(*malloc)(size_t);
    void (*free)(void *);
    void *(*calloc)(size_t, size_t);
    void *(*realloc)(void *, size_t);
    void *(*aligned_alloc)(size_t, size_t);
    size_t (*usable_size)(void *);
    const struct alcove_table *table; /* NULL: not alcove */
    struct lock_counts *lock_counts;  /* NULL: not a debug build of alcove */
};

extern struct peer peers[MAX_PEERS];
extern int peer_count;

/* Split "path[:prefix]" at its last colon, in place. The prefix, or NULL. */
char *prefix_split(char *path);
/* Add or, by name, replace one: "name=path[:prefix]". 0, or -1 if it cannot be read so. */
int peer_add(const char *text);
/* dlopen it with its symbols kept to itself and look its functions up. 0, or -1 with a message in why. */
int peer_load(const struct peer *peer, struct api *out, char *why, size_t why_size);

/* The first thing that is done with a loaded allocator: a block allocated, written and freed. */
void api_use_once(const struct api *api);

/* ---- measure.c: clocks, random numbers, repetition, resident memory ---- */

typedef void body_function(void *context, long count);

double clock_ns(void);
/* Best ns per operation over repetitions of body(context, count) that take `seconds` in all;
 * one count is `operations` operations. */
double best_ns(double seconds, body_function *body, void *context, double operations);
/* The same, but the median of the repetitions: for threads that meet by chance, where the best is luck. */
double median_ns(double seconds, body_function *body, void *context, double operations);
/* At most 256 values. */
double median_of(const double *values, int count);
/* The same as best_ns for two bodies in turn, for a comparison. Fills best[0], best[1]. */
void best_ns_of_two(double seconds, body_function *const body[2], void *const context[2],
                    double operations, double best[2]);

uint64_t random_next(uint64_t *state);
/* Uniform in [low, high]. */
size_t random_between(uint64_t *state, size_t low, size_t high);
/* Log-uniform in [low, high]: as many of 16 to 32 bytes as of 16 to 32 KiB. */
size_t random_log(uint64_t *state, size_t low, size_t high);
void random_shuffle(uint64_t *state, uint32_t *items, size_t count);

/* Resident memory of this process in bytes, exact, without allocating anything. */
size_t resident_bytes(void);
/* The same as the kernel counts it (statm, what top and ps show). */
size_t statm_bytes(void);
/* Minor page faults of this process so far. */
double faults_so_far(void);
/* Its mappings and their bytes; the reading itself maps nothing new after the first time. */
void mappings_count(size_t *mappings, size_t *bytes);
/* pthread keys that exist. */
int thread_keys(void);
/* Pages of zeroes from the system, not from any allocator, touched. Never given back. */
void *pages_get(size_t bytes);

/* Keep a value, and what it points to, out of the optimiser's sight. */
#define OPAQUE(pointer) __asm__ volatile("" : "+r"(pointer) : : "memory")
/* A function pointer that the compiler cannot see through. */
#define LOAD(pointer) (*(__typeof__(pointer) volatile *)&(pointer))

/* Growth is counted from here on: the first cycles fill what is kept for reuse, such as libc's stacks of threads. */
enum { CYCLES_BEFORE = 10 };

/* What cycles left behind, each, and how they ended. */
struct growth {
    double resident, mapped;    /* bytes */
    double mappings, keys;
    int cycle;                  /* the one that is going on, from 1 */
    int signal;                 /* that ended it; 0: none */
    enum { AFTER_UNKNOWN, AFTER_GONE, AFTER_LOADED } after; /* its library, after the last dlclose */
};

/* ---- works.c: the table of works ---- */

/* What a child is given, and what it answers. */
struct job {
    const struct peer *peer;
    struct api api;        /* not loaded for works with WORK_LOADS_ITSELF */
    double seconds;        /* how long the timed loops should take */
    long parameter;        /* of the work, or of the point on a curve */
    int locks;             /* count locks instead of measuring time */
    uint64_t seed;
    const char *loader;    /* path of libalcove-loader */
    const char *plugin;    /* path of the small plugin built for the benchmark */
    double value;          /* answer, in the work's unit */
    double reference;      /* answer, same unit, 0: none */
    double lock_waits;     /* answer if locks are counted; value is how many were taken; both for 1,000 operations */
    struct growth growth;  /* answer of cycles */
    char note[200];        /* answer when it could not be done; else empty */
};

typedef void work_function(struct job *job);

enum target_kind {
    TARGET_NONE,
    TARGET_BEST,      /* at most limit x the best peer of the row */
    TARGET_FLOOR,     /* at most limit x the row "empty" */
    TARGET_REFERENCE, /* at most limit x the row's reference */
    TARGET_VALUE      /* at most limit, in the row's unit */
};

struct target {
    enum target_kind kind;
    double limit;
};

enum {
    WORK_LIBC_ONLY = 1,     /* needs no allocator: shown in libc's column */
    WORK_TABLE_ONLY = 2,    /* only peers with an alcove table can do it */
    WORK_NOT_LIBC = 4,      /* makes no sense for what is loaded already */
    WORK_LOADS_ITSELF = 8,  /* the work is, or includes, the loading */
    WORK_LOADER = 16,       /* the process starts with libalcove-loader, as a host linked with it does */
    WORK_TOGETHER = 32,     /* all peers at once, one round: it mostly sleeps */
    WORK_ONE_ROUND = 64,    /* figures of memory that do not vary */
    WORK_NOT_QUICK = 128,   /* left out by --quick */
    WORK_LOCKS = 256        /* can count locks */
};

struct work {
    const char *name;
    const char *group;
    const char *unit;
    const char *about;
    work_function *function;
    work_function *reference; /* done in a process of its own, without the loader; or NULL */
    long parameter;
    unsigned flags;
    struct target targets[MAX_TARGETS];
};

extern const struct work works[];
extern const int work_count;
const struct work *work_find(const char *name);

/* A curve: one work for growing parameters. */
struct curve {
    const char *name;
    const char *unit;
    const char *axis;
    const char *about;
    work_function *function;
    unsigned flags;
    long points[MAX_POINTS]; /* ends with 0 */
};

extern const struct curve curves[];
extern const int curve_count;

/* ---- run.c: fresh processes ---- */

struct options {
    int rounds;
    int quick;
    int curves;
    int cycles; /* how many; 0: not wanted */
    int list;
    const char *only;
    const char *tsv;
    const char *plot;
    const char *check;
    const char *save;
    const char *loader;
    const char *plugin;
    double seconds;
    struct peer locks; /* the build whose locks are counted; its path is NULL: none */
};

enum cell_state { CELL_EMPTY, CELL_DONE, CELL_FAILED, CELL_CRASHED, CELL_TIMED_OUT };

struct cell {
    enum cell_state state;
    int count;
    double value[MAX_ROUNDS];
    double reference[MAX_ROUNDS];
    double faults[MAX_ROUNDS]; /* minor page faults of the child while it worked */
    double lock_waits[MAX_ROUNDS];
    char note[200];
};

double cell_min(const struct cell *cell);
double cell_median(const struct cell *cell);
double cell_reference(const struct cell *cell); /* median of value / reference, 0: none */
double cell_faults(const struct cell *cell);    /* median */
double cell_lock_waits(const struct cell *cell); /* median */

/* Find out which peers load, and how. */
void peers_probe(const struct options *options);
/* The main function of a child. */
int child_main(int argc, char **argv);
/* Give the parent what the job holds; a signal handler may. 0, or -1 if it cannot be told. */
int child_answer(const struct job *job, double faults);
/* Can this peer do works of these flags? */
int peer_wanted(const struct peer *peer, unsigned flags);
/* Does --only let this name through? NULL lets all through; else comma-separated shell patterns. */
int name_wanted(const char *name, const char *group, const struct options *options);
/* cells: [work_count][MAX_PEERS]. 0: no work has such a name. */
int run_works(const struct options *options, struct cell (*cells)[MAX_PEERS]);
/* One curve. locks: what options->locks gave for each point. */
void run_curve(const struct options *options, const struct curve *curve, struct cell (*cells)[MAX_PEERS],
               struct cell locks[MAX_POINTS]);

/* options->cycles cycles with one peer. with_loader: by the loader, not by dlopen itself. */
enum cell_state run_cycles(const struct options *options, const struct peer *peer, int with_loader,
                           struct growth *growth, char note[200]);

/* ---- report.c: table, verdicts, TSV ---- */

enum verdict { VERDICT_NONE, VERDICT_MET, VERDICT_MISSED };

/* The best peer of a row, other builds of alcove (--peer) apart; -1: none. */
int row_best(const struct cell row[MAX_PEERS]);
/* What the row's figure of alcove is compared with: ratio to the best peer, or to the row's reference. 0: no ratio. */
double row_ratio(const struct work *work, const struct cell row[MAX_PEERS]);
/* How far the rounds lie apart, as a part of the figure, for that ratio. */
double row_noise(const struct work *work, const struct cell row[MAX_PEERS]);

void report_table(struct cell (*cells)[MAX_PEERS]);
int report_tsv(const char *path, struct cell (*cells)[MAX_PEERS]);
int curve_measured(const struct curve *curve, struct cell (*cells)[MAX_PEERS]);
void report_curve(const struct curve *curve, struct cell (*cells)[MAX_PEERS], const struct cell locks[MAX_POINTS]);
/* Cycles, in Markdown. */
void report_cycles_head(int cycles);
void report_cycles(const char *name, enum cell_state state, const struct growth *growth, const char *note);
int report_curve_tsv(FILE *out, const struct curve *curve, struct cell (*cells)[MAX_PEERS], const struct cell locks[MAX_POINTS]);

/* ---- plot.c ---- */

int plot_works(const char *directory, struct cell (*cells)[MAX_PEERS]);
int plot_curve(const char *directory, const struct curve *curve, struct cell (*cells)[MAX_PEERS]);

/* ---- baseline.c ---- */

/* Compare with a TSV written earlier. The number of rows that got slower, or -1 if it cannot be read. */
int baseline_check(const char *path, struct cell (*cells)[MAX_PEERS]);

#endif
