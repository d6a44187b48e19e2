/*
 * Guards what was bound before the symbol tables were steered (steering.h): every word of every object that leads to a release. One
 * scan does, and a second one some time later, for a thread may have looked a name up before and bind it afterwards. Where
 * tables cannot be written every object that comes later is scanned, too: what is remembered is how many had ever been added to the process at
 * the last scan, which one call of dl_iterate_phdr tells.
 *
 * A slot may only be touched when its object is fully relocated: making RELRO pages read-only again
 * while another thread's dlopen still fills them would kill that thread. dl_iterate_phdr reports
 * half-made objects too. So: list the objects; wait until every dlopen that was under way is over;
 * then scan, and only what was listed. An object that comes later is bound to guards, or shows in the number.
 */
#include "keeper/definers.h"
#include "keeper/dispatch.h"
#include "keeper/lead.h"
#include "keeper/steering.h"
#include "keeper/territory.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

struct snapshot {
    const void **dynamic; /* dynamic sections of the objects listed */
    size_t count, capacity, seen;
    unsigned long long adds, subs;
};

static _Atomic unsigned long long guarded_adds, guarded_subs;
static bool guarded_some; /* false: scan whatever the number says */
static time_t guarded_first; /* s; when the tables were steered */
static bool guarded_again;   /* scanned long enough after it */
static bool guarded_anew;    /* what is to be guarded has changed, and no scan has been made since */
#define BINDING_MOST 1 /* s that a thread may take between looking a name up and storing what it found, as a rule */
static bool forked;       /* this process is a child that was forked when there was a loader */

#define ITERATE_AGAIN 0
#define ITERATE_STOP 1
#define SCAN_OUTDATED (-1)

static const void *
dynamic_of(const struct dl_phdr_info *info)
{
    const void *dynamic = NULL;
    for (size_t i = 0; i < info->dlpi_phnum; i++) /* of several the dynamic linker takes the last */
        if (info->dlpi_phdr[i].p_type == PT_DYNAMIC)
            dynamic = (const void *)(info->dlpi_addr + info->dlpi_phdr[i].p_vaddr);
    return dynamic;
}

static int
dynamic_find(struct dl_phdr_info *info, size_t size, void *dynamic)
{
    (void)size;
    return dynamic_of(info) == dynamic ? ITERATE_STOP : ITERATE_AGAIN;
}

bool
object_is_mapped(const void *dynamic)
{
    return objects_walk(dynamic_find, (void *)dynamic) == ITERATE_STOP;
}

static int
counts_read(struct dl_phdr_info *info, size_t size, void *out)
{
    (void)size;
    struct snapshot *counts = out;
    counts->adds = info->dlpi_adds;
    counts->subs = info->dlpi_subs;
    return ITERATE_STOP;
}

static time_t
seconds_now(void)
{
    struct timespec now = {.tv_sec = 0};
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec;
}

/* Is a scan due? With the lock held. */
static bool
scan_is_due(void)
{
    struct snapshot now = {.adds = 0};
    objects_walk(counts_read, &now);
    if (!guarded_some)
        return true;
    bool changed = now.adds != guarded_adds || now.subs != guarded_subs || objects_unsettled();
    if (!steering_is_on())
        return changed;
    if (changed && definers_look()) {
        steering_follow();
        guarded_first = seconds_now();
        guarded_again = false;
        guarded_anew = true;
    }
    guarded_adds = objects_unsettled() ? 0 : now.adds; /* to be asked again */
    guarded_subs = now.subs;
    return guarded_anew || (!guarded_again && seconds_now() > guarded_first + BINDING_MOST);
}

static int
snapshot_add(struct dl_phdr_info *info, size_t size, void *argument)
{
    (void)size;
    struct snapshot *snapshot = argument;
    snapshot->adds = info->dlpi_adds;
    snapshot->subs = info->dlpi_subs;
    if (snapshot->seen < snapshot->capacity)
        snapshot->dynamic[snapshot->count++] = dynamic_of(info);
    snapshot->seen++;
    return ITERATE_AGAIN;
}

/* Is this the only thread? Each has a folder in that one. */
static bool
is_alone(void)
{
    struct stat threads;
    return stat("/proc/self/task", &threads) == 0 && threads.st_nlink == 2 + 1;
}

/* List the objects there are, and return when they are all relocated. Without the lock. The list is the caller's to free, always. */
static int
snapshot_take(struct snapshot *snapshot)
{
    *snapshot = (struct snapshot){.dynamic = NULL};
    for (;;) {
        snapshot->count = snapshot->seen = 0;
        objects_walk(snapshot_add, snapshot);
        if (snapshot->seen == snapshot->count)
            break;
        size_t capacity = snapshot->seen + 16;
        const void **larger = realloc(snapshot->dynamic, capacity * sizeof *larger);
        if (larger == NULL)
            return fail(ALCOVE_ENOMEM, "no memory to list the %zu loaded objects", snapshot->seen);
        snapshot->dynamic = larger;
        snapshot->capacity = capacity;
    }
    /* glibc's dlopen waits for the one under way, even for the program. musl's does not, but there
     * dl_iterate_phdr itself has waited. A forked child would wait forever for a dlopen of a thread
     * that it does not have. */
    if (forked && is_alone())
        return ALCOVE_OK;
    void *self = linker_open(NULL, RTLD_LAZY);
    if (self != NULL)
        linker_close(self);
    return ALCOVE_OK;
}

static bool
snapshot_has(const struct snapshot *snapshot, const void *dynamic)
{
    for (size_t i = 0; i < snapshot->count; i++)
        if (snapshot->dynamic[i] == dynamic)
            return true;
    return false;
}

struct scan {
    const struct snapshot *snapshot;
    int code;
};

bool
object_is_allocator(const struct object *object)
{
    for EACH_ALLOCATOR(allocator)
        if (object_holds(object, (uintptr_t)allocator->origin))
            return true;
    return false;
}

/* The dynamic linker's own pointers to malloc and free are about what it allocates itself. */
static bool
is_dynamic_linker(const struct object *object)
{
    return routes.linker != 0 && object->base == routes.linker && !object_holds(object, routes.libc); /* musl's is the C library */
}

static int
object_guard(struct dl_phdr_info *info, size_t size, void *argument)
{
    (void)size;
    struct scan *scan = argument;
    struct object object;
    /* When objects have gone, others may be in their place. */
    if (info->dlpi_subs != scan->snapshot->subs) {
        scan->code = SCAN_OUTDATED;
        return ITERATE_STOP;
    }
    if (!object_read(&object, info) || !snapshot_has(scan->snapshot, object.dynamic))
        return ITERATE_AGAIN;
    if (object_is_allocator(&object) || is_dynamic_linker(&object)) /* an allocator may call what it is lent */
        return ITERATE_AGAIN;
    int error = object_lead(&object, &routes.released, lead_to_rest, NULL, NULL);
    thread_lead(info, &routes.released, lead_to_rest, NULL);
    if (error != 0 && scan->code == ALCOVE_OK)
        scan->code = fail_errno(ALCOVE_ESYSTEM, error, "cannot guard the releases in %s",
                                object.name[0] != 0 ? object.name : "the program");
    return ITERATE_AGAIN;
}

/* Is there anything to guard? Blocks that an allocator left are guarded without one, too. */
static bool
guards_wanted(void)
{
    return loader.loaded != 0 || territory_has_left();
}

int
loader_enter(void)
{
    for (;;) {
        loader_lock();
        openings_settle();
        for EACH_ALLOCATOR(allocator)
            allocator->table->tick();
        if (!guards_wanted() || !scan_is_due())
            return ALCOVE_OK;
        if (!guarded_some) {
            definers_look();
            if (steering_begin())
                guarded_first = seconds_now();
        }
        bool again = guarded_some && seconds_now() > guarded_first + BINDING_MOST;
        loader_unlock();

        struct snapshot snapshot;
        int code = snapshot_take(&snapshot);
        loader_lock();
        if (code != ALCOVE_OK || !guards_wanted()) {
            free(snapshot.dynamic);
            return code;
        }
        struct scan scan = {.snapshot = &snapshot};
        objects_walk(object_guard, &scan);
        free(snapshot.dynamic);
        if (scan.code != SCAN_OUTDATED) {
            guarded_some = scan.code == ALCOVE_OK;
            guarded_again = again;
            guarded_anew = false;
            guarded_adds = snapshot.adds;
            guarded_subs = snapshot.subs;
            return scan.code;
        }
        loader_unlock();
    }
}

void
loader_leave(void)
{
    loader_unlock();
    error_tell();
}

/* Is another thread's dlopen at it? Its RELRO is not protected yet. */
bool
object_is_half_made(const struct object *object)
{
    return object->relro_end > object->relro_start && word_writable(NULL, object, object->relro_start);
}

/* Guards that stay in a half-made object pass on what they get. */
static int
object_unguard(struct dl_phdr_info *info, size_t size, void *unused)
{
    (void)size;
    (void)unused;
    struct object object;
    if (object_read(&object, info) && !object_is_allocator(&object) && !is_dynamic_linker(&object) && !object_is_half_made(&object)) {
        object_lead(&object, &routes.ours, lead_to_original, NULL, NULL);
        thread_lead(info, &routes.ours, lead_to_original, NULL);
    }
    return ITERATE_AGAIN;
}

void
guards_remove(void)
{
    steering_end();
    objects_walk(object_unguard, NULL);
    guarded_some = guarded_again = false;
}

/* The dynamic linker takes whoever called it for the one who asks: a lookup goes on by a jump. Where a compiler makes none, lookups are not seen. */
#if defined __powerpc64__
#define LOOKUPS 0
#elif defined __clang__
#define LOOKUPS 1
#define JUMPS
#define JUMP __attribute__((musttail)) return
#else
#define LOOKUPS 1
#define JUMPS __attribute__((optimize("O2")))
#define JUMP return
#endif

typedef void *(*dlsym_function)(void *, const char *);
typedef void *(*dlvsym_function)(void *, const char *, const char *);

#if LOOKUPS
/* What is opened in a new namespace has a libc of its own, whose functions nobody has heard of. Whoever opened it looks something up in it next: the
 * last moment to look at it, before anything of it is called. */
static void
lookup_seen(void)
{
    struct snapshot now = {.adds = 0};
    int saved = errno;
    if (loader_is_held()) /* we have called a function of libc's, and the host has put one of its own before that */
        return;
    objects_walk(counts_read, &now);
    if ((now.adds != atomic_load(&guarded_adds) || now.subs != atomic_load(&guarded_subs)) && loader_lock_soon()) {
        bool due = guards_wanted() && scan_is_due();
        loader_unlock();
        if (due) {
            loader_enter();
            loader_leave();
        }
    }
    errno = saved;
}

#define LOOKUP(variant)                                                                                      \
    static JUMPS void *guard_dlsym_##variant(void *handle, const char *name)                                 \
    {                                                                                                        \
        lookup_seen();                                                                                       \
        JUMP ((dlsym_function)routes.original[ROUTE_dlsym][variant])(handle, name);                          \
    }                                                                                                        \
    static JUMPS void *guard_dlvsym_##variant(void *handle, const char *name, const char *version)           \
    {                                                                                                        \
        lookup_seen();                                                                                       \
        JUMP ((dlvsym_function)routes.original[ROUTE_dlvsym][variant])(handle, name, version);               \
    }
EACH_DISPATCHED(LOOKUP)
#define DLSYM(variant) HIDDEN_AS(guard_dlsym_##variant),
#define DLVSYM(variant) HIDDEN_AS(guard_dlvsym_##variant),

void *
lookup_guard_of(unsigned which, unsigned variant)
{
    static char *const dlsyms[DISPATCHED] = {EACH_DISPATCHED(DLSYM)}, *const dlvsyms[DISPATCHED] = {EACH_DISPATCHED(DLVSYM)};
    return HIDDEN_FUNCTION(which == ROUTE_dlsym ? dlsyms[variant] : dlvsyms[variant]);
}
#else
void *
lookup_guard_of(unsigned which, unsigned variant)
{
    (void)which, (void)variant;
    return NULL;
}
#endif

void
guards_forked(void)
{
    forked = true;
}

int
loader_refresh(void)
{
    int code = loader_enter();
    loader_leave();
    return code;
}
