/*
 * Opens a library as dlopen would, called by the loader's caller, and says in a code and a message why it cannot.
 */
#include "keeper/dispatch.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* dlopen returns a library that is loaded by that very path whatever lies there now: nothing, a newer one, a script. So the
 * file is not looked at. Only by those names and where there is no file is it safe to ask dlopen, which would wait at a pipe. */
static void *
loaded_open(const char *path, int flags)
{
    if (!library_is_loaded(path) && access(path, F_OK) == 0)
        return NULL;
    void *handle = linker_open(path, flags | RTLD_NOLOAD);
    if (handle == NULL)
        dlerror();
    return handle;
}

/* What dlopen said, without the path that it mostly begins with: the message has that already. */
static const char *
reason_of(const char *words, const char *path)
{
    size_t length = strlen(path);
    if (strncmp(words, path, length) != 0 || words[length] != ':')
        return words;
    words += length + 1;
    return words + strspn(words, " ");
}

static int
dlopen_fail(const char *path, const char *words)
{
    struct shown name, reason;
    text_show(&name, path);
    if (words == NULL)
        return fail(ALCOVE_ELOAD, "the dynamic linker refused %s: it is not loaded, and RTLD_NOLOAD was asked for", name.text);
    text_show(&reason, reason_of(words, path));
    /* Only in words does it say that it found a name without a slash nowhere. */
    bool nowhere = strchr(path, '/') == NULL && strstr(words, path) != NULL && strstr(words, strerror(ENOENT)) != NULL;
    if (!nowhere)
        return fail(ALCOVE_ELOAD, "the dynamic linker refused %s: %s", name.text, reason.text);
    if (access(path, F_OK) == 0)
        return fail(ALCOVE_ENOENT, "%s is in no library folder; for the file in the current folder write ./%s", name.text,
                    name.text);
    return fail(ALCOVE_ENOENT, "%s is in none of the folders that the dynamic linker searches (%s)", name.text, reason.text);
}

/* With the path as it was found. What dlopen alone can replace in a path it alone can judge. */
static void *
found_open(const char *path, int flags, int *code)
{
    bool checked = strchr(path, '/') != NULL && !path_has_tokens(path);
    void *handle = checked ? loaded_open(path, flags) : NULL;
    if (handle != NULL)
        return handle;
    if (checked)
        *code = elf_file_check(path);
    if (*code != ALCOVE_OK)
        return NULL;
    struct opening *named = opening_named(path);
    handle = linker_open(path, flags);
    opening_unnamed(named);
    if (handle == NULL)
        *code = dlopen_fail(path, dlerror());
    return handle;
}

void *
library_open(const char *path, int flags, const void *caller, int *code)
{
    char *found;
    *code = library_find(path, caller, &found);
    if (*code != ALCOVE_OK)
        return NULL;
    void *handle = found_open(found != NULL ? found : path, flags, code);
    free(found);
    return handle;
}
