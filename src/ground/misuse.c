/* Notes of misuses, on a table that no lock guards: they are written where any lock may be held. */
#include "ground/misuse.h"

#include <stdio.h>
#include <string.h>

#include "ground/lock.h"
#include "ground/message.h"

#define NOTES 32 /* what finds no room is counted */
#define NAME_SHOWN 64

enum note_state { NOTE_FREE, NOTE_BUSY, NOTE_READY };

static struct note {
    _Atomic uint32_t state;
    const char *what, *where;
    const void *address;
    size_t size;
    char heap[NAME_SHOWN]; /* the heap itself may be gone when this is told */
} notes[NOTES];

static _Atomic uint32_t more; /* that found no room */

_Atomic uint32_t misuse_noted;

static bool
note_claim(struct note *n, uint32_t state)
{
    return atomic_compare_exchange_strong_explicit(&n->state, &state, NOTE_BUSY, memory_order_acquire, memory_order_relaxed);
}

void
misuse_note(const char *what, const char *where, const void *address, size_t size, const char *heap)
{
    struct note *n = notes;
    while (n < notes + NOTES && !note_claim(n, NOTE_FREE))
        n++;
    if (n < notes + NOTES) {
        n->what = what;
        n->where = where;
        n->address = address;
        n->size = size;
        snprintf(n->heap, sizeof n->heap, "%s", heap);
        atomic_store_explicit(&n->state, NOTE_READY, memory_order_release);
    } else {
        atomic_fetch_add_explicit(&more, 1, memory_order_relaxed);
    }
    atomic_fetch_add_explicit(&misuse_noted, 1, memory_order_relaxed);
}

/* A note may be of another thread, which has not come to telling it yet. */
bool
misuse_tell_noted(void)
{
    uint32_t told = 0;
    lock_check_none();
    for (struct note *n = notes; n < notes + NOTES; n++) {
        if (!note_claim(n, NOTE_READY))
            continue;
        struct note copy = { .what = n->what, .where = n->where, .address = n->address, .size = n->size };
        memcpy(copy.heap, n->heap, sizeof copy.heap);
        atomic_store_explicit(&n->state, NOTE_FREE, memory_order_release);
        told++;
        message("%s of %p, %s of %zu bytes of heap '%s'", copy.what, copy.address, copy.where, copy.size, copy.heap);
    }
    uint32_t others = atomic_exchange_explicit(&more, 0, memory_order_relaxed);
    if (others != 0)
        message("and %u more such misuses", others);
    atomic_fetch_sub_explicit(&misuse_noted, told + others, memory_order_relaxed);
    if (told + others == 0)
        return false;
    message_abort();
    return true;
}

void
misuse_fork_child(void)
{
    if (atomic_exchange_explicit(&misuse_noted, 0, memory_order_relaxed) == 0)
        return;
    atomic_store_explicit(&more, 0, memory_order_relaxed);
    for (unsigned i = 0; i < NOTES; i++)
        atomic_store_explicit(&notes[i].state, NOTE_FREE, memory_order_relaxed);
}
