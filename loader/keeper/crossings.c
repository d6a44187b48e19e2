/*
 * Counts, for each heap of a module, the blocks that crossed, and enforces the strict policy.
 * Records are written under the loader's lock when a heap begins; the counters are atomic, since
 * guards and entries raise them from any thread, and so is what ends with the heap: its number may be
 * that of a host's own heap next, of which the loader knows nothing.
 */
#include "loader.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct record {
    _Atomic uint64_t outside; /* blocks of this heap that others released */
    _Atomic uint64_t foreign; /* blocks of others that this heap's module released */
    _Atomic bool strict;
    _Atomic bool named; /* a module's heap has this number */
    _Atomic bool stayed; /* its module was closed, and its library stayed mapped */
    _Atomic(const void *) library; /* its dynamic section */
    _Atomic(alcove_module *) module; /* NULL: closed, or not quite open */
    char name[NAME_BYTES];
};

#define RECORDS_BYTES (ALCOVE_HEAP_MAX * sizeof(struct record)) /* of which few are ever touched */

/* Kept when the allocator goes, for the next one at its place. */
int
crossings_begin(struct allocator *allocator)
{
    if (allocator->records == NULL) {
        void *p = mmap(NULL, RECORDS_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (p == MAP_FAILED)
            return errno;
        allocator->records = p;
    }
    return 0;
}

void
crossings_start(struct allocator *allocator, uint32_t heap, const char *name, enum alcove_policy policy)
{
    struct record *record = &allocator->records[heap];
    record->outside = 0;
    record->foreign = 0;
    record->strict = policy == ALCOVE_POLICY_STRICT;
    record->library = NULL;
    record->module = NULL;
    record->stayed = false;
    snprintf(record->name, sizeof record->name, "%s", name);
    record->named = true;
    if (heap >= allocator->records_end)
        allocator->records_end = heap + 1;
}

/* What was never written is not to become resident. */
void
crossings_end(void *lender, uint32_t heap)
{
    struct record *record = &((struct allocator *)lender)->records[heap];
    if (record->named)
        record->strict = record->named = false;
}

void
crossings_end_all(struct allocator *allocator)
{
    while (allocator->records_end > 0)
        crossings_end(allocator, --allocator->records_end);
}

void
crossings_open(struct allocator *allocator, uint32_t heap, alcove_module *module, const void *library)
{
    struct record *record = &allocator->records[heap];
    record->library = library;
    record->module = module;
}

void
crossings_close(struct allocator *allocator, uint32_t heap, bool stays)
{
    struct record *record = &allocator->records[heap];
    record->module = NULL;
    record->stayed = stays;
    if (stays)
        record->strict = false; /* its own destructors are nobody's now, and their releases look like everyone's */
}

bool
crossings_pending(const struct allocator *allocator)
{
    struct alcove_heap_stats stats;
    for (uint32_t heap = 0; heap < allocator->records_end; heap++) {
        const struct record *record = &allocator->records[heap];
        if (record->named && record->stayed && allocator->table->heap_stats(heap, &stats) == 0 &&
            stats.live_blocks != 0 && object_is_mapped(record->library))
            return true;
    }
    return false;
}

void
crossings_read(const struct allocator *allocator, uint32_t heap, uint64_t *outside, uint64_t *foreign)
{
    *outside = heap < ALCOVE_HEAP_MAX ? allocator->records[heap].outside : 0;
    *foreign = heap < ALCOVE_HEAP_MAX ? allocator->records[heap].foreign : 0;
}

const char *
crossings_side(struct side *out, const struct allocator *allocator, uint32_t heap)
{
    if (heap >= ALCOVE_HEAP_MAX)
        return "libc";
    if (heap == ALCOVE_HEAP_DEFAULT)
        return "the default heap";
    if (allocator->records[heap].named)
        snprintf(out->text, sizeof out->text, "module \"%s\"", allocator->records[heap].name);
    else
        snprintf(out->text, sizeof out->text, "heap %u", (unsigned)heap);
    return out->text;
}

/* In the middle of anyone's release: writes to the terminal itself, takes no memory. */
static void __attribute__((noreturn, cold))
strict_abort(const char *releaser, const struct allocator *allocator, uint32_t owner, const void *block, size_t usable)
{
    struct side side;
    char text[512];
    int length = snprintf(text, sizeof text,
                          ALCOVE_PREFIX "loader: strict policy: %s released a block of %zu bytes at %p that belongs to %s\n",
                          releaser, usable, block, crossings_side(&side, allocator, owner));
    ssize_t ignored = write(STDERR_FILENO, text, (size_t)length < sizeof text ? (size_t)length : sizeof text - 1);
    (void)ignored;
    abort();
}

void
crossing_outside(struct allocator *allocator, uint32_t owner, const void *block, const void *caller)
{
    if (owner == ALCOVE_HEAP_DEFAULT || owner >= ALCOVE_HEAP_MAX)
        return;
    struct record *record = &allocator->records[owner];
    atomic_fetch_add_explicit(&record->outside, 1, memory_order_relaxed);
    if (!atomic_load_explicit(&record->strict, memory_order_relaxed))
        return;
    const char *file = linker_file(caller);
    const char *object = file != NULL ? file : "code of no library";
    strict_abort(object, allocator, owner, block, allocator->table->malloc_usable_size((void *)block));
}

void
crossing_by_module(void *lender, uint32_t module, uint32_t owner, void *block, size_t usable)
{
    struct allocator *allocator = lender;
    struct record *records = allocator->records;
    if (module >= ALCOVE_HEAP_MAX)
        return;
    atomic_fetch_add_explicit(&records[module].foreign, 1, memory_order_relaxed);
    bool strict = atomic_load_explicit(&records[module].strict, memory_order_relaxed);
    if (owner < ALCOVE_HEAP_MAX && owner != ALCOVE_HEAP_DEFAULT) {
        atomic_fetch_add_explicit(&records[owner].outside, 1, memory_order_relaxed);
        strict = strict || atomic_load_explicit(&records[owner].strict, memory_order_relaxed);
    }
    if (strict) {
        struct side side;
        strict_abort(crossings_side(&side, allocator, module), allocator, owner, block, usable);
    }
}
