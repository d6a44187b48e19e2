/*
 * alcove-bench: the options, and what is done in which order.
 */
#define _GNU_SOURCE
#include "bench.h"

#include <getopt.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char help[] =
    "Usage: alcove-bench [options]\n"
    "Measures alcove beside the allocators a user would pick instead, each loaded with dlopen.\n"
    "\n"
    "  --rounds N            rounds of fresh processes (default 5)\n"
    "  --only PATTERNS       only works (or curves) of these names or groups: pair-*,realloc\n"
    "  --list                list the works and the curves\n"
    "  --quick               short loops, 2 rounds, without the rows that take long\n"
    "  --curves              measure how cost grows instead of the table's rows\n"
    "  --cycles [N]          load, use and unload each N times (default 100): what is left behind, in Markdown\n"
    "  --tsv FILE            write the figures as tab-separated values\n"
    "  --plot DIRECTORY      draw works.png, works.svg (with --curves: curve-*.png, curve-*.svg)\n"
    "  --save-baseline FILE  write the figures for a later --check\n"
    "  --check FILE          compare with a baseline; exit status 1 if a row got slower\n"
    "  --alcove PATH[:PREFIX]     the allocator (default: ../.libs/libalcove.so from this program)\n"
    "  --loader PATH              the loader library (default: beside the allocator)\n"
    "  --peer NAME=PATH[:PREFIX]  one more allocator, or another file for one that is known\n"
    "  --locks PATH[:PREFIX]      a debug build of alcove: --curves counts its locks\n"
    "  --help                this text\n";

enum { OPTION_ALCOVE = 256, OPTION_LOADER, OPTION_PEER, OPTION_ROUNDS, OPTION_ONLY, OPTION_LIST, OPTION_QUICK,
       OPTION_CURVES, OPTION_CYCLES, OPTION_TSV, OPTION_PLOT, OPTION_CHECK, OPTION_SAVE, OPTION_LOCKS,
       OPTION_HELP };

static const struct option long_options[] = {
    {"alcove", required_argument, NULL, OPTION_ALCOVE}, {"loader", required_argument, NULL, OPTION_LOADER},
    {"peer", required_argument, NULL, OPTION_PEER},     {"rounds", required_argument, NULL, OPTION_ROUNDS},
    {"only", required_argument, NULL, OPTION_ONLY},     {"list", no_argument, NULL, OPTION_LIST},
    {"quick", no_argument, NULL, OPTION_QUICK},         {"curves", no_argument, NULL, OPTION_CURVES},
    {"cycles", optional_argument, NULL, OPTION_CYCLES}, {"tsv", required_argument, NULL, OPTION_TSV},
    {"plot", required_argument, NULL, OPTION_PLOT},     {"check", required_argument, NULL, OPTION_CHECK},
    {"save-baseline", required_argument, NULL, OPTION_SAVE}, {"locks", required_argument, NULL, OPTION_LOCKS}, {"help", no_argument, NULL, OPTION_HELP},
    {NULL, 0, NULL, 0}};

/* A file of the build, found from where this program lies. */
static char *beside(const char *relative)
{
    char self[4096], *path;
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    if (length < 0)
        length = 0;
    self[length] = 0;
    if (asprintf(&path, "%s/%s", dirname(self), relative) < 0)
        exit(2);
    char *real = realpath(path, NULL);
    return real ? real : path;
}

static void list(void)
{
    for (int i = 0; i < work_count; i++)
        printf("%-16s %-8s %-4s %s\n", works[i].name, works[i].group, works[i].unit, works[i].about);
    for (int i = 0; i < curve_count; i++)
        printf("%-16s %-8s %-4s %s\n", curves[i].name, "curve", curves[i].unit, curves[i].about);
}

static int complain(const char *what, const char *path)
{
    fprintf(stderr, "alcove-bench: %s %s: ", what, path);
    perror(NULL);
    return 2;
}

static int do_curves(const struct options *options)
{
    FILE *tsv = NULL;
    int done = 0;
    if (options->tsv) {
        tsv = fopen(options->tsv, "w");
        if (!tsv)
            return complain("cannot write", options->tsv);
        fprintf(tsv, "curve\tx\tunit\tallocator\tmin\tmedian\tfaults\n");
    }
    for (int i = 0; i < curve_count; i++) {
        if (!name_wanted(curves[i].name, "curve", options))
            continue;
        done++;
        struct cell(*cells)[MAX_PEERS] = calloc(MAX_POINTS, sizeof *cells), *locks = calloc(MAX_POINTS, sizeof *locks);
        if (!cells || !locks)
            return 2;
        run_curve(options, &curves[i], cells, locks);
        if (curve_measured(&curves[i], cells)) {
            report_curve(&curves[i], cells, locks);
            if (tsv && report_curve_tsv(tsv, &curves[i], cells, locks))
                return complain("cannot write", options->tsv);
            if (options->plot)
                plot_curve(options->plot, &curves[i], cells);
        }
        free(cells);
        free(locks);
    }
    if (!done) {
        fprintf(stderr, "alcove-bench: --only %s: no such curve; see --list\n", options->only);
        return 2;
    }
    return tsv && fclose(tsv) ? complain("cannot write", options->tsv) : 0;
}

static int do_works(const struct options *options)
{
    struct cell(*cells)[MAX_PEERS] = calloc((size_t)work_count, sizeof *cells);
    if (!cells)
        return 2;
    if (!run_works(options, cells)) {
        fprintf(stderr, "alcove-bench: --only %s: no such work; see --list\n", options->only);
        return 2;
    }
    report_table(cells);
    if (options->tsv && report_tsv(options->tsv, cells))
        return complain("cannot write", options->tsv);
    if (options->save && report_tsv(options->save, cells))
        return complain("cannot write", options->save);
    if (options->plot)
        plot_works(options->plot, cells);
    int slower = options->check ? baseline_check(options->check, cells) : 0;
    free(cells);
    if (slower < 0)
        return complain("not a baseline:", options->check);
    return slower > 0;
}

static void cycles_of(const struct options *options, const struct peer *peer, int with_loader)
{
    char name[128], note[200] = "";
    struct growth growth = {.cycle = 0};
    enum cell_state state = CELL_FAILED;
    snprintf(name, sizeof name, "%s%s", peer->name, with_loader ? " with the loader" : "");
    if (peer->missing)
        snprintf(note, sizeof note, "not installed: %s", peer->install);
    else
        state = run_cycles(options, peer, with_loader, &growth, note);
    report_cycles(name, state, &growth, note);
}

static int do_cycles(const struct options *options)
{
    report_cycles_head(options->cycles);
    for (int i = 0; i < peer_count; i++) {
        if (i == PEER_LIBC)
            continue;
        cycles_of(options, &peers[i], 0);
        if (i == PEER_ALCOVE)
            cycles_of(options, &peers[i], 1);
    }
    return 0;
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "--child") == 0)
        return child_main(argc, argv);

    struct options options = {.rounds = 0, .seconds = 0.15};
    for (int option; (option = getopt_long(argc, argv, "h", long_options, NULL)) != -1;)
        switch (option) {
        case OPTION_ALCOVE: {
            char text[4200];
            snprintf(text, sizeof text, "%s=%s", peers[PEER_ALCOVE].name, optarg);
            if (peer_add(text))
                return 2;
            break;
        }
        case OPTION_LOADER: options.loader = realpath(optarg, NULL); break;
        case OPTION_PEER:
            if (peer_add(optarg)) {
                fprintf(stderr, "alcove-bench: --peer %s: not NAME=PATH[:PREFIX], or more than %d peers\n", optarg, MAX_PEERS);
                return 2;
            }
            break;
        case OPTION_ROUNDS:
            options.rounds = atoi(optarg);
            if (options.rounds < 1 || options.rounds > MAX_ROUNDS) {
                fprintf(stderr, "alcove-bench: --rounds %s: not from 1 to %d\n", optarg, MAX_ROUNDS);
                return 2;
            }
            break;
        case OPTION_ONLY: options.only = optarg; break;
        case OPTION_LIST: list(); return 0;
        case OPTION_QUICK: options.quick = 1; break;
        case OPTION_CURVES: options.curves = 1; break;
        case OPTION_CYCLES:
            /* getopt sees an optional argument behind "=" only. */
            if (!optarg && optind < argc && *argv[optind] != '-')
                optarg = argv[optind++];
            options.cycles = optarg ? atoi(optarg) : 100;
            if (options.cycles <= CYCLES_BEFORE) {
                fprintf(stderr, "alcove-bench: --cycles %s: not more than %d\n", optarg, CYCLES_BEFORE);
                return 2;
            }
            break;
        case OPTION_TSV: options.tsv = optarg; break;
        case OPTION_PLOT: options.plot = optarg; break;
        case OPTION_CHECK: options.check = optarg; break;
        case OPTION_SAVE: options.save = optarg; break;
        case OPTION_LOCKS: {
            const char *prefix = prefix_split(optarg);
            options.locks = (struct peer){.name = "locks", .path = optarg, .prefix = prefix ? prefix : BENCH_PREFIX};
            break;
        }
        case OPTION_HELP: case 'h': fputs(help, stdout); return 0;
        default: fputs(help, stderr); return 2;
        }
    if (optind < argc) {
        fprintf(stderr, "alcove-bench: what is \"%s\"? See --help.\n", argv[optind]);
        return 2;
    }
    if (options.quick)
        options.seconds = 0.03;
    if (!options.rounds)
        options.rounds = options.quick ? 2 : options.curves ? 3 : 5;
    if (!peers[PEER_ALCOVE].path)
        peers[PEER_ALCOVE].path = beside("../.libs/libalcove" BENCH_SUFFIX ".so");
    if (!options.loader)
        options.loader = beside("../.libs/libalcove-loader.so.0");
    options.plugin = beside(".libs/plugin.so");

    peers_probe(&options);
    if (options.cycles)
        return do_cycles(&options);
    return options.curves ? do_curves(&options) : do_works(&options);
}
