/*
 * Leads a module's imports to its thunks, all of them or none, and back. What is rewritten is every word of its data that leads to a
 * function that we know, in the calling thread's copy of its variables, too, and words of the program's that are copies of its variables. All with
 * the loader's lock held, but for module_look() and module_code().
 */
#include "keeper/code.h"
#include "keeper/lead.h"
#include "keeper/steering.h"
#include "keeper/thunks.h"
#include "module.h"

#include "elf/symbols.h"
#include "elf/words.h"

#include <dlfcn.h>
#include <errno.h>
#include <string.h>
#include <sys/auxv.h>

/* What is to be done to the object of a module. */
struct routing {
    struct module *module;
    const char *refusal; /* why it cannot be a module; NULL: it can */
    int error;
    bool look; /* and lead nothing */
    bool unknown; /* the allocator does not know an import's name */
    bool found;
    unsigned copies; /* words of the program's that are copies of its variables */
    unsigned slots; /* imports that lead to its thunks */
    struct values thunks; /* in use */
    char partial[NAME_BYTES]; /* an import that leads to nothing we know */
};

/* Routing these would lead the allocator, the loader or malloc itself in circles. libc is among
 * them even where a preloaded library has taken malloc over. */
static const char *
module_refusal(const struct object *object)
{
    if (object_is_allocator(object))
        return "it is the allocator";
    if (object_holds(object, getauxval(AT_SYSINFO_EHDR)))
        return "it is the kernel's code in this process (vDSO)";
    if (routes.linker != 0 && object->base == routes.linker && !object_holds(object, routes.libc))
        return "it is the dynamic linker";
    if (object_holds(object, (uintptr_t)&loader))
        return "it holds the loader";
    for (unsigned i = 0; i < routes.variants[ALCOVE_ENTRY_malloc]; i++)
        if (object_holds(object, (uintptr_t)routes.original[ALCOVE_ENTRY_malloc][i]))
            return object_holds(object, routes.libc) ? "it is the C library" : "it holds the malloc of this process";
    return object_holds(object, routes.libc) ? "it is the C library" : NULL;
}

static bool
is_of(struct object *object, const struct dl_phdr_info *info, const struct module *module)
{
    return object_read(object, info) && object->dynamic == module->dynamic;
}

/* Does code look like what a slot that is not bound yet leads to, rather than like a function of the object's own that an IFUNC chose? */
static bool
is_plt(const struct object *object, uintptr_t address)
{
    unsigned char code[5];
    if (object_room(object, address, PF_R | PF_X) < sizeof code)
        return true; /* it cannot be told */
    memcpy(code, (const void *)address, sizeof code);
#if defined __x86_64__
    static const unsigned char endbr64[] = {0xf3, 0x0f, 0x1e, 0xfa};
    return code[memcmp(code, endbr64, sizeof endbr64) == 0 ? 4 : 0] == 0x68; /* push the number of the relocation */
#elif defined __aarch64__
    static const unsigned char save[] = {0xf0, 0x7b, 0xbf, 0xa9}; /* stp x16, x30, [sp, #-16]!, perhaps behind bti c */
    return memcmp(code, save, sizeof save) == 0 || code[0] == 0x5f;
#else
    return true;
#endif
}

/* Does it lead to the object's own function of that name, entered behind its beginning? */
static bool
is_entered_within(const struct object *object, const struct import *import, uintptr_t value)
{
#ifdef __powerpc64__
    struct symbol_cursor cursor = symbols_named(object, import->name);
    struct symbol symbol;
    while (symbol_next(&cursor, &symbol))
        if (symbol.address + PPC64_LOCAL_ENTRY_OFFSET(symbol.entry->st_other) == value)
            return true;
#else
    (void)object, (void)import, (void)value;
#endif
    return false;
}

/* Not bound yet: it leads into the object's own PLT, and not to a function of its own. */
static bool
is_unbound(const struct object *object, const struct import *import)
{
    uintptr_t value = (uintptr_t)import_value(import);
    return import->kind == IMPORT_CALL && value != 0 && value != import->definition && object_holds(object, value) && is_plt(object, value) &&
           !is_entered_within(object, import, value);
}

/* Where calls from within its own object may enter a function. */
static uintptr_t
entered_within(const struct symbol *symbol)
{
#ifdef __powerpc64__
    return symbol->address + PPC64_LOCAL_ENTRY_OFFSET(symbol->entry->st_other);
#else
    return symbol->address;
#endif
}

/* A function that the object defines by the name. */
static bool
defines(const struct object *object, const char *name, uintptr_t address)
{
    struct symbol_cursor cursor = symbols_named(object, name);
    struct symbol symbol;
    while (symbol_next(&cursor, &symbol))
        if (symbol.address == address || entered_within(&symbol) == address || ELF64_ST_TYPE(symbol.entry->st_info) == STT_GNU_IFUNC)
            return true;
    return false;
}

struct definer {
    const char *name;
    uintptr_t address;
};

static int
definer_is(struct dl_phdr_info *info, size_t size, void *argument)
{
    (void)size;
    const struct definer *definer = argument;
    struct object object;
    return object_read(&object, info) && object_holds(&object, definer->address) && defines(&object, definer->name, definer->address);
}

/* Does it lead to somebody's function of that very name? Then the object has another allocator than the process has, and keeps it. */
static bool
is_theirs(const char *name, const void *value)
{
    struct definer definer = {name, (uintptr_t)value};
    return objects_walk(definer_is, &definer) != 0;
}

static bool
is_cxx_new(const char *name)
{
    return strncmp(name, "_Znw", 4) == 0 || strncmp(name, "_Zna", 4) == 0;
}

/* --- which names lead to what we know, where the object is not bound yet */

/* An import of each name that is not bound, and the version of it that the object wants, or NULL. */
struct unbound {
    const struct module *module;
    unsigned names; /* a bit for each */
    const char *name[ALCOVE_ENTRY_COUNT], *version[ALCOVE_ENTRY_COUNT];
};

/* Is it the name itself, and not another one of the same? */
static bool
is_proper(const char *name, int which)
{
    unsigned same;
    return strcmp(name, route_name((size_t)which, &same)) == 0;
}

static int
unbound_look(struct dl_phdr_info *info, size_t size, void *argument)
{
    (void)size;
    struct unbound *unbound = argument;
    struct object object;
    if (!is_of(&object, info, unbound->module))
        return 0;
    struct import import;
    struct import_cursor cursor = imports_of(&object);
    while (import_next(&cursor, &import)) {
        int which = is_unbound(&object, &import) ? route_named(import.name) : -1;
        if (which < 0 || which >= ALCOVE_ENTRY_COUNT)
            continue;
        if ((unbound->names & 1u << which) != 0 && !is_proper(import.name, which))
            continue;
        unbound->names |= 1u << which;
        unbound->name[which] = import.name;
        unbound->version[which] = symbol_version(&object, import.symbol);
    }
    return 1;
}

static bool
is_known(void *handle, const char *name, const char *version, int which, unsigned *variant)
{
    struct route route = route_of(linker_symbol_of(handle, name, version), which);
    *variant = route.variant;
    return route.kind != ROUTE_NONE && !route.theirs;
}

/* What it will be bound to depends on its scope: the program's and its libraries' first, or (RTLD_DEEPBIND) last. If both say what we know, or
 * neither, it does not matter which. */
void
module_look(struct module *module)
{
    struct unbound unbound = {.module = module};
    linker_variables(module->handle);
    objects_walk(unbound_look, &unbound);
    module->known = module->strange = 0;
    for (int which = 0; which < ALCOVE_ENTRY_COUNT; which++) {
        if ((unbound.names & 1u << which) == 0)
            continue;
        unsigned variant, own;
        bool first = is_known(RTLD_DEFAULT, unbound.name[which], unbound.version[which], which, &variant),
             last = is_known(module->handle, unbound.name[which], unbound.version[which], which, &own);
        /* If nobody before libc has it in that version, it will be bound to who has it in none, whom the dynamic linker does not name here. */
        module->looked[which] = (uint8_t)(variant != own ? variant : 0);
        module->known |= (unsigned)(first && last) << which;
        module->strange |= (unsigned)(!first && !last) << which;
    }
    dlerror();
}

/* --- forth */

static void *
lead_to_thunk(struct route route, const void *argument)
{
    const struct module *module = argument;
    return route.kind == ROUTE_THUNK || route.theirs || route.which >= ALCOVE_ENTRY_COUNT ? NULL : module->entries[route.which];
}

static bool
in_relro(const struct object *object, const struct import *import)
{
    return (uintptr_t)import->slot >= object->relro_start && (uintptr_t)import->slot < object->relro_end;
}

static void
note_partial(struct routing *routing, const char *name)
{
    if (routing->partial[0] == 0)
        strncpy(routing->partial, name, sizeof routing->partial - 1);
    routing->module->imports_lost++;
}

/* Where an import led. Functions of other names of free may want more arguments than free has: they do not count where it has its own. */
static void
note_variant(struct module *module, const char *name, int which, unsigned variant)
{
    bool proper = is_proper(name, which);
    if (!proper && (module->named & 1u << which) != 0)
        return;
    module->variant[which] = (uint8_t)variant;
    module->named |= (uint32_t)proper << which;
    if (proper)
        crossings_variant(module->allocator, module->heap, (unsigned)which, variant);
}

/* One import by name. 0 or an errno value. */
static int
import_lead(struct routing *routing, const struct object *object, const struct import *import, struct writer *writer)
{
    struct module *module = routing->module;
    void *value = import_value(import);
    int which = route_named(import->name);
    if (which < 0 || which >= ALCOVE_ENTRY_COUNT || value == NULL) {
        module->imports_new += value != NULL && is_cxx_new(import->name);
        return 0;
    }
    struct route route = route_of(value, which);
    if (route.theirs)
        return 0;
    bool unbound = route.kind == ROUTE_NONE && is_unbound(object, import);
    if (route.kind == ROUTE_NONE && !(unbound && (module->known & 1u << which) != 0)) {
        if (import->kind == IMPORT_DATA && !in_relro(object, import)) /* whoever stored something else there had his reasons */
            return 0;
        bool release_of_theirs = import->name[0] == '_' && import->name[1] == 'Z'; /* operator delete, of whoever has the operators */
        if ((unbound && (module->strange & 1u << which) == 0) || (!unbound && !release_of_theirs && (uintptr_t)value != import->definition && !is_theirs(import->name, value)))
            note_partial(routing, import->name);
        return 0;
    }
    module->imports_found++;
    void *to = module->entries[which];
    if (to == NULL) {
        routing->unknown |= module->imports_lost == 0;
        note_partial(routing, import->name);
        return 0;
    }
    if (route.kind == ROUTE_ORIGINAL || route.kind == ROUTE_GUARD || route.kind == ROUTE_DISPATCHER)
        note_variant(module, import->name, which, route.variant);
    else if (unbound)
        note_variant(module, import->name, which, module->looked[which]);
    module->given_away |= import->kind != IMPORT_CALL;
    int error = value == to ? 0 : writer_store(writer, import->slot, value, to);
    if (error == WORD_CHANGED) /* it was bound at this very moment, and so to what we know, or it is a word of another import, too */
        error = writer_store(writer, import->slot, import_value(import), to);
    if (error == 0)
        module->imports_routed++;
    return error;
}

static int
imports_lead(struct routing *routing, const struct object *object)
{
    struct import_cursor cursor = imports_of(object);
    struct writer writer = writer_of(object);
    struct import import;
    int error = 0;
    while (error == 0 && import_next(&cursor, &import))
        error = import_lead(routing, object, &import, &writer);
    int end = writer_end(&writer);
    return error != 0 ? error : end;
}

void
module_code(const struct module *module, const struct object *object)
{
    uint32_t names = 0;
    for (int which = 0; which < ALCOVE_ENTRY_COUNT; which++)
        names |= (uint32_t)(module->entries[which] != NULL) << which;
    code_enter(module->thunks, object, names);
}

static int
object_route(struct dl_phdr_info *info, size_t size, void *argument)
{
    (void)size;
    struct routing *routing = argument;
    struct module *module = routing->module;
    struct object object;
    if (!is_of(&object, info, module))
        return 0;
    routing->found = true;
    routing->refusal = module_refusal(&object);
    if (routing->refusal != NULL || routing->look)
        return 1;
    module_code(module, &object);
    routing->error = imports_lead(routing, &object);
    unsigned words = 0;
    if (routing->error == 0)
        routing->error = object_lead(&object, &routes.known, lead_to_thunk, module, &words);
    if (routing->error == 0)
        words += thread_lead(info, &routes.known, lead_to_thunk, module);
    module->given_away |= words != 0;
    return 1;
}

/* --- copies: a program's variable that is a library's, by a COPY relocation. The library's own code uses that one. */

struct copies {
    const struct routing *routing;
    lead_choice *choose;
    struct object object; /* the module's */
    unsigned count;
    int error;
};

/* Cheaper than to ask for the route, for each of many words. */
static bool
may_be_known(const void *value)
{
    for (unsigned which = 0; which < ROUTE_COUNT; which++)
        if (value == routes.stub[which])
            return value != NULL;
    return thunk_is(value) || value_among(routes.known.of, routes.known.count, (uintptr_t)value);
}

static void
copy_lead(struct copies *copies, const struct object *program, const struct import *copy)
{
    struct writer writer = writer_of(program);
    for (size_t offset = 0; offset + sizeof(void *) <= copy->bytes; offset++) { /* it may be packed */
        struct import word = *copy;
        word.slot = (void **)((char *)copy->slot + offset);
        void *value = import_value(&word);
        if (!may_be_known(value))
            continue;
        struct route route = route_of(value, -1);
        const struct module *module = copies->routing->module;
        bool others = route.kind == ROUTE_THUNK && value != module->entries[route.which];
        void *to = route.kind != ROUTE_NONE && !others ? copies->choose(route, module) : NULL;
        if (to == NULL || to == value)
            continue;
        int error = writer_store(&writer, word.slot, value, to);
        copies->count += error == 0;
        if (copies->error == 0 && error != WORD_CHANGED)
            copies->error = error;
    }
    writer_end(&writer);
}

static int
program_copies(struct dl_phdr_info *info, size_t size, void *argument)
{
    (void)size;
    struct copies *copies = argument;
    struct object program;
    struct import copy;
    if (object_read(&program, info)) {
        struct import_cursor cursor = imports_of_kinds(&program, IMPORTS_OF(IMPORT_COPY));
        while (import_next(&cursor, &copy)) {
            struct symbol_cursor symbols = symbols_named(&copies->object, copy.name);
            struct symbol symbol;
            if (symbol_next(&symbols, &symbol))
                copy_lead(copies, &program, &copy);
        }
    }
    return 1; /* the program is the first object */
}

static int
object_find(struct dl_phdr_info *info, size_t size, void *argument)
{
    (void)size;
    struct copies *copies = argument;
    return is_of(&copies->object, info, copies->routing->module);
}

static int
copies_lead(const struct routing *routing, lead_choice *choose, unsigned *count)
{
    struct copies copies = {.routing = routing, .choose = choose};
    if (objects_walk(object_find, &copies) == 0)
        return 0;
    objects_walk(program_copies, &copies);
    *count = copies.count;
    return copies.error;
}

int
module_check(struct module *module, const char *path)
{
    struct routing routing = {.module = module, .look = true};
    objects_walk(object_route, &routing);
    if (!routing.found)
        return fail(ALCOVE_ELOAD, "%s was opened, but is not among the loaded objects", path);
    if (routing.refusal != NULL)
        return fail(ALCOVE_EINVAL, "%s cannot be a module: %s", path, routing.refusal);
    return ALCOVE_OK;
}

int
module_lead(struct module *module, bool accept)
{
    struct routing routing = {.module = module};
    unsigned copies = 0;
    module->led = true;
    module->imports_found = module->imports_routed = module->imports_new = module->imports_lost = 0;
    objects_walk(object_route, &routing);
    if (routing.error == 0)
        routing.error = copies_lead(&routing, lead_to_thunk, &copies);
    module->copied = copies != 0;
    if (routing.error != 0)
        return fail_errno(ALCOVE_ESYSTEM, routing.error, "cannot rewrite the imports of %s", module->name);
    if (module->imports_lost != 0 && !accept)
        return fail(ALCOVE_EPARTIAL, "%s would be routed in part only: its %s (and %u imports more) %s, or give ALCOVE_OPEN_PARTIAL in options.flags",
                    module->name, routing.partial, module->imports_lost - 1,
                    routing.unknown ? "is a function that this allocator does not have. Load one of this release"
                                    : "leads to no function that is known here. Open it before others do");
    return ALCOVE_OK;
}

/* --- what others have made of them */

static int
slots_count(struct dl_phdr_info *info, size_t size, void *argument)
{
    (void)size;
    struct routing *routing = argument;
    struct object object;
    if (!is_of(&object, info, routing->module))
        return 0;
    struct import_cursor cursor = imports_of(&object);
    struct import import;
    while (import_next(&cursor, &import)) {
        void *value = import_value(&import);
        routing->slots += thunk_is(value) && value == routing->module->entries[thunk_name(value)];
    }
    return 1;
}

static unsigned
slots_of(const struct module *module)
{
    struct routing routing = {.module = (struct module *)module};
    objects_walk(slots_count, &routing);
    return routing.slots;
}

bool
module_is_hooked(const struct module *module)
{
    return slots_of(module) < module->imports_routed;
}

bool
module_stays(const struct module *module)
{
    if (!object_is_mapped(module->dynamic))
        return false;
    return module->imports_routed == 0 || module->hooked || slots_of(module) != 0;
}

/* --- and back */

static void *
lead_back(struct route route, const void *argument)
{
    const struct module *module = argument;
    return route.kind == ROUTE_THUNK ? route_resting(route.which, module->variant[route.which]) : NULL;
}

/* Its own thunks, in rising order. */
static void
thunk_values(struct values *values, const struct module *module)
{
    for (int which = 0; which < ALCOVE_ENTRY_COUNT; which++) {
        if (module->entries[which] == NULL)
            continue;
        size_t i = values->count++;
        for (; i > 0 && values->of[i - 1] > (uintptr_t)module->entries[which]; i--)
            values->of[i] = values->of[i - 1];
        values->of[i] = (uintptr_t)module->entries[which];
    }
}

static int
object_unroute(struct dl_phdr_info *info, size_t size, void *argument)
{
    (void)size;
    struct routing *routing = argument;
    struct object object;
    if (!is_of(&object, info, routing->module))
        return 0;
    routing->found = true;
    routing->error = object_lead(&object, &routing->thunks, lead_back, routing->module, NULL);
    thread_lead(info, &routing->thunks, lead_back, routing->module);
    return 1;
}

int
module_unlead(struct module *module)
{
    static struct routing routing; /* large, for a small stack */
    routing = (struct routing){.module = module};
    thunk_values(&routing.thunks, module);
    objects_walk(object_unroute, &routing);
    unsigned copies = 0;
    int error = module->copied ? copies_lead(&routing, lead_back, &copies) : 0;
    return routing.error != 0 ? routing.error : error;
}
