/*
 * SQLite: a database in memory, its index and queries; then the same again under a limit too small
 * for it, which SQLite reports as SQLITE_NOMEM and survives.
 *
 * Prototypes and codes are those of SQLite's documentation (sqlite.org/c3ref).
 */
#include "demo.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define SQLITE_OK 0
#define SQLITE_NOMEM 7
#define SQLITE_ROW 100
#define SQLITE_DONE 101
#define SQLITE_STATIC NULL

struct sqlite3;
struct sqlite3_stmt;

#define SQLITE_API(X)                                                                              \
    X(int, sqlite3_open, (const char *, struct sqlite3 **))                                        \
    X(int, sqlite3_close, (struct sqlite3 *))                                                      \
    X(int, sqlite3_shutdown, (void))                                                               \
    X(const char *, sqlite3_errmsg, (struct sqlite3 *))                                            \
    X(int, sqlite3_exec,                                                                           \
      (struct sqlite3 *, const char *, int (*)(void *, int, char **, char **), void *, char **))   \
    X(int, sqlite3_prepare_v2,                                                                     \
      (struct sqlite3 *, const char *, int, struct sqlite3_stmt **, const char **))                \
    X(int, sqlite3_bind_int64, (struct sqlite3_stmt *, int, long long))                            \
    X(int, sqlite3_bind_text,                                                                      \
      (struct sqlite3_stmt *, int, const char *, int, void (*)(void *)))                           \
    X(int, sqlite3_step, (struct sqlite3_stmt *))                                                  \
    X(int, sqlite3_reset, (struct sqlite3_stmt *))                                                 \
    X(int, sqlite3_finalize, (struct sqlite3_stmt *))                                              \
    X(long long, sqlite3_column_int64, (struct sqlite3_stmt *, int))

static struct {
#define MEMBER(result, name, parameters) result(*name) parameters;
    SQLITE_API(MEMBER)
#undef MEMBER
} api;

static struct sqlite3 *db;

static bool
prepare(struct work *work)
{
#define LOOK_UP(result, name, parameters)                                                          \
    if ((api.name = (result(*) parameters)work_symbol(work, #name)) == NULL)                       \
        return false;
    SQLITE_API(LOOK_UP)
#undef LOOK_UP
    return true;
}

static bool
run_sql(struct work *work, const char *sql)
{
    int code = api.sqlite3_exec(db, sql, NULL, NULL, NULL);
    return code == SQLITE_OK || work_fails(work, "%s: error %d: %s", sql, code, api.sqlite3_errmsg(db));
}

/* The first `count` columns of the first row. */
static bool
ask(struct work *work, const char *sql, const struct row *row, long long *out, int count)
{
    struct sqlite3_stmt *statement;
    int code = api.sqlite3_prepare_v2(db, sql, -1, &statement, NULL);

    if (code == SQLITE_OK && row != NULL)
        code = api.sqlite3_bind_text(statement, 1, row->text, (int)row->length, SQLITE_STATIC);
    if (code == SQLITE_OK)
        code = api.sqlite3_step(statement);
    if (code == SQLITE_ROW)
        for (int i = 0; i < count; i++)
            out[i] = api.sqlite3_column_int64(statement, i);
    else
        work_fails(work, "%s: error %d: %s", sql, code, api.sqlite3_errmsg(db));
    api.sqlite3_finalize(statement);
    return code == SQLITE_ROW;
}

static bool
fill(struct work *work)
{
    const struct input *input = &work->demo->input;
    struct sqlite3_stmt *insert;
    int code;

    work_says(work, "inserting rows");
    if (!run_sql(work, "CREATE TABLE line(number INTEGER PRIMARY KEY, text TEXT); BEGIN"))
        return false;
    code = api.sqlite3_prepare_v2(db, "INSERT INTO line VALUES(?1, ?2)", -1, &insert, NULL);
    for (int i = 0; i < DEMO_ROWS && code == SQLITE_OK; i++) {
        api.sqlite3_bind_int64(insert, 1, i);
        api.sqlite3_bind_text(insert, 2, input->rows[i].text, (int)input->rows[i].length,
                              SQLITE_STATIC);
        code = api.sqlite3_step(insert);
        if (code == SQLITE_DONE)
            code = api.sqlite3_reset(insert);
    }
    api.sqlite3_finalize(insert);
    if (code != SQLITE_OK)
        return work_fails(work, "inserting: error %d: %s", code, api.sqlite3_errmsg(db));
    work_says(work, "indexing");
    return run_sql(work, "COMMIT; CREATE INDEX by_text ON line(text)");
}

/* Is everything that was put into the table in it? */
static bool
verify(struct work *work, const char *sql)
{
    long long got[3];

    if (!ask(work, sql, NULL, got, 3))
        return false;
    if (got[0] != DEMO_ROWS || got[1] != (long long)DEMO_ROWS * (DEMO_ROWS - 1) / 2
        || got[2] != (long long)work->demo->input.rows_bytes)
        return work_fails(work, "%s: %lld rows, sum %lld, %lld bytes, not the %d, %lld, %" PRIu64
                          " that went in", sql, got[0], got[1], got[2], DEMO_ROWS,
                          (long long)DEMO_ROWS * (DEMO_ROWS - 1) / 2, work->demo->input.rows_bytes);
    return true;
}

static bool
verify_lines(struct work *work)
{
    return verify(work, "SELECT count(*), sum(number), sum(length(CAST(text AS BLOB))) FROM line");
}

/* Look up some lines by their text; the host knows how often each occurs. */
static bool
query(struct work *work)
{
    static uint32_t random = 1;

    for (int i = 0; i < 100; i++) {
        long long copies;
        random = random * 1664525 + 1013904223;
        const struct row *row = &work->demo->input.rows[(random >> 8) % DEMO_ROWS];
        if (!ask(work, "SELECT count(*) FROM line WHERE text = ?1", row, &copies, 1))
            return false;
        if (copies != row->copies)
            return work_fails(work, "'%.*s' was found %lld times, not %" PRIu32, (int)row->length,
                              row->text, copies, row->copies);
    }
    atomic_fetch_add(&work->rounds, 1);
    return true;
}

static bool
query_until(struct work *work, double when)
{
    while (demo_clock() < when && !work->demo->stop) {
        if (!query(work))
            return false;
        work_says(work, "%" PRIu64 " rounds of queries", work->rounds);
    }
    return true;
}

/* The fewest rounds that another work has done since rounds[] was filled. */
static uint64_t
rounds_since(const struct work *work, const uint64_t *rounds)
{
    uint64_t fewest = UINT64_MAX;
    for (size_t i = 0; i < DEMO_WORKS; i++)
        if (work->demo->works[i] != work && work->demo->works[i]->rounds - rounds[i] < fewest)
            fewest = work->demo->works[i]->rounds - rounds[i];
    return fewest;
}

/* Copying the table needs more than the limit leaves. Tried until `when`, and until each of the
 * others has begun and ended a round meanwhile: its second, since one may be under way. */
static bool
copy_with_too_little(struct work *work, double when)
{
    struct alcove_module_stats stats;
    uint64_t rounds[DEMO_WORKS], refused;
    char limit[16];
    int tries = 0;

    if (!work_stats(work, &stats))
        return false;
    refused = stats.heap.limit_refused;
    uint64_t bytes = (stats.heap.active_bytes / (1 << 20) + 2) << 20;
    format_bytes(bytes, limit);
    if (!work_limit(work, bytes))
        return false;
    for (size_t i = 0; i < DEMO_WORKS; i++)
        rounds[i] = work->demo->works[i]->rounds;

    while ((demo_clock() < when || rounds_since(work, rounds) < 2) && !work->demo->stop) {
        int code = api.sqlite3_exec(db, "CREATE TABLE copy AS SELECT * FROM line", NULL, NULL, NULL);
        if (code != SQLITE_NOMEM)
            return work_fails(work, "copying under a limit of %s: code %d (%s), not SQLITE_NOMEM", limit,
                              code, api.sqlite3_errmsg(db));
        work_says(work, "\"%s\", %d times", api.sqlite3_errmsg(db), ++tries);
        usleep(50000); /* for the eye: it fails within milliseconds */
    }
    if (work->demo->stop)
        return true;
    snprintf(work->note, sizeof work->note, "copying its table under a limit of %s failed %d times with"
             " error %d, \"%s\";\n        its table stayed whole, and meanwhile the others did %" PRIu64
             " rounds or more each.", limit, tries, SQLITE_NOMEM, api.sqlite3_errmsg(db),
             rounds_since(work, rounds));
    if (!verify_lines(work) || !work_stats(work, &stats) || !work_limit(work, 0))
        return false;
    if (stats.heap.limit_refused == refused)
        return work_fails(work, "SQLite had no memory, but the heap refused none");
    return true;
}

static bool
run(struct work *work)
{
    struct demo *demo = work->demo;
    double part = demo->seconds / 4;

    if (api.sqlite3_open(":memory:", &db) != SQLITE_OK)
        return work_fails(work, "sqlite3_open: %s", api.sqlite3_errmsg(db));
    if (!fill(work) || !verify_lines(work) || !query_until(work, demo->started + 2 * part)
        || !copy_with_too_little(work, demo->started + 3 * part))
        return false;
    if (demo->stop)
        return true;
    demo->limit_done = true;

    work_says(work, "copying");
    if (!run_sql(work, "CREATE TABLE copy AS SELECT * FROM line")
        || !verify(work, "SELECT count(*), sum(number), sum(length(CAST(text AS BLOB))) FROM copy")
        || !run_sql(work, "DROP TABLE copy"))
        return false;
    do
        if (!query_until(work, demo_clock() + 0.1))
            return false;
    while (!demo->stop);
    return verify_lines(work);
}

static bool
finish(struct work *work)
{
    if (api.sqlite3_close(db) != SQLITE_OK)
        return work_fails(work, "sqlite3_close: %s", api.sqlite3_errmsg(db));
    db = NULL;
    api.sqlite3_shutdown();
    return true;
}

struct work work_sqlite = {
    .name = "sqlite",
    .library = "libsqlite3.so.0",
    .package = "libsqlite3-0",
    .prepare = prepare,
    .run = run,
    .finish = finish,
};
