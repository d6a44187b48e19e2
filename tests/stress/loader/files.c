/* Copies of files, each of which the dynamic linker takes for a library of its own. */
#include "module.h"

#include "tests/stress/loader/scenario.h"

static char folder[] = "/tmp/alcove-stress-XXXXXX";

const char *
file_of(const char *kind, unsigned number)
{
    static __thread char path[sizeof folder + 64];
    snprintf(path, sizeof path, "%s/%s-%u.so", folder, kind, number);
    return path;
}

static void
plugins_copy(const char *plugin, unsigned count)
{
    char from[PATH_MAX];
    snprintf(from, sizeof from, "%s/%s.so", getenv("ALCOVE_TEST_PLUGINS"), plugin);
    for (unsigned i = 0; i < count; i++)
        assert_true(file_copy(from, file_of(plugin, i)));
}

bool
archive_is_built(void)
{
    const char *built = getenv("ALCOVE_TEST_STATIC");
    return built != NULL && built[0] != 0;
}

int
files_make(void **unused)
{
    (void)unused;
    assert_non_null(mkdtemp(folder));
    plugins_copy("blocks", OPENERS + 1);
    plugins_copy("blocks_two", 1);
    plugins_copy("keeper", OPENERS + 1);
    plugins_copy("walker", OPENERS);
    if (archive_is_built())
        plugins_copy("extension_one", LOADERS);
    for (unsigned i = 0; i < ALLOCATORS; i++)
        assert_true(module_copy(file_of("allocator", i)));
    return 0;
}

int
files_remove(void **unused)
{
    (void)unused;
    char command[sizeof folder + 16];
    snprintf(command, sizeof command, "rm -r %s", folder);
    return system(command);
}
