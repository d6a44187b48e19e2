/*
 * Finds who defines the names that release, besides those who were there at the start: libraries with an allocator of their own, and the libc of
 * another namespace. Their functions stay theirs, and what is theirs goes to them; but a block of ours that gets there goes home. They come and go:
 * what is known of one that has gone must not be taken for what lies in its place next. All with the loader's lock held.
 */
#include "keeper/definers.h"
#include "keeper/steering.h"

#include "elf/symbols.h"

struct look {
    bool changed;
    bool crowded; /* there are more of them than places */
    bool seen[ROUTE_COUNT][VARIANTS]; /* of variants that have a definer: it is there */
};

static const unsigned releases[] = {ALCOVE_ENTRY_free, ALCOVE_ENTRY_realloc, ALCOVE_ENTRY_reallocarray, ALCOVE_ENTRY_malloc_usable_size,
                                    ROUTE_dlsym, ROUTE_dlvsym};
#define RELEASES (sizeof releases / sizeof releases[0])

static bool crowded_before;

/* Once, until there is room for all again. */
static void
crowded_tell(struct look *look, const struct object *object, const char *name)
{
    if (!look->crowded && !crowded_before)
        fail(ALCOVE_OK, "%s has a function %s of its own, as so many libraries have that this one cannot be guarded: it aborts on a module's block",
             object->name, name);
    look->crowded = true;
}

static void
names_look(struct look *look, const struct object *object)
{
    for (size_t i = 0; i < route_name_count; i++) {
        unsigned which;
        const char *name = route_name(i, &which);
        struct symbol_cursor cursor = symbols_named(object, name);
        struct symbol symbol;
        while (guard_of(which, 0) != NULL && symbol_next(&cursor, &symbol)) {
            struct route route = route_of((void *)symbol.address, which);
            if (ELF64_ST_TYPE(symbol.entry->st_info) != STT_FUNC)
                continue;
            enum variant_added added = VARIANT_KNOWN;
            if (route.kind == ROUTE_NONE)
                added = variant_add_of(which, (void *)symbol.address, object->dynamic);
            look->changed |= added == VARIANT_NEW;
            if (added == VARIANT_NO_PLACE)
                crowded_tell(look, object, name);
            else if (route.kind == ROUTE_ORIGINAL && route.theirs && steering_is_on())
                look->changed = true; /* a new one, where another was: else it would be worth a guard */
        }
    }
}

static bool
defines_free(const struct object *object)
{
    struct symbol_cursor cursor = symbols_named(object, "free");
    struct symbol symbol;
    return symbol_next(&cursor, &symbol);
}

static int
object_look(struct dl_phdr_info *info, size_t size, void *argument)
{
    (void)size;
    struct look *look = argument;
    struct object object;
    if (!object_read(&object, info))
        return 0;
    if (defines_free(&object))
        names_look(look, &object);
    for (size_t r = 0; r < RELEASES; r++)
        for (unsigned i = 0; i < routes.variants[releases[r]]; i++)
            if (routes.definer[releases[r]][i] == object.dynamic && object_holds(&object, (uintptr_t)routes.original[releases[r]][i]))
                look->seen[releases[r]][i] = true;
    return 0;
}

bool
definers_look(void)
{
    struct look look = {.changed = false};
    bool settled;
    objects_walk_all(object_look, &look, &settled);
    for (size_t r = 0; r < RELEASES; r++)
        for (unsigned i = 0; i < routes.variants[releases[r]]; i++)
            if (settled && routes.definer[releases[r]][i] != NULL && !look.seen[releases[r]][i] && routes.original[releases[r]][i] != NULL) {
                variant_drop(releases[r], i);
                look.changed = true;
            }
    crowded_before = look.crowded;
    if (look.changed)
        routes_values_collect();
    return look.changed;
}
