/*
 * One library of a sweep: opened plainly and as a module, each in a fresh process.
 *
 *   sweep_one ALLOCATOR LIBRARY
 *
 * Prints one line: verdict, library, and what there is to say, with tabs between them. The verdicts:
 *   same      nothing differs
 *   refused   by dlopen, and by module_open
 *   differs
 *   crashed   the module's process ended by a signal or hung, the plain one did not
 * The exit status is 0, but 2 if it could not do its work.
 */
#include "sweep.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SECONDS 30   /* that a process may take */
#define VERDICT 2000 /* bytes of a line: so few that lines of several of us do not mix */
#define HUNG (-1)    /* in place of a status */

/* A process that has ended. */
struct run {
    int status;
    FILE *out, *err, *report;
};

static const char *allocator, *library;
static const char *host; /* that the library needs; NULL: none */

static void
give_up(const char *what)
{
    fprintf(stderr, "sweep_one: %s: %s\n", what, strerror(errno));
    exit(2);
}

static FILE *
file_new(void)
{
    FILE *file = tmpfile();
    if (file == NULL)
        give_up("no temporary file");
    return file;
}

/* In the child. It is a group of its own, so that what it starts can be ended with it. */
static void
child_exec(const struct run *run, const char *mode, FILE *plain)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    int from[] = {open("/dev/null", O_RDONLY), fileno(run->out), fileno(run->err), fileno(run->report),
                  plain != NULL ? fileno(plain) : -1};
    int count = plain != NULL ? 5 : 4;
    for (int fd = 0; fd < count; fd++) /* out of the way of each other */
        if ((from[fd] = fcntl(from[fd], F_DUPFD, 10)) < 0)
            _exit(2);
    for (int fd = 0; fd < count; fd++)
        if (dup2(from[fd], fd) < 0)
            _exit(2);
    for (int fd = count; fd < 100; fd++)
        close(fd);
    execl("/proc/self/exe", "sweep_one", mode, allocator, library, host, (char *)NULL);
    _exit(2);
}

/* Wait for SIGCHLD, which is blocked, so that there is a time limit. */
static int
child_wait(pid_t pid)
{
    sigset_t child;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    int status = 0;
    for (time_t start = time(NULL); time(NULL) - start < SECONDS;) {
        if (waitpid(pid, &status, WNOHANG) == pid)
            return status;
        sigtimedwait(&child, NULL, &(struct timespec){.tv_sec = 1});
    }
    return HUNG;
}

static struct run
run_mode(const char *mode, FILE *plain)
{
    struct run run = {0, file_new(), file_new(), file_new()};
    if (plain != NULL)
        rewind(plain);
    pid_t pid = fork();
    if (pid < 0)
        give_up("fork");
    if (pid == 0)
        child_exec(&run, mode, plain);
    setpgid(pid, pid);
    run.status = child_wait(pid);
    kill(-pid, SIGKILL);
    if (run.status == HUNG)
        waitpid(pid, NULL, 0);
    return run;
}

static void
run_end(struct run *run)
{
    fclose(run->out);
    fclose(run->err);
    fclose(run->report);
}

/* A file's text. What differs from one process to the next is made alike: addresses, process numbers, times. */
static char *
text_of(FILE *file)
{
    size_t size = 0, length = 0;
    char *text = NULL;
    FILE *out = open_memstream(&text, &size);
    bool number = false;
    rewind(file);
    for (int c; (c = getc(file)) != EOF && length < 1 << 20; length++) {
        bool digit = isdigit(c) || (number && (isxdigit(c) || c == 'x'));
        if (!digit)
            putc(c, out);
        else if (!number)
            putc('#', out);
        number = digit;
    }
    fclose(out);
    return text;
}

static bool
files_alike(FILE *one, FILE *other)
{
    char *a = text_of(one), *b = text_of(other);
    bool alike = strcmp(a, b) == 0;
    free(a);
    free(b);
    return alike;
}

/* The next line of this kind, without its kind. */
static bool
line_next(FILE *report, const char *kind, char *out, size_t size)
{
    size_t length = strlen(kind);
    while (fgets(out, (int)size, report) != NULL) {
        if (strncmp(out, kind, length) != 0 || out[length] != '\t')
            continue;
        out[strcspn(out, "\n")] = 0;
        memmove(out, out + length + 1, strlen(out + length));
        return true;
    }
    return false;
}

static bool
line_find(FILE *report, const char *kind, const char *start, char *out, size_t size)
{
    rewind(report);
    while (line_next(report, kind, out, size))
        if (strncmp(out, start, strlen(start)) == 0)
            return true;
    return false;
}

/* --- the verdict */

static char said[VERDICT];

/* Another thing to say. */
static void
say(const char *format, ...)
{
    size_t used = strlen(said);
    if (used != 0 && used + 2 < sizeof said)
        used += (size_t)snprintf(said + used, sizeof said - used, "; ");
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(said + used, sizeof said - used, format, arguments);
    va_end(arguments);
}

static const char *
status_text(char out[static 64], int status)
{
    if (status == HUNG)
        snprintf(out, 64, "hung");
    else if (WIFSIGNALED(status))
        snprintf(out, 64, "%s", strsignal(WTERMSIG(status)));
    else
        snprintf(out, 64, "exit status %d", WEXITSTATUS(status));
    return out;
}

static bool
crashed(int status)
{
    return status == HUNG || WIFSIGNALED(status);
}

/* The last thing that a process told. */
static void
last_step(FILE *report, char *out, size_t size)
{
    char line[4096];
    snprintf(out, size, "starting");
    rewind(report);
    while (fgets(line, sizeof line, report) != NULL) {
        char *tab = strchr(line, '\t');
        if (tab == NULL || (strncmp(line, "event\t", 6) != 0 && strncmp(line, "doing\t", 6) != 0))
            continue;
        line[strcspn(line, "\n")] = 0;
        snprintf(out, size, "%s", tab + 1);
    }
}

static void
events_compare(FILE *plain, FILE *module)
{
    char one[4096], other[4096];
    rewind(plain);
    rewind(module);
    for (;;) {
        bool more = line_next(plain, "event", one, sizeof one), others = line_next(module, "event", other, sizeof other);
        if (!more && !others)
            return;
        if (more && others && (strcmp(one, other) == 0 || (strncmp(one, "refused", 7) == 0 && strncmp(other, "refused", 7) == 0)))
            continue;
        say("plain: %s; as a module: %s", more ? one : "nothing more", others ? other : "nothing more");
        return;
    }
}

/* What two plain runs print differs where a library prints what is never the same; then nothing can be said. */
static void
output_compare(struct run *plain, struct run *module)
{
    bool out = files_alike(plain->out, module->out), err = files_alike(plain->err, module->err);
    if (out && err)
        return;
    struct run again = run_mode("--plain", NULL);
    bool steady = files_alike(plain->out, again.out) && files_alike(plain->err, again.err);
    run_end(&again);
    if (!steady)
        return;
    char *text = text_of(out ? module->err : module->out);
    text[strcspn(text, "\n")] = 0;
    say("it prints something else to %s: \"%.200s\"", out ? "stderr" : "stdout", text);
    free(text);
}

static const char *
verdict(struct run *plain, struct run *module)
{
    char line[4096], step[4096], one[64], other[64];
    bool refused = line_find(plain->report, "event", "refused", line, sizeof line);
    bool opened = line_find(plain->report, "event", "opened", step, sizeof step);
    char why[256] = "";
    if (refused)
        snprintf(why, sizeof why, "%s", line);
    else if (!opened)
        snprintf(why, sizeof why, "its constructors end the process: %s", status_text(one, plain->status));

    if (crashed(module->status) && !(crashed(plain->status) && plain->status == module->status)) {
        last_step(module->report, step, sizeof step);
        say("%s at: %s", status_text(one, module->status), step);
        char *text = text_of(module->err);
        text[strcspn(text, "\n")] = 0;
        if (text[0] != 0)
            say("\"%.200s\"", text);
        free(text);
        return "crashed";
    }
    if (line_find(plain->report, "door", "", line, sizeof line)) {
        if (!line_find(module->report, "event", "refused", line, sizeof line))
            say("module_open does not refuse it");
        else if (strstr(line, "cannot be a module") == NULL)
            say("%s", line);
        if (said[0] != 0)
            return "differs";
        say("%s", line);
        return "same";
    }
    rewind(module->report);
    while (line_next(module->report, "fault", line, sizeof line))
        say("%s", line);
    events_compare(plain->report, module->report);
    if (plain->status != module->status)
        say("plain: %s; as a module: %s", status_text(one, plain->status), status_text(other, module->status));
    output_compare(plain, module);
    if (said[0] != 0)
        return "differs";
    if (opened && host != NULL)
        say("with %s", host);
    if (opened)
        return "same";
    say("%s", why);
    return "refused";
}

int
main(int argc, char **argv)
{
    if (argc >= 4 && strcmp(argv[1], "--plain") == 0)
        return opened_plain(argv[3], argv[4]);
    if (argc >= 4 && strcmp(argv[1], "--module") == 0)
        return opened_module(argv[2], argv[3], argv[4]);
    if (argc != 3) {
        fprintf(stderr, "usage: sweep_one ALLOCATOR LIBRARY\n");
        return 2;
    }
    allocator = argv[1];
    library = argv[2];
    sigset_t child;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    sigprocmask(SIG_BLOCK, &child, NULL);

    struct run plain = run_mode("--plain", NULL);
    char found[4096];
    if (line_find(plain.report, "with", "", found, sizeof found)) {
        host = found;
        run_end(&plain);
        plain = run_mode("--plain", NULL);
    }
    struct run module = run_mode("--module", plain.report);
    const char *word = verdict(&plain, &module);
    char text[2 * VERDICT];
    int length = snprintf(text, sizeof text, "%s\t%s\t%s\n", word, library, said);
    bool written = write(STDOUT_FILENO, text, (size_t)length) == length;
    run_end(&plain);
    run_end(&module);
    return written ? 0 : 2;
}
