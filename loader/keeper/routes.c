/* Finds the originals, and tells what an address is. */
#include "keeper/thunks.h"

#include "elf/symbols.h"

#include <dlfcn.h>
#include <string.h>
#include <sys/auxv.h>

struct routes routes;

/* Other names of a function, that libraries import or define. What follows the block among the arguments of a release is passed on. */
static const struct {
    const char *name;
    unsigned which;
} names[] = {
#define NAME(name) {#name, ALCOVE_ENTRY_##name},
    ALCOVE_ENTRIES(NAME)
#undef NAME
    {"dlsym", ROUTE_dlsym},
    {"dlvsym", ROUTE_dlvsym},
    {"cfree", ALCOVE_ENTRY_free},
    {"free_sized", ALCOVE_ENTRY_free},
    {"free_aligned_sized", ALCOVE_ENTRY_free},
    {"__libc_free", ALCOVE_ENTRY_free},
    {"__libc_malloc", ALCOVE_ENTRY_malloc},
    {"__libc_calloc", ALCOVE_ENTRY_calloc},
    {"__libc_realloc", ALCOVE_ENTRY_realloc},
    {"__libc_reallocarray", ALCOVE_ENTRY_reallocarray},
    {"__libc_memalign", ALCOVE_ENTRY_memalign},
    {"__libc_valloc", ALCOVE_ENTRY_valloc},
    {"__libc_pvalloc", ALCOVE_ENTRY_pvalloc},
    {"__posix_memalign", ALCOVE_ENTRY_posix_memalign},
    {"__strdup", ALCOVE_ENTRY_strdup},
    {"__strndup", ALCOVE_ENTRY_strndup},
    /* operator delete, for what replaces C++'s operators along with malloc. Elsewhere they call free. */
    {"_ZdlPv", ALCOVE_ENTRY_free},
    {"_ZdaPv", ALCOVE_ENTRY_free},
    {"_ZdlPvm", ALCOVE_ENTRY_free},
    {"_ZdaPvm", ALCOVE_ENTRY_free},
    {"_ZdlPvRKSt9nothrow_t", ALCOVE_ENTRY_free},
    {"_ZdaPvRKSt9nothrow_t", ALCOVE_ENTRY_free},
    {"_ZdlPvSt11align_val_t", ALCOVE_ENTRY_free},
    {"_ZdaPvSt11align_val_t", ALCOVE_ENTRY_free},
    {"_ZdlPvmSt11align_val_t", ALCOVE_ENTRY_free},
    {"_ZdaPvmSt11align_val_t", ALCOVE_ENTRY_free},
    {"_ZdlPvSt11align_val_tRKSt9nothrow_t", ALCOVE_ENTRY_free},
    {"_ZdaPvSt11align_val_tRKSt9nothrow_t", ALCOVE_ENTRY_free},
};
#define NAMES (sizeof names / sizeof names[0])
const size_t route_name_count = NAMES;

const char *
route_name(size_t i, unsigned *which)
{
    *which = names[i].which;
    return names[i].name;
}

int
route_named(const char *name)
{
    for (size_t i = 0; i < NAMES; i++)
        if (names[i].name[0] == name[0] && strcmp(names[i].name, name) == 0)
            return (int)names[i].which;
    return -1;
}

/* How many variants of a name can lead to us. */
static unsigned
variants_most(unsigned which)
{
    return which == ALCOVE_ENTRY_free ? VARIANTS : DISPATCHED;
}

static bool
variant_known(unsigned which, const void *address)
{
    for (unsigned i = 0; i < routes.variants[which]; i++)
        if (routes.original[which][i] == address)
            return true;
    return false;
}

enum variant_added
variant_add_of(unsigned which, void *address, const void *definer)
{
    if (address == NULL || address == routes.stub[which] || variant_known(which, address))
        return VARIANT_KNOWN;
    unsigned i = 0; /* of one that has gone, or a new one */
    while (i < routes.variants[which] && (routes.original[which][i] != NULL || definer == NULL))
        i++;
    if (i == variants_most(which))
        return VARIANT_NO_PLACE;
    routes.definer[which][i] = definer;
    __atomic_store_n(&routes.original[which][i], address, __ATOMIC_RELEASE);
    if (i == routes.variants[which])
        routes.variants[which]++;
    return VARIANT_NEW;
}

void
variant_drop(unsigned which, unsigned variant)
{
    routes.original[which][variant] = NULL;
}

static void
variant_add(unsigned which, void *address)
{
    variant_add_of(which, address, NULL);
}

/* The program is the first object reported. */
static int
program_stubs(struct dl_phdr_info *info, size_t size, void *argument)
{
    (void)size;
    struct route_answers *answers = argument;
    struct object object;
    struct import import;
    if (object_read(&object, info)) {
        struct import_cursor cursor = imports_of(&object);
        while (import_next(&cursor, &import)) {
            int which = import.stub != 0 ? route_named(import.name) : -1;
            if (which >= 0)
                answers->stub[which] = (void *)import.stub;
        }
    }
    return 1;
}

/* The function behind a program's stub: what the objects after the program see. */
static void *
behind_stub(const char *name, const void *stub_address)
{
    void *self = linker_open(NULL, RTLD_LAZY);
    void *found = NULL;
    const struct link_map *map = self != NULL ? linker_map(self) : NULL;
    for (map = map != NULL ? map->l_next : NULL; map != NULL && found == NULL; map = map->l_next) {
        void *handle = linker_open(map->l_name, RTLD_LAZY | RTLD_NOLOAD);
        if (handle == NULL)
            continue;
        found = linker_symbol(handle, name);
        if (found == stub_address)
            found = NULL;
        linker_close(handle);
    }
    if (self != NULL)
        linker_close(self);
    return found;
}

/* Versions that the C library has the names in. */
struct versions {
    uintptr_t libc;
    struct {
        unsigned which;
        const char *version;
    } of[2 * ROUTE_COUNT];
    size_t count;
};

static bool
defines_original(const struct object *object)
{
    for (unsigned which = 0; which < ROUTE_COUNT; which++)
        for (unsigned i = 0; i < routes.variants[which]; i++)
            if (routes.original[which][i] != NULL && object_holds(object, (uintptr_t)routes.original[which][i]))
                return true;
    return false;
}

static bool
is_function(const struct symbol *symbol)
{
    return ELF64_ST_TYPE(symbol->entry->st_info) == STT_FUNC;
}

/* libc's own functions are reached by objects with a scope of their own (RTLD_DEEPBIND), and before all are searched some
 * object may have the name in the version that libc has it in, which is hidden from whoever asks for none. */
static int
libc_versions(struct dl_phdr_info *info, size_t size, void *argument)
{
    (void)size;
    struct versions *versions = argument;
    struct object object;
    if (!object_read(&object, info) || !object_holds(&object, versions->libc))
        return 0;
    struct symbol symbol;
    for (unsigned which = 0; which < ROUTE_COUNT; which++) {
        struct symbol_cursor cursor = symbols_named(&object, names[which].name);
        while (symbol_next(&cursor, &symbol)) {
            const char *version = is_function(&symbol) ? symbol_version(&object, symbol.index) : NULL;
            if (version != NULL && versions->count < sizeof versions->of / sizeof versions->of[0]) {
                versions->of[versions->count].which = which;
                versions->of[versions->count++].version = version;
            }
        }
    }
    return 1;
}

static int
libc_add(struct dl_phdr_info *info, size_t size, void *unused)
{
    (void)size;
    (void)unused;
    struct object object;
    if (!object_read(&object, info) || !object_holds(&object, routes.libc))
        return 0;
    struct symbol symbol;
    for (unsigned which = 0; which < ROUTE_COUNT; which++) {
        struct symbol_cursor cursor = symbols_named(&object, names[which].name);
        while (symbol_next(&cursor, &symbol))
            if (is_function(&symbol))
                variant_add(which, (void *)symbol.address);
    }
    return 1;
}

/* Other names that an object with an original defines. */
static int
other_names_add(struct dl_phdr_info *info, size_t size, void *unused)
{
    (void)size;
    (void)unused;
    struct object object;
    if (!object_read(&object, info) || !defines_original(&object))
        return 0;
    struct symbol symbol;
    for (size_t i = ROUTE_COUNT; i < NAMES; i++) {
        struct symbol_cursor cursor = symbols_named(&object, names[i].name);
        while (symbol_next(&cursor, &symbol))
            if (is_function(&symbol))
                variant_add(names[i].which, (void *)symbol.address);
    }
    return 0;
}

static void
ask_by_version(struct route_answers *answers)
{
    struct versions versions = {.libc = answers->libc};
    objects_walk(libc_versions, &versions);
    for (size_t i = 0; i < versions.count; i++) {
        unsigned which = versions.of[i].which;
        answers->versioned[i].which = which;
        answers->versioned[i].address = linker_symbol_of(RTLD_DEFAULT, names[which].name, versions.of[i].version);
    }
    answers->versioned_count = versions.count;
}

/* Where a program is started by way of the dynamic linker, the kernel knows of no base. */
static uintptr_t
linker_base(void)
{
    uintptr_t base = getauxval(AT_BASE);
    const struct r_debug *debug = base == 0 ? linker_symbol(RTLD_DEFAULT, "_r_debug") : NULL;
    return debug != NULL ? debug->r_ldbase : base;
}

void
routes_ask(struct route_answers *answers)
{
    *answers = (struct route_answers){.linker = linker_base()};
    objects_walk(program_stubs, answers);
    answers->libc = (uintptr_t)linker_symbol(RTLD_DEFAULT, "gnu_get_libc_version");
    if (answers->libc == 0)
        answers->libc = (uintptr_t)linker_symbol(RTLD_DEFAULT, "__libc_start_main"); /* musl */
    for (unsigned which = 0; which < ROUTE_COUNT; which++) {
        void *found = linker_symbol(RTLD_DEFAULT, names[which].name);
        if (found != NULL && found == answers->stub[which])
            found = behind_stub(names[which].name, found);
        answers->found[which] = found;
    }
    ask_by_version(answers);
}

/* Few, and a thread's stack may be small. */
static void
value_add(struct values *values, const void *address)
{
    size_t i = values->count++;
    for (; i > 0 && values->of[i - 1] > (uintptr_t)address; i--)
        values->of[i] = values->of[i - 1];
    values->of[i] = (uintptr_t)address;
}

void
routes_values_collect(void)
{
    routes.released.count = routes.ours.count = routes.known.count = 0;
    for (unsigned which = 0; which < ROUTE_COUNT; which++)
        for (unsigned i = 0; i < routes.variants[which]; i++) {
            void *original = routes.original[which][i], *guard = guard_of(which, i),
                 *dispatcher = dispatcher_of(which, i);
            if (original == NULL)
                continue;
            value_add(&routes.known, original);
            if (guard != NULL && routes.local[which][i] != 0)
                value_add(&routes.released, (char *)original + routes.local[which][i]);
            if (guard != NULL) {
                value_add(&routes.released, original);
                value_add(&routes.known, guard);
                value_add(&routes.ours, guard);
            }
            if (dispatcher != NULL) {
                value_add(&routes.released, dispatcher);
                value_add(&routes.known, dispatcher);
                value_add(&routes.ours, dispatcher);
            }
        }
}

int
routes_start(const struct route_answers *answers)
{
    routes.libc = answers->libc;
    routes.linker = answers->linker;
    memcpy(routes.stub, answers->stub, sizeof routes.stub);
    for (unsigned which = 0; which < ROUTE_COUNT; which++)
        variant_add(which, answers->found[which]);
    for (size_t i = 0; i < answers->versioned_count; i++)
        variant_add(answers->versioned[i].which, answers->versioned[i].address);
    objects_walk(libc_add, NULL);
    objects_walk(other_names_add, NULL);
    static const enum alcove_entry needed[] = {ALCOVE_ENTRY_malloc, ALCOVE_ENTRY_free, ALCOVE_ENTRY_realloc,
                                               ALCOVE_ENTRY_malloc_usable_size};
    for (size_t i = 0; i < sizeof needed / sizeof needed[0]; i++)
        if (routes.variants[needed[i]] == 0)
            return fail(ALCOVE_ESYSTEM, "this process has no function %s to guard", names[needed[i]].name);
    routes_values_collect();
    return ALCOVE_OK;
}

void *
route_resting(unsigned which, unsigned variant)
{
    void *guard = guard_of(which, variant);
    return guard != NULL ? guard : routes.original[which][variant];
}

static const void *
local_entry(unsigned which, unsigned variant)
{
    return (const char *)routes.original[which][variant] + routes.local[which][variant];
}

/* What an address is among the functions of one name. */
static struct route
route_among(const void *address, unsigned which)
{
    struct route route = {.which = which};
    for (unsigned i = 0; i < routes.variants[which]; i++) {
        route.variant = i;
        route.theirs = routes.definer[which][i] != NULL;
        if (address == routes.original[which][i] || (routes.local[which][i] != 0 && address == local_entry(which, i)))
            route.kind = ROUTE_ORIGINAL;
        else if (address == guard_of(which, i))
            route.kind = ROUTE_GUARD;
        else if (address == dispatcher_of(which, i))
            route.kind = ROUTE_DISPATCHER;
        if (route.kind != ROUTE_NONE)
            return route;
    }
    route.variant = 0;
    route.theirs = false;
    if (address == routes.stub[which])
        route.kind = ROUTE_ORIGINAL;
    return route;
}

struct route
route_of(const void *address, int wanted)
{
    struct route route = {.kind = ROUTE_NONE};
    if (address == NULL)
        return route;
    if (wanted >= 0)
        route = route_among(address, (unsigned)wanted);
    for (unsigned which = 0; which < ROUTE_COUNT && route.kind == ROUTE_NONE; which++)
        route = route_among(address, which);
    if (route.kind == ROUTE_NONE && thunk_is(address))
        route = (struct route){.which = thunk_name(address), .kind = ROUTE_THUNK};
    return route;
}
