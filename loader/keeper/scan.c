/*
 * Keeps every mapped object guarded, whenever it was loaded and by whom. What is remembered is how
 * many objects had ever been added to the process at the last scan; as long as the number stands
 * there is nothing to do, and one call of dl_iterate_phdr tells.
 *
 * A slot may only be touched when its object is fully relocated: making RELRO pages read-only again
 * while another thread's dlopen still fills them would kill that thread. dl_iterate_phdr reports
 * half-made objects too. So: list the objects; wait until every dlopen that was under way is over;
 * then scan, and only what was listed. An object that comes later shows in the number.
 */
#include "keeper/routes.h"
#include "keeper/territory.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <sys/stat.h>

struct snapshot {
    const void **dynamic; /* dynamic sections of the objects listed */
    size_t count, capacity, seen;
    unsigned long long adds, subs;
};

static unsigned long long guarded_adds;
static bool guarded_some; /* false: scan whatever the number says */
static bool forked;       /* this process is a child that was forked when there was a loader */

#define ITERATE_AGAIN 0
#define ITERATE_STOP 1
#define SCAN_OUTDATED (-1)

static const void *
dynamic_of(const struct dl_phdr_info *info)
{
    for (size_t i = 0; i < info->dlpi_phnum; i++)
        if (info->dlpi_phdr[i].p_type == PT_DYNAMIC)
            return (const void *)(info->dlpi_addr + info->dlpi_phdr[i].p_vaddr);
    return NULL;
}

static int
adds_read(struct dl_phdr_info *info, size_t size, void *out)
{
    (void)size;
    *(unsigned long long *)out = info->dlpi_adds;
    return ITERATE_STOP;
}

static bool
objects_added(void)
{
    unsigned long long adds = 0;
    objects_walk(adds_read, &adds);
    return !guarded_some || adds != guarded_adds;
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
    if (object_is_allocator(&object)) /* it may call what it is lent */
        return ITERATE_AGAIN;
    uint32_t count = 0;
    bool addresses;
    int error = routes_claim(&object, route_guard, &count, &addresses);
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
        pthread_mutex_lock(&loader.lock);
        for EACH_ALLOCATOR(allocator) {
            if (allocator->detaching) /* by a thread that is not in this child of a fork */
                allocator_detach(allocator, allocator->leaving);
            else
                allocator->table->tick();
        }
        if (!guards_wanted() || !objects_added())
            return ALCOVE_OK;
        pthread_mutex_unlock(&loader.lock);

        struct snapshot snapshot;
        int code = snapshot_take(&snapshot);
        pthread_mutex_lock(&loader.lock);
        if (code != ALCOVE_OK || !guards_wanted()) {
            free(snapshot.dynamic);
            return code;
        }
        struct scan scan = {.snapshot = &snapshot};
        objects_walk(object_guard, &scan);
        free(snapshot.dynamic);
        if (scan.code != SCAN_OUTDATED) {
            guarded_some = scan.code == ALCOVE_OK;
            guarded_adds = snapshot.adds;
            return scan.code;
        }
        pthread_mutex_unlock(&loader.lock);
    }
}

void
loader_leave(void)
{
    pthread_mutex_unlock(&loader.lock);
}

/* A half-made object has no guards yet, so none is written to. */
static int
object_unguard(struct dl_phdr_info *info, size_t size, void *unused)
{
    (void)size;
    (void)unused;
    struct object object;
    if (object_read(&object, info))
        routes_return(&object, route_guard, route_original);
    return ITERATE_AGAIN;
}

void
guards_remove(void)
{
    objects_walk(object_unguard, NULL);
    guarded_some = false;
}

void
guards_forked(void)
{
    forked = true;
}

int
ALCOVE_PUBLIC(refresh)(void)
{
    int code = loader_enter();
    loader_leave();
    return code;
}
