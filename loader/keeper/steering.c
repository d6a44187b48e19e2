/* Finds the symbols that stand for the originals, and writes what they are worth. */
#include "keeper/steering.h"

#include "elf/protection.h"
#include "elf/symbols.h"

#include <errno.h>
#include <sys/mman.h>

/* An entry in a symbol table. */
struct steered {
    ElfW(Addr) *value;     /* in the table */
    uintptr_t base;        /* of its object */
    ElfW(Addr) before;     /* what was there */
    enum alcove_entry which;
    unsigned variant;
    unsigned table;
};

/* A part of an object's symbol table: whole pages, protected alike. */
struct table {
    uintptr_t start, end;
    int bits; /* PROT_, when we don't write */
};

/* Objects that define originals came with the program, and stay. */
#define STEERED_MOST 256
#define TABLES_MOST 16
static struct steered steered[STEERED_MOST];
static unsigned steered_count;
static struct table tables[TABLES_MOST];
static unsigned table_count;
static bool found, complete; /* they were looked for; none had to be left out */
static bool on, dispatching;

static bool
is_data(const struct symbol *symbol)
{
    unsigned type = ELF64_ST_TYPE(symbol->entry->st_info);
    return type != STT_FUNC && type != STT_NOTYPE; /* an IFUNC, too, is not worth what it stands for */
}

/* The part of a table that an entry lies in, made larger for it. -1: there is no place for one more, or its page is not protected as others. */
static int
table_with(const struct object *object, uintptr_t address)
{
    uintptr_t page = address & ~(page_bytes() - 1), end = ((address + sizeof(ElfW(Addr)) - 1) | (page_bytes() - 1)) + 1;
    struct protection known = {.start = 0};
    int bits = protection_of(&known, object, page);
    if (bits < 0 || end > known.end)
        return -1;
    for (unsigned i = 0; i < table_count; i++)
        if (tables[i].bits == bits && tables[i].start >= known.start && tables[i].end <= known.end) {
            tables[i].start = page < tables[i].start ? page : tables[i].start;
            tables[i].end = end > tables[i].end ? end : tables[i].end;
            return (int)i;
        }
    if (table_count == TABLES_MOST)
        return -1;
    tables[table_count] = (struct table){page, end, bits};
    return (int)table_count++;
}

static int
object_find(struct dl_phdr_info *info, size_t size, void *unused)
{
    (void)size;
    (void)unused;
    struct object object;
    if (!object_read(&object, info))
        return 0;
    bool defines = false;
    for (int which = 0; which < ALCOVE_ENTRY_COUNT && !defines; which++)
        for (unsigned i = 0; i < routes.variants[which] && !defines; i++)
            defines = object_holds(&object, (uintptr_t)routes.original[which][i]);
    if (!defines)
        return 0;
    struct symbol_cursor cursor = symbols_of(&object);
    struct symbol symbol;
    while (symbol_next(&cursor, &symbol)) {
        struct route route = is_data(&symbol) ? (struct route){.kind = ROUTE_NONE}
                                              : route_of((void *)symbol.address, route_named(symbol.name));
        if (route.kind != ROUTE_ORIGINAL)
            continue;
        ElfW(Addr) *value = (ElfW(Addr) *)(uintptr_t)&symbol.entry->st_value;
        int table = steered_count < STEERED_MOST ? table_with(&object, (uintptr_t)value) : -1;
        if (table < 0) {
            complete = false;
            continue;
        }
        steered[steered_count++] = (struct steered){value, object.base, *value, route.which, route.variant, (unsigned)table};
    }
    return 0;
}

static bool
table_open(const struct table *table, bool open)
{
    if (table->bits & PROT_WRITE)
        return true;
    int bits = open ? table->bits | PROT_READ | PROT_WRITE : table->bits;
    return mprotect((void *)table->start, table->end - table->start, bits) == 0;
}

/* What a symbol is to be worth now. 0: it stays as it is. */
static ElfW(Addr)
value_wanted(const struct steered *s)
{
    void *guard = on ? guard_of(s->which, s->variant) : NULL, *dispatcher = dispatching ? dispatcher_of(s->which, s->variant) : NULL;
    void *to = dispatcher != NULL ? dispatcher : guard;
    return to != NULL ? (ElfW(Addr))to - s->base : s->before;
}

/* Have all tables say what is wanted. False: some could not be written. */
static bool
write_all(void)
{
    int saved = errno;
    bool all = true;
    for (unsigned t = 0; t < table_count; t++) {
        bool changes = false;
        for (unsigned i = 0; i < steered_count; i++)
            changes |= steered[i].table == t && *steered[i].value != value_wanted(&steered[i]);
        if (!changes)
            continue;
        if (!table_open(&tables[t], true)) {
            all = false;
            continue;
        }
        for (unsigned i = 0; i < steered_count; i++)
            if (steered[i].table == t)
                __atomic_store_n(steered[i].value, value_wanted(&steered[i]), __ATOMIC_RELEASE);
        table_open(&tables[t], false);
    }
    errno = saved;
    return all;
}

bool
steering_begin(void)
{
    if (on)
        return complete;
    if (!found) {
        complete = found = true;
        objects_walk(object_find, NULL);
    }
    on = true;
    if (write_all())
        return complete;
    on = false;
    write_all();
    return false;
}

void
steering_end(void)
{
    on = dispatching = false;
    write_all();
}

bool
steering_is_on(void)
{
    return on && complete;
}

void
steering_dispatch(bool dispatch)
{
    dispatching = dispatch && on;
    write_all();
}
