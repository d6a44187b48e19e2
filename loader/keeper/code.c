/* A stretch for each number, from a module's first byte of code to its last. */
#include "keeper/code.h"

static struct stretch {
    _Atomic uintptr_t start, end; /* 0: there is none */
    _Atomic uint32_t names;
} stretches[THUNKS];
static _Atomic uint32_t numbers_end; /* none from this one on was ever used */

void
code_enter(uint32_t number, const struct object *object, uint32_t names)
{
    uintptr_t start = UINTPTR_MAX, end = 0;
    for (size_t i = 0; i < object->segment_count; i++) {
        const ElfW(Phdr) *segment = &object->segments[i];
        if (segment->p_type != PT_LOAD || (segment->p_flags & PF_X) == 0)
            continue;
        uintptr_t from = object->base + segment->p_vaddr, to = from + segment->p_memsz;
        start = from < start ? from : start;
        end = to > end ? to : end;
    }
    if (number == THUNK_NONE || start >= end)
        return;
    atomic_store(&stretches[number].names, names);
    atomic_store(&stretches[number].start, start);
    atomic_store(&stretches[number].end, end);
    uint32_t numbers = atomic_load(&numbers_end);
    while (number >= numbers && !atomic_compare_exchange_weak(&numbers_end, &numbers, number + 1))
        ;
}

void
code_leave(uint32_t number)
{
    if (atomic_load(&stretches[number].end) == 0) /* else not to be touched */
        return;
    atomic_store(&stretches[number].end, 0);
    atomic_store(&stretches[number].start, 0);
}

bool
code_is_of(uint32_t number, const void *caller)
{
    const struct stretch *stretch = &stretches[number];
    return (uintptr_t)caller < atomic_load_explicit(&stretch->end, memory_order_acquire) &&
           (uintptr_t)caller >= atomic_load_explicit(&stretch->start, memory_order_relaxed);
}

void *
code_thunk(const void *caller, enum alcove_entry which)
{
    uint32_t end = atomic_load(&numbers_end);
    for (uint32_t number = THUNK_NONE + 1; number < end; number++)
        if (code_is_of(number, caller) && (atomic_load(&stretches[number].names) & (uint32_t)1 << which) != 0)
            return thunk_of(which, number);
    return NULL;
}

_Static_assert(ALCOVE_ENTRY_COUNT <= 32, "a bit for each name");
