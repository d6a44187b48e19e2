/*
 * Which allocator a copy of the loader loads if its host does not say: what differs from copy to copy, and must be known before
 * the keeper is asked.
 */
#include "loader.h"

#include "ground/versions.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ENVIRONMENT_NAME ALCOVE_ENV_PREFIX "ALLOCATOR"
#define ENVIRONMENT_NAME_BEFORE ALCOVE_ENV_PREFIX "MODULE" /* its first name, which is still read where that one is not set */

static const char installed[] = ALCOVE_LIBDIR_MODULE;

static const char *
installed_name(void)
{
    const char *slash = strrchr(installed, '/');
    return slash != NULL ? slash + 1 : installed;
}

/* What a variable says; NULL: nothing. An empty one is none, and so is any in a program with more rights than its caller. */
static const char *
environment_read(const char *name)
{
    const char *value = secure_getenv(name);
    return value != NULL && value[0] != 0 ? value : NULL;
}

/* The search of a host that named no file: its own, the environment, then the installed one. */
static const char *
which_search(void *context)
{
    struct which *which = context;
    const char *path = which->search != NULL ? which->search(which->context) : NULL;
    if (path == NULL)
        path = environment_read(ENVIRONMENT_NAME);
    if (path == NULL)
        path = environment_read(ENVIRONMENT_NAME_BEFORE);
    if (path != NULL)
        return path;
    which->installed = true;
    return access(installed, F_OK) == 0 ? installed : installed_name();
}

int
which_fill(struct which *which, struct alcove_load_options *options, const struct alcove_load_options *given)
{
    int code = load_options_read(options, given);
    if (code != ALCOVE_OK)
        return code;
    *which = (struct which){.search = options->search, .context = options->context};
    options->size = sizeof *options;
    options->search = which_search;
    options->context = which;
    if (options->prefix == NULL)
        options->prefix = ALCOVE_PREFIX;
    return ALCOVE_OK;
}

int
which_told(const struct which *which, int code)
{
    if (code != ALCOVE_ENOENT || !which->installed)
        return code;
    return fail(ALCOVE_ENOENT, "no allocator: there is no %s, and %s is in no library folder. Install it, or name it in "
                               "options.path or in the environment variable " ENVIRONMENT_NAME,
                installed, installed_name());
}
