/*
 * Counts, for each heap of a module, the blocks that crossed, and enforces the strict policy.
 * Records are written under the loader's lock when a heap begins; the counters are atomic, since
 * guards and entries raise them from any thread.
 */
#include "loader.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct record {
    _Atomic uint64_t outside; /* blocks of this heap that others released */
    _Atomic uint64_t foreign; /* blocks of others that this heap's module released */
    _Atomic bool strict;
    char name[NAME_BYTES];
};

static struct record records[ALCOVE_HEAP_MAX];

void
crossings_start(uint32_t heap, const char *name, enum alcove_policy policy)
{
    struct record *record = &records[heap];
    record->outside = 0;
    record->foreign = 0;
    record->strict = policy == ALCOVE_POLICY_STRICT;
    snprintf(record->name, sizeof record->name, "%s", name);
}

void
crossings_read(uint32_t heap, uint64_t *outside, uint64_t *foreign)
{
    *outside = heap < ALCOVE_HEAP_MAX ? records[heap].outside : 0;
    *foreign = heap < ALCOVE_HEAP_MAX ? records[heap].foreign : 0;
}

const char *
crossings_name(uint32_t heap)
{
    return heap == ALCOVE_HEAP_DEFAULT ? "the default heap" : heap < ALCOVE_HEAP_MAX ? records[heap].name : "no heap";
}

static void
side_show(char *out, size_t size, uint32_t heap)
{
    if (heap >= ALCOVE_HEAP_MAX)
        snprintf(out, size, "libc");
    else if (heap == ALCOVE_HEAP_DEFAULT || records[heap].name[0] == 0)
        snprintf(out, size, "heap %u", (unsigned)heap);
    else
        snprintf(out, size, "module \"%s\"", records[heap].name);
}

/* In the middle of anyone's release: writes to the terminal itself, takes no memory. */
static void __attribute__((noreturn, cold))
strict_abort(const char *releaser, uint32_t owner, const void *block, size_t usable)
{
    char side[NAME_BYTES + 16], text[512];
    side_show(side, sizeof side, owner);
    int length = snprintf(text, sizeof text,
                          ALCOVE_PREFIX "loader: strict policy: %s released a block of %zu bytes at %p that belongs to %s\n",
                          releaser, usable, block, side);
    ssize_t ignored = write(STDERR_FILENO, text, (size_t)length < sizeof text ? (size_t)length : sizeof text - 1);
    (void)ignored;
    abort();
}

void
crossing_outside(uint32_t owner, const void *block, const void *caller)
{
    if (owner == ALCOVE_HEAP_DEFAULT || owner >= ALCOVE_HEAP_MAX)
        return;
    atomic_fetch_add_explicit(&records[owner].outside, 1, memory_order_relaxed);
    if (!atomic_load_explicit(&records[owner].strict, memory_order_relaxed))
        return;
    Dl_info found;
    const char *object = dladdr(caller, &found) != 0 && found.dli_fname != NULL ? found.dli_fname : "code of no library";
    const struct alcove_table *table = atomic_load(&loader_table);
    strict_abort(object, owner, block, table != NULL ? table->malloc_usable_size((void *)block) : 0);
}

void
crossing_by_module(uint32_t module, uint32_t owner, void *block, size_t usable)
{
    if (module >= ALCOVE_HEAP_MAX)
        return;
    atomic_fetch_add_explicit(&records[module].foreign, 1, memory_order_relaxed);
    bool strict = atomic_load_explicit(&records[module].strict, memory_order_relaxed);
    if (owner < ALCOVE_HEAP_MAX && owner != ALCOVE_HEAP_DEFAULT) {
        atomic_fetch_add_explicit(&records[owner].outside, 1, memory_order_relaxed);
        strict = strict || atomic_load_explicit(&records[owner].strict, memory_order_relaxed);
    }
    if (strict) {
        char side[NAME_BYTES + 16];
        side_show(side, sizeof side, module);
        strict_abort(side, owner, block, usable);
    }
}
