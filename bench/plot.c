/*
 * Plots, drawn by gnuplot, each as PNG and SVG: every work's ratio to the best peer, and the
 * curves. Without gnuplot there is a note and no plot.
 */
#define _GNU_SOURCE
#include "bench.h"

#include <stdlib.h>

static const char *const formats[][2] = {
    {"png", "pngcairo noenhanced"}, {"svg", "svg noenhanced"}};

static FILE *gnuplot_open(void)
{
    if (system("command -v gnuplot >/dev/null 2>&1") != 0) {
        fprintf(stderr, "alcove-bench: no plots: gnuplot is missing (apt-get install gnuplot-nox)\n");
        return NULL;
    }
    return popen("gnuplot", "w");
}

static int gnuplot_close(FILE *gnuplot)
{
    return pclose(gnuplot) ? -1 : 0;
}

static int shown(const struct cell *cell)
{
    return cell->state == CELL_DONE && cell->count > 0 && cell_min(cell) > 0;
}

/* A peer keeps its colour and its mark in every plot. */
static void print_style(FILE *gnuplot, int peer)
{
    static const char *const colours[] = {"#d55e00", "#666666", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"};
    fprintf(gnuplot, "lc rgb '%s' pt %d", colours[(size_t)peer % (sizeof colours / sizeof *colours)], peer == PEER_ALCOVE ? 7 : 4 + 2 * peer % 11);
}

/* The figure that a work's row is divided by; 0: the row is not drawn. */
static double row_unit(const struct work *work, const struct cell *row)
{
    if (work->flags & WORK_LIBC_ONLY)
        return 0;
    if (work->flags & WORK_TABLE_ONLY) {
        double ratio = row_ratio(work, row);
        return ratio > 0 ? cell_median(&row[PEER_ALCOVE]) / ratio : 0;
    }
    int best = row_best(row);
    return best < 0 ? 0 : cell_min(&row[best]);
}

static const double last_ratio = 100;

/* Each row: the peers' ratios to the best of them, the axis logarithmic. */
int plot_works(const char *directory, struct cell (*cells)[MAX_PEERS])
{
    int rows = 0;
    for (int w = 0; w < work_count; w++)
        rows += row_unit(&works[w], cells[w]) > 0;
    if (!rows)
        return 0;
    FILE *gnuplot = gnuplot_open();
    if (!gnuplot)
        return -1;

    int drawn[MAX_PEERS] = {0};
    for (int p = 0; p < peer_count; p++) {
        for (int w = 0, y = 0; w < work_count; w++) {
            double unit = row_unit(&works[w], cells[w]);
            if (unit <= 0)
                continue;
            if (shown(&cells[w][p])) {
                double ratio = cell_min(&cells[w][p]) / unit;
                if (!drawn[p]++)
                    fprintf(gnuplot, "$p%d << EOD\n", p);
                fprintf(gnuplot, "%g %d\n", ratio < last_ratio ? ratio : last_ratio, y);
            }
            y++;
        }
        if (drawn[p])
            fprintf(gnuplot, "EOD\n");
    }
    fprintf(gnuplot, "set title 'ratio to the best peer of each row, or to its own reference (less is better; more than %g is drawn at %g)'\n"
                     "set logscale x\nset grid x y\nset key outside right top\nset xrange [*<0.8:%g]\nset yrange [%d.5:-0.5]\n"
                     "set arrow from 1, graph 0 to 1, graph 1 nohead lw 1.5 lc rgb 'gray40'\nset ytics (",
            last_ratio, last_ratio, last_ratio * 1.3, rows - 1);
    for (int w = 0, y = 0; w < work_count; w++)
        if (row_unit(&works[w], cells[w]) > 0) {
            fprintf(gnuplot, "%s'%s' %d", y ? ", " : "", works[w].name, y);
            y++;
        }
    fprintf(gnuplot, ")\n");
    for (int f = 0; f < 2; f++) {
        fprintf(gnuplot, "set terminal %s size 900,%d\nset output '%s/works.%s'\nplot", formats[f][1], 120 + 22 * rows,
                directory, formats[f][0]);
        /* alcove last, on top of the others */
        for (int p = peer_count - 1, first = 1; p >= 0; p--)
            if (drawn[p]) {
                fprintf(gnuplot, "%s $p%d using 1:2 with points ps %s ", first ? "" : ",", p, p == PEER_ALCOVE ? "1.5" : "1.1");
                print_style(gnuplot, p);
                fprintf(gnuplot, " title '%s'", peers[p].name);
                first = 0;
            }
        fprintf(gnuplot, "\nunset output\n");
    }
    return gnuplot_close(gnuplot);
}

int plot_curve(const char *directory, const struct curve *curve, struct cell (*cells)[MAX_PEERS])
{
    FILE *gnuplot = gnuplot_open();
    if (!gnuplot)
        return -1;
    int drawn[MAX_PEERS] = {0};
    for (int p = 0; p < peer_count; p++) {
        for (int point = 0; curve->points[point]; point++)
            drawn[p] |= shown(&cells[point][p]);
        if (!drawn[p])
            continue;
        fprintf(gnuplot, "$p%d << EOD\n", p);
        for (int point = 0; curve->points[point]; point++)
            if (shown(&cells[point][p]))
                fprintf(gnuplot, "%ld %g\n", curve->points[point], cell_min(&cells[point][p]));
        fprintf(gnuplot, "EOD\n");
    }
    fprintf(gnuplot, "set title \"%s\" font ',9'\nset xlabel '%s'\nset ylabel '%s'\nset logscale xy\nset grid\nset key left top\n",
            curve->about, curve->axis, curve->unit);
    for (int f = 0; f < 2; f++) {
        fprintf(gnuplot, "set terminal %s size 800,500\nset output '%s/curve-%s.%s'\nplot", formats[f][1], directory,
                curve->name, formats[f][0]);
        for (int p = 0, first = 1; p < peer_count; p++)
            if (drawn[p]) {
                fprintf(gnuplot, "%s $p%d using 1:2 with linespoints lw %s ", first ? "" : ",", p, p == PEER_ALCOVE ? "2.5" : "1.2");
                print_style(gnuplot, p);
                fprintf(gnuplot, " title '%s'", peers[p].name);
                first = 0;
            }
        fprintf(gnuplot, "\nunset output\n");
    }
    return gnuplot_close(gnuplot);
}
