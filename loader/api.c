/*
 * The public functions. Each leads to the keeper's function of its name (keeper/meeting.h), which may be that of another copy
 * of the loader. noinline: by its return address a function knows its caller. None is a cancellation point.
 */
#include "loader.h"

#include "keeper/meeting.h"

#define PUBLIC(type) __attribute__((noinline)) type

/* There is no keeper, or it does not have the function. Returns the code. */
static int
keeper_lacks(const struct keeper *keeper, const char *function)
{
    if (keeper == NULL)
        return fail(ALCOVE_ESYSTEM, "%s: the library that this loader is part of is being unloaded, and nobody called the loader "
                                    "before. Call it earlier", function);
    struct shown shown;
    const char *found = linker_file(keeper), *file = text_show(&shown, found != NULL ? found : "the program");
    const char *release = keeper->release != NULL ? keeper->release : "?";
    if (keeper->version != KEEPER_VERSION)
        return fail(ALCOVE_EABI, "%s: the loader in %s, release %s, was called first in this process, and this one of release "
                                 ALCOVE_VERSION " cannot work with it (version %u, needed is %u). Build both from one release",
                    function, file, release, (unsigned)keeper->version, KEEPER_VERSION);
    return fail(ALCOVE_EABI, "%s: the loader in %s, release %s, was called first in this process, and does not have that function. "
                             "Build it from release " ALCOVE_VERSION " or later, or call this one first", function, file, release);
}

/* Return what the keeper's function does, or else `failed`, which may name the `code`. */
#define LEAD(failed, function, ...)                            \
    do {                                                       \
        UNCANCELLED;                                           \
        const struct keeper *keeper = keeper_of_process();     \
        if (KEEPER_HAS(keeper, function))                      \
            return keeper->function(__VA_ARGS__);              \
        int code = keeper_lacks(keeper, #function);            \
        (void)code;                                            \
        return failed;                                         \
    } while (0)

static int
load_for(alcove_allocator **out, const struct alcove_load_options *options, const void *caller)
{
    LEAD(code, load, out, options, caller);
}

PUBLIC(int)
ALCOVE_PUBLIC(load)(alcove_allocator **out, const struct alcove_load_options *given)
{
    struct alcove_load_options options;
    struct which which;
    UNCANCELLED;
    keeper_of_process(); /* so that messages are where they are looked for */
    int code = which_fill(&which, &options, given);
    return code != ALCOVE_OK ? code : which_told(&which, load_for(out, &options, __builtin_return_address(0)));
}

PUBLIC(int)
ALCOVE_PUBLIC(unload)(alcove_allocator *allocator, unsigned flags)
{
    LEAD(code, unload, allocator, flags);
}

PUBLIC(const struct alcove_table *)
ALCOVE_PUBLIC(table_of)(alcove_allocator *allocator)
{
    LEAD(NULL, table_of, allocator);
}

PUBLIC(int)
ALCOVE_PUBLIC(module_open)(alcove_allocator *allocator, const char *path, const struct alcove_module_options *options,
                           alcove_module **out)
{
    LEAD(code, module_open, allocator, path, options, out, __builtin_return_address(0));
}

PUBLIC(void *)
ALCOVE_PUBLIC(module_symbol)(alcove_module *module, const char *name)
{
    LEAD(NULL, module_symbol, module, name);
}

PUBLIC(int)
ALCOVE_PUBLIC(module_stats)(alcove_module *module, struct alcove_module_stats *out)
{
    LEAD(code, module_stats, module, out);
}

PUBLIC(uint32_t)
ALCOVE_PUBLIC(module_heap)(alcove_module *module)
{
    LEAD(ALCOVE_HEAP_NONE, module_heap, module);
}

PUBLIC(int)
ALCOVE_PUBLIC(module_limit)(alcove_module *module, uint64_t limit)
{
    LEAD(code, module_limit, module, limit);
}

PUBLIC(int)
ALCOVE_PUBLIC(module_close)(alcove_module *module, unsigned flags, struct alcove_report *report)
{
    LEAD(code, module_close, module, flags, report);
}

PUBLIC(int)
ALCOVE_PUBLIC(refresh)(void)
{
    LEAD(code, refresh);
}

static int
on_for(enum alcove_event event, alcove_handler function, void *context)
{
    LEAD(code, on, event, function, context);
}

/* What was set through this copy, whose library may go: its handlers as a rule with it. */
#define EVENTS_KEPT 8
static _Atomic(alcove_handler) kept[EVENTS_KEPT];

PUBLIC(int)
ALCOVE_PUBLIC(on)(enum alcove_event event, alcove_handler function, void *context)
{
    UNCANCELLED;
    int code = on_for(event, function, context);
    if (code == ALCOVE_OK && (unsigned)event < EVENTS_KEPT)
        kept[event] = function;
    return code;
}

__attribute__((destructor)) static void
take_handlers_away(void)
{
    UNCANCELLED;
    const struct keeper *keeper = keeper_known();
    for (unsigned event = 0; event < EVENTS_KEPT; event++)
        if (kept[event] != NULL && KEEPER_HAS(keeper, off))
            keeper->off((enum alcove_event)event, kept[event]);
}

PUBLIC(int)
ALCOVE_PUBLIC(modules)(struct alcove_module_entry *out, uint32_t stride, uint32_t *count)
{
    LEAD(code, modules, out, stride, count);
}

/* The keeper has the messages of all copies that it works for. */
PUBLIC(const char *)
ALCOVE_PUBLIC(error_message)(void)
{
    const struct keeper *keeper = keeper_known();
    return keeper_has_messages(keeper) ? keeper->error_message() : error_message();
}
