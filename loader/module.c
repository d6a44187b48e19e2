/*
 * Opens plugins as modules with heaps of their own, tells what they use, and closes them.
 * A module's record belongs to the list in struct loader, under the loader's lock.
 */
#include "keeper/thunks.h"

#include "ground/versions.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define CLOSE_WAITS 5000 /* times 1 ms for another thread's module_close */

/* What a mapped object is found again by, and what is to be done to its imports. */
struct routing {
    const void *dynamic;
    const route_targets *from; /* NULL: claim */
    const route_targets *to;
    const char *refusal; /* why it cannot be a module; NULL: it can */
    uint32_t count;
    bool addresses; /* some are such as a plugin could have given away */
    int error;
    bool found;
};

/* Routing these would lead the allocator, the loader or malloc itself in circles. libc is among
 * them even where a preloaded library has taken malloc over. */
static const char *
module_refusal(const struct object *object)
{
    if (object_is_allocator(object))
        return "it is the allocator";
    if (object_holds(object, (uintptr_t)&loader))
        return "it holds the loader";
    if (object_holds(object, (uintptr_t)route_original[ALCOVE_ENTRY_malloc]))
        return "it holds the malloc of this process";
    if (object_holds(object, route_libc))
        return "it is the C library";
    return NULL;
}

static int
object_route(struct dl_phdr_info *info, size_t size, void *argument)
{
    (void)size;
    struct routing *routing = argument;
    struct object object;
    if (!object_read(&object, info) || object.dynamic != routing->dynamic)
        return 0;
    routing->found = true;
    if (routing->from != NULL) {
        routing->error = routes_return(&object, *routing->from, *routing->to);
    } else {
        routing->refusal = module_refusal(&object);
        if (routing->refusal == NULL && routing->to != NULL)
            routing->error = routes_claim(&object, *routing->to, &routing->count, &routing->addresses);
    }
    return 1;
}

/* Lead a module's imports back to where everyone's lead, if its object is still mapped. 0 or an errno value. */
static int
module_unroute(const struct module *module)
{
    struct routing routing = {.dynamic = module->dynamic, .from = &module->entries, .to = &route_resting};
    objects_walk(object_route, &routing);
    return routing.error;
}

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

static int
heap_create_fail(const struct module *module, int error)
{
    if (error == EAGAIN)
        return fail(ALCOVE_ENOMEM, "no heap for %s: all %u heap numbers are taken. Close a module, or free the blocks that closed ones left",
                    module->name, ALCOVE_HEAP_MAX);
    return fail_errno(error == ENOMEM ? ALCOVE_ENOMEM : ALCOVE_EINVAL, error, "no heap for %s", module->name);
}

/* With the lock held: lead the imports back where they led, and give the thunks up. Where an import cannot be led back now they are
 * nobody's any more: they lead to libc for ever. */
static void
module_thunks_end(struct module *module)
{
    if (module->thunks == THUNK_NONE)
        return;
    thunks_rest(module->thunks);
    if (module_unroute(module) == 0)
        thunks_give(module->thunks, module->given_away);
    module->thunks = THUNK_NONE;
}

/* With the lock held: have thunks that lead to the module's heap. */
static int
module_thunks_begin(struct module *module)
{
    module->thunks = thunks_take();
    if (module->thunks == THUNK_NONE)
        return fail(ALCOVE_ENOMEM, "no thunks for %s: %d modules are open, and that is the most. Close one", module->name, THUNKS - 1);
    for (int which = 0; which < ALCOVE_ENTRY_COUNT; which++) {
        void *entry = module->allocator->table->entry((enum alcove_entry)which);
        if (entry == NULL)
            continue;
        thunk_lead((enum alcove_entry)which, module->thunks, entry, module->heap);
        module->entries[which] = thunk_of((enum alcove_entry)which, module->thunks);
    }
    return ALCOVE_OK;
}

/* With the lock held: lead the module's imports to its thunks. */
static int
module_lead(struct module *module)
{
    struct routing routing = {.dynamic = module->dynamic, .to = &module->entries};
    objects_walk(object_route, &routing);
    module->imports_routed = routing.count;
    module->given_away = routing.addresses;
    return routing.error == 0 ? ALCOVE_OK
                              : fail_errno(ALCOVE_ESYSTEM, routing.error, "cannot rewrite the imports of %s", module->name);
}

/* With the lock held: make a heap, and lead the module's imports to it. */
static int
module_route(struct module *module, const struct alcove_module_options *options)
{
    struct alcove_heap_options heap = heap_options(module->name, options->limit);
    int error = module->allocator->table->heap_create(&heap, &module->heap);
    if (error != 0) {
        module->heap = ALCOVE_HEAP_NONE;
        return heap_create_fail(module, error);
    }
    crossings_start(module->allocator, module->heap, module->name, options->policy);
    int code = module_thunks_begin(module);
    if (code == ALCOVE_OK)
        code = module_lead(module);
    if (code != ALCOVE_OK) {
        module_thunks_end(module);
        heap_give_up(module->allocator, module->heap); /* threads of a library that was mapped before may have come in */
    }
    return code;
}

/* With the lock held: may this object become a module? */
static int
module_check(const struct module *module, const char *path)
{
    for (const struct module *other = loader.modules; other != NULL; other = other->next)
        if (other->dynamic == module->dynamic)
            return fail(ALCOVE_EBUSY, "%s is open already, as module \"%s\". Close that one first", path, other->name);
    struct routing routing = {.dynamic = module->dynamic};
    objects_walk(object_route, &routing);
    if (!routing.found)
        return fail(ALCOVE_ELOAD, "%s was opened, but is not among the loaded objects", path);
    if (routing.refusal != NULL)
        return fail(ALCOVE_EINVAL, "%s cannot be a module: %s", path, routing.refusal);
    return ALCOVE_OK;
}

static void
module_name(struct module *module, const char *path, const char *name)
{
    const char *slash = strrchr(path, '/');
    if (name == NULL)
        name = slash != NULL && slash[1] != 0 ? slash + 1 : path;
    snprintf(module->name, sizeof module->name, "%s", name);
}

/* Open the library of a new record. Without the lock: its constructors run. */
static int
module_load(struct module *module, const char *path, int flags)
{
    int code;
    /* Bound at once: a slot bound later would be overwritten. */
    flags = flags == 0 ? RTLD_NOW | RTLD_LOCAL : (flags & ~RTLD_LAZY) | RTLD_NOW;
    module->handle = library_open(path, flags, &code);
    if (module->handle == NULL)
        return code;
    const struct link_map *map = linker_map(module->handle);
    if (map == NULL) {
        const char *words = dlerror();
        code = fail(ALCOVE_ELOAD, "%s was opened, but cannot be found again: %s", path, words != NULL ? words : "?");
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

/* Read and check a caller's options; NULL: all are 0. */
static int
module_options_read(struct alcove_module_options *options, const struct alcove_module_options *given)
{
    static const struct alcove_module_options defaults;
    if (given == NULL)
        given = &defaults;
    if (!options_read(options, sizeof *options, given, given->size, ALCOVE_MODULE_OPTIONS_FIRST))
        return options_fail("module_open", given->size, sizeof *options);
    if (options->flags != 0)
        return fail(ALCOVE_EINVAL, "module_open: the options have flags 0x%x; none are known", (unsigned)options->flags);
    if ((unsigned)options->policy > ALCOVE_POLICY_OFF)
        return fail(ALCOVE_EINVAL, "there is no policy %u: 0 guards, 1 is strict, 2 is off", (unsigned)options->policy);
    if (options->policy == ALCOVE_POLICY_OFF && options->limit != 0)
        return fail(ALCOVE_EINVAL, "module_open: a limit of %llu bytes, but the policy is off: then the module has no heap that could have "
                                   "one. Give no limit, or another policy", (unsigned long long)options->limit);
    return limit_check(options->limit);
}

/* The part of module_open that is done with the lock held. */
static int
module_enter(struct module *module, const char *path, const struct alcove_module_options *options)
{
    int code = module_check(module, path);
    if (code == ALCOVE_OK && options->policy != ALCOVE_POLICY_OFF)
        code = module_route(module, options);
    if (code != ALCOVE_OK)
        return code;
    loader.serial++;
    module->id = (alcove_module *)(loader.serial << 4 | 2);
    module->next = loader.modules;
    loader.modules = module;
    return ALCOVE_OK;
}

int
ALCOVE_PUBLIC(module_open)(alcove_allocator *id, const char *path, const struct alcove_module_options *given,
                           alcove_module **out)
{
    struct alcove_module_options options;
    if (out == NULL)
        return fail(ALCOVE_EINVAL, "module_open: `out` is NULL; pass the address of a handle");
    if (path == NULL || path[0] == 0)
        return fail(ALCOVE_EINVAL, "module_open: there is no path; name a shared library");
    int code = module_options_read(&options, given);
    if (code != ALCOVE_OK)
        return code;

    loader_enter();
    struct allocator *allocator = allocator_find(id, &code);
    if (allocator != NULL)
        allocator->users++; /* it cannot be unloaded while we are without the lock */
    loader_leave();
    if (allocator == NULL)
        return code;

    struct module *module = calloc(1, sizeof *module);
    if (module == NULL) {
        code = fail(ALCOVE_ENOMEM, "no memory for the record of %s", path);
    } else {
        module->allocator = allocator;
        module->heap = ALCOVE_HEAP_NONE;
        module_name(module, path, options.name);
        code = module_load(module, path, options.dlopen_flags);
    }
    bool loaded = code == ALCOVE_OK;
    alcove_module *opened = NULL;
    int guard_code = loaded ? module_wait_enter(module) : loader_enter();
    if (loaded)
        code = guard_code != ALCOVE_OK ? guard_code : module_enter(module, path, &options);
    if (code == ALCOVE_OK)
        opened = module->id;
    allocator->users--;
    loader_leave();
    if (code == ALCOVE_OK) {
        *out = opened;
        return ALCOVE_OK;
    }
    if (loaded)
        linker_close(module->handle);
    free(module);
    return code;
}

void *
ALCOVE_PUBLIC(module_symbol)(alcove_module *id, const char *name)
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

    void *address = route_led(name, linker_symbol(module->handle, name));
    if (address == NULL) {
        dlerror();
        fail(ALCOVE_ENOENT, "module \"%s\" has no symbol %s", module->name, name);
    }
    loader_enter();
    module->users--;
    loader_leave();
    return address;
}

int
ALCOVE_PUBLIC(module_stats)(alcove_module *id, struct alcove_module_stats *out)
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
        if (module->heap != ALCOVE_HEAP_NONE)
            module->allocator->table->heap_stats(module->heap, &out->heap);
        crossings_read(module->allocator, module->heap, &out->released_outside, &out->released_foreign);
    }
    loader_leave();
    return code;
}

uint32_t
ALCOVE_PUBLIC(module_heap)(alcove_module *id)
{
    int code;
    loader_enter();
    struct module *module = module_find(id, &code);
    uint32_t heap = module != NULL ? module->heap : ALCOVE_HEAP_NONE;
    loader_leave();
    return heap;
}

int
ALCOVE_PUBLIC(module_limit)(alcove_module *id, uint64_t limit)
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
    loader_leave();
    return code;
}

/* With the lock held, after dlclose: settle the module's heap and fill the report. */
static void
module_settle(struct module *module, unsigned flags, struct alcove_report *report)
{
    snprintf(report->name, sizeof report->name, "%s", module->name);
    if (module->heap == ALCOVE_HEAP_NONE)
        return;
    struct allocator *allocator = module->allocator;
    module_thunks_end(module);
    allocator->table->heap_stats(module->heap, &report->heap);
    crossings_read(allocator, module->heap, &report->released_outside, &report->released_foreign);
    if (flags & ALCOVE_CLOSE_DROP) {
        heap_drop(allocator, module->heap);
    } else {
        heap_give_up(allocator, module->heap); /* an empty one may have a thread inside, too */
        report->kept = report->heap.live_blocks != 0;
    }
}

int
ALCOVE_PUBLIC(module_close)(alcove_module *id, unsigned flags, struct alcove_report *report)
{
    struct alcove_report unread;
    if (report == NULL)
        report = &unread;
    if (flags & ~ALCOVE_CLOSE_DROP)
        return fail(ALCOVE_EINVAL, "module_close: flags 0x%x: only ALCOVE_CLOSE_DROP is known", flags);

    int code;
    loader_enter();
    struct module *module = module_find(id, &code);
    if (module != NULL && module->users != 0) {
        code = fail(ALCOVE_EBUSY, "another thread is looking up a symbol of module \"%s\"", module->name);
        module = NULL;
    }
    if (module != NULL)
        module->closing = true; /* no longer found, but still counted as open */
    loader_leave();
    if (module == NULL)
        return code;

    linker_close(module->handle); /* its destructors free through the entries */

    loader_enter();
    memset(report, 0, sizeof *report);
    report->size = FIGURES_SIZE(struct alcove_report);
    module_settle(module, flags, report);
    struct module **link = &loader.modules;
    while (*link != module)
        link = &(*link)->next;
    *link = module->next;
    loader_leave();
    free(module);
    return ALCOVE_OK;
}
