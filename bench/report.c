/*
 * What was measured, as a table to read and as tab-separated values: the least and the median of
 * the rounds, the ratio to the best peer or to the row's own reference, and whether the targets
 * are met. Ratios are of the least values, which a busy machine disturbs least.
 */
#define _GNU_SOURCE
#include "bench.h"

#include <math.h>
#include <string.h>

static int measured(const struct cell *cell)
{
    return cell->state == CELL_DONE && cell->count > 0;
}

int row_best(const struct cell row[MAX_PEERS])
{
    int best = -1;
    for (int i = PEER_ALCOVE + 1; i < peer_count; i++)
        if (!peers[i].has_table && measured(&row[i]) && (best < 0 || cell_min(&row[i]) < cell_min(&row[best])))
            best = i;
    return best;
}

static double ratio_to(const struct cell *cell, const struct cell *other)
{
    if (!measured(cell) || !measured(other) || cell_min(other) <= 0)
        return 0;
    return cell_min(cell) / cell_min(other);
}

double row_ratio(const struct work *work, const struct cell row[MAX_PEERS])
{
    const struct cell *ours = &row[PEER_ALCOVE];
    if (work->flags & WORK_TABLE_ONLY)
        return measured(ours) ? cell_reference(ours) : 0;
    int best = row_best(row);
    return best < 0 ? 0 : ratio_to(ours, &row[best]);
}

static double spread(const struct cell *cell)
{
    double least = cell_min(cell);
    return least > 0 ? (cell_median(cell) - least) / least : 0;
}

static double reference_spread(const struct cell *cell)
{
    double middle = cell_reference(cell), distance = 0;
    if (middle <= 0)
        return 0;
    for (int i = 0; i < cell->count; i++)
        distance += fabs(cell->value[i] / cell->reference[i] / middle - 1) / cell->count;
    return distance;
}

double row_noise(const struct work *work, const struct cell row[MAX_PEERS])
{
    if (work->flags & WORK_TABLE_ONLY)
        return reference_spread(&row[PEER_ALCOVE]);
    int best = row_best(row);
    return best < 0 ? 0 : spread(&row[PEER_ALCOVE]) + spread(&row[best]);
}

/* ---- targets ---- */

static const struct cell *floor_cell(struct cell (*cells)[MAX_PEERS])
{
    const struct work *work = work_find("empty");
    return &cells[work - works][PEER_LIBC];
}

/* What a target's limit is compared with; 0: not measured. */
static double target_figure(const struct target *target, const struct work *work, struct cell (*cells)[MAX_PEERS])
{
    const struct cell *row = cells[work - works];
    const struct cell *ours = &row[PEER_ALCOVE];
    if (!measured(ours))
        return 0;
    switch (target->kind) {
    case TARGET_BEST: {
        int best = row_best(row);
        return best < 0 ? 0 : ratio_to(ours, &row[best]);
    }
    case TARGET_FLOOR:
        return ratio_to(ours, floor_cell(cells));
    case TARGET_REFERENCE:
        return cell_reference(ours);
    case TARGET_VALUE:
        return cell_min(ours);
    case TARGET_NONE:
        break;
    }
    return 0;
}

static enum verdict target_verdict(const struct target *target, const struct work *work, struct cell (*cells)[MAX_PEERS])
{
    double figure = target_figure(target, work, cells);
    if (target->kind == TARGET_NONE || (figure <= 0 && !measured(&cells[work - works][PEER_ALCOVE])))
        return VERDICT_NONE;
    if (figure <= 0 && target->kind != TARGET_VALUE)
        return VERDICT_NONE;
    /* Half a per cent is not a difference on any machine. */
    return figure <= target->limit * 1.005 ? VERDICT_MET : VERDICT_MISSED;
}

static void print_targets(const struct work *work, struct cell (*cells)[MAX_PEERS])
{
    static const char *const of[] = {"", "best", "floor", "ref.", ""};
    static const char *const words[] = {"", "met", "NOT MET"};
    for (int i = 0; i < MAX_TARGETS; i++) {
        const struct target *target = &work->targets[i];
        if (target->kind == TARGET_NONE)
            continue;
        printf("%s<= %g", i ? "; " : "  ", target->limit);
        if (target->kind == TARGET_VALUE)
            printf(" %s", work->unit);
        else
            printf(" x %s", of[target->kind]);
        enum verdict verdict = target_verdict(target, work, cells);
        if (verdict != VERDICT_NONE)
            printf(": %s", words[verdict]);
        if (verdict == VERDICT_MISSED && target_figure(target, work, cells) <= target->limit * (1 + row_noise(work, cells[work - works])))
            printf(", within the noise");
        if (target->kind == TARGET_FLOOR && verdict != VERDICT_NONE)
            printf(" (%.2f)", target_figure(target, work, cells));
    }
}

/* ---- the table ---- */

/* Three digits that matter. */
static const char *figure(double value, char text[16])
{
    snprintf(text, 16, value < 9.995 ? "%.2f" : value < 99.95 ? "%.1f" : "%.0f", value);
    return text;
}

static void print_cell(const struct cell *cell)
{
    static const char *const words[] = {"-", "", "failed", "crashed", "hung"};
    char least[16], middle[16];
    if (measured(cell))
        printf(" %7s %7s", figure(cell_min(cell), least), figure(cell_median(cell), middle));
    else
        printf(" %7s %7s", words[cell->state], "");
}

static int row_measured(const struct cell row[MAX_PEERS])
{
    for (int i = 0; i < peer_count; i++)
        if (row[i].state != CELL_EMPTY)
            return 1;
    return 0;
}

static void print_head(void)
{
    printf("%-16s %-4s", "work", "unit");
    for (int i = 0; i < peer_count; i++)
        if (!peers[i].missing || i == PEER_ALCOVE)
            printf(" %15s", peers[i].name);
    printf("  %-9s %6s  %s\n", "best peer", "ratio", "target");
    printf("%-16s %-4s", "", "");
    for (int i = 0; i < peer_count; i++)
        if (!peers[i].missing || i == PEER_ALCOVE)
            printf(" %7s %7s", "min", "median");
    printf("\n");
}

static void print_row(const struct work *work, struct cell (*cells)[MAX_PEERS])
{
    const struct cell *row = cells[work - works];
    printf("%-16s %-4s", work->name, work->unit);
    for (int i = 0; i < peer_count; i++)
        if (!peers[i].missing || i == PEER_ALCOVE)
            print_cell(&row[i]);
    int best = row_best(row), alone = (work->flags & WORK_TABLE_ONLY) != 0;
    double ratio = row_ratio(work, row);
    printf("  %-9s", work->flags & WORK_LIBC_ONLY ? "" : alone ? ratio > 0 ? "own ref." : "" : best < 0 ? "-" : peers[best].name);
    if (ratio > 0)
        printf(" %6.*f", ratio < 0.0095 ? 4 : ratio < 0.095 ? 3 : 2, ratio);
    else
        printf(" %6s", "");
    print_targets(work, cells);
    printf("\n");
}

/* One row where the others copy and alcove does not must not outweigh all others. */
static const double most_weight = 10;

/* Geometric mean of alcove's ratios to one peer, or to the best of each row (peer < 0), each ratio
 * kept between 1 / most and most. */
static double mean_ratio(struct cell (*cells)[MAX_PEERS], int peer, double most, int *rows)
{
    double sum = 0;
    *rows = 0;
    for (int w = 0; w < work_count; w++) {
        if (works[w].flags & (WORK_TABLE_ONLY | WORK_LIBC_ONLY))
            continue;
        int other = peer < 0 ? row_best(cells[w]) : peer;
        double ratio = other < 0 ? 0 : ratio_to(&cells[w][PEER_ALCOVE], &cells[w][other]);
        if (ratio > 0) {
            sum += log(ratio < 1 / most ? 1 / most : ratio > most ? most : ratio);
            (*rows)++;
        }
    }
    return *rows ? exp(sum / *rows) : 0;
}

static void print_mean(const char *what, double limit, struct cell (*cells)[MAX_PEERS], int peer)
{
    int rows;
    double mean = mean_ratio(cells, peer, INFINITY, &rows), kept = mean_ratio(cells, peer, most_weight, &rows);
    if (!rows)
        return;
    printf("geometric mean of the ratios to %s, %d rows: %.3f", what, rows, mean);
    if (limit > 0)
        printf("  <= %g: %s", limit, mean <= limit ? "met" : "NOT MET");
    if (fabs(kept - mean) > 0.0005)
        printf("  (%.3f with no row counted as more than %g times)", kept, most_weight);
    printf("\n");
}

static void print_notes(struct cell (*cells)[MAX_PEERS])
{
    for (int i = 0; i < peer_count; i++)
        if (peers[i].missing)
            printf("not measured: %s: %s (%s)\n", peers[i].name, peers[i].why, peers[i].install);
        else if (peers[i].big_tls)
            printf("%s loads only into a process started with GLIBC_TUNABLES=glibc.rtld.optional_static_tls=16384, and was given that\n",
                   peers[i].name);
    for (int w = 0; w < work_count; w++)
        for (int i = 0; i < peer_count; i++)
            if (cells[w][i].state > CELL_DONE)
                printf("%s with %s: %s\n", works[w].name, peers[i].name, cells[w][i].note);
}

void report_table(struct cell (*cells)[MAX_PEERS])
{
    const char *group = NULL;
    print_head();
    for (int w = 0; w < work_count; w++) {
        if (!row_measured(cells[w]))
            continue;
        if (group && strcmp(group, works[w].group) != 0)
            printf("\n");
        group = works[w].group;
        print_row(&works[w], cells);
    }
    printf("\n");

    int met = 0, missed = 0;
    for (int w = 0; w < work_count; w++)
        for (int i = 0; i < MAX_TARGETS; i++) {
            enum verdict verdict = target_verdict(&works[w].targets[i], &works[w], cells);
            met += verdict == VERDICT_MET;
            missed += verdict == VERDICT_MISSED;
        }
    print_mean("the best peer of each row", 0.95, cells, -1);
    for (int i = PEER_ALCOVE + 1; i < peer_count; i++)
        print_mean(peers[i].name, strcmp(peers[i].name, "jemalloc") == 0 ? 0.5 : 0, cells, i);
    if (met + missed)
        printf("targets: %d met, %d not met\n", met, missed);
    print_notes(cells);
}

/* ---- tab-separated values ---- */

int report_tsv(const char *path, struct cell (*cells)[MAX_PEERS])
{
    static const char *const states[] = {"empty", "done", "failed", "crashed", "hung"};
    FILE *out = fopen(path, "w");
    if (!out)
        return -1;
    fprintf(out, "work\tgroup\tunit\tallocator\tmin\tmedian\trounds\tratio\tnoise\treference_ratio\tfaults\tstate\n");
    for (int w = 0; w < work_count; w++) {
        int best = row_best(cells[w]);
        for (int i = 0; i < peer_count; i++) {
            const struct cell *cell = &cells[w][i];
            if (cell->state == CELL_EMPTY)
                continue;
            double ratio = i == PEER_ALCOVE ? row_ratio(&works[w], cells[w]) : best < 0 ? 0 : ratio_to(cell, &cells[w][best]);
            double noise = i == PEER_ALCOVE ? row_noise(&works[w], cells[w]) : spread(cell);
            fprintf(out, "%s\t%s\t%s\t%s\t%.4f\t%.4f\t%d\t%.4f\t%.4f\t%.4f\t%.0f\t%s\n", works[w].name, works[w].group,
                    works[w].unit, peers[i].name, cell_min(cell), cell_median(cell), cell->count, ratio, noise,
                    cell_reference(cell), cell_faults(cell), states[cell->state]);
        }
    }
    int failed = ferror(out);
    return fclose(out) || failed ? -1 : 0;
}

/* ---- curves ---- */

int curve_measured(const struct curve *curve, struct cell (*cells)[MAX_PEERS])
{
    for (int point = 0; curve->points[point]; point++)
        if (row_measured(cells[point]))
            return 1;
    return 0;
}

void report_curve(const struct curve *curve, struct cell (*cells)[MAX_PEERS], const struct cell locks[MAX_POINTS])
{
    int counted = measured(&locks[0]);
    printf("\n%s: %s\n%12s %-4s", curve->name, curve->about, curve->axis, curve->unit);
    for (int i = 0; i < peer_count; i++)
        if (peer_wanted(&peers[i], curve->flags))
            printf(" %15s", peers[i].name);
    printf(counted ? "  locks taken, waited for (per 1,000)\n" : "\n");
    for (int point = 0; curve->points[point]; point++) {
        char taken[16], waited[16];
        printf("%12ld %-4s", curve->points[point], "");
        for (int i = 0; i < peer_count; i++)
            if (peer_wanted(&peers[i], curve->flags))
                print_cell(&cells[point][i]);
        if (measured(&locks[point]))
            printf("  %11s, %s", figure(cell_median(&locks[point]), taken), figure(cell_lock_waits(&locks[point]), waited));
        printf("\n");
    }
    if (locks[0].state > CELL_DONE)
        printf("locks are not counted: %s\n", locks[0].note);
}

int report_curve_tsv(FILE *out, const struct curve *curve, struct cell (*cells)[MAX_PEERS], const struct cell locks[MAX_POINTS])
{
    for (int point = 0; curve->points[point]; point++) {
        for (int i = 0; i < peer_count; i++)
            if (measured(&cells[point][i]))
                fprintf(out, "%s\t%ld\t%s\t%s\t%.4f\t%.4f\t%.0f\n", curve->name, curve->points[point], curve->unit,
                        peers[i].name, cell_min(&cells[point][i]), cell_median(&cells[point][i]), cell_faults(&cells[point][i]));
        if (measured(&locks[point])) {
            fprintf(out, "%s\t%ld\tlocks/1000\t%s\t%.4f\t%.4f\t0\n", curve->name, curve->points[point],
                    peers[PEER_ALCOVE].name, cell_min(&locks[point]), cell_median(&locks[point]));
            fprintf(out, "%s\t%ld\twaits/1000\t%s\t%.4f\t%.4f\t0\n", curve->name, curve->points[point],
                    peers[PEER_ALCOVE].name, cell_lock_waits(&locks[point]), cell_lock_waits(&locks[point]));
        }
    }
    return ferror(out) ? -1 : 0;
}

/* ---- cycles ---- */

void report_cycles_head(int cycles)
{
    printf("| allocator | %d cycles | still mapped after dlclose | resident memory a cycle | address space a cycle "
           "| mappings a cycle | thread keys a cycle |\n"
           "| --- | --- | --- | --- | --- | --- | --- |\n", cycles);
}

/* Three digits that matter, in a unit that fits. */
static const char *bytes_text(double bytes, char text[32])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    int unit = 0;
    for (; fabs(bytes) >= 999.5 && unit < 4; unit++)
        bytes /= 1024;
    if (bytes == 0)
        snprintf(text, 32, "0");
    else
        snprintf(text, 32, "%.3g %s", bytes, units[unit]);
    return text;
}

static void print_ending(enum cell_state state, const struct growth *growth, const char *note)
{
    if (state == CELL_TIMED_OUT)
        printf("hangs: %s", note);
    else if (growth->signal)
        printf("crashed in cycle %d: %s", growth->cycle, strsignal(growth->signal));
    else if (state == CELL_DONE)
        printf("done");
    else if (growth->cycle)
        printf("failed in cycle %d: %s", growth->cycle, note);
    else
        printf("%s", note);
}

void report_cycles(const char *name, enum cell_state state, const struct growth *growth, const char *note)
{
    static const char *const after[] = {[AFTER_UNKNOWN] = "-", [AFTER_GONE] = "no", [AFTER_LOADED] = "stays loaded"};
    char resident[32], mapped[32];
    printf("| %s | ", name);
    print_ending(state, growth, note);
    printf(" | %s |", after[growth->after]);
    if (state == CELL_DONE && !growth->signal)
        printf(" %s | %s | %.3g | %.3g |\n", bytes_text(growth->resident, resident), bytes_text(growth->mapped, mapped),
               growth->mappings, growth->keys);
    else
        printf(" - | - | - | - |\n");
    fflush(stdout);
}
