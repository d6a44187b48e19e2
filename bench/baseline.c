/*
 * --check: this run against a TSV written earlier, perhaps on another day or machine. Of times the
 * ratios are compared, for they depend less on the machine; figures of memory as they are, for
 * peers that give memory back do so by chance. A row counts as slower when it lost more than the
 * noise of both runs explains.
 */
#define _GNU_SOURCE
#include "bench.h"

#include <stdlib.h>
#include <string.h>

/* The least change worth a word, and how many times the runs' own noise it must be. */
static const double least_change = 0.05, noise_times = 2;

struct earlier {
    char work[64];
    double ratio, noise; /* of memory: the figure itself */
};

enum { COLUMNS = 12, COLUMN_WORK = 0, COLUMN_UNIT = 2, COLUMN_ALLOCATOR = 3, COLUMN_MIN = 4, COLUMN_RATIO = 7, COLUMN_NOISE = 8 };

static int is_time(const char *unit)
{
    return strcmp(unit, "ns") == 0 || strcmp(unit, "us") == 0;
}

static double figure_now(const struct work *work, struct cell (*cells)[MAX_PEERS])
{
    const struct cell *row = cells[work - works];
    return is_time(work->unit) ? row_ratio(work, row) : cell_min(&row[PEER_ALCOVE]);
}

/* One line of the TSV. 1 if it is a row of alcove's with a figure to compare. */
static int line_read(char *line, struct earlier *out)
{
    char *column[COLUMNS] = {0};
    line[strcspn(line, "\r\n")] = 0;
    for (int i = 0; i < COLUMNS && line; i++)
        column[i] = strsep(&line, "\t");
    if (!column[COLUMNS - 1] || strcmp(column[COLUMN_ALLOCATOR], peers[PEER_ALCOVE].name) != 0)
        return 0;
    snprintf(out->work, sizeof out->work, "%s", column[COLUMN_WORK]);
    out->ratio = atof(column[is_time(column[COLUMN_UNIT]) ? COLUMN_RATIO : COLUMN_MIN]);
    out->noise = atof(column[COLUMN_NOISE]);
    return out->ratio > 0;
}

int baseline_check(const char *path, struct cell (*cells)[MAX_PEERS])
{
    FILE *in = fopen(path, "r");
    if (!in)
        return -1;
    int slower = 0, faster = 0, same = 0, gone = 0, added = 0;
    char known[work_count];
    memset(known, 0, sizeof known);
    char line[1024];
    printf("\nagainst %s (ratio, or figure of memory, then -> now, and the change that noise explains)\n", path);
    while (fgets(line, sizeof line, in)) {
        struct earlier then;
        if (!line_read(line, &then))
            continue;
        const struct work *work = work_find(then.work);
        double ratio = work ? figure_now(work, cells) : 0;
        if (work)
            known[work - works] = 1;
        if (ratio <= 0) {
            gone++;
            continue;
        }
        double noise = noise_times * (then.noise + row_noise(work, cells[work - works]));
        double bound = noise > least_change ? noise : least_change;
        double change = ratio / then.ratio - 1;
        const char *word = change > bound ? "SLOWER" : -change > bound / (1 + bound) ? "faster" : NULL;
        if (word)
            printf("  %-16s %6.2f -> %6.2f  %+5.0f %%  (noise %.0f %%)  %s\n", then.work, then.ratio, ratio, 100 * change,
                   100 * bound, word);
        slower += word && change > 0;
        faster += word && change < 0;
        same += !word;
    }
    fclose(in);
    if (slower + faster + same + gone == 0)
        return -1;
    for (int w = 0; w < work_count; w++)
        added += !known[w] && figure_now(&works[w], cells) > 0;
    printf("%d slower, %d faster, %d the same", slower, faster, same);
    if (gone)
        printf(", %d of the baseline not measured now", gone);
    if (added)
        printf(", %d new, which the baseline does not have", added);
    printf("\n");
    return slower;
}
