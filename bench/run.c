/*
 * Fresh processes: each (work, peer, round) runs in a child of its own, started by executing this
 * program again, and answers through a pipe. The children of a round are interleaved over the
 * peers. A child that hangs is killed, by its process id.
 */
#define _GNU_SOURCE
#include "works.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CHILD_SECONDS = 90, ANSWER_FD = 3 };

/* ---- the child's side ---- */

/* argv of a child: */
enum { ARG_SELF, ARG_CHILD, ARG_KIND, ARG_NAME, ARG_PEER, ARG_PATH, ARG_PREFIX, ARG_SECONDS, ARG_PARAMETER,
       ARG_SEED, ARG_LOADER, ARG_PLUGIN, ARG_COUNT };

struct answer {
    double value, reference, faults, lock_waits;
    struct growth growth;
    int has_table;
    char note[200];
};

int child_answer(const struct job *job, double faults)
{
    struct answer answer = {.value = job->value, .reference = job->reference, .faults = faults, .growth = job->growth,
                            .lock_waits = job->lock_waits, .has_table = job->api.table != NULL};
    memcpy(answer.note, job->note, sizeof answer.note);
    return write(ANSWER_FD, &answer, sizeof answer) == (ssize_t)sizeof answer ? 0 : -1;
}

static const struct curve *curve_find(const char *name)
{
    for (int i = 0; i < curve_count; i++)
        if (strcmp(curves[i].name, name) == 0)
            return &curves[i];
    return NULL;
}

int child_main(int argc, char **argv)
{
    if (argc != ARG_COUNT)
        return 2;
    struct peer peer = {.name = argv[ARG_PEER], .path = *argv[ARG_PATH] ? argv[ARG_PATH] : NULL,
                        .prefix = argv[ARG_PREFIX]};
    struct job job = {.peer = &peer, .seconds = atof(argv[ARG_SECONDS]), .parameter = atol(argv[ARG_PARAMETER]),
                      .seed = strtoull(argv[ARG_SEED], NULL, 10), .loader = argv[ARG_LOADER], .plugin = argv[ARG_PLUGIN]};

    work_function *function = NULL;
    unsigned flags = 0;
    const char *kind = argv[ARG_KIND];
    if (strcmp(kind, "curve") == 0 || strcmp(kind, "locks") == 0) {
        const struct curve *curve = curve_find(argv[ARG_NAME]);
        if (!curve)
            return 2;
        function = curve->function;
        flags = curve->flags;
        job.locks = strcmp(kind, "locks") == 0;
    } else if (strcmp(kind, "cycles") == 0) {
        function = strcmp(argv[ARG_NAME], "loader") == 0 ? cycles_by_loader : cycles_by_dlopen;
        flags = WORK_LOADS_ITSELF;
    } else if (strcmp(kind, "probe") != 0) {
        const struct work *work = work_find(argv[ARG_NAME]);
        if (!work)
            return 2;
        function = strcmp(kind, "reference") == 0 ? work->reference : work->function;
        flags = work->flags;
    }

    double faults = 0;
    int loaded = (flags & WORK_LOADS_ITSELF) || peer_load(&peer, &job.api, job.note, sizeof job.note) == 0;
    if (loaded && job.locks && !job.api.lock_counts)
        snprintf(job.note, sizeof job.note, "not a debug build: it has no %slock_counts", peer.prefix);
    else if (loaded) {
        double before = faults_so_far();
        if (function)
            function(&job);
        faults = faults_so_far() - before;
    }
    if (child_answer(&job, faults))
        return 2;
    /* Not exit(): an allocator's destructors are no part of any work. */
    _exit(0);
}

/* ---- the parent's side ---- */

struct request {
    const char *kind, *name;
    const struct peer *peer;
    long parameter;
    int round;
    unsigned flags;
    double seconds;
    const struct options *options;
};

struct running {
    pid_t process;
    int answers; /* read end of the pipe */
};

static void environment_for(const struct request *request)
{
    if (request->peer->big_tls) {
        const char *before = getenv("GLIBC_TUNABLES");
        char both[512];
        snprintf(both, sizeof both, "%s%sglibc.rtld.optional_static_tls=16384", before ? before : "", before ? ":" : "");
        setenv("GLIBC_TUNABLES", both, 1);
    }
    if (request->flags & WORK_LOADER)
        setenv("LD_PRELOAD", request->options->loader, 1);
}

static struct running child_start(const struct request *request)
{
    char seconds[32], parameter[32], seed[32];
    snprintf(seconds, sizeof seconds, "%g", request->seconds);
    snprintf(parameter, sizeof parameter, "%ld", request->parameter);
    snprintf(seed, sizeof seed, "%d", 1000 + request->round);
    const char *argv[ARG_COUNT + 1] = {
        "alcove-bench", "--child", request->kind, request->name, request->peer->name,
        request->peer->path ? request->peer->path : "", request->peer->prefix, seconds, parameter, seed,
        request->options->loader, request->options->plugin, NULL};

    struct running running = {-1, -1};
    int pipe_fd[2];
    if (pipe2(pipe_fd, O_CLOEXEC))
        return running;
    fflush(NULL);
    pid_t process = fork();
    if (process == 0) {
        int nothing = open("/dev/null", O_RDWR);
        dup2(nothing, 0);
        dup2(nothing, 1);
        if (pipe_fd[1] == ANSWER_FD)
            fcntl(ANSWER_FD, F_SETFD, 0);
        else
            dup2(pipe_fd[1], ANSWER_FD);
        environment_for(request);
        execv("/proc/self/exe", (char *const *)argv);
        _exit(127);
    }
    close(pipe_fd[1]);
    running.process = process;
    running.answers = pipe_fd[0];
    return running;
}

static enum cell_state child_finish(struct running running, struct answer *answer, int seconds)
{
    memset(answer, 0, sizeof *answer);
    if (running.process < 0) {
        snprintf(answer->note, sizeof answer->note, "cannot start a process: %s", strerror(errno));
        return CELL_FAILED;
    }
    struct pollfd wait = {.fd = running.answers, .events = POLLIN};
    double end = clock_ns() + seconds * 1e9;
    int ready = 0, status = 0;
    while (ready <= 0) {
        double left = (end - clock_ns()) / 1e6;
        ready = left > 0 ? poll(&wait, 1, (int)left + 1) : 0;
        if (left <= 0 || (ready < 0 && errno != EINTR))
            break;
    }
    if (ready <= 0)
        kill(running.process, SIGKILL);
    int whole = ready > 0 && read(running.answers, answer, sizeof *answer) == (ssize_t)sizeof *answer;
    close(running.answers);
    waitpid(running.process, &status, 0);

    if (ready <= 0) {
        snprintf(answer->note, sizeof answer->note, "killed after %d s", seconds);
        return CELL_TIMED_OUT;
    }
    if (!whole) {
        if (WIFSIGNALED(status))
            snprintf(answer->note, sizeof answer->note, "crashed: %s", strsignal(WTERMSIG(status)));
        else
            snprintf(answer->note, sizeof answer->note, "ended with status %d", WEXITSTATUS(status));
        return CELL_CRASHED;
    }
    return *answer->note ? CELL_FAILED : CELL_DONE;
}

static void cell_add(struct cell *cell, enum cell_state state, const struct answer *answer, double reference)
{
    if (state != CELL_DONE) {
        cell->state = state;
        memcpy(cell->note, answer->note, sizeof cell->note);
        return;
    }
    if (cell->state == CELL_EMPTY)
        cell->state = CELL_DONE;
    cell->value[cell->count] = answer->value;
    cell->reference[cell->count] = reference > 0 ? reference : answer->reference;
    cell->faults[cell->count] = answer->faults;
    cell->lock_waits[cell->count] = answer->lock_waits;
    cell->count++;
}

double cell_median(const struct cell *cell)
{
    return median_of(cell->value, cell->count);
}

double cell_faults(const struct cell *cell)
{
    return median_of(cell->faults, cell->count);
}

double cell_lock_waits(const struct cell *cell)
{
    return median_of(cell->lock_waits, cell->count);
}

double cell_min(const struct cell *cell)
{
    double least = cell->count ? cell->value[0] : 0;
    for (int i = 1; i < cell->count; i++)
        if (cell->value[i] < least)
            least = cell->value[i];
    return least;
}

double cell_reference(const struct cell *cell)
{
    double ratio[MAX_ROUNDS];
    for (int i = 0; i < cell->count; i++) {
        if (cell->reference[i] <= 0)
            return 0;
        ratio[i] = cell->value[i] / cell->reference[i];
    }
    return median_of(ratio, cell->count);
}

/* ---- which and when ---- */

int peer_wanted(const struct peer *peer, unsigned flags)
{
    if (peer->missing)
        return 0;
    if (flags & WORK_LIBC_ONLY)
        return peer == &peers[PEER_LIBC];
    if (flags & WORK_TABLE_ONLY)
        return peer->has_table;
    return !((flags & WORK_NOT_LIBC) && peer == &peers[PEER_LIBC]);
}

int name_wanted(const char *name, const char *group, const struct options *options)
{
    if (!options->only)
        return 1;
    char patterns[512];
    snprintf(patterns, sizeof patterns, "%s", options->only);
    for (char *rest = patterns, *one; (one = strsep(&rest, ","));)
        if (fnmatch(one, name, 0) == 0 || strcmp(one, group) == 0)
            return 1;
    return 0;
}

static int wanted_by_name(const struct work *work, const struct options *options)
{
    if (options->quick && !options->only && (work->flags & WORK_NOT_QUICK))
        return 0;
    return name_wanted(work->name, work->group, options);
}

/* The floor is measured with every row that is compared with it. */
static int wanted_work(const struct work *work, const struct options *options)
{
    if (wanted_by_name(work, options))
        return 1;
    if (work != work_find("empty"))
        return 0;
    for (int w = 0; w < work_count; w++)
        for (int i = 0; i < MAX_TARGETS; i++)
            if (works[w].targets[i].kind == TARGET_FLOOR && wanted_by_name(&works[w], options))
                return 1;
    return 0;
}

static void progress(const char *format, const char *first, const char *second, int done, int all)
{
    if (!isatty(2))
        return;
    fprintf(stderr, "\r\033[K");
    if (format)
        fprintf(stderr, format, done, all, first, second);
    fflush(stderr);
}

void peers_probe(const struct options *options)
{
    for (int i = 0; i < peer_count; i++) {
        struct peer *peer = &peers[i];
        struct request request = {.kind = "probe", .name = "-", .peer = peer, .options = options};
        struct answer answer;
        enum cell_state state = child_finish(child_start(&request), &answer, CHILD_SECONDS);
        if (state == CELL_FAILED && strstr(answer.note, "static TLS")) {
            peer->big_tls = 1;
            state = child_finish(child_start(&request), &answer, CHILD_SECONDS);
        }
        peer->missing = state != CELL_DONE;
        peer->has_table = answer.has_table;
        memcpy(peer->why, answer.note, sizeof peer->why);
        if (peer->missing)
            fprintf(stderr, "alcove-bench: without %s: %s (%s)\n", peer->name, peer->why, peer->install);
    }
}

static void run_cell(struct request request, work_function *reference_function, struct cell *cell)
{
    struct answer answer, reference = {.value = 0};
    if (cell->state > CELL_DONE)
        return;
    if ((request.flags & WORK_LOADER) && access(request.options->loader, R_OK)) {
        snprintf(answer.note, sizeof answer.note, "no loader library: %.160s", request.options->loader);
        cell_add(cell, CELL_FAILED, &answer, 0);
        return;
    }
    if (reference_function) {
        struct request other = request;
        other.kind = "reference";
        other.flags &= ~(unsigned)WORK_LOADER;
        enum cell_state state = child_finish(child_start(&other), &reference, CHILD_SECONDS);
        if (state != CELL_DONE) {
            cell_add(cell, state, &reference, 0);
            return;
        }
    }
    enum cell_state state = child_finish(child_start(&request), &answer, CHILD_SECONDS);
    cell_add(cell, state, &answer, reference.value);
}

static void run_together(struct request request, struct cell *row)
{
    struct running running[MAX_PEERS];
    for (int i = 0; i < peer_count; i++) {
        request.peer = &peers[i];
        if (peer_wanted(&peers[i], request.flags))
            running[i] = child_start(&request);
    }
    for (int i = 0; i < peer_count; i++)
        if (peer_wanted(&peers[i], request.flags)) {
            struct answer answer;
            enum cell_state state = child_finish(running[i], &answer, CHILD_SECONDS);
            cell_add(&row[i], state, &answer, 0);
        }
}

int run_works(const struct options *options, struct cell (*cells)[MAX_PEERS])
{
    int all = 0, done = 0;
    for (int w = 0; w < work_count; w++)
        all += wanted_work(&works[w], options);
    if (!all)
        return 0;
    all *= options->rounds;

    for (int round = 0; round < options->rounds; round++) {
        for (int w = 0; w < work_count; w++) {
            const struct work *work = &works[w];
            if (!wanted_work(work, options))
                continue;
            done++;
            if (round > 0 && (work->flags & (WORK_TOGETHER | WORK_ONE_ROUND)))
                continue;
            struct request request = {.kind = "work", .name = work->name, .parameter = work->parameter, .round = round,
                                      .flags = work->flags, .seconds = options->seconds, .options = options};
            if (work->flags & WORK_TOGETHER) {
                progress("[%d/%d] %s %s", work->name, "all peers", done, all);
                run_together(request, cells[w]);
                continue;
            }
            for (int i = 0; i < peer_count; i++) {
                /* Another one goes first in each round. */
                int p = (i + round) % peer_count;
                request.peer = &peers[p];
                if (!peer_wanted(&peers[p], work->flags))
                    continue;
                progress("[%d/%d] %s %s", work->name, peers[p].name, done, all);
                run_cell(request, work->reference, &cells[w][p]);
            }
        }
    }
    progress(NULL, "", "", 0, 0);
    return 1;
}

void run_curve(const struct options *options, const struct curve *curve, struct cell (*cells)[MAX_PEERS],
               struct cell locks[MAX_POINTS])
{
    int points = 0;
    while (curve->points[points])
        points++;
    for (int round = 0; round < options->rounds; round++)
        for (int point = 0; point < points; point++) {
            struct request request = {.kind = "curve", .name = curve->name, .parameter = curve->points[point], .round = round,
                                      .flags = curve->flags, .seconds = options->seconds, .options = options};
            for (int i = 0; i < peer_count; i++) {
                int p = (i + round) % peer_count;
                if (!peer_wanted(&peers[p], curve->flags))
                    continue;
                progress("[%d/%d] curve %s %s", curve->name, peers[p].name, round * points + point + 1,
                         points * options->rounds);
                request.peer = &peers[p];
                run_cell(request, NULL, &cells[point][p]);
            }
            if (options->locks.path && (curve->flags & WORK_LOCKS)) {
                request.kind = "locks";
                request.peer = &options->locks;
                run_cell(request, NULL, &locks[point]);
            }
        }
    progress(NULL, "", "", 0, 0);
}

enum cell_state run_cycles(const struct options *options, const struct peer *peer, int with_loader,
                           struct growth *growth, char note[200])
{
    struct request request = {.kind = "cycles", .name = with_loader ? "loader" : "dlopen", .peer = peer,
                              .parameter = options->cycles, .flags = with_loader ? WORK_LOADER : 0, .options = options};
    struct answer answer;
    memset(growth, 0, sizeof *growth);
    if (with_loader && access(options->loader, R_OK)) {
        snprintf(note, sizeof answer.note, "no loader library: %.160s", options->loader);
        return CELL_FAILED;
    }
    progress("[%d/%d] cycles of %s %s", peer->name, with_loader ? "with the loader" : "", (int)(peer - peers) + 1, peer_count);
    enum cell_state state = child_finish(child_start(&request), &answer, CHILD_SECONDS * (1 + options->cycles / 1000));
    progress(NULL, "", "", 0, 0);
    *growth = answer.growth;
    memcpy(note, answer.note, sizeof answer.note);
    return state;
}
