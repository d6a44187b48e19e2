/*
 * Loads an allocator and unloads it: the check of its table, attaching,
 * and what must be true before it may go.
 */
#include "loader.h"

#include "keeper/territory.h"

#include "ground/versions.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct loader loader = {.lock = PTHREAD_MUTEX_INITIALIZER, .lifetime = PTHREAD_RWLOCK_INITIALIZER};
_Atomic(const struct alcove_table *) loader_tables[ALLOCATORS_MAX];

#define SYMBOL_BYTES 256
#define DRAIN_WAITS 5000 /* times 1 ms for another thread's unload */

_Static_assert(sizeof(struct alcove_load_options) == ALCOVE_LOAD_OPTIONS_FIRST, "its first version stays");
_Static_assert(offsetof(struct alcove_module_options, allow) == ALCOVE_MODULE_OPTIONS_FIRST, "its first version stays");
_Static_assert(sizeof(struct alcove_module_stats) == 512, "it never becomes longer");
_Static_assert(sizeof(struct alcove_message) == 128 && sizeof(struct alcove_refusal) == 128 && sizeof(struct alcove_crossing) == 256,
               "they never become longer");
_Static_assert(sizeof(struct alcove_report) == 512, "it never becomes longer");

/* The file asked for; NULL: none. */
static const char *
path_asked(const struct alcove_load_options *options)
{
    return options->path == NULL && options->search != NULL ? options->search(options->context) : options->path;
}

/* What every table of this ABI version has. */
static const struct {
    size_t offset;
    const char *name;
} needed[] = {
#define NEEDED(function) {offsetof(struct alcove_table, function), #function}
    NEEDED(attach), NEEDED(detach), NEEDED(thread_exit), NEEDED(info), NEEDED(malloc), NEEDED(calloc), NEEDED(realloc),
    NEEDED(free), NEEDED(aligned_alloc), NEEDED(posix_memalign), NEEDED(malloc_usable_size), NEEDED(heap_create),
    NEEDED(heap_destroy), NEEDED(heap_limit), NEEDED(heap_stats), NEEDED(heap_malloc), NEEDED(heap_calloc),
    NEEDED(heap_aligned_alloc), NEEDED(heap_realloc), NEEDED(entry), NEEDED(owner), NEEDED(purge), NEEDED(detach_leaving),
    NEEDED(heap_end), NEEDED(tick), NEEDED(heap_bins), NEEDED(heap_peak_reset), NEEDED(heap_unseal), NEEDED(heap_of),
#undef NEEDED
};

/* The name of a function that the table should have and has not; NULL: all are there. */
static const char *
table_lacks(const struct alcove_table *table)
{
    for (size_t i = 0; i < sizeof needed / sizeof needed[0]; i++)
        if (*(void *const *)((const char *)table + needed[i].offset) == NULL)
            return needed[i].name;
    return NULL;
}

/* The table of a library, if it has one that fits. NULL: *code and the message are set. */
static const struct alcove_table *
table_find(void *handle, const char *path, const char *prefix, int *code)
{
    char symbol[SYMBOL_BYTES];
    if ((size_t)snprintf(symbol, sizeof symbol, "%stable", prefix) >= sizeof symbol) {
        *code = fail(ALCOVE_EINVAL, "the prefix \"%.32s...\" is too long: at most %d characters", prefix, SYMBOL_BYTES - 6);
        return NULL;
    }
    const struct alcove_table *table = linker_symbol(handle, symbol);
    const char *lacking = NULL;
    if (table == NULL) {
        dlerror();
        *code = fail(ALCOVE_EABI, "%s is not an allocator with the prefix \"%s\": it has no symbol %s", path, prefix, symbol);
    } else if (table->abi_version != ALCOVE_ABI_VERSION) {
        *code = fail(ALCOVE_EABI, "%s has ABI version %u, this loader needs %u. Install the two from one release", path,
                     (unsigned)table->abi_version, ALCOVE_ABI_VERSION);
        table = NULL;
    } else if (table->size < ALCOVE_TABLE_FIRST) {
        *code = fail(ALCOVE_EABI, "%s has a table of %u bytes, and the first one of ABI version %u had %u. Install another allocator",
                     path, (unsigned)table->size, ALCOVE_ABI_VERSION, ALCOVE_TABLE_FIRST);
        table = NULL;
    } else if ((lacking = table_lacks(table)) != NULL) {
        *code = fail(ALCOVE_EABI, "%s has no %s in its table. Install another allocator", path, lacking);
        table = NULL;
    }
    return table;
}

/* A table that is at least as long as ours: an earlier, shorter one is copied, and functions that it lacks are NULL. */
static const struct alcove_table *
table_complete(struct alcove_table *complete, const struct alcove_table *table)
{
    if (table->size >= sizeof *complete)
        return table;
    memset(complete, 0, sizeof *complete);
    memcpy(complete, table, table->size);
    complete->size = sizeof *complete;
    return complete;
}

/* A place for one more allocator; NULL: there is none. Number 0 is nobody's. */
static struct allocator *
place_find(void)
{
    for (unsigned number = 1; number < ALLOCATORS_MAX; number++)
        if (loader.allocators[number].id == NULL) {
            loader.allocators[number].number = number;
            return &loader.allocators[number];
        }
    return NULL;
}

static int
attach_fail(int error, const char *path)
{
    if (error == EBUSY)
        return fail(ALCOVE_EBUSY, "%s is in use already: another loader or the host itself has loaded it", path);
    return fail_errno(ALCOVE_EABI, error, "%s does not accept what this loader lends: it is of another version", path);
}

/* Let go of the lock for a little while. */
static bool
lock_rest(void)
{
    loader_unlock();
    nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
    loader_lock();
    return true;
}

/*
 * With the lock held, around what makes an allocator of a table, and the reverse. The lock is let go of until no thread forks or ends: another
 * handler of a fork may wait for it. So what was looked at before is to be looked at again.
 */
static int
change_begin(void)
{
    if (linker_forks_here())
        return fail(ALCOVE_EBUSY, "this thread is in a fork handler, where no allocator can be loaded or unloaded. Do that before the fork, or after");
    while (pthread_rwlock_trywrlock(&loader.lifetime) != 0)
        lock_rest();
    holder_begin(&loader.changer);
    return ALCOVE_OK;
}

static void
change_end(void)
{
    atomic_store(&loader.changer.held, false);
    pthread_rwlock_unlock(&loader.lifetime);
}

/* Between change_begin and change_end: make the table an allocator. */
static int
allocator_attach(void *handle, const struct alcove_table *table, const char *path, alcove_allocator **out, bool *again)
{
    struct allocator *allocator = place_find();
    if (allocator == NULL)
        return fail(ALCOVE_EBUSY, "%d allocators are loaded, and that is the most. Unload one before %s", ALLOCATORS_MAX - 1, path);
    int error = crossings_begin(allocator);
    if (error != 0)
        return fail_errno(ALCOVE_ENOMEM, error, "no memory for the records of %s", path);
    struct alcove_services services;
    services_fill(&services, allocator);
    error = table->attach(&services);
    if (error == 0) {
        loader.serial++;
        *out = allocator->id = (alcove_allocator *)(loader.serial << 4 | 1);
        allocator->handle = handle;
        allocator->table = table_complete(&allocator->complete, table);
        allocator->origin = table;
        allocator->references = 1;
        allocator->users = 0;
        loader.loaded++;
        atomic_store(&loader_tables[allocator->number], allocator->table);
    } else {
        services_return(allocator);
    }
    *again = error == EAGAIN;
    return error == 0 || *again ? ALCOVE_OK : attach_fail(error, path);
}

/* Between change_begin and change_end. */
static int
allocator_detach(struct allocator *allocator, bool leaving)
{
    int error = leaving ? allocator->table->detach_leaving() : allocator->table->detach();
    if (error != 0)
        return fail_errno(ALCOVE_ESYSTEM, error, "the allocator cannot be detached");
    atomic_store(&loader_tables[allocator->number], NULL);
    services_return(allocator);
    crossings_end_all(allocator);
    allocator->id = NULL;
    loader.loaded--;
    return ALCOVE_OK;
}

static struct allocator *
allocator_of(const void *handle)
{
    for EACH_ALLOCATOR(allocator)
        if (allocator->handle == handle)
            return allocator;
    return NULL;
}

/* The one that was loaded first; NULL: none is. */
static struct allocator *
allocator_eldest(void)
{
    struct allocator *eldest = NULL;
    for EACH_ALLOCATOR(allocator)
        if (eldest == NULL || (uintptr_t)allocator->id < (uintptr_t)eldest->id)
            eldest = allocator;
    return eldest;
}

/* Count up one that is loaded already, whichever. False: none is. */
static bool
allocator_share(alcove_allocator **out)
{
    loader_enter();
    struct allocator *known = allocator_eldest();
    if (known != NULL) {
        known->references++;
        *out = known->id;
    }
    loader_leave();
    return known != NULL;
}

/* With the lock held: the allocator that a handle of dlopen's is of; if `share` says so, else any. NULL: none is. */
static struct allocator *
allocator_known(const void *handle, bool share)
{
    struct allocator *known = allocator_of(handle);
    return known == NULL && share ? allocator_eldest() : known;
}

/* Take an opened library into service; if `share` says so, only if there is no other one by now. On success the handle is the loader's. */
static int
allocator_enter(void *handle, const struct alcove_table *table, const char *path, bool share, alcove_allocator **out)
{
    int code = ALCOVE_OK;
    bool again;
    loader_enter();
    struct allocator *known = allocator_known(handle, share);
    do {
        again = false;
        if (known == NULL && (code = change_begin()) == ALCOVE_OK) {
            known = allocator_known(handle, share);
            if (known == NULL)
                code = allocator_attach(handle, table, path, out, &again);
            change_end();
        }
    } while (again && lock_rest()); /* a fork holds it by handlers of its own, and waits for us */
    if (known != NULL) {
        known->references++;
        *out = known->id;
    }
    loader_leave();
    if (known != NULL)
        linker_close(handle); /* one reference is enough, ours are counted */
    return code;
}

/* A detached allocator is of no use, yet as long as anyone holds a dlopen reference to it, dlopen
 * returns it again. So nobody takes one before the last of them is given up. */
static bool
passage_enter(void)
{
    unsigned drain = 0;
    for (int wait = 0; wait < DRAIN_WAITS; wait++) {
        loader_enter();
        bool open = !loader.draining;
        if (open)
            loader.passing++;
        if (drain != loader.drains)
            wait = 0; /* another one: they get on */
        drain = loader.drains;
        loader_leave();
        if (open)
            return true;
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    return false;
}

/* Returns whether an allocator was being unloaded meanwhile. */
static bool
passage_leave(void)
{
    loader_enter();
    bool draining = loader.draining;
    if (loader.passing != 0 && --loader.passing == 0) /* in a child that was forked meanwhile there are none */
        loader.draining = false;
    loader_leave();
    return draining;
}

/* Between passage_enter and passage_leave: find, check and take into service. */
static int
allocator_open(const struct alcove_load_options *options, const void *caller, alcove_allocator **out)
{
    const char *prefix = options->prefix != NULL ? options->prefix : ALCOVE_PREFIX;
    int code;
    if ((options->flags & ALCOVE_LOAD_SHARE) && allocator_share(out))
        return ALCOVE_OK;
    const char *path = path_asked(options);
    if (path == NULL || path[0] == 0)
        return fail(ALCOVE_EINVAL, "load: the path is \"\"; name the allocator's file, or give NULL for the installed one");
    void *handle = library_open(path, RTLD_NOW | RTLD_LOCAL, caller, &code);
    if (handle == NULL)
        return code;
    struct shown shown;
    path = text_show(&shown, path);
    const struct alcove_table *table = table_find(handle, path, prefix, &code);
    if (table != NULL)
        code = allocator_enter(handle, table, path, (options->flags & ALCOVE_LOAD_SHARE) != 0, out);
    if (code != ALCOVE_OK)
        linker_close(handle);
    return code;
}

int
options_fail(const char *function, uint32_t size, size_t known)
{
    return fail(ALCOVE_EINVAL, "%s: options with a size of %u bytes are not understood: this loader knows the first %zu, and all must "
                               "be 0 behind those. Set size to that of the struct, or to 0", function, (unsigned)size, known);
}

int
load_options_read(struct alcove_load_options *options, const struct alcove_load_options *given)
{
    static const struct alcove_load_options defaults;
    if (given == NULL)
        given = &defaults;
    if (!options_read(options, sizeof *options, given, given->size, ALCOVE_LOAD_OPTIONS_FIRST))
        return options_fail("load", given->size, sizeof *options);
    if (options->flags & ~ALCOVE_LOAD_SHARE)
        return fail(ALCOVE_EINVAL, "load: the options have flags 0x%x; only ALCOVE_LOAD_SHARE is known", (unsigned)options->flags);
    return ALCOVE_OK;
}

int
loader_load(alcove_allocator **out, const struct alcove_load_options *given, const void *caller)
{
    struct alcove_load_options options;
    if (out == NULL)
        return fail(ALCOVE_EINVAL, "load: `out` is NULL; pass the address of a handle");
    int code = load_options_read(&options, given);
    if (code == ALCOVE_OK)
        code = services_start();
    bool again = code == ALCOVE_OK;
    while (again) {
        if (!passage_enter())
            return fail(ALCOVE_EBUSY, "another thread has been unloading the allocator for %d ms. Let it finish first",
                        DRAIN_WAITS);
        alcove_allocator *id = NULL;
        code = allocator_open(&options, caller, &id);
        again = passage_leave() && code == ALCOVE_EBUSY;
        if (code != ALCOVE_OK)
            continue;
        code = loader_refresh(); /* now there is a table, so this guards all objects */
        if (code == ALCOVE_OK)
            *out = id;
        else
            loader_unload(id, ALCOVE_UNLOAD_RELEASE);
    }
    return code;
}

struct alcove_heap_options
heap_options(const char *name, uint64_t limit)
{
    return (struct alcove_heap_options){
        .size = sizeof(struct alcove_heap_options),
        .limit = limit,
        .name = name,
        .seal = &loader,
    };
}

void
heap_give_up(struct allocator *allocator, uint32_t heap)
{
    allocator->table->heap_unseal(heap, &loader);
    allocator->table->heap_end(heap);
}

void
heap_drop(struct allocator *allocator, uint32_t heap)
{
    allocator->table->heap_unseal(heap, &loader);
    allocator->table->heap_destroy(heap);
}

struct allocator *
allocator_find(const alcove_allocator *id, int *code)
{
    *code = ALCOVE_OK;
    for EACH_ALLOCATOR(allocator)
        if (allocator->id == id)
            return allocator;
    *code = id == NULL ? fail(ALCOVE_EINVAL, "the allocator handle is NULL; load() gives one")
                       : fail(ALCOVE_ECLOSED, "the allocator handle %p is not valid: it was unloaded, or never was one",
                              (const void *)id);
    return NULL;
}

/* Append to a text that has `size` bytes and holds `used`; returns what it holds then. */
static size_t __attribute__((format(printf, 4, 5)))
text_append(char *text, size_t size, size_t used, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int length = used < size ? vsnprintf(text + used, size - used, format, arguments) : 0;
    va_end(arguments);
    return length > 0 ? used + (size_t)length : used;
}

/* An allocator's modules, one after the other. */
static const struct module *
module_next(const struct allocator *allocator, const struct module *from)
{
    while (from != NULL && from->allocator != allocator)
        from = from->next;
    return from;
}

static int
modules_open_fail(const struct allocator *allocator)
{
    char text[512] = "";
    size_t used = 0;
    unsigned count = 0;
    for (const struct module *module = module_next(allocator, loader.modules); module != NULL;
         module = module_next(allocator, module->next), count++)
        used = text_append(text, sizeof text, used, "%s%s", count != 0 ? ", " : "", module->name);
    return fail(ALCOVE_EBUSY, "%u module%s open: %s. Close %s first", count, count == 1 ? " is" : "s are", text,
                count == 1 ? "it" : "them");
}

static int
blocks_live_fail(const struct allocator *allocator, const struct alcove_info *info)
{
    char text[512] = "";
    size_t used = 0;
    struct alcove_heap_stats stats;
    struct side side;
    for (uint32_t heap = 0; heap < ALCOVE_HEAP_MAX; heap++)
        if (allocator->table->heap_stats(heap, &stats) == 0 && stats.live_blocks != 0)
            used = text_append(text, sizeof text, used, "%s%llu of %s", used != 0 ? ", " : "",
                               (unsigned long long)stats.live_blocks, crossings_side(&side, allocator, heap));
    bool one = info->live_blocks == 1;
    return fail(ALCOVE_EBUSY, "%llu block%s with %llu bytes %s live (%s). Free %s first, or pass ALCOVE_UNLOAD_RELEASE or ALCOVE_UNLOAD_LEAVE",
                (unsigned long long)info->live_blocks, one ? "" : "s", (unsigned long long)info->live_bytes,
                one ? "is" : "are", text, one ? "it" : "them");
}

/* With the lock held: may it go? *live: with blocks that are. */
static int
unload_check(const struct allocator *allocator, unsigned flags, bool *live)
{
    if (module_next(allocator, loader.modules) != NULL)
        return modules_open_fail(allocator);
    if (allocator->users != 0)
        return fail(ALCOVE_EBUSY, "another thread is opening a module. Let it finish first");
    struct alcove_info info;
    allocator->table->info(&info);
    *live = info.live_blocks != 0;
    return *live && flags == 0 ? blocks_live_fail(allocator, &info) : ALCOVE_OK;
}

/* Between change_begin and change_end: dlopen's handle of an allocator that is no more. NULL: it may not go, and *code says why. */
static void *
allocator_end(struct allocator *allocator, unsigned flags, int *code)
{
    bool live = false;
    void *handle = allocator->handle;
    struct alcove_info info;
    *code = unload_check(allocator, flags, &live);
    const char *resident = *code == ALCOVE_OK && live && flags != ALCOVE_UNLOAD_LEAVE ? crossings_pending(allocator) : NULL;
    if (resident != NULL)
        allocator->table->info(&info);
    if (*code == ALCOVE_OK)
        *code = allocator_detach(allocator, live && (flags == ALCOVE_UNLOAD_LEAVE || resident != NULL));
    if (*code != ALCOVE_OK)
        return NULL;
    if (resident != NULL)
        fail(ALCOVE_OK, "unload: all live blocks (%llu, with %llu bytes) were left, as by ALCOVE_UNLOAD_LEAVE: the library of module \"%s\", which "
             "was closed, is still mapped and has yet to free its own",
             (unsigned long long)info.live_blocks, (unsigned long long)info.live_bytes, resident);
    loader.passing++;
    loader.draining = true;
    loader.drains++;
    return handle;
}

int
loader_unload(alcove_allocator *id, unsigned flags)
{
    if (flags != 0 && flags != ALCOVE_UNLOAD_RELEASE && flags != ALCOVE_UNLOAD_LEAVE)
        return fail(ALCOVE_EINVAL, "unload: flags 0x%x: ALCOVE_UNLOAD_RELEASE or ALCOVE_UNLOAD_LEAVE are known, one or the other", flags);
    void *handle = NULL;
    int code;
    loader_enter();
    struct allocator *allocator = allocator_find(id, &code);
    if (allocator != NULL && allocator->references == 1 && (code = change_begin()) == ALCOVE_OK) {
        allocator = allocator_find(id, &code);
        if (allocator != NULL && allocator->references == 1)
            handle = allocator_end(allocator, flags, &code);
        change_end();
    }
    if (handle == NULL && code == ALCOVE_OK)
        allocator->references--;
    if (handle != NULL && loader.loaded == 0 && !territory_has_left()) /* guards know what was left */
        guards_remove();
    loader_leave();
    if (handle != NULL) {
        linker_close(handle);
        passage_leave();
    }
    return code;
}

const struct alcove_table *
loader_table_of(alcove_allocator *id)
{
    int code;
    loader_enter();
    struct allocator *allocator = allocator_find(id, &code);
    const struct alcove_table *table = allocator != NULL ? allocator->table : NULL;
    loader_leave();
    return table;
}
