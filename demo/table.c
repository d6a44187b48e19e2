/*
 * The table of what each module uses, drawn over itself on a terminal and once on anything else.
 * Only the main thread draws.
 */
#include "demo.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define LINES (2 * DEMO_WORKS)

/* What a line showed last time, for the rate. */
static struct {
    uint64_t allocs;
    double when;
} before[LINES];

const char *
format_bytes(uint64_t bytes, char *out)
{
    static const char *const unit[] = { "B", "KiB", "MiB", "GiB", "TiB" };
    double value = (double)bytes;
    size_t u = 0;

    while (value >= 1024 && u < sizeof unit / sizeof unit[0] - 1) {
        value /= 1024;
        u++;
    }
    snprintf(out, 16, u == 0 ? "%.0f %s" : "%.1f %s", value, unit[u]);
    return out;
}

const char *
format_count(uint64_t count, char *out)
{
    char digits[24];
    size_t length = (size_t)snprintf(digits, sizeof digits, "%llu", (unsigned long long)count), o = 0;

    for (size_t i = 0; i < length; i++) {
        if (i > 0 && (length - i) % 3 == 0)
            out[o++] = ',';
        out[o++] = digits[i];
    }
    out[o] = '\0';
    return out;
}

static bool
on_terminal(void)
{
    const char *term = getenv("TERM");
    return isatty(STDOUT_FILENO) && term != NULL && strcmp(term, "dumb") != 0;
}

/* A line longer than the terminal is wide would take two, and the drawing over would go wrong. */
static int
columns(void)
{
    struct winsize size;
    if (on_terminal() && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
        return size.ws_col - 1;
    return 120;
}

static void
put_line(const char *line)
{
    printf("%.*s%s\n", columns(), line, on_terminal() ? "\033[K" : "");
}

static void
put_row(const char *name, const struct alcove_heap_stats *heap, double rate, const char *crossed,
        const char *doing)
{
    char live[16], peak[16], per_second[32], limit[16], line[256];

    snprintf(line, sizeof line, "%-10s%10s%10s%10s%10s%8s  %s", name,
             format_bytes(heap->live_bytes, live), format_bytes(heap->peak_bytes, peak),
             format_count((uint64_t)rate, per_second),
             heap->limit == 0 ? "none" : format_bytes(heap->limit, limit), crossed, doing);
    put_line(line);
}

/* Allocations per second since the line was drawn last, or since the start if `overall`. */
static double
rate_of(struct demo *demo, size_t line, const struct alcove_heap_stats *heap, bool overall)
{
    double now = demo_clock(), since = before[line].when;
    uint64_t allocs = before[line].allocs;

    before[line].allocs = heap->total_allocs;
    before[line].when = now;
    if (overall || since == 0) {
        since = demo->started;
        allocs = 0;
    }
    return now > since ? (double)(heap->total_allocs - allocs) / (now - since) : 0;
}

static void
draw(struct demo *demo, bool overall)
{
    static int drawn; /* lines that are on the terminal already */
    char line[256];

    if (drawn > 0)
        printf("\033[%dA", drawn);
    drawn = on_terminal();
    snprintf(line, sizeof line, "%-10s%10s%10s%10s%10s%8s  %s", "module", "live", "peak", "allocs/s",
             "limit", "crossed", "doing");
    put_line(line);
    for (size_t i = 0; i < DEMO_WORKS; i++) {
        struct work *work = demo->works[i];
        struct alcove_module_stats stats;
        char doing[sizeof work->doing], crossed[32];

        if (!work_stats(work, &stats))
            continue;
        pthread_mutex_lock(&work->lock);
        memcpy(doing, work->doing, sizeof doing);
        pthread_mutex_unlock(&work->lock);
        put_row(work->name, &stats.heap, rate_of(demo, 2 * i, &stats.heap, overall),
                format_count(stats.released_outside + stats.released_foreign, crossed), doing);
        drawn += on_terminal();
        if (work->extra_name == NULL)
            continue;
        struct alcove_heap_stats extra = { 0 };
        work->extra_stats(work, &extra);
        put_row(work->extra_name, &extra, rate_of(demo, 2 * i + 1, &extra, overall), "-",
                "what its script uses");
        drawn += on_terminal();
    }
    fflush(stdout);
}

void
table_draw(struct demo *demo)
{
    if (on_terminal())
        draw(demo, false);
}

void
table_draw_last(struct demo *demo)
{
    draw(demo, true);
}
