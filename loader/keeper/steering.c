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
    ElfW(Addr) before_hidden; /* what was there, and 1: it is not to be taken for a word that leads to a function */
    unsigned which;
    unsigned variant;
    unsigned table;
#ifdef __powerpc64__ /* the linker adds to the value, for calls from within the object, what these bits say */
    unsigned char *other, other_before;
#endif
};

#ifdef __powerpc64__
static void
other_note(struct steered *s, const ElfW(Sym) *entry)
{
    s->other = (unsigned char *)(uintptr_t)&entry->st_other;
    s->other_before = entry->st_other;
    routes.local[s->which][s->variant] = PPC64_LOCAL_ENTRY_OFFSET(entry->st_other);
}

static void
other_write(const struct steered *s, bool ours)
{
    __atomic_store_n(s->other, ours ? s->other_before & (unsigned char)~STO_PPC64_LOCAL_MASK : s->other_before, __ATOMIC_RELEASE);
}
#else
static void
other_note(struct steered *s, const ElfW(Sym) *entry)
{
    (void)s, (void)entry;
}

static void
other_write(const struct steered *s, bool ours)
{
    (void)s, (void)ours;
}
#endif

/* A part of an object's symbol table: whole pages, protected alike. */
struct table {
    const void *dynamic; /* the object's dynamic section; NULL: it has gone */
    uintptr_t start, end;
    int bits; /* PROT_, when we don't write */
    bool seen;
};

#define STEERED_MOST 512
#define TABLES_MOST 64
static struct steered steered[STEERED_MOST];
static unsigned steered_count;
static struct table tables[TABLES_MOST];
static unsigned table_count;
static bool complete; /* of the process' own functions none had to be left out */
static bool on, dispatching;

static bool
is_data(const struct symbol *symbol)
{
    unsigned type = ELF64_ST_TYPE(symbol->entry->st_info);
    return type != STT_FUNC && type != STT_NOTYPE; /* an IFUNC, too, is not worth what it stands for */
}

/* Forget a table and what is in it. */
static void
table_drop(unsigned t)
{
    tables[t].dynamic = NULL;
    unsigned kept = 0;
    for (unsigned i = 0; i < steered_count; i++)
        if (steered[i].table != t)
            steered[kept++] = steered[i];
    steered_count = kept;
}

/* A place for one more. -1: there is none. */
static int
table_place(void)
{
    for (unsigned i = 0; i < table_count; i++)
        if (tables[i].dynamic == NULL)
            return (int)i;
    return table_count < TABLES_MOST ? (int)table_count++ : -1;
}

/* The part of a table that an entry lies in, made larger for it. -1: there is no place for one more, or its page is not protected as others. */
static int
table_with(const struct object *object, uintptr_t address)
{
    uintptr_t page = address & ~(page_bytes() - 1), end = ((address + sizeof(ElfW(Sym)) - 1) | (page_bytes() - 1)) + 1;
    struct protection known = {.start = 0};
    for (unsigned i = 0; i < table_count; i++)
        if (tables[i].dynamic == object->dynamic && page >= tables[i].start && end <= tables[i].end)
            return (int)i;
    int bits = protection_of(&known, object, page);
    if (bits < 0 || end > known.end)
        return -1;
    for (unsigned i = 0; i < table_count; i++)
        if (tables[i].dynamic == object->dynamic && tables[i].bits == bits && tables[i].start >= known.start && tables[i].end <= known.end) {
            tables[i].start = page < tables[i].start ? page : tables[i].start;
            tables[i].end = end > tables[i].end ? end : tables[i].end;
            return (int)i;
        }
    int place = table_place();
    if (place >= 0)
        tables[place] = (struct table){object->dynamic, page, end, bits, true};
    return place;
}

static bool
is_steered(const ElfW(Addr) *value)
{
    for (unsigned i = 0; i < steered_count; i++)
        if (steered[i].value == value)
            return true;
    return false;
}

/* Symbols that are worth an original, and are not known yet. */
static void
symbols_find(const struct object *object)
{
    struct symbol_cursor cursor = symbols_of(object);
    struct symbol symbol;
    while (symbol_next(&cursor, &symbol)) {
        struct route route = is_data(&symbol) ? (struct route){.kind = ROUTE_NONE}
                                              : route_of((void *)symbol.address, route_named(symbol.name));
        ElfW(Addr) *value = (ElfW(Addr) *)(uintptr_t)&symbol.entry->st_value;
        if (route.kind != ROUTE_ORIGINAL || is_steered(value))
            continue;
        int table = steered_count < STEERED_MOST ? table_with(object, (uintptr_t)symbol.entry) : -1;
        if (table >= 0) {
            steered[steered_count] = (struct steered){.value = value, .base = object->base, .before_hidden = *value + 1,
                                                      .which = route.which, .variant = route.variant, .table = (unsigned)table};
            other_note(&steered[steered_count++], symbol.entry);
        } else
            complete &= route.theirs;
    }
}

static int
object_find(struct dl_phdr_info *info, size_t size, void *unused)
{
    (void)size;
    (void)unused;
    struct object object;
    if (!object_read(&object, info))
        return 0;
    for (unsigned i = 0; i < table_count; i++)
        tables[i].seen |= tables[i].dynamic == object.dynamic;
    bool defines = false;
    for (unsigned which = 0; which < ROUTE_COUNT && !defines; which++)
        for (unsigned i = 0; i < routes.variants[which] && !defines; i++)
            defines = routes.original[which][i] != NULL && object_holds(&object, (uintptr_t)routes.original[which][i]);
    if (defines)
        symbols_find(&object);
    return 0;
}

/* Forget the tables of objects that have gone, and find those of new ones. */
static void
tables_find(void)
{
    for (unsigned i = 0; i < table_count; i++)
        tables[i].seen = false;
    bool settled;
    objects_walk_all(object_find, NULL, &settled);
    for (unsigned i = 0; i < table_count && settled; i++)
        if (!tables[i].seen)
            table_drop(i);
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
    return to != NULL ? (ElfW(Addr))to - s->base : s->before_hidden - 1;
}

static bool
is_worth(const struct steered *s, const void *function)
{
    return function != NULL && *s->value == (ElfW(Addr))function - s->base;
}

/* Another object may be where one was; then its entries say what we don't know. */
static bool
is_the_same(const struct steered *s)
{
    return *s->value == s->before_hidden - 1 || is_worth(s, guard_of(s->which, s->variant)) || is_worth(s, dispatcher_of(s->which, s->variant));
}

/* Have a table say what is wanted. False: it could not be written. */
static bool
table_write(unsigned t)
{
    for (unsigned i = 0; i < steered_count; i++)
        if (steered[i].table == t && !is_the_same(&steered[i])) {
            table_drop(t);
            return true;
        }
    bool changes = false;
    for (unsigned i = 0; i < steered_count; i++)
        changes |= steered[i].table == t && *steered[i].value != value_wanted(&steered[i]);
    if (!changes)
        return true;
    if (!table_open(&tables[t], true))
        return false;
    for (unsigned i = 0; i < steered_count; i++)
        if (steered[i].table == t) {
            ElfW(Addr) value = value_wanted(&steered[i]);
            other_write(&steered[i], value != steered[i].before_hidden - 1);
            __atomic_store_n(steered[i].value, value, __ATOMIC_RELEASE);
        }
    table_open(&tables[t], false);
    return true;
}

/* Within a walk, so that the object does not go meanwhile. */
static int
object_write(struct dl_phdr_info *info, size_t size, void *all)
{
    (void)size;
    for (size_t i = 0; i < info->dlpi_phnum; i++) {
        if (info->dlpi_phdr[i].p_type != PT_DYNAMIC)
            continue;
        const void *dynamic = (const void *)(info->dlpi_addr + info->dlpi_phdr[i].p_vaddr);
        for (unsigned t = 0; t < table_count; t++)
            if (tables[t].dynamic == dynamic && !table_write(t))
                *(bool *)all = false;
    }
    return 0;
}

/* False: some could not be written. */
static bool
write_all(void)
{
    int saved = errno;
    bool all = true;
    objects_walk(object_write, &all);
    errno = saved;
    return all;
}

bool
steering_begin(void)
{
    if (on)
        return complete;
    complete = true;
    tables_find();
    routes_values_collect();
    on = true;
    if (write_all())
        return complete;
    on = false;
    write_all();
    return false;
}

void
steering_follow(void)
{
    tables_find();
    write_all();
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
