/* Where thunks lead, and which numbers are free. */
#include "keeper/thunks.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

/* Read by thunk_text.S. Of those that are not used nothing is resident. */
struct way {
    uint64_t heap;
    void *function;
};
struct way thunk_ways[ALCOVE_ENTRY_COUNT][THUNKS] __attribute__((aligned(16), used));
_Static_assert(sizeof(struct way) == 16 && offsetof(struct way, function) == 8, "as in thunk_text.S");

#define DECLARE(name) extern const char thunks_##name[];
ALCOVE_ENTRIES(DECLARE)
#undef DECLARE
extern const char thunks_begin[], thunks_end[];

/* Numbers that were given back, oldest first, in two rows: whether an address may still be in somebody's hands. A number that was never
 * used is taken unless the first row is long: what is taken from a long row was given long ago, and spares memory. */
#define LONG_ROW 64

struct row {
    uint16_t first, last; /* THUNK_NONE: empty */
    unsigned count;
};
static struct row kept, given; /* back to us: addresses that nobody else had; those that were given away */
static uint16_t next[THUNKS];
static uint32_t unused = 1; /* from this number on none was used */

_Static_assert(THUNKS <= UINT16_MAX, "numbers fit into 16 bits");

static void
row_add(struct row *row, uint32_t number)
{
    next[number] = THUNK_NONE;
    if (row->count++ == 0)
        row->first = (uint16_t)number;
    else
        next[row->last] = (uint16_t)number;
    row->last = (uint16_t)number;
}

static uint32_t
row_take(struct row *row)
{
    if (row->count == 0)
        return THUNK_NONE;
    uint32_t number = row->first;
    row->first = next[number];
    row->count--;
    return number;
}

uint32_t
thunks_take(void)
{
    if (kept.count <= LONG_ROW && unused < THUNKS)
        return unused++;
    uint32_t number = row_take(&kept);
    return number != THUNK_NONE ? number : row_take(&given);
}

void
thunks_give(uint32_t number, bool given_away)
{
    row_add(given_away ? &given : &kept, number);
}

static const char *const texts[ALCOVE_ENTRY_COUNT] = {
#define TEXT(name) thunks_##name,
    ALCOVE_ENTRIES(TEXT)
#undef TEXT
};

void *
thunk_of(enum alcove_entry which, uint32_t number)
{
    return (void *)(uintptr_t)(texts[which] + ((size_t)number << THUNK_LG));
}

bool
thunk_is(const void *address)
{
    return (const char *)address >= thunks_begin && (const char *)address < thunks_end;
}

bool
thunk_way_is(const void *word)
{
    return (uintptr_t)word - (uintptr_t)thunk_ways < sizeof thunk_ways;
}

enum alcove_entry
thunk_name(const void *thunk)
{
    int which = 0;
    while (which < ALCOVE_ENTRY_COUNT && (uintptr_t)thunk - (uintptr_t)texts[which] >= (size_t)THUNKS << THUNK_LG)
        which++;
    return (enum alcove_entry)which;
}

/* A thread that is in the thunk meanwhile may see the old function with the new number. No function that a resting thunk leads to
 * looks at a number. */
void
thunk_lead(enum alcove_entry which, uint32_t number, void *entry, uint32_t heap)
{
    struct way *way = &thunk_ways[which][number];
    __atomic_store_n(&way->heap, heap, __ATOMIC_RELEASE);
    __atomic_store_n(&way->function, entry, __ATOMIC_RELEASE);
}

/* The heap's number stays, for who has read it and not yet the function. */
void
thunk_rest(enum alcove_entry which, uint32_t number, unsigned variant)
{
    __atomic_store_n(&thunk_ways[which][number].function, route_resting(which, variant), __ATOMIC_RELEASE);
}

void
thunks_forget_pages(void)
{
    int saved = errno;
    uintptr_t mask = (uintptr_t)sysconf(_SC_PAGESIZE) - 1;
    uintptr_t begin = ((uintptr_t)thunks_begin + mask) & ~mask, end = (uintptr_t)thunks_end & ~mask;
    if (begin < end)
        madvise((void *)begin, end - begin, MADV_DONTNEED);
    errno = saved;
}
