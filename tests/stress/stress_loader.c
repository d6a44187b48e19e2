/*
 * Opens and closes modules in eight threads, among everything that others do to the same objects meanwhile: dlopen and dlclose, imports bound
 * at their first call, dlsym, threads that end, forks, other calls of the loader's.
 *
 * stress_loader [cycles [test]]     of each scenario, all threads together; default: ALCOVE_TEST_LOADS, or 400, or
 *                                     100 under ThreadSanitizer
 */
#include "module.h"

#include <link.h>
#include <malloc.h>
#include <pthread.h>
#include <sched.h>

#include <alcove/loader.h>

#include "config.h"
#include "tests/child.h"
#include "tests/plugins/blocks.h"

#define OPENERS 8
#define ALLOCATORS 2
#define TAKEN 10 /* blocks of a module */
#define STALLS 64
#define CHILD_WAITS 60 /* s; then a child hangs */

static unsigned cycles = UNDER_TSAN ? 100 : 400;

/* --- what must hold */

static atomic_uint failures;

static void
complain(const char *what, int line)
{
    if (atomic_fetch_add(&failures, 1) < 10)
        fprintf(stderr, "%s:%d: not so: %s (%s)\n", __FILE__, line, what, alcove_error_message());
}

/* In any thread. */
#define HOLDS(condition) ((condition) ? (void)0 : complain(#condition, __LINE__))

/* --- files: copies, each of which is a library of its own */

static char folder[] = "/tmp/alcove-stress-XXXXXX";

static const char *
file_of(const char *kind, unsigned number)
{
    static __thread char path[sizeof folder + 64];
    snprintf(path, sizeof path, "%s/%s-%u.so", folder, kind, number);
    return path;
}

static void
plugins_copy(const char *plugin, unsigned count)
{
    char from[PATH_MAX];
    snprintf(from, sizeof from, "%s/%s.so", getenv("ALCOVE_TEST_PLUGINS"), plugin);
    for (unsigned i = 0; i < count; i++)
        assert_true(file_copy(from, file_of(plugin, i)));
}

static int
files_make(void **unused)
{
    (void)unused;
    assert_non_null(mkdtemp(folder));
    plugins_copy("blocks", OPENERS + 1);
    plugins_copy("blocks_two", 1);
    plugins_copy("keeper", OPENERS + 1);
    plugins_copy("walker", OPENERS);
    for (unsigned i = 0; i < ALLOCATORS; i++)
        assert_true(module_copy(file_of("allocator", i)));
    return 0;
}

static int
files_remove(void **unused)
{
    (void)unused;
    char command[sizeof folder + 16];
    snprintf(command, sizeof command, "rm -r %s", folder);
    return system(command);
}

/* --- allocators: loaded all the time, or by whoever wants them */

static struct scenario {
    bool load_each; /* whoever uses an allocator loads it first, and unloads it */
    unsigned allocators;
    void *(*opener)(void *);
} now;
static alcove_allocator *loaded[ALLOCATORS];

static alcove_allocator *
load(unsigned number)
{
    struct alcove_load_options options = {.path = file_of("allocator", number)};
    alcove_allocator *a = NULL;
    int code;
    while ((code = alcove_load(&a, &options)) == ALCOVE_EBUSY)
        sched_yield();
    HOLDS(code == ALCOVE_OK);
    return a;
}

static alcove_allocator *
borrow(unsigned number)
{
    return now.load_each ? load(number) : loaded[number];
}

static void stall_clear(unsigned at);

static void
unload(alcove_allocator *a)
{
    int code;
    for (unsigned i = 0; (code = alcove_unload(a, 0)) == ALCOVE_EBUSY; i++) {
        stall_clear(i % STALLS); /* a block there keeps it */
        sched_yield();
    }
    HOLDS(code == ALCOVE_OK);
}

static void
give_back(alcove_allocator *a)
{
    if (now.load_each)
        unload(a);
}

/* --- the market: blocks that others release */

struct parcel {
    uintptr_t self;
    size_t size;
};
static _Atomic(struct parcel *) market[STALLS];

static struct parcel *
parcel_pack(void *block, size_t size)
{
    struct parcel *parcel = block;
    memset(parcel, 0x5a, size);
    *parcel = (struct parcel){~(uintptr_t)parcel, size};
    return parcel;
}

static bool
parcel_is_whole(const struct parcel *parcel)
{
    return parcel->self == ~(uintptr_t)parcel && ((const unsigned char *)parcel)[parcel->size - 1] == 0x5a;
}

static void
parcel_release(struct parcel *parcel, void (*release)(void *))
{
    if (parcel == NULL)
        return;
    HOLDS(parcel_is_whole(parcel));
    release(parcel);
}

/* What lay there before is released. */
static void
stall_fill(unsigned at, struct parcel *parcel)
{
    parcel_release(atomic_exchange(&market[at], parcel), free);
}

static void
stall_clear(unsigned at)
{
    stall_fill(at, NULL);
}

/* Take one, if there is one; whoever calls has an allocator. */
static struct parcel *
parcel_take(unsigned seed)
{
    struct parcel *parcel = NULL;
    for (unsigned i = 0; i < 8 && parcel == NULL; i++)
        parcel = atomic_exchange(&market[(seed + i) % STALLS], NULL);
    return parcel;
}

/* --- openers */

static atomic_uint tickets;
static _Atomic(alcove_module *) open_modules[OPENERS];

/* The last two open the same library, which is one module while both have it open. */
static bool
is_shared(unsigned opener)
{
    return opener >= OPENERS - 2;
}

static alcove_module *
open_library(alcove_allocator *a, const char *kind, unsigned opener, unsigned ticket)
{
    struct alcove_module_options options = {.dlopen_flags = ticket % 2 == 0 ? 0 : RTLD_LAZY | RTLD_LOCAL};
    alcove_module *opened = NULL;
    int code = alcove_module_open(a, file_of(kind, is_shared(opener) ? OPENERS - 1 : opener), &options, &opened);
    if (code == ALCOVE_EBUSY && is_shared(opener)) /* with another allocator */
        return NULL;
    HOLDS(code == ALCOVE_OK);
    atomic_store(&open_modules[opener], opened);
    return opened;
}

static void
close_library(alcove_module *opened, unsigned opener, unsigned flags)
{
    int code;
    atomic_store(&open_modules[opener], NULL);
    while ((code = alcove_module_close(opened, flags, NULL)) == ALCOVE_EBUSY)
        sched_yield(); /* somebody looks a symbol of it up */
    HOLDS(code == ALCOVE_OK);
}

/* Take blocks, release some by each of three ways, and leave the rest to others. */
static void
module_use(alcove_module *opened, alcove_allocator *a, unsigned ticket, bool leave, bool alone)
{
    static const enum blocks_kind kinds[] = {BLOCKS_MALLOC, BLOCKS_CALLOC, BLOCKS_REALLOC, BLOCKS_ALIGNED_ALLOC, BLOCKS_POSIX_MEMALIGN};
    __typeof__(&blocks_make) make = (__typeof__(&blocks_make))alcove_module_symbol(opened, "blocks_make");
    __typeof__(&blocks_release) release = (__typeof__(&blocks_release))alcove_module_symbol(opened, "blocks_release");
    const struct alcove_table *table_now = alcove_table_of(a);
    uint32_t heap = alcove_module_heap(opened);
    struct alcove_module_stats stats;
    for (unsigned i = 0; i < TAKEN; i++) {
        size_t size = 64 + (ticket * 31 + i * 97) % 3000;
        struct alcove_owner owner = {.heap = ALCOVE_HEAP_NONE};
        struct parcel *parcel = parcel_pack(make(kinds[i % 5], size), size);
        HOLDS(table_now->owner(parcel, &owner) && owner.heap == heap);
        if (leave)
            stall_fill((ticket * 7 + i) % STALLS, parcel);
        else
            parcel_release(parcel, i % 2 == 0 ? free : release);
        parcel_release(parcel_take(ticket * 5 + i), i % 2 == 0 ? free : release);
    }
    HOLDS(alcove_module_stats(opened, &stats) == ALCOVE_OK && stats.heap.total_allocs >= TAKEN);
    HOLDS(!alone || stats.heap.total_allocs == TAKEN);
    HOLDS(!alone || leave || stats.heap.live_blocks == 0);
}

static void *
open_blocks(void *argument)
{
    unsigned opener = (unsigned)(uintptr_t)argument, ticket;
    while ((ticket = atomic_fetch_add(&tickets, 1)) < cycles) {
        alcove_allocator *a = borrow(ticket % now.allocators);
        alcove_module *opened = open_library(a, "blocks", opener, ticket);
        if (opened != NULL) {
            bool leave = ticket % 4 != 0;
            module_use(opened, a, ticket, leave, !is_shared(opener));
            close_library(opened, opener, leave || is_shared(opener) ? 0 : ticket % 8 == 0 ? ALCOVE_CLOSE_DROP : 0);
        }
        give_back(a);
    }
    return NULL;
}

/* Of a library whose constructor allocates one block. */
static void *
open_keeper(void *argument)
{
    unsigned opener = (unsigned)(uintptr_t)argument, ticket;
    while ((ticket = atomic_fetch_add(&tickets, 1)) < cycles) {
        struct alcove_module_stats stats;
        alcove_allocator *a = borrow(ticket % now.allocators);
        alcove_module *opened = open_library(a, "keeper", opener, ticket);
        if (opened != NULL) {
            HOLDS(alcove_module_stats(opened, &stats) == ALCOVE_OK && stats.heap.live_blocks == stats.heap.total_allocs);
            /* Of a library that two open the constructor may have run in the other one's call, which came too late. */
            HOLDS(stats.heap.total_allocs == 1 || (stats.heap.total_allocs == 0 && (is_shared(opener) || UNDER_TSAN)));
            close_library(opened, opener, 0);
        }
        give_back(a);
    }
    return NULL;
}

/* Of a library whose constructor allocates in a walk over all objects: its block is its own, or libc's if others keep the loader too long. */
static void *
open_walker(void *argument)
{
    unsigned opener = (unsigned)(uintptr_t)argument, ticket;
    while ((ticket = atomic_fetch_add(&tickets, 1)) < cycles) {
        struct alcove_module_stats stats;
        alcove_module *opened = open_library(loaded[0], "walker", opener, ticket);
        if (opened == NULL)
            continue;
        HOLDS(alcove_module_stats(opened, &stats) == ALCOVE_OK && stats.heap.total_allocs <= 1);
        close_library(opened, opener, 0);
    }
    return NULL;
}

/* --- the others */

static atomic_bool stop;

/* Bound at the first call, which may be the release of a module's block, or all at once. */
static void
load_others(unsigned turn)
{
    const char *path = turn % 3 == 0 ? file_of("blocks_two", 0) : file_of("blocks", OPENERS);
    void *library = dlopen(path, turn % 2 == 0 ? RTLD_LAZY | RTLD_LOCAL : RTLD_NOW | RTLD_LOCAL);
    HOLDS(library != NULL);
    if (library == NULL)
        return;
    __typeof__(&blocks_release) release = (__typeof__(&blocks_release))dlsym(library, "blocks_release");
    __typeof__(&blocks_make) make = (__typeof__(&blocks_make))dlsym(library, "blocks_make");
    parcel_release(parcel_take(turn), release);
    parcel_release(parcel_pack(make(BLOCKS_MALLOC, 100), 100), turn % 2 == 0 ? release : free);
    parcel_release(parcel_pack(malloc(50), 50), *(void (**)(void *))dlsym(library, "blocks_free_pointer"));
    HOLDS(dlclose(library) == 0);
}

/* With a constructor that allocates, and is no module's. */
static void
load_keeper(unsigned turn)
{
    void *library = dlopen(file_of("keeper", OPENERS), turn % 2 == 0 ? RTLD_LAZY | RTLD_LOCAL : RTLD_NOW | RTLD_LOCAL);
    HOLDS(library != NULL);
    if (library != NULL)
        HOLDS(dlclose(library) == 0);
}

static void
look_up(unsigned turn)
{
    void *(*take)(size_t) = (void *(*)(size_t))dlsym(RTLD_DEFAULT, "malloc");
    void (*release)(void *) = (void (*)(void *))dlsym(RTLD_DEFAULT, "free");
    parcel_release(parcel_pack(take(200), 200), free);
    parcel_release(parcel_pack(malloc(200), 200), release);
    parcel_release(parcel_take(turn), release);
}

static pthread_key_t late;

static void
release_late(void *parcel)
{
    parcel_release(parcel, free);
}

static void *
live_shortly(void *parcel)
{
    if (parcel != NULL)
        pthread_setspecific(late, parcel);
    return NULL;
}

static void
end_threads(unsigned turn)
{
    pthread_t threads[4];
    for (unsigned i = 0; i < 4; i++)
        HOLDS(pthread_create(&threads[i], NULL, live_shortly, parcel_take(turn + i * 8)) == 0);
    for (unsigned i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
}

/* The child has a copy of the block, and no other thread. */
static void
fork_off(unsigned turn)
{
    if (emulated()) /* by what does not survive it */
        return;
    struct parcel *parcel = parcel_take(turn);
    int status = 0;
    pid_t child = fork();
    if (child == 0) {
        alarm(CHILD_WAITS);
        parcel_release(parcel, free);
        free(malloc(100));
        _exit(atomic_load(&failures) != 0);
    }
    HOLDS(child > 0 && waitpid(child, &status, 0) == child);
    HOLDS(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    parcel_release(parcel, free);
    usleep(2000);
}

static void
ask(unsigned turn)
{
    struct alcove_module_stats stats;
    alcove_module *opened = atomic_load(&open_modules[turn % OPENERS]);
    HOLDS(alcove_refresh() == ALCOVE_OK);
    if (opened == NULL)
        return;
    int code = alcove_module_stats(opened, &stats);
    HOLDS(code == ALCOVE_OK || code == ALCOVE_ECLOSED);
    (void)alcove_module_symbol(opened, "free");
}

static void (*const others[])(unsigned turn) = {load_others, load_keeper, look_up, end_threads, fork_off, ask};
#define OTHERS (sizeof others / sizeof others[0])

static void *
do_others(void *other)
{
    for (unsigned turn = 0; !atomic_load(&stop); turn++) {
        alcove_allocator *a = borrow(turn % now.allocators);
        others[(uintptr_t)other](turn);
        give_back(a);
    }
    return NULL;
}

/* --- what is as it was: words of objects, symbol tables, memory */

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

static void
words_compare(void)
{
    void *later[FAMILY];
    family_find(later);
    assert_memory_equal(later, own, sizeof own);
    for (unsigned i = 0; i < led_count; i++)
        if (*led[i].at != own[led[i].name])
            fail_msg("the word at %p leads to %p, and before it led to %s", (void *)led[i].at, *led[i].at, family[led[i].name]);
    strays = 0;
    dl_iterate_phdr(object_judge, NULL);
    assert_int_equal(strays, 0);
}

struct memory {
    size_t resident, in_use; /* of libc's heap, where it tells */
    unsigned mappings;
};

static struct memory
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

#if UNDER_TSAN
/* It knows nothing of the dynamic linker's locks, nor that a library which was mapped before lay where another one does. */
const char *__tsan_default_suppressions(void);
const char *
__tsan_default_suppressions(void)
{
    return "race_top:/keeper-\nrace_top:/walker-\nrace_top:/blocks\nrace:name_compare\nrace:module_load\n";
}
#endif

/* --- the scenarios */

static void
all_clear(alcove_allocator *a)
{
    struct alcove_info info;
    for (unsigned at = 0; at < STALLS; at++)
        stall_clear(at);
    alcove_table_of(a)->info(&info);
    assert_int_equal(info.live_blocks, 0);
}

static void
run_once(unsigned count)
{
    pthread_t openers[OPENERS], doers[OTHERS];
    stop = false;
    tickets = failures = 0;
    unsigned all = cycles;
    cycles = count;
    for (unsigned i = 0; i < now.allocators; i++)
        loaded[i] = load(i);
    family_find(steered);
    if (now.load_each)
        unload(loaded[0]);
    for (uintptr_t i = 0; i < OTHERS; i++)
        assert_int_equal(pthread_create(&doers[i], NULL, do_others, (void *)i), 0);
    for (uintptr_t i = 0; i < OPENERS; i++)
        assert_int_equal(pthread_create(&openers[i], NULL, now.opener, (void *)i), 0);
    for (unsigned i = 0; i < OPENERS; i++)
        pthread_join(openers[i], NULL);
    stop = true;
    for (unsigned i = 0; i < OTHERS; i++)
        pthread_join(doers[i], NULL);
    if (now.load_each)
        loaded[0] = load(0);
    all_clear(loaded[0]);
    for (unsigned i = 0; i < now.allocators; i++)
        unload(loaded[i]);
    cycles = all;
    assert_int_equal(failures, 0);
    words_compare();
}

static void
run(struct scenario scenario)
{
    now = scenario;
    run_once(cycles / 4);
    if (emulated() || UNDER_TSAN) /* whose own memory it would be */
        return run_once(cycles);
    struct memory first = memory_now();
    run_once(cycles);
    struct memory last = memory_now();
    assert_in_range(last.mappings, 0, first.mappings + MAPPINGS_SLACK);
    assert_in_range(last.in_use, 0, first.in_use + IN_USE_SLACK);
    size_t records = cycles * RECORDS_EACH < RECORDS_MOST ? cycles * RECORDS_EACH : RECORDS_MOST;
    if (last.resident > first.resident + RESIDENT_SLACK + records)
        fail_msg("%zu bytes resident after %u cycles, %zu after %u", last.resident, cycles + cycles / 4, first.resident, cycles / 4);
}

static void
test_modules_open_and_close_among_everything(void **unused)
{
    (void)unused;
    run((struct scenario){.allocators = 1, .opener = open_blocks});
}

static void
test_allocator_comes_and_goes_among_everything(void **unused)
{
    (void)unused;
    run((struct scenario){.allocators = 1, .opener = open_blocks, .load_each = true});
}

static void
test_blocks_cross_between_two_allocators(void **unused)
{
    (void)unused;
    run((struct scenario){.allocators = 2, .opener = open_blocks});
}

static void
test_what_others_allocate_meanwhile_is_no_modules(void **unused)
{
    (void)unused;
    SKIP_WITHOUT_UNLOADING(); /* the constructors run once */
    run((struct scenario){.allocators = 2, .opener = open_keeper});
}

static void
test_constructors_allocate_while_they_walk_over_objects(void **unused)
{
    (void)unused;
    SKIP_WITHOUT_UNLOADING(); /* the constructors run once */
    if (UNDER_TSAN)
        SKIP_BECAUSE("ThreadSanitizer's dlopen walks over objects with a lock of its own");
    unsigned all = cycles;
    cycles = cycles / 100 + OPENERS; /* each may wait for a while */
    run((struct scenario){.allocators = 1, .opener = open_walker});
    cycles = all;
}

int
main(int argc, char **argv)
{
    const char *text = argc > 1 ? argv[1] : getenv("ALCOVE_TEST_LOADS");
    if (text != NULL && atoi(text) > 0)
        cycles = (unsigned)atoi(text);
#ifdef M_ARENA_MAX
    mallopt(M_ARENA_MAX, 1); /* libc's own memory is not to be taken for ours */
#endif
    if (argc > 2)
        cmocka_set_test_filter(argv[2]);
    family_find(own);
    dl_iterate_phdr(object_note, NULL);
    pthread_key_create(&late, release_late);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_modules_open_and_close_among_everything),
        cmocka_unit_test(test_allocator_comes_and_goes_among_everything),
        cmocka_unit_test(test_blocks_cross_between_two_allocators),
        cmocka_unit_test(test_what_others_allocate_meanwhile_is_no_modules),
        cmocka_unit_test(test_constructors_allocate_while_they_walk_over_objects),
    };
    return cmocka_run_group_tests(tests, files_make, files_remove);
}
