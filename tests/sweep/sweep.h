/*
 * A sweep opens each shared library of a system once plainly and once as a module, each in a fresh process, and
 * compares. One program, tests/sweep/sweep_one, does one library; dev/sweep does them all.
 *
 *   slots.c      what the dynamic linker has mapped, and where the malloc family is used
 *   opened.c     the two processes that open the library; each leaves a report
 *   sweep_one.c  starts them, compares their reports, and gives the verdict
 *
 * A report is lines of fields with tabs between them:
 *   event  what the process came to; both have the same events
 *   slot   by the plain one: object ("@" for the library), offset, symbol, routed name or "-", where it leads
 *   door   by the plain one: the library holds what cannot be a module, so that module_open must refuse it
 *   with   by the plain one, refused: it would open if this other library were there, so all is done anew with that
 *   doing  by the other one: what it tries next, to be known if it ends there
 *   fault  by the other one: what is not as it must be
 */
#ifndef SWEEP_H
#define SWEEP_H

#include <stdio.h>

#define REPORT_FD 3 /* where a process writes its report */
#define PLAIN_FD 4  /* where the module's process finds that of the plain one */

/* In the environment: libraries, with colons between them, that others may need to find names in (see `with`). */
#define HOSTS_VARIABLE "ALCOVE_SWEEP_HOSTS"

/* host: a library that is opened first, for all to see; NULL: none. Both return the process' exit status. */
int opened_plain(const char *library, const char *host);
int opened_module(const char *allocator, const char *library, const char *host);

#endif
