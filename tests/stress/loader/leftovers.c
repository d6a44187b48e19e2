/* What is as it was: words of objects, symbol tables, memory. */
#include <dlfcn.h>
#include <link.h>
#include <malloc.h>

#include "tests/stress/loader/scenario.h"

static const char *const family[] = {"malloc", "calloc", "realloc", "reallocarray", "aligned_alloc", "memalign", "posix_memalign", "valloc",
                                     "strdup", "strndup", "free", "malloc_usable_size"};
#define FAMILY (sizeof family / sizeof family[0])

/* Where the names lead: to the process' own functions, and while an allocator is loaded. */
static void *own[FAMILY], *steered[FAMILY];

static void
family_find(void *out[static FAMILY])
{
    for (unsigned name = 0; name < FAMILY; name++)
        out[name] = dlsym(RTLD_DEFAULT, family[name]);
}

#define WORDS_MOST 4096
static struct {
    void **at;
    unsigned name;
} led[WORDS_MOST]; /* words that lead there before */
static unsigned led_count, strays;

static void
words_each(const struct dl_phdr_info *info, void (*each)(void **at))
{
    for (unsigned i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *segment = &info->dlpi_phdr[i];
        if (segment->p_type != PT_LOAD || (segment->p_flags & PF_W) == 0)
            continue;
        uintptr_t at = (info->dlpi_addr + segment->p_vaddr + sizeof(void *) - 1) & -sizeof(void *);
        for (; at + sizeof(void *) <= info->dlpi_addr + segment->p_vaddr + segment->p_memsz; at += sizeof(void *))
            each((void **)at);
    }
}

static void
word_note(void **at)
{
    for (unsigned name = 0; name < FAMILY; name++)
        if (*at == own[name] && (uintptr_t)at - (uintptr_t)own >= sizeof own && led_count < WORDS_MOST) {
            led[led_count].at = at;
            led[led_count++].name = name;
        }
}

static int
object_note(struct dl_phdr_info *info, size_t size, void *unused)
{
    (void)size;
    (void)unused;
    words_each(info, word_note);
    return 0;
}

static void
word_judge(void **at)
{
    for (unsigned name = 0; name < FAMILY; name++)
        strays += *at == steered[name] && steered[name] != own[name];
}

/* The program has the loader in it, which has tables of them. */
static int
object_judge(struct dl_phdr_info *info, size_t size, void *unused)
{
    (void)size;
    (void)unused;
    if (info->dlpi_name[0] != 0)
        words_each(info, word_judge);
    return 0;
}

void
words_note(void)
{
    family_find(own);
    dl_iterate_phdr(object_note, NULL);
}

void
words_note_steered(void)
{
    family_find(steered);
}

void
words_compare(void)
{
    void *later[FAMILY];
    family_find(later);
    HOLDS(memcmp(later, own, sizeof own) == 0);
    for (unsigned i = 0; i < led_count; i++)
        if (*led[i].at != own[led[i].name])
            complain(__FILE__, __LINE__, "the word at %p leads to %p, and before it led to %s", (void *)led[i].at, *led[i].at, family[led[i].name]);
    strays = 0;
    dl_iterate_phdr(object_judge, NULL);
    HOLDS_AT_MOST(strays, 0);
}

struct memory
memory_now(void)
{
    struct memory memory = {.resident = resident_bytes(), .mappings = mappings_with("")};
#ifdef __GLIBC__
#if __GLIBC_PREREQ(2, 33)
    memory.in_use = mallinfo2().uordblks;
#endif
#endif
    return memory;
}

#define RESIDENT_SLACK ((size_t)1 << 20) /* stacks that libc keeps */
/* Numbers of heaps, and of thunks that were given away, are used again as late as possible. Until all were, each that is new has a record of
 * its own in the loader (keeper/crossings.c, keeper/thunks.c). */
#define RECORDS_EACH ((size_t)400)
#define RECORDS_MOST ((size_t)2 << 20)
#define IN_USE_SLACK ((size_t)64 << 10)
#define MAPPINGS_SLACK 32u

void
memory_compare(const struct memory *first, unsigned more)
{
    struct memory last = memory_now();
    HOLDS_AT_MOST(last.mappings, first->mappings + MAPPINGS_SLACK);
    HOLDS_AT_MOST(last.in_use, first->in_use + IN_USE_SLACK);
    size_t records = more * RECORDS_EACH < RECORDS_MOST ? more * RECORDS_EACH : RECORDS_MOST;
    HOLDS_AT_MOST(last.resident, first->resident + RESIDENT_SLACK + records);
}
