/*
 * When the system refuses for real: no more mappings, no more address space, no more locked memory, no thread keys,
 * hardly a stack. Contents stay as they are, what is refused is NULL with ENOMEM, and when there is room again,
 * all that was freed meanwhile has gone back, and the figures say so.
 *
 * Each test is a child process.
 */
#include "module.h"

#include <pthread.h>
#include <sys/resource.h>

#include "tests/child.h"
#include "tests/work.h"

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)
#define PAGE ((size_t)sysconf(_SC_PAGESIZE))

#define SKIP_IF_EMULATED()                                                       \
    do {                                                                         \
        if (emulated())                                                          \
            SKIP_BECAUSE("qemu's emulation of a program has limits of its own"); \
    } while (0)

/* Mappings, used up by pages of an area that cannot be read, every other one of which is made readable: two for each. */
#define MAPPINGS_MOST 300000

static char *area;
static size_t area_pages;

static size_t
mappings_allowed(void)
{
    size_t allowed = 0;
    FILE *f = fopen("/proc/sys/vm/max_map_count", "r");
    if (f != NULL && fscanf(f, "%zu", &allowed) != 1)
        allowed = 0;
    if (f != NULL)
        fclose(f);
    return allowed;
}

#define SKIP_WITH_TOO_MANY_MAPPINGS()                                      \
    do {                                                                   \
        SKIP_IF_EMULATED();                                                \
        if (getenv("ALCOVE_TEST_VALGRIND") != NULL)                        \
            SKIP_BECAUSE("valgrind has a limit of mappings of its own");   \
        if (mappings_allowed() == 0 || mappings_allowed() > MAPPINGS_MOST) \
            SKIP_BECAUSE("the system allows too many mappings");           \
    } while (0)

/* Use all but `left` pairs of them. */
static void
mappings_use_up(unsigned left)
{
    area_pages = 2 * mappings_allowed() + 2;
    area = mmap(NULL, area_pages * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(area != MAP_FAILED);
    size_t i = 1;
    while (i < area_pages && mprotect(area + i * PAGE, PAGE, PROT_READ) == 0)
        i += 2;
    CHECK(i < area_pages);
    for (; left > 0; left--)
        CHECK(mprotect(area + (i -= 2) * PAGE, PAGE, PROT_NONE) == 0);
}

static void
mappings_give_back(void)
{
    CHECK(munmap(area, area_pages * PAGE) == 0);
}

/* How far the allocator's account is from what is mapped, against an earlier moment. */
struct account {
    size_t mapped, resident;
    uint64_t told;
};

static struct account
account_now(void)
{
    return (struct account){ mapped_bytes(), resident_bytes(), info_now().mapped_bytes };
}

static void
check_account(struct account before, size_t mapped_most, size_t resident_most)
{
    struct account now = account_now();
    int64_t more = (int64_t)now.mapped - (int64_t)before.mapped, told = (int64_t)now.told - (int64_t)before.told;
    if (llabs(more - told) > (int64_t)(256 * KIB) || more > (int64_t)mapped_most ||
        now.resident > before.resident + resident_most) {
        fprintf(stderr, "mapped: %lld bytes more, mapped_bytes says %lld; resident: %lld more\n", (long long)more,
                (long long)told, (long long)now.resident - (long long)before.resident);
        _exit(1);
    }
}

#define HUGE_BLOCKS 10
#define HUGE_SIZE (24 * MIB)

/* Blocks between others are freed when no mapping may be split. */
static void
free_huge_blocks_without_mappings(void)
{
    static const unsigned order[HUGE_BLOCKS] = { 5, 3, 7, 1, 9, 6, 4, 2, 8, 0 };
    char *blocks[HUGE_BLOCKS + 2];
    CHECK(group_open(NULL) == 0);
    table->free(table->malloc(3 * MIB));
    for (unsigned left = 0; left < 3; left++) {
        table->purge();
        struct account before = account_now();
        for (unsigned i = 0; i < HUGE_BLOCKS + 2; i++) {
            CHECK((blocks[i] = table->malloc(HUGE_SIZE)) != NULL);
            memset(blocks[i], (int)i + 1, HUGE_SIZE);
        }
        mappings_use_up(left);
        for (unsigned i = 0; i < HUGE_BLOCKS; i++)
            table->free(blocks[order[i]]);
        table->purge();
        size_t resident = resident_bytes();
        if (resident > before.resident + 3 * HUGE_SIZE) {
            fprintf(stderr, "with %u mappings left: freed, but %zu bytes are resident more\n", left * 2,
                    resident - before.resident);
            _exit(1);
        }
        for (unsigned i = HUGE_BLOCKS; i < HUGE_BLOCKS + 2; i++)
            CHECK(blocks[i][0] == (char)(i + 1) && blocks[i][HUGE_SIZE - 1] == (char)(i + 1));
        mappings_give_back();
        for (unsigned i = HUGE_BLOCKS; i < HUGE_BLOCKS + 2; i++)
            table->free(blocks[i]);
        table->purge();
        check_account(before, 8 * MIB, 2 * MIB);
    }
}

static void
test_huge_blocks_freed_without_mappings_go_back(void **unused)
{
    (void)unused;
    SKIP_WITH_TOO_MANY_MAPPINGS();
    in_child(free_huge_blocks_without_mappings);
}

/* The same for small and large blocks: chunks that cannot be unmapped. */
static void
free_chunks_without_mappings(void)
{
    enum { MANY = 3000 };
    static char *blocks[MANY];
    CHECK(group_open(NULL) == 0);
    table->free(table->malloc(100000));
    for (unsigned left = 0; left < 3; left++) {
        table->purge();
        struct account before = account_now();
        for (unsigned i = 0; i < MANY; i++)
            memset(blocks[i] = table->malloc(10000 + i % 5000 * 20), 1, 10000);
        mappings_use_up(left);
        for (unsigned i = 0; i < MANY; i++)
            table->free(blocks[i * 7 % MANY]);
        table->purge();
        if (resident_bytes() > before.resident + 8 * MIB)
            fprintf(stderr, "%zu bytes are resident more\n", resident_bytes() - before.resident);
        CHECK(resident_bytes() <= before.resident + 8 * MIB);
        CHECK(allocator_works(table)); /* what is kept serves on */
        mappings_give_back();
        CHECK(allocator_works(table));
        table->purge();
        check_account(before, 8 * MIB, 2 * MIB);
    }
}

static void
test_chunks_freed_without_mappings_go_back(void **unused)
{
    (void)unused;
    SKIP_WITH_TOO_MANY_MAPPINGS();
    in_child(free_chunks_without_mappings);
}

/* Growing moves pages, and a move has several calls of which any may be refused: single mappings count. So there are
 * some of one page, which are unmapped one after the other. */
#define SINGLES 24

static char *singles;

static void
singles_make(void)
{
    singles = mmap(NULL, 2 * SINGLES * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(singles != MAP_FAILED);
    for (unsigned i = 0; i < SINGLES; i++)
        CHECK(munmap(singles + (2 * i + 1) * PAGE, PAGE) == 0);
}

static void
single_give_back(unsigned i)
{
    CHECK(munmap(singles + 2 * i * PAGE, PAGE) == 0);
}

static void
grow_without_mappings(void)
{
    static const size_t from[] = { 300000, 1900000, 5000000 }, to[] = { 2375000, 9437184 };
    singles_make();
    CHECK(group_open(NULL) == 0);
    void *tried = table->realloc(table->malloc(1900000), 5000000);
    table->free(tried); /* what is tried once has been tried */
    mappings_use_up(0);
    for (unsigned single = 0; single < SINGLES; single++) {
        for (unsigned f = 0; f < sizeof from / sizeof *from; f++)
            for (unsigned t = 0; t < sizeof to / sizeof *to; t++) {
                errno = 0;
                unsigned char *block = table->malloc(from[f]);
                if (block == NULL) {
                    CHECK(errno == ENOMEM);
                    continue;
                }
                memset(block, 0x5a, from[f]);
                errno = 0;
                unsigned char *grown = table->realloc(block, to[t]);
                CHECK(grown != NULL || errno == ENOMEM);
                size_t common = grown != NULL && to[t] < from[f] ? to[t] : from[f], lost = 0;
                block = grown != NULL ? grown : block;
                for (size_t i = 0; i < common; i++)
                    lost += block[i] != 0x5a;
                if (lost != 0)
                    fprintf(stderr, "%u more: realloc of %zu bytes to %zu returned %s, and %zu bytes are lost\n", single, from[f],
                            to[t], grown != NULL ? "a block" : "NULL", lost);
                CHECK(lost == 0);
                table->free(block);
            }
        single_give_back(single);
    }
    mappings_give_back();
    CHECK(allocator_works(table));
}

static void
test_realloc_without_mappings_loses_nothing(void **unused)
{
    (void)unused;
    SKIP_WITH_TOO_MANY_MAPPINGS();
    in_child(grow_without_mappings);
}

/* Blocks that were there before, each from the same state: in a child of the child for each case. */
static unsigned char *many[6];

static void
grow_one_of_many(unsigned at, size_t to, size_t size)
{
    errno = 0;
    unsigned char *grown = table->realloc(many[at], to), *block = grown != NULL ? grown : many[at];
    CHECK(grown != NULL || errno == ENOMEM);
    for (unsigned i = 0; i < 6; i++)
        for (size_t j = 0; j < size; j++)
            CHECK((i == at ? block : many[i])[j] == (unsigned char)(0x50 + i));
    _exit(0);
}

static void
grow_blocks_that_were_there(void)
{
    static const size_t to[] = { 2375000, 9437184 };
    const size_t size = 1900000;
    singles_make();
    CHECK(group_open(NULL) == 0);
    void *tried = table->realloc(table->malloc(size), 5000000);
    table->free(tried);
    for (unsigned i = 0; i < 6; i++) {
        CHECK((many[i] = table->malloc(size)) != NULL);
        memset(many[i], 0x50 + (int)i, size);
    }
    mappings_use_up(0);
    for (unsigned single = 0; single < 12; single++) {
        for (unsigned t = 0; t < 2; t++) {
            int status;
            pid_t child = fork();
            CHECK(child >= 0);
            if (child == 0)
                grow_one_of_many(single % 2 * 3, to[t], size);
            CHECK(waitpid(child, &status, 0) == child);
            if (status != 0)
                fprintf(stderr, "%u mappings more: realloc of a block of %zu bytes to %zu\n", single, size, to[t]);
            CHECK(status == 0);
        }
        single_give_back(single);
    }
}

static void
test_realloc_of_old_blocks_without_mappings_loses_nothing(void **unused)
{
    (void)unused;
    SKIP_WITH_TOO_MANY_MAPPINGS();
    in_child(grow_blocks_that_were_there);
}

/* Allocate, grow, shrink and free at random, at the wall; then without it. */
#define HELD 200

struct held {
    unsigned char *block;
    size_t size;
    unsigned seed;
};

static struct held held[HELD];

static void
check_zeroed(const unsigned char *block, size_t size)
{
    for (size_t at = 0; at < size; at++)
        CHECK(block[at] == 0);
}

/* Returns how often it was refused. */
static unsigned
work_at_random(unsigned steps, uint32_t seed)
{
    uint32_t state = seed;
    unsigned refused = 0;
    for (unsigned step = 0; step < steps; step++) {
        struct held *h = &held[random_next(&state) % HELD];
        uint32_t kind = random_next(&state) % 16, x = random_next(&state);
        size_t size = kind < 8 ? 1 + x % 5000 : kind < 14 ? 1 + x % 500000 : 1 + x % (8 * MIB);
        CHECK(h->block == NULL || filled(h->block, h->size, h->seed));
        errno = 0;
        unsigned char *now;
        if (h->block == NULL) {
            now = x % 3 == 0 ? table->calloc(1, size) : table->malloc(size);
            if (now != NULL && x % 3 == 0)
                check_zeroed(now, size);
        } else if (x % 2 == 0) {
            now = table->realloc(h->block, size);
            if (now == NULL)
                CHECK(filled(h->block, h->size, h->seed));
            for (size_t at = 0; now != NULL && at < h->size && at < size; at++)
                CHECK(now[at] == (unsigned char)(h->seed * 37 + h->size));
        } else {
            table->free(h->block);
            h->block = NULL;
            continue;
        }
        if (now == NULL) {
            CHECK(errno == ENOMEM);
            refused++;
            continue;
        }
        *h = (struct held){ now, size, x };
        fill(now, size, x);
    }
    return refused;
}

static void
free_held(void)
{
    for (unsigned i = 0; i < HELD; i++) {
        CHECK(held[i].block == NULL || filled(held[i].block, held[i].size, held[i].seed));
        table->free(held[i].block);
        held[i].block = NULL;
    }
}

#define ROOM (32 * MIB)

/* `resource` is limited to so much more than there is, and set free again. */
static void
work_under_a_limit(int resource, size_t now)
{
    struct rlimit before;
    CHECK(getrlimit(resource, &before) == 0);
    table->free(table->malloc(3 * MIB));
    table->purge();
    struct account account = account_now();
    CHECK(setrlimit(resource, &(struct rlimit){ now + ROOM, before.rlim_max }) == 0);
    CHECK(work_at_random(3000, 4711) > 0);
    CHECK(strcmp(messages, "") == 0);
    CHECK(setrlimit(resource, &before) == 0);
    CHECK(work_at_random(1000, 4712) == 0);
    free_held();
    table->purge();
    check_account(account, 8 * MIB, 2 * MIB);
    CHECK(info_now().live_blocks == 0);
}

static void
work_without_address_space(void)
{
    CHECK(group_open(NULL) == 0);
    work_under_a_limit(RLIMIT_AS, mapped_bytes());
}

static void
test_address_space_used_up(void **unused)
{
    (void)unused;
    SKIP_IF_EMULATED();
    in_child(work_without_address_space);
}

/* Of a heap whose limit is far away. */
static void
use_up_address_space_below_a_limit(void)
{
    static const size_t sizes[] = { 100, 20000, 40000, 1500000, 20 * MIB };
    struct alcove_heap_options options = { .limit = (uint64_t)1 << 40 };
    struct rlimit before;
    CHECK(group_open(NULL) == 0);
    CHECK(getrlimit(RLIMIT_AS, &before) == 0);
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        uint32_t heap;
        CHECK(table->heap_create(&options, &heap) == 0);
        CHECK(setrlimit(RLIMIT_AS, &(struct rlimit){ mapped_bytes() + ROOM, before.rlim_max }) == 0);
        while (table->heap_malloc(heap, sizes[i]) != NULL)
            ;
        CHECK(errno == ENOMEM);
        CHECK(table->heap_calloc(heap, 1, sizes[i]) == NULL);
        CHECK(stats_of(heap).limit_refused == 0);
        CHECK(table->heap_malloc(heap, options.limit + 1) == NULL);
        CHECK(stats_of(heap).limit_refused == 1);
        CHECK(setrlimit(RLIMIT_AS, &before) == 0);
        CHECK(table->heap_destroy(heap) == 0);
        table->purge();
    }
}

static void
test_what_the_system_refuses_is_not_counted_as_refused_by_the_limit(void **unused)
{
    (void)unused;
    SKIP_IF_EMULATED();
    in_child(use_up_address_space_below_a_limit);
}

static void
work_without_data(void)
{
    CHECK(group_open(NULL) == 0);
    work_under_a_limit(RLIMIT_DATA, process_figure("/proc/self/status", "VmData"));
}

static void
test_data_used_up(void **unused)
{
    (void)unused;
    SKIP_IF_EMULATED();
    in_child(work_without_data);
}

static void
work_without_mappings(void)
{
    CHECK(group_open(NULL) == 0);
    table->free(table->malloc(3 * MIB));
    table->purge();
    struct account account = account_now();
    (void)work_at_random(500, 4713);
    mappings_use_up(1);
    (void)work_at_random(4000, 4714);
    CHECK(strcmp(messages, "") == 0);
    mappings_give_back();
    CHECK(work_at_random(1000, 4715) == 0);
    free_held();
    table->purge();
    check_account(account, 8 * MIB, 2 * MIB);
    CHECK(info_now().live_blocks == 0);
}

static void
test_mappings_used_up(void **unused)
{
    (void)unused;
    SKIP_WITH_TOO_MANY_MAPPINGS();
    in_child(work_without_mappings);
}

/*
 * Locked memory is resident when it is mapped, is not given back by madvise, and has a limit for those without privilege.
 * Where that is less than what the process has mapped already, only what comes is locked.
 */
#define NO_LOCKS 77

static void
work_in_locked_memory(void)
{
    CHECK(group_open(NULL) == 0);
    struct rlimit limit = { mapped_bytes() + 128 * MIB, mapped_bytes() + 128 * MIB };
    CHECK(work_at_random(1000, 4716) == 0);
    (void)setrlimit(RLIMIT_MEMLOCK, &limit);
    if (getrlimit(RLIMIT_MEMLOCK, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY ||
        (geteuid() == 0 && setresuid(65534, 65534, 65534) != 0) ||
        (mlockall(MCL_CURRENT | MCL_FUTURE) != 0 && mlockall(MCL_FUTURE) != 0))
        _exit(NO_LOCKS);
    (void)work_at_random(2000, 4717);
    void *chain = NULL, **block;
    errno = 0;
    for (size_t taken = 0; (block = table->malloc(4 * MIB)) != NULL; taken += 4 * MIB) {
        CHECK(taken < limit.rlim_cur + 64 * MIB); /* it is the limit that ends this */
        *block = chain;
        chain = block;
    }
    CHECK(errno == ENOMEM);
    CHECK(work_at_random(2000, 4718) > 0);
    while ((block = chain) != NULL) {
        chain = *block;
        table->free(block);
    }
    table->purge();
    (void)work_at_random(2000, 4719);
    free_held();
    table->purge();
    CHECK(strcmp(messages, "") == 0);
    CHECK(munlockall() == 0);
    CHECK(info_now().live_blocks == 0);
    CHECK(allocator_works(table));
}

static void
test_locked_memory_used_up(void **unused)
{
    (void)unused;
    SKIP_IF_EMULATED();
    char message[4096];
    int status = child_status(work_in_locked_memory, message, sizeof message);
    if (WIFEXITED(status) && WEXITSTATUS(status) == NO_LOCKS)
        SKIP_BECAUSE("this process may lock no memory, or any");
    if (status != 0)
        fail_msg("status %d: %s", status, message);
}

static void
work_in_threads(pthread_attr_t *attributes, void *(*body)(void *))
{
    pthread_t threads[4];
    for (int turn = 0; turn < 3; turn++) {
        for (int i = 0; i < 4; i++)
            CHECK(pthread_create(&threads[i], attributes, body, (void *)(uintptr_t)table) == 0);
        for (int i = 0; i < 4; i++) {
            void *result;
            pthread_join(threads[i], &result);
            CHECK(result == table);
        }
    }
}

/* Others have taken all keys of thread-specific data. */
static void
work_without_keys(void)
{
    pthread_key_t key;
    unsigned keys = 0;
    while (keys < 100000 && pthread_key_create(&key, NULL) == 0)
        keys++;
    CHECK(keys >= 100 && keys < 100000);
    for (int loads = 0; loads < 3; loads++) {
        CHECK(group_open(NULL) == 0);
        CHECK(allocator_works(table));
        work_in_threads(NULL, allocator_works_in_thread);
        CHECK(info_now().live_blocks == 0);
        CHECK(strcmp(messages, "") == 0);
        CHECK(dlclose(module) == 0);
        CHECK((mappings_with(strrchr(module_path(), '/')) == 0) == DLCLOSE_UNLOADS);
    }
}

static void
test_no_thread_key_is_left(void **unused)
{
    (void)unused;
    in_child(work_without_keys);
}

/* The first call of a thread with the smallest stack there is. Each of them is some thread's first. */
static void *
work_on_a_small_stack(void *t)
{
    static atomic_uint turn;
    struct alcove_heap_stats stats;
    struct alcove_info info;
    uint32_t heap;
    unsigned which = atomic_fetch_add(&turn, 1);
    if (which % 4 == 0)
        table->purge();
    if (which % 4 == 1)
        table->info(&info);
    if (which % 4 == 2 && table->heap_create(NULL, &heap) == 0)
        table->heap_destroy(heap);
    unsigned char *block = table->malloc(100), *large = table->calloc(1, MIB), *huge = table->malloc(3 * MIB);
    if (block == NULL || large == NULL || huge == NULL || table->heap_stats(0, &stats) != 0)
        return NULL;
    huge = table->realloc(huge, 9 * MIB);
    large = table->realloc(large, 100);
    for (unsigned i = 0; i < 300; i++)
        table->free(table->malloc(i * i));
    table->free(block);
    table->free(large);
    table->free(huge);
    table->purge();
    table->info(&info);
    return huge != NULL ? t : NULL;
}

static void
work_on_small_stacks(void)
{
    pthread_attr_t attributes;
    CHECK(group_open(NULL) == 0);
    CHECK(pthread_attr_init(&attributes) == 0);
    size_t stack = 16 * KIB > (size_t)PTHREAD_STACK_MIN ? 16 * KIB : (size_t)PTHREAD_STACK_MIN;
    CHECK(pthread_attr_setstacksize(&attributes, stack) == 0);
    work_in_threads(&attributes, work_on_a_small_stack);
    CHECK(info_now().live_blocks == 0);
}

static void
test_stacks_of_16_kib(void **unused)
{
    (void)unused;
    in_child(work_on_small_stacks);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_huge_blocks_freed_without_mappings_go_back),
        cmocka_unit_test(test_chunks_freed_without_mappings_go_back),
        cmocka_unit_test(test_realloc_without_mappings_loses_nothing),
        cmocka_unit_test(test_realloc_of_old_blocks_without_mappings_loses_nothing),
        cmocka_unit_test(test_mappings_used_up),
        cmocka_unit_test(test_address_space_used_up),
        cmocka_unit_test(test_what_the_system_refuses_is_not_counted_as_refused_by_the_limit),
        cmocka_unit_test(test_data_used_up),
        cmocka_unit_test(test_locked_memory_used_up),
        cmocka_unit_test(test_no_thread_key_is_left),
        cmocka_unit_test(test_stacks_of_16_kib),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
