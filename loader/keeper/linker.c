/*
 * Calls into the dynamic linker, none of which another thread is in the middle of when one forks: the child would have that thread's
 * half-done work, and the lock of dl_iterate_phdr, which is nobody's there. So a fork waits until no thread is in one, and none begins
 * one meanwhile.
 *
 * Neither waits for ever. Whoever forks may be in such a call of its own (a signal handler, a constructor), hold a lock that it waits for
 * (in a callback of dl_iterate_phdr), or call us in another fork handler. A walk runs no foreign code and is soon over; what opens,
 * closes or looks up may run constructors, or wait for others', as long as those like. Then the linker is in the middle of nothing.
 */
#include "loader.h"

#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <time.h>

#define WALK_WAITS 10000 /* times 100 us */
#define CALL_WAITS 1000

static atomic_uint walks, calls, forks;

static void
wait_a_little(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
}

/* In the child of a fork, all counts begin at 0, though the thread that forked may be in a call. */
static void
leave(atomic_uint *count)
{
    unsigned seen = atomic_load(count);
    while (seen != 0 && !atomic_compare_exchange_weak(count, &seen, seen - 1))
        ;
}

static void
enter(atomic_uint *count)
{
    atomic_fetch_add(count, 1);
    for (unsigned waits = 0; atomic_load(&forks) != 0 && waits < WALK_WAITS; waits++) {
        leave(count);
        wait_a_little();
        atomic_fetch_add(count, 1);
    }
}

/* The program comes first, then what is in other namespaces, then the rest. */
struct walk {
    int (*each)(struct dl_phdr_info *, size_t, void *);
    void *argument;
    bool begun, settled;
};

static int
walk_on(struct dl_phdr_info *info, size_t size, void *argument)
{
    struct walk *walk = argument;
    int result = walk->each(info, size, walk->argument);
    if (result == 0 && !walk->begun) {
        walk->begun = true;
        result = namespaces_walk(info, walk->each, walk->argument, &walk->settled);
    }
    return result;
}

static atomic_bool unsettled;

int
objects_walk(int (*each)(struct dl_phdr_info *, size_t, void *), void *argument)
{
    struct walk walk = {.each = each, .argument = argument, .settled = true};
    enter(&walks);
    int result = dl_iterate_phdr(walk_on, &walk);
    leave(&walks);
    if (!walk.settled)
        atomic_store(&unsettled, true);
    return result;
}

bool
objects_unsettled(void)
{
    return atomic_exchange(&unsettled, false);
}

void
linker_enter(void)
{
    enter(&calls);
}

void
linker_leave(void)
{
    leave(&calls);
}

void *
linker_open(const char *path, int flags)
{
    enter(&calls);
    void *handle = dlopen(path, flags);
    leave(&calls);
    return handle;
}

void
linker_close(void *handle)
{
    enter(&calls);
    dlclose(handle);
    leave(&calls);
}

void *
linker_symbol(void *handle, const char *name)
{
    enter(&calls);
    void *address = dlsym(handle, name);
    leave(&calls);
    return address;
}

void *
linker_symbol_of(void *handle, const char *name, const char *version)
{
#ifdef __GLIBC__
    if (version != NULL) {
        enter(&calls);
        void *address = dlvsym(handle, name, version);
        leave(&calls);
        return address;
    }
#else
    (void)version;
#endif
    return linker_symbol(handle, name);
}

struct link_map *
linker_map(void *handle)
{
    struct link_map *map = NULL;
    enter(&calls);
    if (dlinfo(handle, RTLD_DI_LINKMAP, &map) != 0)
        map = NULL;
    leave(&calls);
    return map;
}

const char *
linker_file(const void *address)
{
    Dl_info found;
    enter(&calls);
    bool known = dladdr(address, &found) != 0;
    leave(&calls);
    return known ? found.dli_fname : NULL;
}

static void
wait_for_none(atomic_uint *count, unsigned most)
{
    for (unsigned waits = 0; atomic_load(count) != 0 && waits < most; waits++)
        wait_a_little();
}

void
linker_fork_prepare(void)
{
    int saved = errno;
    atomic_fetch_add(&forks, 1);
    wait_for_none(&calls, CALL_WAITS);
    wait_for_none(&walks, WALK_WAITS);
    errno = saved;
}

void
linker_fork_parent(void)
{
    leave(&forks);
}

void
linker_fork_child(void)
{
    atomic_store(&forks, 0);
    atomic_store(&walks, 0);
    atomic_store(&calls, 0);
}
