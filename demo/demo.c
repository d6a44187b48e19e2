/*
 * The host: loads the allocator, opens each library as a module, lets them all work at once under
 * a table of what they use, closes and unloads everything, and proves that nothing is left.
 * Exit status: 0 if all of it held, 1 if something did not, 2 if it could not begin.
 */
#include "demo.h"

#include <dlfcn.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char usage[] =
    "usage: alcove-demo [options]\n"
    "Opens libsqlite3, liblua5.4 and libxml2 as modules with a heap of their own each, lets them\n"
    "work at once, shows what each uses, gives SQLite too small a limit, and unloads everything.\n"
    "\n"
    "  --module PATH     the allocator, libalcove.so (default: the installed one)\n"
    "  --rows-from FILE  text whose lines fill the database (default: /var/lib/dpkg/status)\n"
    "  --xml FILE        what libxml2 parses (default: /usr/share/mime/packages/freedesktop.org.xml)\n"
    "  --seconds N       how long to work at least (default: 5)\n"
    "  --help            this text\n"
    "\n"
    "Exit status: 0 if all results were right and nothing was left, 1 if not, 2 if it could not begin.\n";

static struct demo demo = {
    .input = {
        .rows_file = "/var/lib/dpkg/status",
        .xml_file = "/usr/share/mime/packages/freedesktop.org.xml",
    },
    .works = { &work_sqlite, &work_lua, &work_xml },
    .seconds = 5,
};

double
demo_clock(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

void
work_says(struct work *work, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    pthread_mutex_lock(&work->lock);
    vsnprintf(work->doing, sizeof work->doing, format, arguments);
    pthread_mutex_unlock(&work->lock);
    va_end(arguments);
}

bool
work_fails(struct work *work, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    pthread_mutex_lock(&work->lock);
    vsnprintf(work->error, sizeof work->error, format, arguments);
    pthread_mutex_unlock(&work->lock);
    va_end(arguments);
    work_says(work, "FAILED");
    work->failed = true;
    return false;
}

void *
work_symbol(struct work *work, const char *name)
{
    void *symbol = alcove_module_symbol(work->module, name);
    if (symbol == NULL)
        work_fails(work, "%s", alcove_error_message());
    return symbol;
}

bool
work_stats(struct work *work, struct alcove_module_stats *out)
{
    return alcove_module_stats(work->module, out) == ALCOVE_OK
           || work_fails(work, "%s", alcove_error_message());
}

bool
work_limit(struct work *work, uint64_t limit)
{
    return alcove_module_limit(work->module, limit) == ALCOVE_OK
           || work_fails(work, "%s", alcove_error_message());
}

static void *
work_thread(void *argument)
{
    struct work *work = argument;
    work->run(work);
    return NULL;
}

static void
parse_options(int argc, char **argv, const char **module)
{
    enum { MODULE = 1, ROWS_FROM, XML, SECONDS, HELP };
    static const struct option options[] = {
        { "module", required_argument, NULL, MODULE },
        { "rows-from", required_argument, NULL, ROWS_FROM },
        { "xml", required_argument, NULL, XML },
        { "seconds", required_argument, NULL, SECONDS },
        { "help", no_argument, NULL, HELP },
        { 0 },
    };
    int option;
    char *end;

    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1)
        switch (option) {
        case MODULE:
            *module = optarg;
            break;
        case ROWS_FROM:
            demo.input.rows_file = optarg;
            break;
        case XML:
            demo.input.xml_file = optarg;
            break;
        case SECONDS:
            demo.seconds = strtod(optarg, &end);
            if (end == optarg || *end != '\0' || !(demo.seconds >= 0 && demo.seconds <= 86400)) {
                fprintf(stderr, "alcove-demo: --seconds %s: a number from 0 to 86400 is meant\n", optarg);
                exit(2);
            }
            break;
        case HELP:
            fputs(usage, stdout);
            exit(0);
        default:
            fputs("alcove-demo --help tells the options\n", stderr);
            exit(2);
        }
    if (optind < argc) {
        fprintf(stderr, "alcove-demo: %s: no argument is meant here\n", argv[optind]);
        exit(2);
    }
}

static bool
open_modules(void)
{
    for (size_t i = 0; i < DEMO_WORKS; i++) {
        struct work *work = demo.works[i];
        struct alcove_module_options options = { .name = work->name };

        work->demo = &demo;
        pthread_mutex_init(&work->lock, NULL);
        work_says(work, "waiting");
        if (alcove_module_open(demo.allocator, work->library, &options, &work->module) != ALCOVE_OK) {
            fprintf(stderr, "alcove-demo: %s: %s\n", work->library, alcove_error_message());
            fprintf(stderr, "alcove-demo: Debian's package of it: apt-get install %s\n", work->package);
            return false;
        }
        if (!work->prepare(work)) {
            fprintf(stderr, "alcove-demo: %s: %s\n", work->library, work->error);
            return false;
        }
    }
    return true;
}

/* All works at once, until each part was shown and the time is over. */
static bool
work_all(void)
{
    bool failed = false;

    demo.started = demo_clock();
    for (size_t i = 0; i < DEMO_WORKS; i++) {
        struct work *work = demo.works[i];
        int error = pthread_create(&work->thread, NULL, work_thread, work);
        work->started = error == 0;
        if (error != 0)
            work_fails(work, "no thread: %s", strerror(error));
        failed |= work->failed;
    }
    while (!failed && !(demo.limit_done && demo_clock() >= demo.started + demo.seconds)) {
        table_draw(&demo);
        usleep(200000);
        for (size_t i = 0; i < DEMO_WORKS; i++)
            failed |= demo.works[i]->failed;
    }
    demo.stop = true;
    for (size_t i = 0; i < DEMO_WORKS; i++) {
        if (demo.works[i]->started)
            pthread_join(demo.works[i]->thread, NULL);
        failed |= demo.works[i]->failed;
    }
    table_draw_last(&demo);
    for (size_t i = 0; i < DEMO_WORKS; i++)
        if (demo.works[i]->note[0] != '\0')
            printf("%s: %s\n", demo.works[i]->name, demo.works[i]->note);
    return !failed;
}

static bool
close_module(struct work *work)
{
    struct alcove_report report;
    char peak[16], bytes[16], allocs[32], blocks[32], crossed[32];

    if (alcove_module_close(work->module, 0, &report) != ALCOVE_OK)
        return work_fails(work, "closing: %s", alcove_error_message());
    printf("%-10s%13s%12s%11s%13s%9s\n", report.name, format_count(report.heap.live_blocks, blocks),
           format_bytes(report.heap.live_bytes, bytes), format_bytes(report.heap.peak_bytes, peak),
           format_count(report.heap.total_allocs, allocs),
           format_count(report.released_outside + report.released_foreign, crossed));
    if (report.heap.live_blocks != 0 || report.kept)
        return work_fails(work, "%" PRIu64 " blocks were left", report.heap.live_blocks);
    return true;
}

static bool
close_all(void)
{
    bool held = true;

    for (size_t i = 0; i < DEMO_WORKS; i++)
        held &= demo.works[i]->finish(demo.works[i]);
    printf("%-10s%13s%12s%11s%13s%9s\n", "closed", "blocks left", "bytes left", "peak", "allocations",
           "crossed");
    for (size_t i = 0; i < DEMO_WORKS; i++)
        held &= close_module(demo.works[i]);
    return held;
}

/* The allocator's file, as /proc/self/maps names it. */
static bool
find_file(char *file)
{
    Dl_info info;
    return dladdr((const void *)(uintptr_t)demo.table->malloc, &info) != 0
           && realpath(info.dli_fname, file) != NULL;
}

static bool
unload(const char *file, uint64_t remembered, int lines_before)
{
    char bytes[16], left_bytes[16];

    if (alcove_unload(demo.allocator, 0) != ALCOVE_OK) {
        printf("NOT unloaded: %s\n", alcove_error_message());
        return false;
    }
    uint64_t left = maps_remembered_left();
    int lines = maps_naming(file);
    printf("Unloaded. In /proc/self/maps, lines that name %s: %d before, %d now;\n"
           "memory of the allocator's: %s before, %s now.\n", file, lines_before, lines,
           format_bytes(remembered, bytes), format_bytes(left, left_bytes));
    return lines_before > 0 && lines == 0 && left == 0;
}

int
main(int argc, char **argv)
{
    struct alcove_load_options load = { 0 };
    struct alcove_info info;
    char file[PATH_MAX];

    parse_options(argc, argv, &load.path);
    if (!input_read(&demo.input))
        return 2;
    if (alcove_load(&demo.allocator, &load) != ALCOVE_OK) {
        fprintf(stderr, "alcove-demo: %s\n", alcove_error_message());
        return 2;
    }
    demo.table = alcove_table_of(demo.allocator);
    demo.table->info(&info);
    if (!find_file(file)) {
        fprintf(stderr, "alcove-demo: the loaded allocator's file cannot be told: %s\n", strerror(errno));
        return 2;
    }
    printf("alcove %s from %s, thread-local storage %s\n", info.version, file, info.tls);
    if (!open_modules())
        return 2;

    bool held = work_all();
    uint64_t remembered = maps_remember(demo.table);
    int lines = maps_naming(file);
    held &= close_all();
    held &= unload(file, remembered, lines);
    for (size_t i = 0; i < DEMO_WORKS; i++)
        if (demo.works[i]->failed)
            printf("%s: FAILED: %s\n", demo.works[i]->name, demo.works[i]->error);
    input_free(&demo.input);
    puts(held ? "All results were right, and nothing of the allocator is left."
              : "Something did NOT hold; see above.");
    return held ? 0 : 1;
}
