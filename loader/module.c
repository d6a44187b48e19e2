/*
 * Opens plugins as modules with heaps of their own, tells what they use, and closes them.
 * A module's record belongs to the list in struct loader, under the loader's lock.
 */
#include "keeper/code.h"
#include "keeper/dispatch.h"
#include "keeper/strict.h"
#include "keeper/thunks.h"
#include "module.h"

#include "ground/versions.h"

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define CLOSE_WAITS 5000 /* times 1 ms for another thread's module_close */

/* With the lock held: the module of a handle. NULL, *code and a message: it is none. */
static struct module *
module_find(const alcove_module *id, int *code)
{
    *code = ALCOVE_OK;
    for (struct module *module = id != NULL ? loader.modules : NULL; module != NULL; module = module->next)
        if (module->id == id && !module->closing)
            return module;
    *code = id == NULL ? fail(ALCOVE_EINVAL, "the module handle is NULL; module_open() gives one")
                       : fail(ALCOVE_ECLOSED, "the module handle %p is not valid: it was closed, or never was one",
                              (const void *)id);
    return NULL;
}

static int
limit_check(uint64_t limit)
{
    if (limit != 0 && (limit < LIMIT_LEAST || limit > LIMIT_MOST))
        return fail(ALCOVE_EINVAL, "a limit of %llu bytes is impossible: give 0 for none, or from %llu to %llu",
                    (unsigned long long)limit, (unsigned long long)LIMIT_LEAST, (unsigned long long)LIMIT_MOST);
    return ALCOVE_OK;
}

#define NO_THUNKS (-1)

/* Why module_heap_begin() could make none. */
static int
heap_fail(const struct module *module, int error)
{
    if (error == NO_THUNKS)
        return fail(ALCOVE_ENOMEM, "no thunks for %s: %d modules are open, and that is the most. Close one", module->name, THUNKS - 1);
    if (error == EAGAIN)
        return fail(ALCOVE_ENOMEM, "no heap for %s: all %u heap numbers are taken. Close a module, or free the blocks that closed ones left",
                    module->name, ALCOVE_HEAP_MAX);
    return fail_errno(error == ENOMEM ? ALCOVE_ENOMEM : ALCOVE_EINVAL, error, "no heap for %s", module->name);
}

/* With the lock held, before the library may be unmapped: then another one's code may come in its place. */
static void
module_code_end(const struct module *module)
{
    if (module->thunks == THUNK_NONE)
        return;
    crossings_code(module->allocator, module->heap, THUNK_NONE);
    code_leave(module->thunks);
}

/* With the lock held: lead the imports back where they led, and give the thunks up. Where an import cannot be led back now they are
 * nobody's any more: they lead to libc for ever. */
static void
module_thunks_end(struct module *module)
{
    if (module->thunks == THUNK_NONE)
        return;
    module_code_end(module);
    for (int which = 0; which < ALCOVE_ENTRY_COUNT; which++)
        if (module->entries[which] != NULL)
            thunk_rest((enum alcove_entry)which, module->thunks, module->variant[which]);
    bool is_back = !module->led || module_unlead(module) == 0;
    uint32_t thunks = module->thunks;
    module->thunks = THUNK_NONE; /* before others may take them: in a child that is forked just now nobody gives them again */
    if (is_back)
        thunks_give(thunks, module->given_away || module->hooked || module->copied);
}

/* With the lock held: have thunks that lead to the module's heap. 0 or NO_THUNKS. */
static int
module_thunks_begin(struct module *module)
{
    module->thunks = thunks_take();
    if (module->thunks == THUNK_NONE)
        return NO_THUNKS;
    for (int which = 0; which < ALCOVE_ENTRY_COUNT; which++) {
        void *entry = module->allocator->table->entry((enum alcove_entry)which);
        if (entry == NULL || routes.variants[which] == 0)
            continue;
        thunk_lead((enum alcove_entry)which, module->thunks, entry, module->heap);
        module->entries[which] = thunk_of((enum alcove_entry)which, module->thunks);
    }
    crossings_code(module->allocator, module->heap, module->thunks);
    return 0;
}

/* With the lock held: make its heap and thunks. 0, NO_THUNKS or what heap_create() says. */
static int
module_heap_begin(struct module *module)
{
    if (module->heap != ALCOVE_HEAP_NONE)
        return 0;
    struct alcove_heap_options heap = heap_options(module->name, module->options->limit);
    int error = module->allocator->table->heap_create(&heap, &module->heap);
    if (error != 0) {
        module->heap = ALCOVE_HEAP_NONE;
        return error;
    }
    crossings_start(module->allocator, module->heap, module);
    return module_thunks_begin(module);
}

/* With the lock held: lead its imports to its heap. What was done early is gone through again: while constructors run others may have bound
 * what was not bound before. */
static int
module_route(struct module *module)
{
    int error = module_heap_begin(module);
    return error == 0 ? module_lead(module, (module->options->flags & ALCOVE_OPEN_PARTIAL) != 0) : heap_fail(module, error);
}

/* What module_route() or module_prepare() began, and what may have been allocated since. */
static void
module_route_undo(struct module *module)
{
    if (module->heap == ALCOVE_HEAP_NONE)
        return;
    module_thunks_end(module);
    heap_give_up(module->allocator, module->heap); /* threads of a library that was mapped before may have come in */
    module->heap = ALCOVE_HEAP_NONE;
}

void
module_forsake(struct module *module)
{
    if (module->heap != ALCOVE_HEAP_NONE) /* what its constructors have allocated stays */
        crossings_close(module->allocator, module->heap, module->dynamic != NULL && object_is_mapped(module->dynamic));
    module_route_undo(module);
    free(module);
}

/* What its constructors allocate goes to a heap that is there when they run. If there is none, module_enter() says why. */
static void
module_prepare(struct module *module)
{
    loader_lock();
    if (module->options->policy != ALCOVE_POLICY_OFF && module_heap_begin(module) != 0)
        module_route_undo(module);
    loader_unlock();
}

bool
module_begins(struct module *module, const struct object *object)
{
    if (module->heap == ALCOVE_HEAP_NONE || module->failed_early)
        return false;
    if (module->led)
        return true;
    if (!loader_trylock()) {
        module_code(module, object);
        return true;
    }
    module->failed_early = module_check(module, module->name) != ALCOVE_OK || module_route(module) != ALCOVE_OK;
    if (module->failed_early)
        module_route_undo(module);
    loader_unlock();
    return !module->failed_early;
}

static const char *
last_part(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash != NULL && slash[1] != 0 ? slash + 1 : path;
}

/* Is it /proc/self/fd/N, /dev/fd/N or the like? */
static bool
is_descriptor(const char *path)
{
    const char *number = last_part(path);
    return number - path >= 4 && memcmp(number - 4, "/fd/", 4) == 0 && number[strspn(number, "0123456789")] == 0;
}

/* The path of the file behind a descriptor's; NULL: it has none, or there is no memory. The caller's to free. */
static char *
descriptor_file(const char *path)
{
    static const char deleted[] = " (deleted)";
    char *file = malloc(PATH_MAX);
    ssize_t length = file != NULL ? readlink(path, file, PATH_MAX - 1) : -1;
    if (length <= 0 || file[0] != '/') {
        free(file);
        return NULL;
    }
    file[length] = 0;
    char *end = file + length - (sizeof deleted - 1);
    if (end > file && strcmp(end, deleted) == 0)
        *end = 0;
    return file;
}

static void
module_name(struct module *module, const char *path, const char *name)
{
    char *file = NULL;
    if (name == NULL || name[0] == 0) {
        file = is_descriptor(path) ? descriptor_file(path) : NULL;
        name = last_part(file != NULL ? file : path);
    }
    size_t length = strlen(name);
    if (length >= sizeof module->name)
        length = letter_begin(name, sizeof module->name - 1);
    memcpy(module->name, name, length);
    free(file);
}

/* With the lock held: the module that an opened library is already. NULL: none. */
static struct module *
module_same(const struct module *module)
{
    struct module *other = loader.modules;
    while (other != NULL && other->dynamic != module->dynamic)
        other = other->next;
    return other;
}

/* With the lock held: count another opening of a module. What the options leave at zero they do not ask for. */
static int
module_count(struct module *open, const struct module *wanted, const char *path)
{
    const struct alcove_module_options *options = wanted->options;
    static const char *const policies[] = {"guard", "strict", "off"};
    if (open->closing)
        return fail(ALCOVE_EBUSY, "%s is still being closed, as module \"%s\". Let that finish first", path, open->name);
    if (open->allocator != wanted->allocator)
        return fail(ALCOVE_EBUSY, "%s is open already, as module \"%s\" of another allocator. Open it with that one, or close it there",
                    path, open->name);
    if (options->name != NULL && options->name[0] != 0 && strcmp(open->name, wanted->name) != 0)
        return fail(ALCOVE_EBUSY, "%s is open already, as module \"%s\", and cannot be \"%s\" too. Give no name, or the same",
                    path, open->name, wanted->name);
    if (options->limit != 0 && options->limit != open->limit)
        return fail(ALCOVE_EBUSY, "%s is open already, as module \"%s\" with a limit of %llu bytes, not %llu. Give none, or the same; "
                    "module_limit() changes it", path, open->name, (unsigned long long)open->limit, (unsigned long long)options->limit);
    if (options->policy != ALCOVE_POLICY_GUARD && options->policy != open->policy)
        return fail(ALCOVE_EBUSY, "%s is open already, as module \"%s\" with the policy %s, not %s. Give none, or the same", path,
                    open->name, policies[open->policy], policies[options->policy]);
    if ((wanted->partners.allow != 0 || wanted->partners.count != 0) && memcmp(&open->partners, &wanted->partners, sizeof open->partners) != 0)
        return fail(ALCOVE_EBUSY, "%s is open already, as module \"%s\", and allows others than is asked for. Give none, or the same",
                    path, open->name);
    open->opens++;
    return ALCOVE_OK;
}

/* Open the library of a new record. Without the lock: its constructors run. */
static int
module_load(struct module *module, const char *path, int flags, const void *caller)
{
    int code;
    /* Bound at once: a slot bound later would be overwritten. */
    flags = flags == 0 ? RTLD_NOW | RTLD_LOCAL : (flags & ~RTLD_LAZY) | RTLD_NOW;
    module->handle = library_open(path, flags, caller, &code);
    if (module->handle == NULL)
        return code;
    const struct link_map *map = linker_map(module->handle);
    if (map == NULL) {
        const char *words = dlerror();
        struct shown shown;
        code = fail(ALCOVE_ELOAD, "%s was opened, but cannot be found again: %s", text_show(&shown, path), words != NULL ? words : "?");
        linker_close(module->handle);
        return code;
    }
    module->dynamic = map->l_ld;
    return ALCOVE_OK;
}

/* Take the lock when no other call is closing what is mapped at the module's address: the same
 * object, still routed, or one that has just gone. */
static int
module_wait_enter(const struct module *module)
{
    for (int wait = 0;; wait++) {
        int code = loader_enter();
        const struct module *other = loader.modules;
        while (other != NULL && !(other->closing && other->dynamic == module->dynamic))
            other = other->next;
        if (other == NULL || wait == CLOSE_WAITS)
            return code;
        loader_leave();
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
}

static int
partners_read(struct partners *partners, const struct alcove_module_options *options)
{
    memset(partners, 0, sizeof *partners);
    partners->allow = options->allow;
    partners->count = options->allowed_count;
    if ((options->allow & ~(ALCOVE_ALLOW_HOST | ALCOVE_ALLOW_MODULES)) != 0)
        return fail(ALCOVE_EINVAL, "module_open: options.allow is 0x%x: only ALCOVE_ALLOW_HOST and ALCOVE_ALLOW_MODULES are known",
                    (unsigned)options->allow);
    if (partners->count > ALCOVE_ALLOWED_MAX || (partners->count != 0 && options->allowed == NULL))
        return fail(ALCOVE_EINVAL, "module_open: options.allowed is %p with %u names: it may have up to %u. ALCOVE_ALLOW_MODULES allows all",
                    (const void *)options->allowed, (unsigned)partners->count, ALCOVE_ALLOWED_MAX);
    if ((partners->allow != 0 || partners->count != 0) && options->policy != ALCOVE_POLICY_STRICT)
        return fail(ALCOVE_EINVAL, "module_open: options.allow and options.allowed are for the strict policy; the others forbid nothing");
    for (uint32_t i = 0; i < partners->count; i++) {
        if (options->allowed[i] == NULL || options->allowed[i][0] == 0)
            return fail(ALCOVE_EINVAL, "module_open: options.allowed[%u] is %s; name a module", (unsigned)i,
                        options->allowed[i] == NULL ? "NULL" : "\"\"");
        snprintf(partners->names[i], NAME_BYTES, "%s", options->allowed[i]);
    }
    return ALCOVE_OK;
}

/* Read and check a caller's options; NULL: all are 0. */
static int
module_options_read(struct alcove_module_options *options, struct partners *partners, const struct alcove_module_options *given)
{
    static const struct alcove_module_options defaults;
    if (given == NULL)
        given = &defaults;
    if (!options_read(options, sizeof *options, given, given->size, ALCOVE_MODULE_OPTIONS_FIRST))
        return options_fail("module_open", given->size, sizeof *options);
    if ((options->flags & ~ALCOVE_OPEN_PARTIAL) != 0)
        return fail(ALCOVE_EINVAL, "module_open: the options have flags 0x%x; only ALCOVE_OPEN_PARTIAL is known", (unsigned)options->flags);
    if ((unsigned)options->policy > ALCOVE_POLICY_OFF)
        return fail(ALCOVE_EINVAL, "there is no policy %u: 0 guards, 1 is strict, 2 is off", (unsigned)options->policy);
    if (options->policy == ALCOVE_POLICY_OFF && options->limit != 0)
        return fail(ALCOVE_EINVAL, "module_open: a limit of %llu bytes, but the policy is off: then the module has no heap that could have "
                                   "one. Give no limit, or another policy", (unsigned long long)options->limit);
    int code = partners_read(partners, options);
    if (code != ALCOVE_OK)
        return code;
    return limit_check(options->limit);
}

/* What its heap will not have, though it is open: a message, and no error. */
static void
module_remark(const struct module *module)
{
    const char *name = module->name;
    if (module->imports_lost != 0)
        fail(ALCOVE_OK, "module \"%s\" is routed in part: of its imports of malloc and its family, %u lead to no function that is known. What "
             "they give is not its own", name, (unsigned)module->imports_lost);
    else if (module->imports_new != 0)
        fail(ALCOVE_OK, "module \"%s\" imports C++'s operator new from a library that allocates for all: what new gives is not the module's",
             name);
    else if (module->imports_found == 0)
        fail(ALCOVE_OK, "module \"%s\" imports nothing of malloc's family: its heap stays unused. A library that it calls may allocate for it; "
             "open that one as a module", name);
}

/* The part of module_open that is done with the lock held, for a library that is no module yet. The path is as messages show it. */
static int
module_enter(struct module *module, const char *path)
{
    module->opens = 1;
    int code = module_check(module, path);
    if (code == ALCOVE_OK && module->options->policy != ALCOVE_POLICY_OFF)
        code = module_route(module);
    if (code != ALCOVE_OK) {
        module_route_undo(module);
        return code;
    }
    loader.serial++;
    module->id = (alcove_module *)(loader.serial << 4 | 2);
    module->next = loader.modules;
    loader.modules = module;
    if (module->heap != ALCOVE_HEAP_NONE) {
        crossings_open(module->allocator, module->heap, module->id, module->dynamic);
        module_remark(module);
    }
    return ALCOVE_OK;
}

int
module_open(alcove_allocator *id, const char *path, const struct alcove_module_options *given, alcove_module **out,
            const void *caller)
{
    struct alcove_module_options options;
    struct partners partners;
    if (out == NULL)
        return fail(ALCOVE_EINVAL, "module_open: `out` is NULL; pass the address of a handle");
    if (path == NULL || path[0] == 0)
        return fail(ALCOVE_EINVAL, "module_open: there is no path; name a shared library");
    int code = module_options_read(&options, &partners, given);
    if (code != ALCOVE_OK)
        return code;
    if (options.policy == ALCOVE_POLICY_STRICT)
        strict_prepare();

    loader_enter();
    struct allocator *allocator = allocator_find(id, &code);
    if (allocator != NULL)
        allocator->users++; /* it cannot be unloaded while we are without the lock */
    loader_leave();
    if (allocator == NULL)
        return code;

    struct shown shown;
    text_show(&shown, path);
    struct module *module = calloc(1, sizeof *module);
    if (module == NULL) {
        code = fail(ALCOVE_ENOMEM, "no memory for the record of %s", shown.text);
    } else {
        module->allocator = allocator;
        module->heap = ALCOVE_HEAP_NONE;
        module->options = &options;
        module->limit = options.limit;
        module->policy = options.policy;
        module->partners = partners;
        module_name(module, path, options.name);
        module_prepare(module);
        struct opening *opening = opening_begin(module);
        code = module_load(module, path, options.dlopen_flags, caller);
        opening_end(opening);
        if (code == ALCOVE_OK)
            module_look(module);
    }
    bool loaded = code == ALCOVE_OK;
    alcove_module *opened = NULL;
    int guard_code = loaded ? module_wait_enter(module) : loader_enter();
    struct module *same = loaded ? module_same(module) : NULL;
    if (loaded && guard_code != ALCOVE_OK)
        code = guard_code;
    else if (loaded)
        code = same != NULL ? module_count(same, module, shown.text) : module_enter(module, shown.text);
    if (code == ALCOVE_OK)
        opened = same != NULL ? same->id : module->id;
    if (module != NULL && (code != ALCOVE_OK || same != NULL))
        module_route_undo(module); /* what its constructors began */
    if (module != NULL)
        module->options = NULL;
    if (allocator->users != 0) /* it may have been forgotten, in a child that a constructor forked */
        allocator->users--;
    loader_leave();
    if (code != ALCOVE_OK || same != NULL) { /* one reference of dlopen is enough for a module */
        if (loaded)
            linker_close(module->handle);
        free(module);
    }
    if (code == ALCOVE_OK)
        *out = opened;
    return code;
}

/* With the lock held: in place of a function of the family, which the module does not define, what its own imports of it lead to. */
static void *
module_function(struct module *module, const char *name, void *address)
{
    struct route route = route_of(address, route_named(name));
    if (route.kind == ROUTE_NONE || route.theirs || route.which >= ALCOVE_ENTRY_COUNT)
        return address;
    void *thunk = module->entries[route.which];
    module->given_away |= thunk != NULL;
    return thunk != NULL ? thunk : route_resting(route.which, route.variant);
}

void *
module_symbol(alcove_module *id, const char *name)
{
    if (name == NULL) {
        fail(ALCOVE_EINVAL, "module_symbol: the name is NULL");
        return NULL;
    }
    int code;
    loader_enter();
    struct module *module = module_find(id, &code);
    if (module != NULL)
        module->users++; /* it cannot be closed while we are without the lock */
    loader_leave();
    if (module == NULL)
        return NULL;

    void *address = linker_symbol(module->handle, name);
    if (address == NULL) {
        dlerror();
        fail(ALCOVE_ENOENT, "module \"%s\" has no symbol %s", module->name, name);
    }
    loader_enter();
    address = module_function(module, name, address);
    module->users -= module->users != 0; /* in a child that was forked meanwhile there are none */
    loader_leave();
    return address;
}

int
module_stats(alcove_module *id, struct alcove_module_stats *out)
{
    if (out == NULL)
        return fail(ALCOVE_EINVAL, "module_stats: `out` is NULL");
    int code;
    loader_enter();
    struct module *module = module_find(id, &code);
    if (module != NULL) {
        memset(out, 0, sizeof *out);
        out->size = FIGURES_SIZE(struct alcove_module_stats);
        out->name = module->name;
        out->imports_routed = module->imports_routed;
        out->imports_found = module->imports_found;
        out->imports_lost = module->imports_lost;
        out->imports_new = module->imports_new;
        if (module->heap != ALCOVE_HEAP_NONE)
            module->allocator->table->heap_stats(module->heap, &out->heap);
        crossings_read(module->allocator, module->heap, &out->released_outside, &out->released_foreign);
    }
    loader_leave();
    return code;
}

uint32_t
module_heap(alcove_module *id)
{
    int code;
    loader_enter();
    struct module *module = module_find(id, &code);
    uint32_t heap = module != NULL ? module->heap : ALCOVE_HEAP_NONE;
    loader_leave();
    return heap;
}

int
module_limit(alcove_module *id, uint64_t limit)
{
    int code = limit_check(limit);
    if (code != ALCOVE_OK)
        return code;
    loader_enter();
    struct module *module = module_find(id, &code);
    if (module != NULL && module->heap == ALCOVE_HEAP_NONE)
        code = fail(ALCOVE_EINVAL, "module \"%s\" has no heap to limit: its policy is off", module->name);
    else if (module != NULL && module->allocator->table->heap_limit(module->heap, limit) != 0)
        code = fail(ALCOVE_EINVAL, "the allocator does not accept a limit of %llu bytes for module \"%s\"",
                    (unsigned long long)limit, module->name);
    else if (module != NULL)
        module->limit = limit;
    loader_leave();
    return code;
}

/* With the lock held: the figures of a report. */
static void
module_report(const struct module *module, struct alcove_report *report)
{
    memset(report, 0, sizeof *report);
    report->size = FIGURES_SIZE(struct alcove_report);
    snprintf(report->name, sizeof report->name, "%s", module->name);
    report->opens = module->opens;
    report->imports_found = module->imports_found;
    report->imports_routed = module->imports_routed;
    report->imports_lost = module->imports_lost;
    report->imports_new = module->imports_new;
    if (module->heap == ALCOVE_HEAP_NONE)
        return;
    module->allocator->table->heap_stats(module->heap, &report->heap);
    crossings_read(module->allocator, module->heap, &report->released_outside, &report->released_foreign);
}

/* With the lock held, after dlclose: settle the module's heap and fill the report. */
static void
module_settle(struct module *module, unsigned flags, struct alcove_report *report)
{
    struct allocator *allocator = module->allocator;
    bool drop = flags & ALCOVE_CLOSE_DROP;
    bool stays = module_stays(module);
    module_thunks_end(module);
    module_report(module, report);
    report->resident = stays;
    if (module->heap == ALCOVE_HEAP_NONE)
        return;
    crossings_close(allocator, module->heap, report->resident); /* then its destructors are yet to release what it left */
    if (drop && !report->resident) {
        heap_drop(allocator, module->heap);
        return;
    }
    heap_give_up(allocator, module->heap); /* an empty one may have a thread inside, too */
    report->kept = report->heap.live_blocks != 0;
}

void
modules_settle_forked(void)
{
    struct alcove_report unread;
    for (struct module **link = &loader.modules, *module; (module = *link) != NULL;) {
        if (!module->closing || pthread_equal(module->closer, pthread_self())) {
            link = &module->next;
            continue;
        }
        module_settle(module, 0, &unread);
        *link = module->next;
        free(module);
    }
}

int
module_close(alcove_module *id, unsigned flags, struct alcove_report *report)
{
    struct alcove_report unread;
    if (report == NULL)
        report = &unread;
    if (flags & ~ALCOVE_CLOSE_DROP)
        return fail(ALCOVE_EINVAL, "module_close: flags 0x%x: only ALCOVE_CLOSE_DROP is known", flags);

    int code;
    loader_enter();
    struct module *module = module_find(id, &code);
    if (module != NULL && module->opens == 1 && module->users != 0) {
        code = fail(ALCOVE_EBUSY, "another thread is looking up a symbol of module \"%s\"", module->name);
        module = NULL;
    }
    bool last = module != NULL && --module->opens == 0;
    if (last) {
        module->closer = pthread_self();
        module->closing = true; /* no longer found, but still counted as open */
        module->hooked = module_is_hooked(module);
        module_code_end(module);
    } else if (module != NULL) {
        module_report(module, report);
        report->resident = 1;
    }
    loader_leave();
    if (!last)
        return code;

    linker_close(module->handle); /* its destructors free through the entries */

    loader_enter();
    module_settle(module, flags, report);
    struct module **link = &loader.modules;
    while (*link != module)
        link = &(*link)->next;
    *link = module->next;
    loader_leave();
    free(module);
    return ALCOVE_OK;
}
