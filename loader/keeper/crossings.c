/*
 * Counts, for each heap of a module, the blocks that crossed, and enforces the strict policy.
 * Records are written under the loader's lock when a heap begins; the counters are atomic, since
 * guards and entries raise them from any thread, and so is what ends with the heap: its number may be
 * that of a host's own heap next, of which the loader knows nothing.
 */
#include "events.h"
#include "keeper/code.h"
#include "keeper/strict.h"
#include "keeper/territory.h"

#include "ground/versions.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

struct record {
    _Atomic uint64_t outside; /* blocks of this heap that others released */
    _Atomic uint64_t foreign; /* blocks of others that this heap's module released */
    _Atomic bool strict;
    _Atomic bool named; /* a module's heap has this number */
    _Atomic bool closed; /* its module was */
    _Atomic bool stayed; /* its module was closed, and its library stayed mapped */
    _Atomic(const void *) library; /* its dynamic section */
    _Atomic uint32_t code; /* number of its module's */
    _Atomic(alcove_module *) module; /* NULL: closed, or not quite open */
    _Atomic uint8_t variant[ALCOVE_ENTRY_COUNT]; /* of the original that its import led to, and 1; 0: it has none */
    char name[NAME_BYTES];
    struct partners partners;
};

#define RECORDS_BYTES (ALCOVE_HEAP_MAX * sizeof(struct record)) /* of which few are ever touched */

static void
variants_forget(struct record *record)
{
    for (int which = 0; which < ALCOVE_ENTRY_COUNT; which++)
        record->variant[which] = 0;
}

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
crossings_start(struct allocator *allocator, uint32_t heap, const struct module *module)
{
    struct record *record = &allocator->records[heap];
    record->outside = 0;
    record->foreign = 0;
    record->partners = module->partners;
    record->strict = module->policy == ALCOVE_POLICY_STRICT;
    record->library = NULL;
    record->module = NULL;
    record->code = THUNK_NONE;
    record->closed = record->stayed = false;
    variants_forget(record);
    snprintf(record->name, sizeof record->name, "%s", module->name);
    record->named = true;
    if (heap >= allocator->records_end)
        allocator->records_end = heap + 1;
}

/* What was never written is not to become resident. */
void
crossings_end(void *lender, uint32_t heap)
{
    struct record *record = &((struct allocator *)lender)->records[heap];
    if (!record->named)
        return;
    record->strict = record->named = false;
    variants_forget(record);
}

void
crossings_end_all(struct allocator *allocator)
{
    while (allocator->records_end > 0)
        crossings_end(allocator, --allocator->records_end);
}

void
crossings_code(struct allocator *allocator, uint32_t heap, uint32_t number)
{
    allocator->records[heap].code = number;
}

void
crossings_variant(struct allocator *allocator, uint32_t heap, unsigned which, unsigned variant)
{
    allocator->records[heap].variant[which] = (uint8_t)(variant + 1);
}

int
crossings_variant_of(const struct allocator *allocator, uint32_t heap, unsigned which)
{
    return heap < ALCOVE_HEAP_MAX ? atomic_load_explicit(&allocator->records[heap].variant[which], memory_order_relaxed) - 1 : -1;
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
    record->closed = true;
    record->stayed = stays;
    if (stays)
        record->strict = false; /* its own destructors are nobody's now, and their releases look like everyone's */
}

const char *
crossings_pending(const struct allocator *allocator)
{
    struct alcove_heap_stats stats;
    for (uint32_t heap = 0; heap < allocator->records_end; heap++) {
        const struct record *record = &allocator->records[heap];
        if (record->named && record->stayed && allocator->table->heap_stats(heap, &stats) == 0 &&
            stats.live_blocks != 0 && object_is_mapped(record->library))
            return record->name;
    }
    return NULL;
}

bool
crossings_closed(const struct allocator *allocator, uint32_t heap, struct alcove_module_entry *entry)
{
    const struct record *record = &allocator->records[heap];
    if (!record->named || !record->closed)
        return false;
    snprintf(entry->name, sizeof entry->name, "%s", record->name);
    entry->resident = record->stayed && object_is_mapped(record->library);
    entry->policy = record->strict ? ALCOVE_POLICY_STRICT : ALCOVE_POLICY_GUARD;
    return true;
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

static void
count(_Atomic uint64_t *counter)
{
    atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

/* The record of a module's heap. NULL: it is no module's, but the host's, or there is none. */
static struct record *
record_of(const struct allocator *allocator, uint32_t heap)
{
    if (heap == ALCOVE_HEAP_DEFAULT || heap >= ALCOVE_HEAP_MAX || !allocator->records[heap].named)
        return NULL;
    return &allocator->records[heap];
}

/* Does a side put up with the other one? NULL: the host. */
static bool
accepts(const struct record *side, const struct record *other)
{
    if (side == NULL || !atomic_load_explicit(&side->strict, memory_order_relaxed))
        return true;
    const struct partners *partners = &side->partners;
    if ((partners->allow & (other == NULL ? ALCOVE_ALLOW_HOST : ALCOVE_ALLOW_MODULES)) != 0)
        return true;
    for (uint32_t i = 0; other != NULL && i < partners->count; i++)
        if (strcmp(partners->names[i], other->name) == 0)
            return true;
    return false;
}

/* Has the same library left it, when it was a module before? */
static bool
is_from_before(const struct record *releaser, const struct record *owner)
{
    return releaser != NULL && owner->stayed && releaser->library == owner->library;
}

static void
crossing_check(const struct record *releaser, const struct record *owner, const void *block, size_t usable, const void *caller)
{
    if ((accepts(releaser, owner) && accepts(owner, releaser)) || is_from_before(releaser, owner) || strict_is_libcs(caller))
        return;
    strict_abort(&(struct violation){
        .releaser = releaser != NULL ? releaser->name : NULL,
        .owner = owner->name,
        .block = block,
        .usable = usable,
        .caller = caller,
    });
}

/* One side of a crossing. Without a record it is the host's, or libc's. */
struct crosser {
    const struct allocator *allocator;
    struct record *record;
    uint32_t heap;
};

static void
crossing_tell(const struct crosser *releaser, const struct crosser *owner, void *block, size_t usable)
{
    if (!event_wanted[ALCOVE_EVENT_CROSSING])
        return;
    struct alcove_crossing crossing = {
        .size = FIGURES_SIZE(struct alcove_crossing),
        .block = block,
        .bytes = usable,
        .releaser_allocator = releaser->allocator != NULL ? releaser->allocator->id : NULL,
        .owner_allocator = owner->allocator != NULL ? owner->allocator->id : NULL,
        .releaser_heap = releaser->heap,
        .owner_heap = owner->heap,
    };
    if (releaser->record != NULL) {
        crossing.releaser = releaser->record->module;
        crossing.releaser_name = releaser->record->name;
    }
    if (owner->record != NULL) {
        crossing.owner = owner->record->module;
        crossing.owner_name = owner->record->name;
    }
    event_tell(ALCOVE_EVENT_CROSSING, &crossing, &crossing.missed);
}

void
heap_refused(void *lender, uint32_t heap, size_t size)
{
    const struct allocator *allocator = lender;
    if (!event_wanted[ALCOVE_EVENT_REFUSAL])
        return;
    const struct record *record = record_of(allocator, heap);
    struct alcove_refusal refusal = {
        .size = FIGURES_SIZE(struct alcove_refusal),
        .allocator = allocator->id,
        .module = record != NULL ? record->module : NULL,
        .name = record != NULL ? record->name : NULL,
        .bytes = size,
        .heap = heap,
    };
    event_tell(ALCOVE_EVENT_REFUSAL, &refusal, &refusal.missed);
}

void
crossing_outside(struct allocator *allocator, uint32_t owner, const void *block, const void *caller)
{
    struct record *record = record_of(allocator, owner);
    if (record == NULL || code_is_of(atomic_load_explicit(&record->code, memory_order_relaxed), caller))
        return;
    count(&record->outside);
    if (!event_wanted[ALCOVE_EVENT_CROSSING] && accepts(record, NULL))
        return;
    size_t usable = allocator->table->malloc_usable_size((void *)block);
    crossing_check(NULL, record, block, usable, caller);
    crossing_tell(&(struct crosser){.heap = ALCOVE_HEAP_NONE}, &(struct crosser){allocator, record, owner}, (void *)block, usable);
}

/* What an allocator does not know may be another one's. */
static struct crosser
crosser_elsewhere(const struct allocator *lender, const void *block, size_t *usable)
{
    unsigned number = territory_of(block);
    const struct alcove_table *table =
        number < ALLOCATORS_MAX && number != lender->number ? atomic_load_explicit(&loader_tables[number], memory_order_acquire) : NULL;
    if (table == NULL)
        return (struct crosser){.heap = ALCOVE_HEAP_NONE};
    const struct allocator *allocator = &loader.allocators[number];
    uint32_t heap = table->heap_of(block);
    *usable = table->malloc_usable_size((void *)block);
    return (struct crosser){allocator, record_of(allocator, heap), heap};
}

void
crossing_by_module(void *lender, uint32_t module, uint32_t heap, void *block, size_t usable)
{
    const struct allocator *allocator = lender;
    struct record *releaser = record_of(allocator, module);
    struct crosser owner = heap < ALCOVE_HEAP_MAX ? (struct crosser){allocator, record_of(allocator, heap), heap}
                                                  : crosser_elsewhere(allocator, block, &usable);
    if (releaser != NULL)
        count(&releaser->foreign);
    if (owner.record != NULL) { /* else it is libc's, or the host's: nobody who could mind */
        count(&owner.record->outside);
        crossing_check(releaser, owner.record, block, usable, NULL);
    }
    crossing_tell(&(struct crosser){allocator, releaser, module}, &owner, block, usable);
}
