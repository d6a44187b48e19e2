/*
 * Calls into the dynamic linker, none of which another thread is in the middle of when one forks: the child would have that thread's
 * half-done work, and the lock of dl_iterate_phdr, which is nobody's there. So a fork waits until no thread is in one, and none begins
 * one meanwhile.
 *
 * Neither waits for ever. Whoever forks may be in such a call of its own (a signal handler, a constructor), or hold a lock that it waits for
 * (in a callback of dl_iterate_phdr). What it calls in other fork handlers waits for no fork. A walk runs no foreign code and is soon over; what opens,
 * closes or looks up may run constructors, or wait for others', as long as those like. Then the linker is in the middle of nothing.
 */
#include "loader.h"

#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <time.h>

#define WALK_WAITS 10000 /* times 100 us */
#define CALL_WAITS 1000

static atomic_uint walks, calls;
static atomic_uint forks;       /* that wait for calls, or are past that */
static atomic_uint forks_later; /* that wait for walks, or are past that: until then a call that is waited for may wait for a walk */

/* Threads that are in a call, or fork. What they ask for in the middle of it, in a constructor or a fork handler, does not wait for a fork,
 * which waits for them or is their own. Who finds no place waits. */
#define CALLERS_MOST 32
static struct caller {
    _Atomic(pthread_t) thread; /* 0: this place is free */
    unsigned depth;
    unsigned forks; /* of the depth */
} callers[CALLERS_MOST];

static struct caller *
caller_with(pthread_t thread)
{
    for (unsigned i = 0; i < CALLERS_MOST; i++)
        if (atomic_load(&callers[i].thread) == thread)
            return &callers[i];
    return NULL;
}

/* NULL: there is no place. */
static struct caller *
caller_begin(void)
{
    struct caller *self = caller_with(pthread_self());
    for (unsigned i = 0; i < CALLERS_MOST && self == NULL; i++) {
        pthread_t none = 0;
        if (atomic_compare_exchange_strong(&callers[i].thread, &none, pthread_self()))
            self = &callers[i];
    }
    if (self != NULL)
        self->depth++;
    return self;
}

static void
caller_end(struct caller *self)
{
    if (self != NULL && --self->depth == 0)
        atomic_store(&self->thread, 0);
}

bool
linker_forks_here(void)
{
    const struct caller *self = caller_with(pthread_self());
    return self != NULL && self->forks != 0;
}

static void
wait_a_little(void)
{
    UNCANCELLED; /* it may be somebody's free that waits */
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
enter(atomic_uint *count, const atomic_uint *gate)
{
    atomic_fetch_add(count, 1);
    /* Not with the lock for which the forks wait. */
    bool waits_for_none = linker_forks_here() || holder_is_self(&loader.changer);
    for (unsigned waits = 0; atomic_load(gate) != 0 && waits < WALK_WAITS && !waits_for_none; waits++) {
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
    return objects_walk_all(each, argument, NULL);
}

int
objects_walk_all(int (*each)(struct dl_phdr_info *, size_t, void *), void *argument, bool *settled)
{
    struct walk walk = {.each = each, .argument = argument, .settled = true};
    enter(&walks, &forks_later);
    int result = dl_iterate_phdr(walk_on, &walk);
    leave(&walks);
    if (settled != NULL)
        *settled = walk.settled;
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
    if (caller_with(pthread_self()) != NULL)
        atomic_fetch_add(&calls, 1);
    else
        enter(&calls, &forks);
    caller_begin();
}

void
linker_leave(void)
{
    caller_end(caller_with(pthread_self()));
    leave(&calls);
}

void *
linker_open(const char *path, int flags)
{
    linker_enter();
    void *handle = dlopen(path, flags);
    linker_leave();
    return handle;
}

void
linker_close(void *handle)
{
    linker_enter();
    dlclose(handle);
    linker_leave();
}

void *
linker_symbol(void *handle, const char *name)
{
    linker_enter();
    void *address = dlsym(handle, name);
    linker_leave();
    return address;
}

void *
linker_symbol_of(void *handle, const char *name, const char *version)
{
#ifdef __GLIBC__
    if (version != NULL) {
        linker_enter();
        void *address = dlvsym(handle, name, version);
        linker_leave();
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
    linker_enter();
    if (dlinfo(handle, RTLD_DI_LINKMAP, &map) != 0)
        map = NULL;
    linker_leave();
    return map;
}

#ifdef __GLIBC__
/* glibc's dynamic linker has it, whatever the compiler makes of thread-local variables. */
struct tls_index {
    unsigned long module, offset;
};
extern void *__tls_get_addr(struct tls_index *index) __attribute__((weak));

void
linker_variables(void *handle)
{
    struct tls_index index = {0, 0};
    size_t number = 0;
    linker_enter();
    if (dlinfo(handle, RTLD_DI_TLS_MODID, &number) == 0 && number != 0 && __tls_get_addr != NULL) {
        index.module = number;
        __tls_get_addr(&index);
    }
    linker_leave();
}
#else
void
linker_variables(void *handle)
{
    (void)handle;
}
#endif

const char *
linker_file(const void *address)
{
    Dl_info found;
    linker_enter();
    bool known = dladdr(address, &found) != 0;
    linker_leave();
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
    atomic_fetch_add(&forks_later, 1);
    wait_for_none(&walks, WALK_WAITS);
    struct caller *self = caller_begin();
    if (self != NULL)
        self->forks++;
    errno = saved;
}

static void
forker_end(void)
{
    struct caller *self = caller_with(pthread_self());
    if (self == NULL || self->forks == 0)
        return;
    self->forks--;
    caller_end(self);
}

void
linker_fork_parent(void)
{
    forker_end();
    leave(&forks_later);
    leave(&forks);
}

void
linker_fork_child(void)
{
    atomic_store(&forks, 0);
    atomic_store(&forks_later, 0);
    atomic_store(&walks, 0);
    atomic_store(&calls, 0);
    for (unsigned i = 0; i < CALLERS_MOST; i++)
        if (!pthread_equal(atomic_load(&callers[i].thread), pthread_self())) {
            callers[i].depth = callers[i].forks = 0;
            atomic_store(&callers[i].thread, 0);
        }
    forker_end();
}
