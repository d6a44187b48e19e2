/*
 * Opens malformed libraries, first plainly and then with the loader. What the first survives, the second must.
 * dev/fuzz runs it over many, tests/fuzz/test_malformed.sh over a few and over what was found before.
 */
#include "tests/fuzz/fuzz.h"

#include <elf.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static const char usage[] =
    "fuzz_elf [OPTION…] LIBRARY…           make variants and try each\n"
    "fuzz_elf --replay FILE [LIBRARY…]     try a saved variant, or each line of a list of findings\n"
    "fuzz_elf --try WAY FILE               try in this process, for a debugger\n"
    "\n"
    "  --seed S           which variants (1)\n"
    "  --from A           number of the first (0)\n"
    "  --count N          how many (1000)\n"
    "  --jobs J           as many at a time (1)\n"
    "  --save FOLDER      where the files of findings go (.)\n"
    "  --allocator FILE   what is loaded ($ALCOVE_TEST_MODULE)\n"
    "  --progress         tell on stderr how far it is\n"
    "\n"
    "A WAY is plain, module (opened as one), earlier (there when the loader comes) or later. A finding is a line\n"
    "  FINDING seed S variant N WAY: how it ended: LIBRARY: what is written where\n"
    "whose end, from LIBRARY on, is a line of such a list. Variant N is of library N modulo their number.\n"
    "Status: 0 nothing found, 1 findings, 2 it could not be done.\n";

static struct {
    uint64_t seed, from, count;
    unsigned jobs;
    const char *save, *allocator, *replay, *way;
    bool progress;
} options = {.seed = 1, .count = 1000, .jobs = 1, .save = "."};

static struct library *libraries;
static size_t library_count;

/* What all the workers have seen. */
static struct counts {
    _Atomic uint64_t variants, opened, refused, lost, findings; /* lost: the plain trial ended badly */
    _Atomic uint64_t luck;          /* the plain trial ended well here, but not elsewhere (trial_by_luck) */
    _Atomic uint64_t refused_by_us; /* opened plainly only; by the way tried, summed */
} *counts;

static void
fail_errno(const char *what)
{
    fprintf(stderr, "fuzz_elf: %s: %s\n", what, strerror(errno));
    exit(2);
}

/* "FOLDER/NAME", to be freed; blanks in the name become dashes. */
static char *
path_in(const char *folder, const char *name)
{
    char *path;
    if (asprintf(&path, "%s/%s", folder, name) < 0)
        fail_errno(name);
    for (char *c = path + strlen(folder); *c != 0; c++)
        if (*c == ' ')
            *c = '-';
    return path;
}

static void
file_write(const char *path, const unsigned char *bytes, size_t size)
{
    FILE *file = fopen(path, "w");
    if (file == NULL || fwrite(bytes, 1, size, file) != size || fclose(file) != 0)
        fail_errno(path);
}

/* Try a file in every way. Returns the way that is a finding, and how it ended, or TRIAL_PLAIN: none. */
static enum trial
file_try(const char *path, int *ended)
{
    const int plain = trial_run(TRIAL_PLAIN, options.allocator, path);
    counts->variants++;
    if (plain >= 256) {
        counts->lost++;
        return TRIAL_PLAIN;
    }
    *(plain == ENDED_OPENED ? &counts->opened : &counts->refused) += 1;
    for (enum trial trial = TRIAL_MODULE; trial < TRIALS; trial++) {
        if (trial != TRIAL_MODULE && plain == ENDED_REFUSED)
            break; /* nobody has it open */
        *ended = trial_run(trial, options.allocator, path);
        if (*ended >= 256) {
            if (!trial_by_luck(options.allocator, path))
                return trial;
            counts->luck++;
            break;
        }
        if (plain == ENDED_OPENED && *ended == ENDED_REFUSED)
            counts->refused_by_us++;
    }
    return TRIAL_PLAIN;
}

/* Try a variant, in a file that is there for it. `label` says where it comes from. */
static void
variant_try(const struct variant *variant, const char *label, const char *path)
{
    static char text[TEXT_BYTES];
    char how[64];
    int ended = 0;
    file_write(path, variant_bytes(variant), variant->size);
    enum trial way = file_try(path, &ended);
    if (way == TRIAL_PLAIN)
        return;
    counts->findings++;
    trial_describe(ended, how, sizeof how);
    variant_print(variant, text);
    printf("FINDING %s %s: %s: %s\n", label, trial_names[way], how, text);
    fflush(stdout);
    char name[128];
    snprintf(name, sizeof name, "%s %s.so", label, trial_names[way]);
    char *saved = path_in(options.save, name);
    file_write(saved, variant_bytes(variant), variant->size);
    free(saved);
}

static void
progress(void)
{
    uint64_t done = counts->variants;
    if (options.progress && done % 500 == 0)
        fprintf(stderr, "\r%" PRIu64 " of %" PRIu64 " variants, %" PRIu64 " findings ", done, options.count, counts->findings);
}

static void
work(unsigned job, const char *folder)
{
    static struct variant variant;
    char label[64];
    snprintf(label, sizeof label, "job %u.so", job);
    char *path = path_in(folder, label);
    for (uint64_t i = job; i < options.count; i += options.jobs) {
        uint64_t number = options.from + i;
        variant_make(&variant, &libraries[number % library_count], options.seed, number);
        snprintf(label, sizeof label, "seed %" PRIu64 " variant %" PRIu64, options.seed, number);
        variant_try(&variant, label, path);
        progress();
    }
    remove(path);
    free(path);
}

static void
fuzz(const char *folder)
{
    for (unsigned job = 0; job < options.jobs; job++) {
        pid_t worker = fork();
        if (worker < 0)
            fail_errno("no worker");
        if (worker == 0) {
            madvise(counts, sizeof *counts, MADV_DONTFORK); /* a malformed library may write there */
            work(job, folder);
            fflush(stdout);
            _exit(0);
        }
    }
    int status, worst = 0;
    while (wait(&status) > 0)
        worst |= status;
    if (options.progress)
        fputc('\n', stderr);
    if (worst != 0) {
        fprintf(stderr, "fuzz_elf: a worker ended badly\n");
        exit(2);
    }
}

/* Each line of a list; "#" begins a comment. A library that is not given, or is not made so here, is left out. */
static void
replay_list(FILE *list, const char *folder)
{
    static struct variant variant;
    static char line[TEXT_BYTES];
    char *path = path_in(folder, "replayed.so"), label[64];
    unsigned number = 0;
    while (fgets(line, sizeof line, list) != NULL) {
        number++;
        size_t length = strcspn(line, ":");
        for (size_t i = 0; i < library_count && line[0] != '#'; i++)
            if (strlen(libraries[i].name) == length && memcmp(libraries[i].name, line, length) == 0 &&
                variant_parse(&variant, &libraries[i], line)) {
                snprintf(label, sizeof label, "line %u", number);
                variant_try(&variant, label, path);
            }
    }
    remove(path);
    free(path);
}

static void
replay(const char *folder)
{
    char magic[SELFMAG] = "", how[64];
    FILE *file = fopen(options.replay, "r");
    if (file == NULL)
        fail_errno(options.replay);
    if (fread(magic, 1, SELFMAG, file) == SELFMAG && memcmp(magic, ELFMAG, SELFMAG) == 0) {
        int ended = 0;
        enum trial way = file_try(options.replay, &ended);
        if (way != TRIAL_PLAIN) {
            counts->findings++;
            trial_describe(ended, how, sizeof how);
            printf("FINDING %s %s: %s\n", options.replay, trial_names[way], how);
        }
    } else {
        rewind(file);
        replay_list(file, folder);
    }
    fclose(file);
}

static int
try_here(const char *file)
{
    for (enum trial trial = 0; trial < TRIALS; trial++)
        if (strcmp(options.way, trial_names[trial]) == 0) {
            int ended = trial_here(trial, options.allocator, file);
            printf("%s: %s\n", options.way, ended == ENDED_OPENED ? "opened" : "refused");
            return 0;
        }
    fprintf(stderr, "fuzz_elf: no such way: %s (see --help)\n", options.way);
    return 2;
}

/* Addresses are the same each time, so that what a stray write hits is too. */
static void
addresses_fix(char **arguments)
{
    int now = personality(0xffffffff);
    if (now == -1 || (now & ADDR_NO_RANDOMIZE) || personality((unsigned long)now | ADDR_NO_RANDOMIZE) == -1)
        return;
    execv("/proc/self/exe", arguments);
}

static void
options_read(int count, char **arguments)
{
    static const struct option known[] = {
        {"seed", required_argument, NULL, 's'}, {"from", required_argument, NULL, 'f'}, {"count", required_argument, NULL, 'c'},
        {"jobs", required_argument, NULL, 'j'}, {"save", required_argument, NULL, 'd'}, {"allocator", required_argument, NULL, 'a'},
        {"replay", required_argument, NULL, 'r'}, {"try", required_argument, NULL, 't'}, {"progress", no_argument, NULL, 'p'},
        {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
    options.allocator = getenv("ALCOVE_TEST_MODULE");
    for (int option; (option = getopt_long(count, arguments, "", known, NULL)) != -1;)
        switch (option) {
        case 's': options.seed = strtoull(optarg, NULL, 0); break;
        case 'f': options.from = strtoull(optarg, NULL, 0); break;
        case 'c': options.count = strtoull(optarg, NULL, 0); break;
        case 'j': options.jobs = (unsigned)strtoul(optarg, NULL, 0); break;
        case 'd': options.save = optarg; break;
        case 'a': options.allocator = optarg; break;
        case 'r': options.replay = optarg; break;
        case 't': options.way = optarg; break;
        case 'p': options.progress = true; break;
        case 'h': fputs(usage, stdout); exit(0);
        default: exit(2); /* getopt has told */
        }
    bool complete = options.way != NULL ? optind == count - 1 : options.replay != NULL || optind < count;
    if (!complete || options.jobs == 0 || options.allocator == NULL) {
        fprintf(stderr, "fuzz_elf: %s (see --help)\n", options.allocator == NULL ? "no allocator is named" : "what is to be done?");
        exit(2);
    }
}

int
main(int count, char **arguments)
{
    options_read(count, arguments);
    addresses_fix(arguments);
    if (options.way != NULL)
        return try_here(arguments[optind]);

    const char *temporary = getenv("TMPDIR");
    char *folder = path_in(temporary != NULL ? temporary : "/tmp", "fuzz_elf-XXXXXX");
    counts = mmap(NULL, sizeof *counts, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    library_count = (size_t)(count - optind);
    libraries = calloc(library_count + 1, sizeof *libraries);
    if (mkdtemp(folder) == NULL || counts == MAP_FAILED || libraries == NULL)
        fail_errno("cannot begin");
    for (size_t i = 0; i < library_count; i++)
        library_read(&libraries[i], arguments[optind + (int)i]);

    if (options.replay != NULL)
        replay(folder);
    else
        fuzz(folder);
    rmdir(folder);
    printf("%" PRIu64 " variants: %" PRIu64 " opened by plain dlopen, %" PRIu64 " refused, %" PRIu64 " not survived, %" PRIu64
           " survived by luck; %" PRIu64 " refused by the loader alone; %" PRIu64 " findings\n",
           counts->variants, counts->opened, counts->refused, counts->lost, counts->luck, counts->refused_by_us,
           counts->findings);
    return counts->findings != 0;
}
