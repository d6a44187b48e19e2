/*
 * A test in a process of its own, for what cannot be undone or may end it. CHECK there is what
 * assert_true is elsewhere. Include cmocka.h first.
 */
#ifndef TESTS_CHILD_H
#define TESTS_CHILD_H

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHILD_SECONDS 120 /* then it hangs */

#define CHECK(condition)                                                            \
    do {                                                                            \
        if (!(condition)) {                                                         \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
            _exit(1);                                                               \
        }                                                                           \
    } while (0)

/* Start a child that runs a function. Its stderr goes to a descriptor, if that is not -1. */
static inline pid_t
child_start(void (*body)(void), int errors)
{
    fflush(NULL); /* the child has a copy of what is not written yet */
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        static const int fatal[] = { SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGSYS };
        for (unsigned i = 0; i < sizeof fatal / sizeof *fatal; i++)
            signal(fatal[i], SIG_DFL); /* not cmocka's, which would go on with the next test */
        if (errors != -1)
            dup2(errors, STDERR_FILENO);
        alarm(CHILD_SECONDS);
        body();
        _exit(0);
    }
    return child;
}

/* Run a function in a child, which must return from it or exit(0). */
static inline void
in_child(void (*body)(void))
{
    int status;
    pid_t child = child_start(body, -1);
    assert_int_equal(waitpid(child, &status, 0), child);
    if (WIFSIGNALED(status))
        fail_msg("the child was ended by signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
    assert_int_equal(WEXITSTATUS(status), 0);
}

/* Run a function in a child that may end in any way. Returns its wait status, and what it wrote to stderr. */
static inline int
child_status(void (*body)(void), char *message, size_t size)
{
    int ends[2], status;
    size_t used = 0;
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    pid_t child = child_start(body, ends[1]);
    close(ends[1]);
    char part[256];
    for (ssize_t got; (got = read(ends[0], part, sizeof part)) > 0;) {
        size_t kept = (size_t)got < size - 1 - used ? (size_t)got : size - 1 - used;
        memcpy(message + used, part, kept);
        used += kept;
    }
    message[used] = '\0';
    close(ends[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

#endif
