/*
 * Pages that the system refuses: what was charged and counted for them is taken back. The allocator calls this program's
 * functions for the system's, which refuse when they are told to.
 */
#include "module.h"

#include <pthread.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "config.h"
#include "heaps.h"
#include "tests/child.h"

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)
#define GIB ((size_t)1 << 30)
#define MANY 100000

static bool refusing, refusing_to_remap, refusing_to_purge, refusing_to_unmap;
static size_t refusing_from; /* bytes at once */
static void (*when_purged)(void);
static char *stranger; /* a mapping that somebody else has where a block was to be moved to */
static bool letting_stranger_in;
static void *blocks[MANY];

void *
mmap(void *address, size_t size, int protection, int flags, int file, off_t offset)
{
    if (!refusing && (refusing_from == 0 || size < refusing_from))
        return (void *)syscall(SYS_mmap, address, size, protection, flags, file, offset);
    errno = ENOMEM;
    return MAP_FAILED;
}

void *
mremap(void *address, size_t size, size_t new_size, int flags, ...)
{
    va_list rest;
    va_start(rest, flags);
    void *to = (flags & MREMAP_FIXED) != 0 ? va_arg(rest, void *) : NULL;
    va_end(rest);
    if (!refusing && !refusing_to_remap)
        return (void *)syscall(SYS_mremap, address, size, new_size, flags, to);
    if (letting_stranger_in && to != NULL) {
        CHECK(munmap(to, new_size) == 0);
        int fixed = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
        CHECK((stranger = (char *)syscall(SYS_mmap, to, new_size, PROT_READ | PROT_WRITE, fixed, -1, 0)) == to);
        memset(stranger, 0x5a, 4 * KIB);
    }
    errno = ENOMEM;
    return MAP_FAILED;
}

int
munmap(void *address, size_t size)
{
    if (!refusing_to_unmap)
        return (int)syscall(SYS_munmap, address, size);
    errno = ENOMEM;
    return -1;
}

int
madvise(void *address, size_t size, int advice)
{
    if (when_purged != NULL && advice == MADV_DONTNEED) {
        void (*call)(void) = when_purged;
        when_purged = NULL;
        call();
    }
    if (refusing_to_purge && advice == MADV_DONTNEED) {
        errno = EINVAL;
        return -1;
    }
    return (int)syscall(SYS_madvise, address, size, advice);
}

/* Blocks of a size until the first is refused. Returns how many. */
static unsigned
fill_with(uint32_t heap, size_t size)
{
    unsigned n = 0;
    while (n < MANY && (blocks[n] = table->heap_malloc(heap, size)) != NULL)
        n++;
    return n;
}

/* A heap at whose end pages of all kinds were refused goes nevertheless, for nothing is charged or counted for them. */
static void
be_refused_and_end(void)
{
    static const size_t sizes[] = { 64, 4000, 30 * KIB, 100 * KIB, MIB, 2 * MIB, 3 * MIB, 64 * MIB };
    CHECK(group_open(NULL) == 0);
    table->free(table->malloc(1));
    uint32_t heaps = info_now().heaps;
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        uint32_t heap = heap_new(0);
        void *first = table->heap_malloc(heap, 5 * MIB);
        refusing = true;
        unsigned n = fill_with(heap, sizes[i]);
        CHECK(n < MANY && table->heap_realloc(heap, first, 100 * MIB) == NULL);
        refusing = false;
        CHECK(stats_of(heap).live_blocks == n + 1);
        while (n > 0)
            table->free(blocks[--n]);
        table->free(first);
        CHECK(table->heap_limit(heap, MIB) == 0);
        void *all = table->heap_malloc(heap, MIB);
        CHECK(all != NULL && stats_of(heap).active_bytes == MIB);
        table->free(all);
        CHECK(table->heap_end(heap) == 0);
        table->tick();
        CHECK(info_now().heaps == heaps);
    }
}

static void
test_heap_is_charged_for_no_page_that_was_refused(void **unused)
{
    (void)unused;
    in_child(be_refused_and_end);
}

/* Blocks that lie between others, so that they must move to grow. Returns what is mapped for blocks when they are gone. */
static uint64_t
grow(void)
{
    unsigned char *held[4];
    for (unsigned i = 0; i < 4; i++)
        memset(held[i] = table->malloc(8 * MIB), (int)i + 1, 8 * MIB);
    for (unsigned i = 0; i < 4; i++) {
        CHECK((held[i] = table->realloc(held[i], 20 * MIB)) != NULL);
        for (size_t at = 0; at < 8 * MIB; at++)
            CHECK(held[i][at] == i + 1);
    }
    for (unsigned i = 0; i < 4; i++)
        table->free(held[i]);
    table->purge();
    return info_now().mapped_bytes - info_now().metadata_bytes; /* a table more if addresses are of another GiB */
}

static void
grow_without_remapping(void)
{
    CHECK(group_open(NULL) == 0);
    uint64_t mapped = grow();
    refusing_to_remap = true;
    CHECK(grow() == mapped);
}

static void
test_huge_block_that_cannot_be_moved_is_copied_and_counted_once(void **unused)
{
    (void)unused;
    in_child(grow_without_remapping);
}

/* The system unmaps the addresses that a block is to be moved to, and then cannot move it. Another thread has them meanwhile. */
static void
grow_while_stranger_comes(void)
{
    CHECK(group_open(NULL) == 0);
    unsigned char *block = table->malloc(8 * MIB);
    memset(block, 1, 8 * MIB);
    refusing_to_remap = letting_stranger_in = true;
    CHECK((block = table->realloc(block, 20 * MIB)) != NULL);
    CHECK(stranger != NULL);
    for (size_t at = 0; at < 8 * MIB; at++)
        CHECK(block[at] == 1);
    table->free(block);
    table->purge();
    unsigned char residency;
    CHECK(mincore(stranger, 4 * KIB, &residency) == 0);
    for (size_t at = 0; at < 4 * KIB; at++)
        CHECK(stranger[at] == 0x5a);
}

static void
test_refused_move_takes_nothing_from_a_stranger(void **unused)
{
    (void)unused;
    in_child(grow_while_stranger_comes);
}

/* The pool's lock is free while pages are purged to make room for a block that must move. */
static struct growth {
    uint32_t heap;
    char *block;
    size_t size;
    pthread_barrier_t purges, goes_on;
} growth;

static void
wait_amid_growth(void)
{
    pthread_barrier_wait(&growth.purges);
    pthread_barrier_wait(&growth.goes_on);
}

static void *
grow_to_the_refused(void *unused)
{
    CHECK(table->realloc(growth.block, 3 * growth.size) == NULL);
    return unused;
}

/* It waits for the growth. */
static void *
fork_amid_growth(void *unused)
{
    struct alcove_owner owner;
    int status;
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        alarm(CHILD_SECONDS);
        CHECK(table->heap_destroy(growth.heap) == 0);
        CHECK(table->owner(growth.block, &owner) == 0);
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    return unused;
}

static void
look_and_fork_amid_growth(size_t size)
{
    pthread_t thread, forker;
    struct alcove_owner owner;
    growth.heap = heap_new(0);
    growth.size = size;
    CHECK((growth.block = table->heap_malloc(growth.heap, size)) != NULL);
    char *dirty = table->malloc(8 * MIB);
    memset(dirty, 1, 8 * MIB);
    table->free(dirty);
    pthread_barrier_init(&growth.purges, NULL, 2);
    pthread_barrier_init(&growth.goes_on, NULL, 2);
    refusing_to_remap = true;
    refusing_from = size;
    when_purged = wait_amid_growth;
    CHECK(pthread_create(&thread, NULL, grow_to_the_refused, NULL) == 0);
    pthread_barrier_wait(&growth.purges);
    CHECK(table->owner(growth.block, &owner) == 1 && owner.block == growth.block);
    CHECK(table->owner(growth.block + size - 1, &owner) == 1 && owner.block == growth.block);
    CHECK(pthread_create(&forker, NULL, fork_amid_growth, NULL) == 0);
    pthread_barrier_wait(&growth.goes_on);
    pthread_join(thread, NULL);
    pthread_join(forker, NULL);
    CHECK(table->owner(growth.block + size - 1, &owner) == 1 && owner.block == growth.block);
    refusing_to_remap = false;
    refusing_from = 0;
    heap_end(growth.heap);
}

static void
look_and_fork_amid_growths(void)
{
    options_set("dirty_decay_ms:-1");
    CHECK(group_open(NULL) == 0);
    look_and_fork_amid_growth(64 * MIB);
    look_and_fork_amid_growth(GIB + MIB);
}

static void
test_block_is_its_heaps_while_room_is_made_for_it(void **unused)
{
    (void)unused;
    in_child(look_and_fork_amid_growths);
}

/* The system gives nothing more, but the thread's own cache holds neighbouring blocks. */
static void
take_what_is_cached(void)
{
    enum { FREED = 8 };
    const size_t size = 40 * KIB;
    CHECK(group_open(NULL) == 0);
    table->free(table->malloc(size));
    refusing = true;
    unsigned n = fill_with(ALCOVE_HEAP_DEFAULT, size);
    CHECK(n > 3 * FREED && table->malloc(FREED / 2 * size) == NULL);
    for (unsigned i = n / 2; i < n / 2 + FREED; i++)
        table->free(blocks[i]);
    CHECK(stats_of(ALCOVE_HEAP_DEFAULT).cached_bytes >= FREED / 2 * size);
    CHECK(table->malloc(FREED / 2 * size) != NULL);
}

static void
test_cache_of_the_thread_gives_way_when_the_system_gives_nothing(void **unused)
{
    (void)unused;
    in_child(take_what_is_cached);
}

/* The functions of a heap that ended go on to work on the default one, which is not made yet. */
static void
want_the_default_heap(void)
{
    uint32_t first, heap;
    CHECK(group_open(NULL) == 0);
    first = heap_new(0);
    refusing = true;
    while (table->heap_create(NULL, &heap) == 0)
        ;
    CHECK(table->heap_end(first) == 0);
    heap = heap_new(0); /* in its place */
    CHECK(heap != first);
    errno = 0;
    CHECK(table->heap_malloc(first, 100) == NULL && errno == ENOMEM);
    CHECK(table->heap_malloc(first, 3 * MIB) == NULL && errno == ENOMEM);
    CHECK(table->heap_malloc(heap + 1, 100) == NULL && errno == EINVAL);
}

static void
test_default_heap_that_cannot_be_made_is_no_memory(void **unused)
{
    (void)unused;
    in_child(want_the_default_heap);
}

/* Idle pages of slabs could not be purged when there was need of what is charged for them. They can be later. */
static void
be_refused_and_try_again(void)
{
    const size_t page = (size_t)1 << ALCOVE_LG_PAGE, large = 512 * page;
    CHECK(group_open(NULL) == 0);
    uint32_t heap = heap_new(2 * large);
    unsigned n = fill_with(heap, page / 4);
    for (unsigned i = 0; i < n; i++)
        if (i % 32 != 0)
            table->free(blocks[i]);
    refusing_to_purge = true;
    CHECK(table->heap_malloc(heap, large) == NULL);
    refusing_to_purge = false;
    CHECK(table->heap_malloc(heap, large) != NULL);
}

static void
test_pages_that_could_not_be_trimmed_are_trimmed_later(void **unused)
{
    (void)unused;
    if (ALCOVE_LG_PAGE > 12)
        SKIP_BECAUSE("a slab of such blocks has no page that could be idle");
    in_child(be_refused_and_try_again);
}

/* Is an address in the same run as a block: in the block, if that is large, or near it in pages of its heap, where nothing else is? */
static bool
is_beside(const void *address, const void *block, uint32_t heap, bool large)
{
    struct alcove_owner owner;
    return table->owner(address, &owner) == 1 && owner.heap == heap && (!large || owner.block == block);
}

/* Resident bytes of that run. */
static size_t
resident_around(const void *block, uint32_t heap, bool large)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    unsigned char residency;
    size_t bytes = 0;
    char *at = (char *)((uintptr_t)block & ~(page - 1));
    while (is_beside(at - 1, block, heap, large))
        at -= page;
    for (; is_beside(at, block, heap, large) || is_beside(at + page - 1, block, heap, large); at += page)
        if (mincore(at, page, &residency) == 0 && (residency & 1) != 0)
            bytes += page;
    return bytes;
}

/* Pages that were others' before cannot be purged: whatever of them a heap with a limit has is charged, or refused. */
static void
be_refused_to_purge(void)
{
    options_set("dirty_decay_ms:-1");
    CHECK(group_open(NULL) == 0);
    void *dirty[20];
    for (unsigned i = 0; i < 20; i++)
        memset(dirty[i] = table->malloc(2 * MIB), 1, 2 * MIB);
    for (unsigned i = 0; i < 20; i++)
        table->free(dirty[i]);
    refusing_to_purge = true;
    for (size_t size = 16; size <= 32 * KIB; size *= 2) {
        uint32_t heap = heap_new(16 * MIB);
        void *block = table->heap_malloc(heap, size);
        CHECK(block != NULL && resident_around(block, heap, false) <= stats_of(heap).active_bytes);
        heap_end(heap);
    }
    for (unsigned cached = 0; cached < 2; cached++) {
        uint32_t heap = heap_new(16 * MIB);
        if (cached)
            for (size_t size = 40 * KIB; size <= MIB; size *= 2)
                table->free(memset(table->heap_malloc(heap, size), 1, size));
        void *block = NULL;
        for (size_t size = 8 * KIB; size < 5 * MIB; size += size / 5) {
            CHECK((block = table->heap_realloc(heap, block, size)) != NULL);
            struct alcove_heap_stats s = stats_of(heap);
            if (size > 32 * KIB)
                CHECK(resident_around(block, heap, true) <= s.active_bytes - s.cached_bytes);
        }
        heap_end(heap);
    }
    /* No page that would fit is had with others that do not. */
    uint32_t heap = heap_new(64 * KIB);
    unsigned n = fill_with(heap, 100);
    for (unsigned i = 0; i < n; i++)
        CHECK(resident_around(blocks[i], heap, false) <= 64 * KIB);
    heap_end(heap);
}

static void
test_what_cannot_be_purged_is_charged(void **unused)
{
    (void)unused;
    in_child(be_refused_to_purge);
}

/* Chunks with pages that were used, by blocks of many sizes, and others that never were. */
static void
free_all_sizes(unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        CHECK((blocks[i] = table->malloc(1 + i * 7919 % 2000)) != NULL);
    for (unsigned i = 0; i < count; i++)
        table->free(blocks[(i * 7919UL) % count]);
}

/* As after mlockall: what cannot be purged can be unmapped. A chunk goes, though some of its pages are dirty and others clean. */
static void
be_refused_to_purge_chunks(void)
{
    options_set("dirty_decay_ms:-1,tcache:false");
    CHECK(group_open(NULL) == 0);
    table->purge();
    uint64_t mapped = info_now().mapped_bytes - info_now().metadata_bytes;
    refusing_to_purge = true;
    for (unsigned count = 7900; count > 100; count /= 3) {
        free_all_sizes(count);
        CHECK(info_now().dirty_bytes > 0);
        table->purge();
        CHECK(info_now().dirty_bytes == 0 && info_now().mapped_bytes - info_now().metadata_bytes <= mapped + 4 * MIB);
    }
    /* Neither: all stays, and goes when it can. */
    refusing_to_unmap = true;
    for (unsigned i = 0; i < 3; i++) {
        free_all_sizes(5000);
        table->purge();
        CHECK(info_now().dirty_bytes > 0);
    }
    refusing_to_unmap = false;
    table->purge();
    CHECK(info_now().dirty_bytes == 0 && info_now().mapped_bytes - info_now().metadata_bytes <= mapped + 4 * MIB);
    free_all_sizes(5000);
}

static void
test_free_chunk_that_cannot_be_purged_is_unmapped(void **unused)
{
    (void)unused;
    in_child(be_refused_to_purge_chunks);
}

/* Many runs that stay, for others are in use between them, and then chunks that could go. */
static void
be_refused_first(void)
{
    enum { FEW = 400, LARGE = 10 };
    static void *large[LARGE];
    options_set("dirty_decay_ms:-1,tcache:false");
    CHECK(group_open(NULL) == 0);
    for (unsigned i = 0; i < FEW; i++)
        CHECK((blocks[i] = table->malloc(64 * KIB)) != NULL);
    for (unsigned i = 0; i < LARGE; i++)
        memset(large[i] = table->malloc(4 * MIB), 1, 4 * MIB);
    for (unsigned i = 0; i < FEW; i += 2)
        table->free(blocks[i]);
    for (unsigned i = 0; i < LARGE; i++)
        table->free(large[i]);
    uint64_t mapped = info_now().mapped_bytes;
    refusing_to_purge = true;
    table->purge();
    CHECK(info_now().mapped_bytes + LARGE * 4 * MIB <= mapped);
}

static void
test_purge_does_not_end_at_what_is_refused(void **unused)
{
    (void)unused;
    in_child(be_refused_first);
}

/* A heap without a limit, one block of each class: its slabs are cut from pages that were used before. */
static uint32_t
use_dirty_pages(void)
{
    memset(blocks[0] = table->malloc(32 * MIB), 1, 32 * MIB); /* as much and more */
    table->free(blocks[0]);
    uint32_t heap = heap_new(0);
    for (size_t size = 16; size <= 32 * KIB; size += size < 128 ? 16 : size / 8)
        CHECK(table->heap_malloc(heap, size) != NULL);
    return heap;
}

static size_t
resident(void)
{
    return process_figure("/proc/self/smaps_rollup", "Rss");
}

/* What it was charged for and nothing else may be resident, from when it has a limit on, or there is a purge. */
static void
clear_when_there_is_a_limit(void)
{
    options_set("dirty_decay_ms:-1,tcache:false");
    CHECK(group_open(NULL) == 0);
    uint32_t heap = use_dirty_pages();
    size_t before = resident();
    CHECK(table->heap_limit(heap, 64 * MIB) == 0);
    CHECK(resident() + MIB < before);
    CHECK(table->heap_limit(heap, 0) == 0 && table->heap_destroy(heap) == 0);

    table->purge();
    before = resident();
    heap = use_dirty_pages();
    table->purge();
    CHECK(resident() < before + stats_of(heap).active_bytes + MIB);
    CHECK(table->heap_destroy(heap) == 0);

    /* Refused, it is charged, and used; a purge that is refused is tried again. */
    heap = use_dirty_pages();
    uint64_t active = stats_of(heap).active_bytes;
    refusing_to_purge = true;
    table->purge();
    CHECK(stats_of(heap).active_bytes == active);
    CHECK(table->heap_limit(heap, 64 * MIB) == 0);
    CHECK(stats_of(heap).active_bytes > active + MIB);
    uint64_t charged = stats_of(heap).active_bytes;
    for (size_t size = 16; size <= 32 * KIB; size += size < 128 ? 16 : size / 8)
        CHECK(memset(table->heap_malloc(heap, size), 7, size) != NULL);
    CHECK(stats_of(heap).active_bytes == charged);
    refusing_to_purge = false;
    CHECK(table->heap_destroy(heap) == 0);
    CHECK(info_now().active_bytes == 0);
}

/* Huge ones are cleared by the system, if it will. */
static void
calloc_and_be_refused(void)
{
    CHECK(group_open(NULL) == 0);
    for (int i = 0; i < 2; i++) {
        refusing_to_purge = i != 0;
        memset(blocks[0] = table->malloc(9 * MIB), 7, 9 * MIB);
        table->free(blocks[0]);
        unsigned char *zeroed = table->calloc(3, 3 * MIB - 5);
        for (size_t at = 0; at < 9 * MIB - 15; at++)
            CHECK(zeroed[at] == 0);
        table->free(zeroed);
    }
}

static void
test_calloc_clears_what_cannot_be_purged(void **unused)
{
    (void)unused;
    in_child(calloc_and_be_refused);
}

static void
test_pages_of_an_earlier_use_go_when_there_is_a_limit(void **unused)
{
    (void)unused;
    if (emulated())
        SKIP_BECAUSE("what is resident is the emulator's");
    if (ALCOVE_LG_PAGE > 14)
        SKIP_BECAUSE("a slab is a page or two");
    in_child(clear_when_there_is_a_limit);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_heap_is_charged_for_no_page_that_was_refused),
        cmocka_unit_test(test_huge_block_that_cannot_be_moved_is_copied_and_counted_once),
        cmocka_unit_test(test_refused_move_takes_nothing_from_a_stranger),
        cmocka_unit_test(test_block_is_its_heaps_while_room_is_made_for_it),
        cmocka_unit_test(test_cache_of_the_thread_gives_way_when_the_system_gives_nothing),
        cmocka_unit_test(test_default_heap_that_cannot_be_made_is_no_memory),
        cmocka_unit_test(test_pages_that_could_not_be_trimmed_are_trimmed_later),
        cmocka_unit_test(test_what_cannot_be_purged_is_charged),
        cmocka_unit_test(test_free_chunk_that_cannot_be_purged_is_unmapped),
        cmocka_unit_test(test_purge_does_not_end_at_what_is_refused),
        cmocka_unit_test(test_pages_of_an_earlier_use_go_when_there_is_a_limit),
        cmocka_unit_test(test_calloc_clears_what_cannot_be_purged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
