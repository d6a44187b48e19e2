/*
 * Says who released whose block, and from where, and ends the process. The thread is in the middle of anyone's release: nothing is
 * allocated here, and what is looked up is read from the objects themselves, for dladdr would wait for another thread's dlopen.
 */
#include "keeper/strict.h"
#include "keeper/routes.h"

#include "elf/symbols.h"
#include "escape.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/auxv.h>
#include <unistd.h>
#include <unwind.h>

#define FRAMES_MOST 200
#define PLACE_BYTES 320 /* of a file's name and a function's */

static _Unwind_Reason_Code (*_Atomic unwind)(_Unwind_Trace_Fn, void *);
static _Atomic(__typeof__(&_Unwind_GetIP)) frame_address;

/* The unwinder of compilers is in a library that not every process has: it is no dependency of ours. Once open it stays. */
void
strict_prepare(void)
{
    if (atomic_load(&unwind) != NULL)
        return;
    void *library = linker_open("libgcc_s.so.1", RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        dlerror();
        return;
    }
    atomic_store(&frame_address, (__typeof__(&_Unwind_GetIP))linker_symbol(library, "_Unwind_GetIP"));
    if (atomic_load(&frame_address) != NULL)
        atomic_store(&unwind, (_Unwind_Reason_Code(*)(_Unwind_Trace_Fn, void *))linker_symbol(library, "_Unwind_Backtrace"));
}

struct place {
    uintptr_t address;
    bool found, allocator;
    char text[PLACE_BYTES];
};

static size_t
append(char *text, size_t size, size_t used, const char *what, bool quoted)
{
    if (used + 1 < size)
        escape(text + used, size - used, what, quoted);
    while (text[used] != 0)
        used++;
    return used;
}

/* FILE+0x1234, and (FUNCTION+0x12) if it is one that has a name there. */
static void
place_name(struct place *place, const struct object *object)
{
    const char *file = object->name[0] != 0 ? object->name : (const char *)getauxval(AT_EXECFN);
    size_t used = append(place->text, sizeof place->text - 120, 0, file != NULL ? file : "the program", true);
    used += (size_t)snprintf(place->text + used, sizeof place->text - used, "+0x%zx", (size_t)(place->address - object->base));
    struct symbol_cursor cursor = symbols_of(object);
    struct symbol symbol;
    while (symbol_next(&cursor, &symbol)) {
        if (ELF64_ST_TYPE(symbol.entry->st_info) != STT_FUNC || place->address < symbol.address ||
            place->address - symbol.address >= symbol.entry->st_size)
            continue;
        used = append(place->text, sizeof place->text, used, " (", false);
        used = append(place->text, sizeof place->text - 24, used, symbol.name, true);
        snprintf(place->text + used, sizeof place->text - used, "+0x%zx)", (size_t)(place->address - symbol.address));
        return;
    }
}

static int
place_find(struct dl_phdr_info *info, size_t size, void *argument)
{
    (void)size;
    struct place *place = argument;
    struct object object;
    if (!object_read(&object, info) || !object_holds(&object, place->address))
        return 0;
    place->found = true;
    for (unsigned i = 0; i < ALLOCATORS_MAX; i++)
        place->allocator |= atomic_load(&loader_tables[i]) != NULL && object_holds(&object, (uintptr_t)loader.allocators[i].origin);
    if (!place->allocator)
        place_name(place, &object);
    return 1;
}

struct question {
    uintptr_t address;
    bool libcs;
};

static int
question_answer(struct dl_phdr_info *info, size_t size, void *argument)
{
    (void)size;
    struct question *question = argument;
    struct object object;
    if (!object_read(&object, info) || !object_holds(&object, question->address))
        return 0;
    question->libcs = object_holds(&object, routes.libc);
    return 1;
}

bool
strict_is_libcs(const void *caller)
{
    struct question question = {.address = (uintptr_t)caller};
    if (caller != NULL)
        dl_iterate_phdr(question_answer, &question);
    return question.libcs;
}

/* The call before a return address. */
static void
place_before(struct place *place, uintptr_t address)
{
    *place = (struct place){.address = address - 1};
    dl_iterate_phdr(place_find, place);
}

struct stack {
    struct place place;
    unsigned frames;
    bool inside; /* the last frame was of an allocator */
    bool found;
};

static _Unwind_Reason_Code
frame_look(struct _Unwind_Context *context, void *argument)
{
    struct stack *stack = argument;
    uintptr_t address = atomic_load(&frame_address)(context);
    if (address == 0 || stack->frames++ == FRAMES_MOST)
        return _URC_END_OF_STACK;
    place_before(&stack->place, address);
    stack->found = stack->inside && stack->place.found && !stack->place.allocator;
    stack->inside = stack->place.allocator;
    return stack->found ? _URC_END_OF_STACK : _URC_NO_REASON;
}

/* Our frames come first, then the allocator's: whoever called it is behind. */
static bool
place_behind_allocator(struct place *place)
{
    struct stack stack = {.frames = 0};
    if (atomic_load(&unwind) == NULL)
        return false;
    atomic_load(&unwind)(frame_look, &stack);
    *place = stack.place;
    return stack.found;
}

static size_t
append_side(char *text, size_t size, size_t used, const char *module)
{
    if (module == NULL)
        return append(text, size, used, "the host", false);
    used = append(text, size, used, "module \"", false);
    used = append(text, size, used, module, true);
    return append(text, size, used, "\"", false);
}

void
strict_abort(const struct violation *violation)
{
    UNCANCELLED; /* the process is to end, not the thread */
    char text[1100];
    struct place place;
    size_t size = sizeof text - 1, used = append(text, size, 0, ALCOVE_PREFIX "loader: strict policy: ", false);
    used = append_side(text, size, used, violation->releaser);
    used += (size_t)snprintf(text + used, size - used, " released a block of %zu bytes at %p that belongs to ", violation->usable,
                             violation->block);
    used = append_side(text, size, used, violation->owner);
    bool found = violation->caller == NULL && place_behind_allocator(&place);
    if (violation->caller != NULL) {
        place_before(&place, (uintptr_t)violation->caller);
        found = place.found;
    }
    if (found) {
        used = append(text, size, used, "; called from ", false);
        used = append(text, size, used, place.text, false);
    }
    text[used++] = '\n';
    ssize_t ignored = write(STDERR_FILENO, text, used);
    (void)ignored;
    abort();
}
