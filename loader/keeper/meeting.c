/*
 * The meeting of the loader's copies: finds the keeper, or becomes it. Needs no lock of its own. glibc holds one while
 * dl_iterate_phdr calls back, so that one copy at a time looks and decides, and none is unmapped meanwhile. musl holds none, but
 * unmaps nothing, and adds to its list at the end only: there the first copy in the list, which is the same for all, decides,
 * by one compare-and-swap.
 */
#include "keeper/meeting.h"

#include "loader.h"

#include "elf/notes.h"

#include <dlfcn.h>
#include <string.h>

/* Not static: the assembler text below names it. */
struct meeting alcove_loader_meeting __attribute__((visibility("hidden"), used)) = {
    .version = KEEPER_VERSION,
    .size = sizeof(struct meeting),
};
MEETING_NOTE(alcove_loader_meeting);

static const struct keeper own = {
    .version = KEEPER_VERSION,
    .size = sizeof own,
    .release = ALCOVE_VERSION,
    .error_message = error_message,
    .fail = fail_here,
    .load = loader_load,
    .unload = loader_unload,
    .table_of = loader_table_of,
    .module_open = module_open,
    .module_symbol = module_symbol,
    .module_stats = module_stats,
    .module_heap = module_heap,
    .module_limit = module_limit,
    .module_close = module_close,
    .refresh = loader_refresh,
    .on = events_on,
    .modules = modules_list,
    .off = events_off,
};

#define ITERATE_AGAIN 0
#define ITERATE_STOP 1

struct election {
    bool candidate;              /* we may become the keeper */
    bool in_program;             /* we are part of the program */
    struct meeting *first;       /* of the first copy */
    const struct keeper *keeper;
};

/* The meeting that a note leads to; NULL: none, or not where it could be. */
static struct meeting *
meeting_of(const struct object *object, const struct note *note)
{
    int64_t distance;
    if (note->type != LOADER_NOTE_TYPE || note->bytes < sizeof distance || note->name_bytes != sizeof LOADER_NOTE_NAME ||
        memcmp(note->name, LOADER_NOTE_NAME, sizeof LOADER_NOTE_NAME) != 0)
        return NULL;
    memcpy(&distance, note->text, sizeof distance);
    uintptr_t address = (uintptr_t)note->text + (uintptr_t)distance;
    if (address % _Alignof(struct meeting) != 0 || object_room(object, address, PF_R | PF_W) < sizeof(struct meeting))
        return NULL;
    struct meeting *meeting = (struct meeting *)address;
    return meeting->size >= sizeof *meeting ? meeting : NULL;
}

static int
object_ask(struct dl_phdr_info *info, size_t size, void *argument)
{
    (void)size;
    struct election *election = argument;
    struct object object;
    object_read(&object, info); /* a static program has no dynamic section, and notes all the same */
    if (object.name[0] == 0 && object_holds(&object, (uintptr_t)&own))
        election->in_program = true;
    struct note_cursor cursor = notes_of(&object);
    for (struct note note; note_next(&cursor, &note);) {
        struct meeting *meeting = meeting_of(&object, &note);
        if (meeting == NULL)
            continue;
        if (election->first == NULL)
            election->first = meeting;
        election->keeper = atomic_load(&meeting->keeper);
        if (election->keeper != NULL)
            return ITERATE_STOP;
    }
    return ITERATE_AGAIN;
}

/* Within a walk over the objects, ask them all, and decide. */
static int
elect(struct dl_phdr_info *unused, size_t size, void *argument)
{
    (void)unused;
    (void)size;
    struct election *election = argument;
    election->first = NULL;
    dl_iterate_phdr(object_ask, election); /* glibc's lock may be taken again by who has it */
    if (election->keeper == NULL && election->candidate) {
        struct meeting *arbiter = election->first != NULL ? election->first : &alcove_loader_meeting;
        if (atomic_compare_exchange_strong(&arbiter->keeper, &election->keeper, &own))
            election->keeper = &own;
    }
    if (election->keeper != NULL)
        atomic_store(&alcove_loader_meeting.keeper, election->keeper);
    return ITERATE_STOP;
}

static atomic_bool leaving; /* our destructor has run: soon we are unmapped, and no dlopen holds that up */

__attribute__((destructor)) static void
leave(void)
{
    atomic_store(&leaving, true);
}

/* Others have our addresses from now on: the text of the keeper must never be unmapped. False: it will be. */
static bool
stay_mapped(void)
{
#ifdef __GLIBC__
    const char *self = atomic_load(&leaving) ? NULL : linker_file(&own);
    void *handle = self != NULL ? linker_open(self, RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE) : NULL;
    if (handle == NULL)
        dlerror();
    return handle != NULL;
#else
    return true; /* nothing ever is */
#endif
}

bool
keeper_is_found(void)
{
    struct election election = {.candidate = false};
    objects_walk(elect, &election);
    return election.keeper != NULL;
}

/* Who loses stays mapped too; but nobody does who found a keeper at the first look. */
const struct keeper *
keeper_meet(void)
{
    struct election election = {.candidate = false};
    objects_walk(elect, &election);
    if (election.keeper == NULL && (election.in_program || stay_mapped())) {
        election.candidate = true;
        objects_walk(elect, &election);
    }
    return election.keeper;
}
