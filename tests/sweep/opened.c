/* Opens one library, plainly or as a module, and reports. Reports are flushed line by line, for the process may end at any time. */
#include "sweep.h"
#include "slots.h"

#include <dlfcn.h>
#include <link.h>
#include <malloc.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <alcove/loader.h>

#ifdef __GLIBC__
#define DLCLOSE_UNLOADS 1
#else
#define DLCLOSE_UNLOADS 0 /* musl's does nothing */
#endif

#define BYTES 100       /* of a block that a slot is asked for */
#define MORE_BYTES 5000 /* to which it then grows */
#define ALIGNMENT 64
#define HOST_SECONDS 5 /* to try whether a host helps */
#define FAULTS_TOLD 6 /* one cause often has many */

static FILE *report;
static unsigned faults;

static void
tell(const char *kind, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    char text[4 * SLOT_TEXT];
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    for (char *c = text; strcmp(kind, "slot") != 0 && *c != 0; c++)
        if (*c == '\n' || *c == '\t')
            *c = ' ';
    fprintf(report, "%s\t%s\n", kind, text);
    fflush(report);
}

#define fault(...)                      \
    do {                                \
        if (faults++ < FAULTS_TOLD)     \
            tell("fault", __VA_ARGS__); \
    } while (0)

/* --- what both processes do */

static const struct link_map *
map_of(void *handle)
{
    struct link_map *map = NULL;
    return dlinfo(handle, RTLD_DI_LINKMAP, &map) == 0 ? map : NULL;
}

/* The library's own entry, if it is mapped. */
static const struct link_map *
map_find(const char *library)
{
    void *handle = dlopen(library, RTLD_LAZY | RTLD_NOLOAD);
    if (handle == NULL)
        return NULL;
    const struct link_map *map = map_of(handle);
    dlclose(handle); /* somebody else's handle keeps it */
    return map;
}

struct paths {
    char **list;
    size_t count;
};

static void
path_add(const char *path, void *argument)
{
    struct paths *paths = argument;
    paths->list = realloc(paths->list, (paths->count + 1) * sizeof paths->list[0]);
    if (paths->list == NULL || (paths->list[paths->count++] = strdup(path)) == NULL)
        abort();
}

static int
path_compare(const void *one, const void *other)
{
    return strcmp(*(char *const *)one, *(char *const *)other);
}

/* At the end: did the library go, and what else is still there? */
static void
tell_leftovers(const char *library, const char *allocator_file)
{
    tell("event", map_find(library) != NULL ? "it stays" : "it is gone");
    struct paths paths = {NULL, 0};
    objects_list(path_add, &paths);
    qsort(paths.list, paths.count, sizeof paths.list[0], path_compare);
    for (size_t i = 0; i < paths.count; i++) {
        if (DLCLOSE_UNLOADS || allocator_file == NULL || strcmp(paths.list[i], allocator_file) != 0)
            tell("event", "mapped %s", paths.list[i]);
        free(paths.list[i]);
    }
    free(paths.list);
}

/* A library that leaves names to the program that opens it, an interpreter as a rule, finds them in that one's own library. */
static bool
host_open(const char *host)
{
    return host == NULL || dlopen(host, RTLD_NOW | RTLD_GLOBAL) != NULL;
}

/* --- the plain process */

/* Does the library open once this one is there? Tried in a process of its own. */
static bool
host_helps(const char *host, const char *library)
{
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        if (freopen("/dev/null", "w", stdout) == NULL || freopen("/dev/null", "w", stderr) == NULL)
            _exit(1);
        alarm(HOST_SECONDS);
        _exit(host_open(host) && dlopen(library, RTLD_NOW | RTLD_LOCAL) != NULL ? 0 : 1);
    }
    return pid > 0 && waitpid(pid, &status, 0) == pid && status == 0;
}

/* Which one of HOSTS_VARIABLE would help? */
static void
tell_host(const char *library)
{
    const char *hosts = getenv(HOSTS_VARIABLE);
    char *list = strdup(hosts != NULL ? hosts : ""), *rest = list;
    for (char *host; (host = strsep(&rest, ":")) != NULL;) {
        if (host[0] == 0 || !host_helps(host, library))
            continue;
        tell("with", "%s", host);
        break;
    }
    free(list);
}

static bool
is_release(int which)
{
    return which == ALCOVE_ENTRY_free || which == ALCOVE_ENTRY_realloc || which == ALCOVE_ENTRY_reallocarray ||
           which == ALCOVE_ENTRY_malloc_usable_size;
}

/* Of the library every slot, of the others those that release; but for the loader, whose own are its own affair. */
static void
tell_slots(const struct link_map *map)
{
    struct slots slots = slots_collect();
    const void *loader = place_object((void *)alcove_load);
    for (size_t i = 0; i < slots.count; i++) {
        const struct slot *slot = &slots.list[i];
        bool own = map != NULL && slot->dynamic == map->l_ld;
        char place[2 * SLOT_TEXT];
        if (own || (is_release(slot->which) && slot->dynamic != loader))
            tell("slot", "%s\t%zx\t%s\t%s\t%s", own ? "@" : slot->object, (size_t)slot->offset, slot->name,
                 family_text(slot->which), place_text(place, word_value(slot->base + slot->offset)));
    }
    slots_free(&slots);
}

int
opened_plain(const char *library, const char *host)
{
    report = fdopen(REPORT_FD, "w");
    family_find();
    const struct link_map *map = map_find(library);
    if (map != NULL && (map->l_ld == place_object(dlsym(RTLD_DEFAULT, "malloc")) ||
                        map->l_ld == place_object(dlsym(RTLD_DEFAULT, "__libc_start_main"))))
        tell("door", "it holds the malloc of this process");

    host_open(host);
    tell("event", "opening");
    void *handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    if (handle == NULL) {
        tell("event", "refused: %s", dlerror());
        if (host == NULL)
            tell_host(library);
        return 0;
    }
    tell("event", "opened");
    tell_slots(map_of(handle));
    dlclose(handle);
    tell("event", "closed");
    tell_leftovers(library, NULL);
    tell("event", "end");
    return 0;
}

/* --- the module's process */

static alcove_allocator *allocator;
static const struct alcove_table *table;
static alcove_module *module;
static uint32_t heap;

static uint32_t
heap_of(const void *block, size_t *usable)
{
    struct alcove_owner owner = {.heap = ALCOVE_HEAP_NONE};
    bool ours = table->owner(block, &owner) != 0;
    if (usable != NULL)
        *usable = owner.usable;
    return ours ? owner.heap : ALCOVE_HEAP_NONE;
}

/* One slot that is tried. */
struct trial {
    const char *object; /* "@": the library */
    const char *name;   /* of its symbol */
    int which;
    void *function;     /* where it leads */
};

#define trial_fault(trial, format, ...)                                                                             \
    do {                                                                                                            \
        char trial_place[2 * SLOT_TEXT];                                                                            \
        fault("the slot %s of %s leads to %s: " format, (trial)->name, (trial)->object,                             \
              place_text(trial_place, (trial)->function), __VA_ARGS__);                                             \
    } while (0)

/* A block of BYTES by an allocating slot; NULL: it gave none. */
static void *
block_by(const struct trial *trial)
{
    static const char text[BYTES] = "a text";
    void *block = NULL, *f = trial->function;
    switch (trial->which) {
    case ALCOVE_ENTRY_malloc: return ((void *(*)(size_t))f)(BYTES);
    case ALCOVE_ENTRY_calloc: return ((void *(*)(size_t, size_t))f)(1, BYTES);
    case ALCOVE_ENTRY_realloc: return ((void *(*)(void *, size_t))f)(NULL, BYTES);
    case ALCOVE_ENTRY_reallocarray: return ((void *(*)(void *, size_t, size_t))f)(NULL, 1, BYTES);
    case ALCOVE_ENTRY_aligned_alloc:
    case ALCOVE_ENTRY_memalign: return ((void *(*)(size_t, size_t))f)(ALIGNMENT, 2 * ALIGNMENT);
    case ALCOVE_ENTRY_posix_memalign: return ((int (*)(void **, size_t, size_t))f)(&block, ALIGNMENT, BYTES) == 0 ? block : NULL;
    case ALCOVE_ENTRY_valloc:
    case ALCOVE_ENTRY_pvalloc: return ((void *(*)(size_t))f)(BYTES);
    case ALCOVE_ENTRY_strdup: return ((char *(*)(const char *))f)(text);
    case ALCOVE_ENTRY_strndup: return ((char *(*)(const char *, size_t))f)(text, sizeof text);
    default: return NULL;
    }
}

static uint64_t
live_blocks(void)
{
    struct alcove_module_stats stats;
    return alcove_module_stats(module, &stats) == ALCOVE_OK ? stats.heap.live_blocks : 0;
}

/* Is as much live as before? The library's own threads may be at work: then it is so a little later, or before long. */
static bool
live_again(uint64_t before)
{
    for (int wait = 0; wait < 20; wait++) {
        if (live_blocks() == before)
            return true;
        nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
    }
    return false;
}

static void
release_by(void *function, void *block)
{
    if (function != NULL)
        ((void (*)(void *))function)(block);
    else
        free(block);
}

/* What an allocating slot of the library gives is the module's, whoever releases it. */
static void
try_allocation(const struct trial *trial, void *library_free)
{
    for (int by_host = 0; by_host < 2; by_host++) {
        uint64_t before = live_blocks();
        unsigned char *block = block_by(trial);
        if (block == NULL) {
            trial_fault(trial, "it gave no block of %d bytes", BYTES);
            return;
        }
        uint32_t owner = heap_of(block, NULL);
        block[0] = 1;
        release_by(by_host ? NULL : library_free, block);
        if (owner != heap) {
            trial_fault(trial, "its block is heap %u's, not %u's", (unsigned)owner, (unsigned)heap);
            return;
        }
        if (!live_again(before)) {
            trial_fault(trial, "its block was released by %s, and is live", by_host ? "the host" : "the library");
            return;
        }
    }
}

/* Release, or resize, or measure, by the slot. False: it did not measure what it must. */
static bool
use_release(const struct trial *trial, void *block, size_t usable)
{
    void *f = trial->function;
    switch (trial->which) {
    case ALCOVE_ENTRY_realloc: block = ((void *(*)(void *, size_t))f)(block, MORE_BYTES); break;
    case ALCOVE_ENTRY_reallocarray: block = ((void *(*)(void *, size_t, size_t))f)(block, 1, MORE_BYTES); break;
    case ALCOVE_ENTRY_malloc_usable_size: {
        bool right = ((size_t (*)(void *))f)(block) == usable;
        free(block);
        return right;
    }
    default: ((void (*)(void *))f)(block); return true;
    }
    if (block == NULL)
        return false;
    memset(block, 1, MORE_BYTES);
    free(block);
    return true;
}

/* A slot that releases takes every block: the module's, the default heap's, the host's. */
static void
try_release(const struct trial *trial)
{
    uint64_t before = live_blocks();
    size_t usable = 0;
    void *block = table->heap_malloc(heap, BYTES);
    heap_of(block, &usable);
    if (block == NULL || !use_release(trial, block, usable))
        trial_fault(trial, "it does not do with the module's block %s", "what it must");
    else if (!live_again(before))
        trial_fault(trial, "the module's block is live after it, %s", "which was released");

    block = table->malloc(BYTES);
    heap_of(block, &usable);
    if (block == NULL || !use_release(trial, block, usable))
        trial_fault(trial, "it does not do with the default heap's block %s", "what it must");

    block = malloc(BYTES);
    if (block == NULL || !use_release(trial, block, malloc_usable_size(block)))
        trial_fault(trial, "it does not do with the host's block %s", "what it must");
}

/* The next slot of the plain process' report, in fields of `line`. False: no more. */
struct wanted {
    char *object, *name, *routed, *place;
    uintptr_t offset;
};

static bool
wanted_next(FILE *plain, char *line, size_t size, struct wanted *out)
{
    while (fgets(line, (int)size, plain) != NULL) {
        char *fields[6], *rest = line;
        size_t count = 0;
        line[strcspn(line, "\n")] = 0;
        while (count < 6 && (fields[count] = strsep(&rest, "\t")) != NULL)
            count++;
        if (count != 6 || strcmp(fields[0], "slot") != 0)
            continue;
        *out = (struct wanted){fields[1], fields[3], fields[4], fields[5], (uintptr_t)strtoull(fields[2], NULL, 16)};
        return true;
    }
    return false;
}

/* Where a slot of the plain report is in this process. False: its object is not here. */
static bool
wanted_word(const struct wanted *wanted, const struct link_map *map, uintptr_t *word)
{
    uintptr_t base = map->l_addr;
    if (strcmp(wanted->object, "@") != 0 && !object_base(wanted->object, &base))
        return false;
    *word = base + wanted->offset;
    return true;
}

/* The library's own slot for free, if it leads to the process' free when opened plainly. */
static void *
free_of_library(FILE *plain, const struct link_map *map)
{
    char line[8 * SLOT_TEXT];
    struct wanted wanted;
    uintptr_t word;
    rewind(plain);
    while (wanted_next(plain, line, sizeof line, &wanted))
        if (wanted.object[0] == '@' && family_name(wanted.routed) == ALCOVE_ENTRY_free && wanted_word(&wanted, map, &word))
            return word_value(word);
    return NULL;
}

static void
try_slots(FILE *plain, const struct link_map *map)
{
    char line[8 * SLOT_TEXT], place[2 * SLOT_TEXT];
    struct wanted wanted;
    uintptr_t word;
    unsigned led = 0;
    void *library_free = free_of_library(plain, map);
    rewind(plain);
    while (wanted_next(plain, line, sizeof line, &wanted)) {
        bool own = wanted.object[0] == '@';
        if (!wanted_word(&wanted, map, &word)) {
            fault("%s is not mapped, as it is when the library is opened plainly", wanted.object);
            continue;
        }
        struct trial trial = {wanted.object, wanted.name, family_name(wanted.routed), word_value(word)};
        tell("doing", "trying the slot %s of %s", wanted.name[0] != 0 ? wanted.name : wanted.routed, wanted.object);
        led += own && trial.which >= 0;
        if (trial.which < 0 && strcmp(place_text(place, trial.function), wanted.place) != 0)
            fault("the slot %s leads to %s, and when opened plainly to %s", wanted.name, place, wanted.place);
        else if (is_release(trial.which))
            try_release(&trial);
        if (own && trial.which >= 0 && trial.which != ALCOVE_ENTRY_free && trial.which != ALCOVE_ENTRY_malloc_usable_size)
            try_allocation(&trial, library_free);
    }
    struct alcove_module_stats stats;
    if (alcove_module_stats(module, &stats) != ALCOVE_OK)
        fault("module_stats: %s", alcove_error_message());
    else if (stats.imports_routed != led)
        fault("imports_routed is %u, and %u slots are to be led", (unsigned)stats.imports_routed, led);
}

/* A library that stays after all was unloaded goes on to work. */
static void
try_leftover(FILE *plain, const struct link_map *map)
{
    char line[8 * SLOT_TEXT];
    struct wanted wanted;
    uintptr_t word;
    rewind(plain);
    while (wanted_next(plain, line, sizeof line, &wanted)) {
        if (wanted.object[0] != '@' || family_name(wanted.routed) < 0 || !wanted_word(&wanted, map, &word))
            continue;
        struct trial trial = {wanted.object, wanted.name, family_name(wanted.routed), word_value(word)};
        tell("doing", "trying the slot %s after unloading", wanted.name);
        if (trial.which == ALCOVE_ENTRY_free) {
            release_by(trial.function, malloc(BYTES));
        } else if (trial.which != ALCOVE_ENTRY_malloc_usable_size) {
            char *block = block_by(&trial);
            if (block == NULL)
                trial_fault(&trial, "after unloading %s", "it gives no block");
            else
                block[0] = 1;
            free(block);
        }
    }
}

static void
module_end(void)
{
    struct alcove_report left;
    tell("doing", "module_close");
    if (alcove_module_close(module, 0, &left) != ALCOVE_OK)
        fault("module_close: %s", alcove_error_message());
    else if ((left.kept != 0) != (left.heap.live_blocks != 0))
        fault("the report says kept %d, and %llu live blocks", left.kept, (unsigned long long)left.heap.live_blocks);
    tell("event", "closed");
}

int
opened_module(const char *allocator_file, const char *library, const char *host)
{
    FILE *plain = fdopen(PLAIN_FD, "r");
    report = fdopen(REPORT_FD, "w");
    family_find();
    host_open(host);
    int code = alcove_load(&allocator, &(struct alcove_load_options){.path = allocator_file});
    if (code != ALCOVE_OK) {
        fault("load: %s", alcove_error_message());
        return 0;
    }
    table = alcove_table_of(allocator);

    tell("event", "opening");
    code = alcove_module_open(allocator, library, NULL, &module);
    if (code == ALCOVE_OK) {
        tell("event", "opened");
        heap = alcove_module_heap(module);
        const struct link_map *map = map_find(library);
        if (map == NULL)
            fault("it was opened, and is not mapped");
        else
            try_slots(plain, map);
        module_end();
    } else {
        tell("event", "refused: %s", alcove_error_message());
    }

    tell("doing", "unload");
    if (alcove_unload(allocator, ALCOVE_UNLOAD_RELEASE) != ALCOVE_OK)
        fault("unload: %s", alcove_error_message());
    if (code != ALCOVE_OK)
        return 0;
    const struct link_map *map = map_find(library);
    if (map != NULL)
        try_leftover(plain, map);
    tell_leftovers(library, allocator_file);
    tell("event", "end");
    return 0;
}
