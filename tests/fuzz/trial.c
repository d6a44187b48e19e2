/*
 * Opens one file in one of four ways, in a child that may end as it likes.
 *
 * Each child loads the allocator itself. Were it loaded in the parent, the plain trial would be none, and what is
 * in the process before the loader comes could not be tried.
 */
#include "tests/fuzz/fuzz.h"

#include <alcove/loader.h>

#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define ADDRESS_SPACE ((rlim_t)4 << 30) /* bytes; a header that wants more is refused */

const char *const trial_names[TRIALS] = {"plain", "module", "earlier", "later"};

/* A child that takes longer hangs. With the loader it is given more: only what is surely too long is a finding. */
static const struct {
    rlim_t processor;
    unsigned clock;
} seconds[TRIALS] = {{1, 3}, {5, 60}, {5, 60}, {5, 60}};

/* Of the libraries that are tried, and one that each finds in libc if its own tables do not stop the search. */
static const char *const symbols[] = {"corpus_work", "lua_newstate", "xmlReadMemory", "free"};
#define SYMBOLS (sizeof symbols / sizeof *symbols)

static int
plain(const char *file)
{
    void *handle = dlopen(file, RTLD_NOW | RTLD_LOCAL);
    if (handle == NULL) {
        dlerror();
        return ENDED_REFUSED;
    }
    for (size_t i = 0; i < SYMBOLS; i++)
        if (dlsym(handle, symbols[i]) == NULL)
            dlerror();
    dlclose(handle);
    return ENDED_OPENED;
}

/* The allocator in service, or NULL: refused with a message is as good as done. */
static alcove_allocator *
load(const char *path)
{
    alcove_allocator *allocator = NULL;
    return alcove_load(&allocator, &(struct alcove_load_options){.path = path}) == 0 ? allocator : NULL;
}

static void
unload(alcove_allocator *allocator)
{
    if (allocator != NULL)
        alcove_unload(allocator, ALCOVE_UNLOAD_RELEASE);
}

static int
as_module(const char *path, const char *file)
{
    alcove_allocator *allocator = load(path);
    alcove_module *module = NULL;
    if (allocator == NULL || alcove_module_open(allocator, file, NULL, &module) != 0) {
        unload(allocator);
        return ENDED_REFUSED;
    }
    struct alcove_module_stats stats;
    struct alcove_report report;
    for (size_t i = 0; i < SYMBOLS; i++)
        alcove_module_symbol(module, symbols[i]);
    alcove_module_stats(module, &stats);
    alcove_module_close(module, 0, &report);
    unload(allocator);
    return ENDED_OPENED;
}

static int
before_loader(const char *path, const char *file)
{
    void *handle = dlopen(file, RTLD_NOW | RTLD_LOCAL);
    if (handle == NULL)
        return ENDED_REFUSED;
    alcove_allocator *allocator = load(path);
    alcove_refresh();
    for (size_t i = 0; i < SYMBOLS; i++)
        dlsym(handle, symbols[i]);
    unload(allocator);
    dlclose(handle);
    return allocator != NULL ? ENDED_OPENED : ENDED_REFUSED;
}

static int
after_loader(const char *path, const char *file)
{
    alcove_allocator *allocator = load(path);
    void *handle = dlopen(file, RTLD_NOW | RTLD_LOCAL);
    int ended = handle != NULL && alcove_refresh() == 0 ? ENDED_OPENED : ENDED_REFUSED;
    for (size_t i = 0; i < SYMBOLS && handle != NULL; i++)
        dlsym(handle, symbols[i]);
    unload(allocator);
    if (handle != NULL)
        dlclose(handle);
    return ended;
}

/* Surroundings that a library must not depend on. */
#define SURROUNDINGS_JUNK 1    /* blocks that were used have junk in them */
#define SURROUNDINGS_ALONE 2   /* nothing is mapped below the library, and above it what must stay as it is */
#define SURROUNDINGS_LIBRARY 4 /* another one was opened before */
#define SURROUNDINGS_PLAIN 8   /* so many are made of these */
#define SURROUNDINGS_LOADER 8  /* the loader is there, and does nothing */
#define SURROUNDINGS_NONE (-1)

/* Of each size a few more than a thread's cache takes, which calloc passes by. Every second one stays. */
#define JUNK_SIZES 64
#define JUNK_OF_SIZE 20

static void
junk_make(void)
{
    void *blocks[JUNK_SIZES * JUNK_OF_SIZE];
    for (size_t i = 0; i < JUNK_SIZES * JUNK_OF_SIZE; i++) {
        size_t size = 24 + i / JUNK_OF_SIZE * 32;
        if ((blocks[i] = malloc(size)) != NULL)
            memset(blocks[i], 0xa5, size);
    }
    for (size_t i = 0; i < JUNK_SIZES * JUNK_OF_SIZE; i += 2)
        free(blocks[i]);
}

/* What lies above a library that is alone: zeros that cannot be written, and that show whether they are still the same. */
static struct {
    volatile unsigned char *start; /* NULL: no library is alone */
    int file;
} above;
#define ABOVE_BYTES ((size_t)1 << 20)
#define HOLE_BYTES ((size_t)64 << 20)

/* The kernel takes the highest hole that is large enough: fill the small ones, and leave one below `above`. */
static void
loneliness_make(void)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    above.file = memfd_create("above", MFD_CLOEXEC);
    char *region = mmap(NULL, HOLE_BYTES * 2 + ABOVE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (region == MAP_FAILED || above.file < 0 || ftruncate(above.file, (off_t)ABOVE_BYTES) != 0)
        return;
    char *filler;
    do
        filler = mmap(NULL, page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    while (filler != MAP_FAILED && filler > region);
    void *start = mmap(region + 2 * HOLE_BYTES, ABOVE_BYTES, PROT_READ, MAP_SHARED | MAP_FIXED, above.file, 0);
    munmap(region + HOLE_BYTES, HOLE_BYTES);
    if (start != MAP_FAILED)
        above.start = start;
}

static bool
above_is_same(void)
{
    for (size_t at = 0; above.start != NULL && at < ABOVE_BYTES; at += 4096)
        if (pwrite(above.file, "x", 1, (off_t)at) != 1 || above.start[at] != 'x')
            return false;
    return true;
}

/* The plain trial as far as it goes with any library that is opened besides. Returns 0 if that ended badly. */
static int
plain_elsewhere(int surroundings, const char *allocator, const char *file)
{
    if (surroundings & SURROUNDINGS_JUNK)
        junk_make();
    if (surroundings & SURROUNDINGS_LIBRARY)
        dlopen(allocator, RTLD_NOW | RTLD_LOCAL);
    if (surroundings & SURROUNDINGS_ALONE)
        loneliness_make();
    if (surroundings & SURROUNDINGS_LOADER)
        load(allocator);
    void *handle = dlopen(file, RTLD_NOW | RTLD_LOCAL);
    bool is_same = above_is_same();
    void *other = dlopen(allocator, RTLD_NOW | RTLD_LOCAL);
    if (other != NULL)
        dlclose(other);
    int ended = plain(file);
    if (handle != NULL)
        dlclose(handle);
    return is_same ? ended : 0;
}

int
trial_here(enum trial trial, const char *allocator, const char *file)
{
    switch (trial) {
    case TRIAL_MODULE: return as_module(allocator, file);
    case TRIAL_EARLIER: return before_loader(allocator, file);
    case TRIAL_LATER: return after_loader(allocator, file);
    default: return plain(file);
    }
}

static void
limit(int what, rlim_t most)
{
    setrlimit(what, &(struct rlimit){.rlim_cur = most, .rlim_max = most});
}

/* What the dynamic linker has to say about such files is much. */
static void
silence(void)
{
    int nowhere = open("/dev/null", O_RDWR);
    dup2(nowhere, STDOUT_FILENO);
    dup2(nowhere, STDERR_FILENO);
}

static int
run(enum trial trial, int surroundings, const char *allocator, const char *file)
{
    int status = 0;
    pid_t child = fork();
    if (child == 0) {
        silence();
        limit(RLIMIT_CORE, 0);
        limit(RLIMIT_AS, ADDRESS_SPACE);
        limit(RLIMIT_CPU, seconds[trial].processor);
        alarm(seconds[trial].clock);
        _exit(surroundings == SURROUNDINGS_NONE ? trial_here(trial, allocator, file)
                                                : plain_elsewhere(surroundings, allocator, file));
    }
    if (child < 0 || waitpid(child, &status, 0) != child) {
        perror("fuzz_elf: no child");
        exit(2);
    }
    if (WIFEXITED(status) && (WEXITSTATUS(status) == ENDED_OPENED || WEXITSTATUS(status) == ENDED_REFUSED))
        return WEXITSTATUS(status);
    return status + 256;
}

int
trial_run(enum trial trial, const char *allocator, const char *file)
{
    return run(trial, SURROUNDINGS_NONE, allocator, file);
}

/* In a new process, where another allocator comes before libc's: a library whose imports are mixed up gives it what is no block. */
static bool
ends_badly_beside(const char *allocator, const char *preloaded, const char *file)
{
    int status = 0;
    pid_t child = fork();
    if (child == 0) {
        silence();
        limit(RLIMIT_CORE, 0);
        alarm(seconds[TRIAL_PLAIN].clock);
        setenv("LD_PRELOAD", preloaded, 1);
        setenv("GLIBC_TUNABLES", "glibc.malloc.check=3", 1);
        execl("/proc/self/exe", "fuzz_elf", "--allocator", allocator, "--try", trial_names[TRIAL_PLAIN], file, (char *)NULL);
        _exit(0);
    }
    return child > 0 && waitpid(child, &status, 0) == child && !(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

bool
trial_by_luck(const char *allocator, const char *file)
{
    static const char *const allocators[] = {"libmimalloc.so.2", "libjemalloc.so.2", "libc_malloc_debug.so.0"};
    for (size_t i = 0; i < sizeof allocators / sizeof allocators[0]; i++)
        if (ends_badly_beside(allocator, allocators[i], file))
            return true;
    for (int kind = 0; kind < SURROUNDINGS_PLAIN; kind++)
        if (run(TRIAL_PLAIN, kind, allocator, file) >= 256)
            return true;
    /* A fault of the loader's does not depend on what lies above the library. */
    return run(TRIAL_PLAIN, SURROUNDINGS_LOADER, allocator, file) >= 256 &&
           run(TRIAL_PLAIN, SURROUNDINGS_LOADER | SURROUNDINGS_ALONE, allocator, file) < 256;
}

void
trial_describe(int ended, char *text, size_t size)
{
    int status = ended - 256;
    if (ended < 256)
        snprintf(text, size, "%s", ended == ENDED_OPENED ? "opened" : "refused");
    else if (!WIFSIGNALED(status))
        snprintf(text, size, "exit(%d)", WEXITSTATUS(status));
    else if (WTERMSIG(status) == SIGALRM || WTERMSIG(status) == SIGXCPU || WTERMSIG(status) == SIGKILL)
        snprintf(text, size, "it took too long");
    else
        snprintf(text, size, "signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
}
