/*
 * Any call of the system's may be refused. A life of load, allocate, resize, limit, fork, free and unload is lived again
 * and again in children; the first time the first call of a kind is refused, then the second, and so on to the
 * last: each alone, four in a row, or all from there on. Whatever was refused: contents are intact, what could not
 * be had is NULL and ENOMEM, and when nothing is refused any more all goes on, the figures are true, and what was
 * freed goes back.
 */
#include "module.h"

#include <malloc.h>
#include <pthread.h>
#include <sys/mman.h>

#include "ground/fault.h"
#include "tests/child.h"
#include "tests/work.h"

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)
#define GIB ((size_t)1 << 30)
#define PAGE ((size_t)4096)
#define ALL_CALLS (((uint32_t)1 << FAULT_CALLS) - 1)
#define UNMAPS ((uint32_t)1 << FAULT_UNMAP)
#define HINTS ((uint32_t)1 << FAULT_HINT)
#define MOVES ((uint32_t)1 << FAULT_MOVE | (uint32_t)1 << FAULT_MOVE_LATE)
#define FOREVER UINT64_MAX

static const char *const call_names[FAULT_CALLS] = {
    [FAULT_MAP] = "map",       [FAULT_MAP_AT] = "map at", [FAULT_UNMAP] = "unmap",         [FAULT_PURGE] = "purge",
    [FAULT_RESIZE] = "resize", [FAULT_MOVE] = "move",     [FAULT_MOVE_LATE] = "move late", [FAULT_THREAD] = "thread",
    [FAULT_HINT] = "hint",
};

/* What is refused in this life. */
static struct {
    uint32_t calls;
    uint64_t first, count;
} refusal;

static struct fault_plan *plan;

static void
refuse(void)
{
    plan->first = refusal.first;
    plan->count = refusal.count;
    plan->calls = refusal.calls;
}

static void
refuse_nothing(void)
{
    plan->calls = 0;
}

/* --- Blocks that are held, and what was written to them. */

#define BLOCKS_MOST 600
#define STEP_SMALL ((size_t)64)  /* between words that are written; */
#define STEP_LARGE (128 * KIB)   /* in larger blocks than this; */
#define STEP_GIANT (64 * MIB)    /* and than this */

static struct block {
    unsigned char *at;
    size_t size;
    uint32_t heap;
} blocks[BLOCKS_MOST];
static unsigned held;

static size_t
step_of(size_t size)
{
    return size > STEP_GIANT ? STEP_GIANT : size > STEP_LARGE ? STEP_LARGE : STEP_SMALL;
}

/* Words are told by their place, so that a block that has another size can still be read. */
static uint64_t
word_at(const struct block *b, size_t offset)
{
    return ((uint64_t)(b - blocks) << 48) + offset + 1;
}

static void
write_words(struct block *b)
{
    size_t last = b->size - sizeof(uint64_t);
    if (b->size < sizeof(uint64_t)) {
        memset(b->at, (int)(b - blocks), b->size);
        return;
    }
    for (size_t offset = 0; offset < last; offset += step_of(b->size))
        memcpy(b->at + offset, &(uint64_t){ word_at(b, offset) }, sizeof(uint64_t));
    memcpy(b->at + last, &(uint64_t){ word_at(b, last) }, sizeof(uint64_t));
}

/* Are the words there that lie in the first so many bytes of a block which has become `at`? */
static bool
words_are_there(const struct block *b, const unsigned char *at, size_t bytes)
{
    size_t last = b->size - sizeof(uint64_t);
    uint64_t word;
    if (b->size < sizeof(uint64_t)) {
        for (size_t i = 0; i < b->size && i < bytes; i++)
            if (at[i] != (unsigned char)(b - blocks))
                return false;
        return true;
    }
    for (size_t offset = 0; offset < last; offset += step_of(b->size))
        if (offset + sizeof word <= bytes && (memcpy(&word, at + offset, sizeof word), word != word_at(b, offset)))
            return false;
    return bytes < b->size || (memcpy(&word, at + last, sizeof word), word == word_at(b, last));
}

static bool
all_is_there(void)
{
    for (unsigned i = 0; i < held; i++)
        if (!words_are_there(&blocks[i], blocks[i].at, blocks[i].size)) {
            fprintf(stderr, "block %u of %zu bytes is not what it was\n", i, blocks[i].size);
            return false;
        }
    return true;
}

/* A block of an allocation that may have been refused. */
static void
hold(void *at, size_t size, uint32_t heap)
{
    CHECK(at != NULL || errno == ENOMEM);
    errno = 0;
    if (at == NULL)
        return;
    CHECK(held < BLOCKS_MOST);
    blocks[held] = (struct block){ at, size, heap };
    write_words(&blocks[held++]);
}

/* The last one takes its place. */
static void
forget(unsigned i)
{
    CHECK(words_are_there(&blocks[i], blocks[i].at, blocks[i].size));
    if (i != --held) {
        CHECK(words_are_there(&blocks[held], blocks[held].at, blocks[held].size));
        blocks[i] = blocks[held];
        write_words(&blocks[i]);
    }
}

static void
let_go(unsigned i)
{
    void *at = blocks[i].at;
    forget(i);
    table->free(at);
}

static void
resize(unsigned i, size_t size)
{
    struct block *b = &blocks[i];
    if ((refusal.calls & MOVES) != 0 && b->size > GIB && size > b->size)
        return; /* it would be copied, and take a second */
    errno = 0;
    unsigned char *at = table->realloc(b->at, size);
    CHECK(at != NULL || (errno == ENOMEM && size > b->size));
    CHECK(words_are_there(b, at != NULL ? at : b->at, at != NULL && size < b->size ? size : b->size));
    if (at != NULL) {
        b->at = at;
        b->size = size;
        write_words(b);
    }
}

/* --- The life. */

static const size_t small_sizes[] = { 1, 16, 100, 260, 900, 3000, 9000, 31000 };
static const size_t large_sizes[] = { 40 * KIB, 200 * KIB, 900 * KIB, 2 * MIB };
static const size_t huge_sizes[] = { 3 * MIB, 6 * MIB };
static const size_t alignments[] = { 64, 4 * KIB, 64 * KIB, 4 * MIB, 8 * MIB };

/* Over all borders, up and down again. */
static const size_t walk[] = { 50, 5000, 7000, 9000, 40 * KIB, 50 * KIB, 200 * KIB, 1100 * KIB, 2500 * KIB, 3 * MIB, 5 * MIB,
                               GIB + 100 * MIB, GIB + 300 * MIB, GIB + 8 * MIB, 5 * MIB, 2100 * KIB, 700 * KIB, 50 * KIB, 10 * KIB,
                               60 };

#define COUNT(array) (sizeof(array) / sizeof *(array))

static void
allocate(uint32_t heap, size_t size)
{
    hold(table->heap_malloc(heap, size), size, heap);
}

static void
allocate_zeroed(uint32_t heap, size_t size)
{
    unsigned char *at = table->heap_calloc(heap, 1, size);
    for (size_t i = 0; at != NULL && i < size; i += size > MIB ? PAGE / 8 + 1 : 1)
        CHECK(at[i] == 0);
    hold(at, size, heap);
}

static void
allocate_of_all_kinds(uint32_t heap)
{
    for (unsigned i = 0; i < COUNT(small_sizes); i++)
        for (unsigned n = 0; n < 5; n++)
            allocate(heap, small_sizes[i]);
    for (unsigned i = 0; i < COUNT(large_sizes); i++)
        allocate(heap, large_sizes[i]);
    for (unsigned i = 0; i < COUNT(huge_sizes); i++)
        allocate(heap, huge_sizes[i]);
    for (unsigned i = 0; i < COUNT(alignments); i++)
        hold(table->heap_aligned_alloc(heap, alignments[i], alignments[i] * 3 / 2), alignments[i] * 3 / 2, heap);
    allocate_zeroed(heap, 300);
    allocate_zeroed(heap, 100 * KIB);
    allocate_zeroed(heap, 2500 * KIB);
}

/* Blocks that lie between others, so that some can grow where they are and some cannot. */
static void
resize_over_all_borders(uint32_t heap)
{
    unsigned first = held;
    for (unsigned n = 0; n < 4; n++)
        allocate(heap, 30 + n);
    for (unsigned i = 0; i < COUNT(walk); i++) {
        for (unsigned n = first; n < held && n < first + 2; n++)
            resize(n, walk[i]);
        if (held > first + 3)
            resize(first + 3, walk[COUNT(walk) - 1 - i]);
        if (i % 5 == 4)
            allocate(heap, walk[i]);
    }
    while (held > first)
        let_go(held - 1);
}

/* The system moves no block that is more than one mapping, nor has it grow. */
static void
resize_what_is_two_mappings(uint32_t heap)
{
    unsigned first = held;
    allocate(heap, 6 * MIB);
    if (held == first)
        return;
    void *page = blocks[first].at + MIB;
    size_t page_size = (size_t)sysconf(_SC_PAGESIZE);
    madvise(page, page_size, MADV_DONTDUMP);
    resize(first, 11 * MIB);
    madvise(page, page_size, MADV_DODUMP);
    let_go(first);
}

static void
let_go_of_some(unsigned of)
{
    for (unsigned i = held; i-- > 0;)
        if (i % of != 0)
            let_go(i);
}

static void *
live_in_thread(void *unused)
{
    allocate_of_all_kinds(ALCOVE_HEAP_DEFAULT);
    let_go_of_some(2);
    return unused;
}

static void
live_in_another_thread(void)
{
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, live_in_thread, NULL) == 0);
    pthread_join(thread, NULL);
}

static void
live_in_fork(uint32_t heap)
{
    int status;
    fflush(NULL);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        CHECK(all_is_there());
        allocate_of_all_kinds(heap);
        let_go_of_some(3);
        table->purge();
        CHECK(all_is_there());
        refuse_nothing();
        CHECK(allocator_works(table));
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

static void
destroy(uint32_t heap)
{
    for (unsigned i = held; i-- > 0;)
        if (blocks[i].heap == heap)
            forget(i);
    CHECK(table->heap_destroy(heap) == 0);
}

/* A heap, or the default one if none can be had. */
static uint32_t
heap_or_default(uint64_t limit)
{
    struct alcove_heap_options options = { .limit = limit, .name = "refused" };
    uint32_t heap = ALCOVE_HEAP_DEFAULT;
    int error = table->heap_create(&options, &heap);
    CHECK(error == 0 || error == ENOMEM);
    return error == 0 ? heap : ALCOVE_HEAP_DEFAULT;
}

static void
live(void)
{
    uint32_t limited = heap_or_default(6 * MIB), other = heap_or_default(0);
    allocate_of_all_kinds(ALCOVE_HEAP_DEFAULT);
    allocate_of_all_kinds(limited);
    resize_over_all_borders(ALCOVE_HEAP_DEFAULT);
    resize_what_is_two_mappings(ALCOVE_HEAP_DEFAULT);
    let_go_of_some(3);
    table->purge();
    allocate_of_all_kinds(other);
    live_in_another_thread();
    resize_over_all_borders(other);
    live_in_fork(limited);
    CHECK(all_is_there());
    if (other != ALCOVE_HEAP_DEFAULT)
        destroy(other);
    allocate_of_all_kinds(ALCOVE_HEAP_DEFAULT);
    let_go_of_some(2);
    allocate(ALCOVE_HEAP_DEFAULT, GIB + 4 * MIB);
    allocate(ALCOVE_HEAP_DEFAULT, GIB + 5 * MIB);
    let_go_of_some(7);
    if (limited != ALCOVE_HEAP_DEFAULT)
        destroy(limited);
    table->purge();
    CHECK(all_is_there());
}

/* --- What must be so afterwards. */

static void *
do_nothing(void *unused)
{
    return unused;
}

/* Mapped (metadata not counted) and resident more than it was, and what the allocator says of it. */
static void
check_account(struct process_memory before, size_t mapped_most, size_t resident_most)
{
    struct process_memory now = process_memory();
    struct alcove_info info = info_now();
    size_t mapped = now.mapped - before.mapped, resident = now.resident - before.resident;
    mapped_most += info.metadata_bytes;
    if (mapped > info.mapped_bytes + 64 * KIB || info.mapped_bytes > mapped + 64 * KIB || mapped > mapped_most ||
        (now.resident > before.resident && resident > resident_most)) {
        fprintf(stderr, "mapped: %zu KiB more, of %zu; mapped_bytes says %zu KiB; resident: %zu KiB more, of %zu\n", mapped / KIB,
                mapped_most / KIB, (size_t)info.mapped_bytes / KIB, resident / KIB, resident_most / KIB);
        _exit(1);
    }
}

#define REFUSED_NOTHING 3 /* the status of a life in which no call was refused: there are no more */

static struct process_memory at_first; /* before the allocator was loaded */

static void
begin(void)
{
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, do_nothing, NULL) == 0); /* libc keeps its stack */
    pthread_join(thread, NULL);
    CHECK(dlclose(dlopen(module_path(), RTLD_NOW | RTLD_LOCAL)) == 0);
    at_first = process_memory();
    CHECK(group_open(NULL) == 0);
    plan = symbol_of(module, "fault_plan");
    CHECK(plan != NULL);
}

/* Was a call refused? The allocator is gone, and so much of what it had may be left. */
static void
end(bool refused, size_t mapped_most)
{
    CHECK(message_count == 0);
    CHECK(dlclose(module) == 0);
    struct process_memory now = process_memory();
    if (now.mapped > at_first.mapped + mapped_most || now.resident > at_first.resident + 512 * KIB) {
        fprintf(stderr, "at the end: %zu KiB more are mapped, of %zu, and %zd KiB resident\n",
                (now.mapped - at_first.mapped) / KIB, mapped_most / KIB, (ssize_t)(now.resident - at_first.resident) / (ssize_t)KIB);
        _exit(1);
    }
    _exit(refused ? 0 : REFUSED_NOTHING);
}

static void
refused_while_it_lives(void)
{
    begin();
    struct process_memory loaded = process_memory();
    refuse();
    live();
    refuse_nothing();
    CHECK(info_now().live_blocks == held);
    CHECK(allocator_works(table));
    CHECK(all_is_there() && info_now().live_blocks == held);
    size_t live_bytes = 0;
    for (unsigned i = 0; i < held; i++)
        live_bytes += table->malloc_usable_size(blocks[i].at);
    table->purge();
    check_account(loaded, live_bytes + 48 * MIB, SIZE_MAX);
    while (held > 0)
        let_go(held - 1);
    table->purge();
    CHECK(info_now().live_blocks == 0);
    check_account(loaded, 8 * MIB, 1 * MIB);
    end(plan->refused != 0, 64 * KIB);
}

/* What is refused to the last stays mapped. */
static void
refused_while_it_ends(void)
{
    begin();
    live();
    while (held > 0)
        let_go(held - 1);
    refuse();
    CHECK(table->detach() == 0);
    refuse_nothing();
    end(plan->refused != 0, refusal.count != FOREVER ? 64 * KIB : SIZE_MAX / 2);
}

static void
refused_while_it_leaves_blocks(void)
{
    begin();
    live();
    let_go_of_some(4);
    refuse();
    CHECK(table->detach_leaving() == 0);
    refuse_nothing();
    CHECK(all_is_there());
    size_t left = 0;
    for (unsigned i = 0; i < held; i++)
        left += blocks[i].size + 256 * KIB;
    end(plan->refused != 0, refusal.count != FOREVER ? left : SIZE_MAX / 2);
}

/* --- Every call in turn. */

static void
print_refusal(int status)
{
    print_error("%s %llu, %llu of them, refused: %s %d; calls:", refusal.calls == ALL_CALLS ? "call" : "of these calls number",
                (unsigned long long)refusal.first, (unsigned long long)refusal.count,
                WIFSIGNALED(status) ? "ended by signal" : "status", WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    for (unsigned i = 0; i < FAULT_CALLS; i++)
        if ((refusal.calls >> i & 1) != 0)
            print_error(" %s,", call_names[i]);
    print_error("\n");
}

#define FAILURES_MOST 5 /* that are told of */
#define AT_ONCE 4       /* lives */

/* Live for each call that there is of these kinds. Returns how many lives failed. */
static unsigned
refuse_each(void (*body)(void), uint32_t calls, uint64_t count, uint64_t *lives)
{
    unsigned failures = 0;
    refusal.calls = calls;
    refusal.count = count;
    for (bool last = false; failures < FAILURES_MOST && !last;) {
        pid_t children[AT_ONCE];
        uint64_t first = *lives + 1;
        for (unsigned i = 0; i < AT_ONCE; i++) {
            refusal.first = first + i;
            children[i] = child_start(body, -1);
        }
        for (unsigned i = 0; i < AT_ONCE; i++) {
            int status;
            refusal.first = first + i;
            assert_int_equal(waitpid(children[i], &status, 0), children[i]);
            if (WIFEXITED(status) && WEXITSTATUS(status) == REFUSED_NOTHING) {
                last = true;
            } else {
                ++*lives;
                failures += status != 0;
                if (status != 0)
                    print_refusal(status);
            }
        }
    }
    return failures;
}

/* One after the other: each alone, each with the three that follow, each with all that follow. */
#define ALONE 1u
#define IN_A_ROW 2u
#define FROM_THERE_ON 4u

static void
refuse_all(void (*body)(void), uint32_t calls, unsigned ways)
{
    static const uint64_t counts[] = { 1, 4, FOREVER };
    unsigned failures = 0;
    for (unsigned i = 0; i < COUNT(counts); i++) {
        uint64_t lives = 0;
        if ((ways >> i & 1) == 0)
            continue;
        failures += refuse_each(body, calls, counts[i], &lives);
        assert_true(lives > 0);
    }
    assert_int_equal(failures, 0);
}

#define TEST_OF_CALL(name, call, ways)                                 \
    static void test_refused_##name(void **unused)                     \
    {                                                                  \
        (void)unused;                                                  \
        refuse_all(refused_while_it_lives, (uint32_t)1 << call, ways); \
    }

TEST_OF_CALL(map, FAULT_MAP, ALONE | IN_A_ROW | FROM_THERE_ON)
TEST_OF_CALL(map_at, FAULT_MAP_AT, ALONE | IN_A_ROW | FROM_THERE_ON)
TEST_OF_CALL(unmap, FAULT_UNMAP, ALONE | IN_A_ROW | FROM_THERE_ON)
TEST_OF_CALL(purge, FAULT_PURGE, ALONE | IN_A_ROW | FROM_THERE_ON)
TEST_OF_CALL(hint, FAULT_HINT, FROM_THERE_ON)
TEST_OF_CALL(resize, FAULT_RESIZE, ALONE | IN_A_ROW | FROM_THERE_ON)
TEST_OF_CALL(move, FAULT_MOVE, ALONE | IN_A_ROW | FROM_THERE_ON)
TEST_OF_CALL(move_late, FAULT_MOVE_LATE, ALONE | IN_A_ROW | FROM_THERE_ON)
TEST_OF_CALL(thread, FAULT_THREAD, ALONE | IN_A_ROW | FROM_THERE_ON)

/* Hints need not be heeded, and the calls of one kind alone were seen to above. */
static void
test_refused_calls_of_all_kinds(void **unused)
{
    (void)unused;
    refuse_all(refused_while_it_lives, ALL_CALLS & ~HINTS, IN_A_ROW | FROM_THERE_ON);
}

static void
test_refused_calls_without_decay(void **unused)
{
    (void)unused;
    options_set("dirty_decay_ms:0");
    refuse_all(refused_while_it_lives, ALL_CALLS & ~HINTS, ALONE);
}

static void
test_refused_calls_without_caches(void **unused)
{
    (void)unused;
    options_set("tcache:false");
    refuse_all(refused_while_it_lives, ALL_CALLS & ~HINTS, FROM_THERE_ON);
}

static void
test_refused_calls_of_the_end(void **unused)
{
    (void)unused;
    refuse_all(refused_while_it_ends, ALL_CALLS, ALONE | IN_A_ROW);
}

static void
test_refused_calls_of_the_end_with_live_blocks(void **unused)
{
    (void)unused;
    refuse_all(refused_while_it_leaves_blocks, ALL_CALLS, ALONE | IN_A_ROW);
}

/* What nobody takes back is not resident at least. */
static void
test_refused_unmap_to_the_end(void **unused)
{
    (void)unused;
    refuse_all(refused_while_it_ends, UNMAPS, FROM_THERE_ON);
    refuse_all(refused_while_it_leaves_blocks, UNMAPS, FROM_THERE_ON);
}

/* What is dirty stays so, unless the test purges or asks for another time. */
static int
lasting(void **unused)
{
    (void)unused;
    options_set("dirty_decay_ms:-1");
    return 0;
}

#define lasting_test(function) cmocka_unit_test_setup(function, lasting)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        lasting_test(test_refused_map),
        lasting_test(test_refused_map_at),
        lasting_test(test_refused_unmap),
        lasting_test(test_refused_purge),
        lasting_test(test_refused_hint),
        lasting_test(test_refused_resize),
        lasting_test(test_refused_move),
        lasting_test(test_refused_move_late),
        lasting_test(test_refused_thread),
        lasting_test(test_refused_calls_of_all_kinds),
        lasting_test(test_refused_calls_without_decay),
        lasting_test(test_refused_calls_without_caches),
        lasting_test(test_refused_calls_of_the_end),
        lasting_test(test_refused_calls_of_the_end_with_live_blocks),
        lasting_test(test_refused_unmap_to_the_end),
    };
#ifdef M_ARENA_MAX
    mallopt(M_ARENA_MAX, 1); /* libc's own memory is not to be taken for ours */
#endif
    return cmocka_run_group_tests(tests, NULL, NULL);
}
