/*
 * Where the system gives little: an address space that is nearly full, memory that must be backed, and a
 * sandbox that knows few system calls. The module loads, works in what there is, and says ENOMEM beyond.
 *
 * Each test is a child process, since no limit of these is ever raised again.
 */
#include "module.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "tests/child.h"
#include "tests/work.h"

#define MIB ((size_t)1 << 20)

/* qemu sets no limit of its program's memory, and knows no seccomp. */
#define SKIP_IF_EMULATED()                                                              \
    do {                                                                                \
        if (emulated())                                                                 \
            SKIP_BECAUSE("qemu's emulation of a program has no such limits, no seccomp"); \
    } while (0)

/* Blocks of a size until there is none; returns their bytes. They are chained, so that nothing else is needed. */
static size_t
take_all(void **chain, size_t size)
{
    size_t bytes = 0;
    void **block;
    errno = 0;
    while ((block = table->malloc(size)) != NULL) {
        memset(block, 0x5a, size);
        *block = *chain;
        *chain = block;
        bytes += size;
    }
    CHECK(errno == ENOMEM);
    return bytes;
}

static void
free_all(void **chain)
{
    while (*chain != NULL) {
        void **block = *chain;
        *chain = *block;
        table->free(block);
    }
}

#define ROOM (64 * MIB)
#define USABLE (40 * MIB) /* five blocks of 700,000 bytes leave an eighth of a chunk; page map and records have their part */

/* With ROOM left of something: fill it with blocks of every kind, several times over, then unload and load again. */
static void
work_in_little(void)
{
    static const size_t sizes[] = { 16, 200, 5000, 60000, 700000, 3 * MIB };
    void *chain = NULL;
    for (int round = 0; round < 2; round++) {
        CHECK(group_open(NULL) == 0);
        CHECK(allocator_works(table));
        for (unsigned i = 0; i < 6; i++) {
            size_t bytes = take_all(&chain, sizes[i]);
            if (bytes < USABLE)
                fprintf(stderr, "%zu bytes in blocks of %zu\n", bytes, sizes[i]);
            CHECK(bytes >= USABLE);
            CHECK(table->realloc(chain, ROOM * 2) == NULL);
            CHECK(table->calloc(2, ROOM) == NULL);
            void *aligned;
            CHECK(table->posix_memalign(&aligned, 2 * MIB, ROOM) == ENOMEM);
            free_all(&chain);
            table->purge();
        }
        CHECK(allocator_works(table));
        CHECK(dlclose(module) == 0);
        CHECK((mappings_with(strrchr(module_path(), '/')) == 0) == DLCLOSE_UNLOADS);
    }
}

static void
limit(int which, size_t most)
{
    CHECK(setrlimit(which, &(struct rlimit){ most, most }) == 0);
}

static void
work_in_little_address_space(void)
{
    limit(RLIMIT_AS, mapped_bytes() + ROOM);
    work_in_little();
}

static void
test_address_space_64_mib_above_what_the_process_has(void **unused)
{
    (void)unused;
    SKIP_IF_EMULATED();
    in_child(work_in_little_address_space);
}

/* Private writable mappings, touched or not, reserved or not. */
static size_t
data_bytes(void)
{
    unsigned long size, resident, shared, text, library, data = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    CHECK(f != NULL && fscanf(f, "%lu %lu %lu %lu %lu %lu", &size, &resident, &shared, &text, &library, &data) == 6);
    fclose(f);
    return data * (size_t)sysconf(_SC_PAGESIZE);
}

/*
 * With vm.overcommit_memory=2 the system counts every private writable mapping when it is made, even one
 * with MAP_NORESERVE, and refuses it when the sum is above a limit. RLIMIT_DATA does that for one
 * process.
 */
static void
work_in_little_committed_memory(void)
{
    limit(RLIMIT_DATA, data_bytes() + ROOM);
    work_in_little();
}

static void
test_overcommit_forbidden(void **unused)
{
    (void)unused;
    SKIP_IF_EMULATED();
    in_child(work_in_little_committed_memory);
}

/* Not even one chunk is to be had. */
static void
work_in_nothing(void)
{
    CHECK(group_open(NULL) == 0);
    limit(RLIMIT_DATA, data_bytes());
    for (int i = 0; i < 3; i++) {
        errno = 0;
        CHECK(table->malloc(100) == NULL && errno == ENOMEM);
        errno = 0;
        CHECK(table->malloc(100 * MIB) == NULL && errno == ENOMEM);
        errno = 0;
        CHECK(table->calloc(10, 10) == NULL && errno == ENOMEM);
    }
    CHECK(dlclose(module) == 0);
}

static void
test_first_allocation_without_any_memory(void **unused)
{
    (void)unused;
    SKIP_IF_EMULATED();
    in_child(work_in_nothing);
}

/*
 * The sandbox. doc/ARCHITECTURE.md has these lists for those who write one.
 */
static const int needed_to_allocate[] = { SYS_mmap, SYS_munmap };
static const int used_when_allowed[] = { SYS_madvise, SYS_mremap, SYS_futex, SYS_gettid, SYS_getpid, SYS_tgkill };
/* Of this test: threads, messages, the end; and what dlclose does. */
static const int of_threads[] = { SYS_clone, SYS_clone3, SYS_mprotect, SYS_set_robust_list, SYS_rseq, SYS_rt_sigaction,
                                  SYS_rt_sigprocmask, SYS_membarrier, SYS_exit };
static const int of_the_test[] = { SYS_write, SYS_exit_group, SYS_brk };

struct calls {
    const int *numbers;
    size_t count;
};
#define CALLS(table_of_numbers) { (table_of_numbers), sizeof(table_of_numbers) / sizeof *(table_of_numbers) }

/* From now on only these system calls; `else_do` for all others. */
static void
sandbox(const struct calls *allowed, size_t groups, unsigned else_do)
{
    static struct sock_filter filter[256];
    unsigned short n = 0;
    filter[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (size_t g = 0; g < groups; g++)
        for (size_t i = 0; i < allowed[g].count; i++) {
            filter[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)allowed[g].numbers[i], 0, 1);
            filter[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
        }
    filter[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, else_do);
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &(struct sock_fprog){ n, filter }, 0, 0) == 0);
}

static void
work_in_threads(void)
{
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        CHECK(pthread_create(&threads[i], NULL, allocator_works_in_thread, (void *)(uintptr_t)table) == 0);
    for (int i = 0; i < 4; i++) {
        void *result;
        pthread_join(threads[i], &result);
        CHECK(result != NULL);
    }
}

static void
use_everything(void)
{
    void *chain = NULL;
    for (int round = 0; round < 5; round++) {
        work_in_threads();
        for (unsigned i = 0; i < 300; i++) {
            void **block = table->malloc(i * i * 40);
            CHECK(block != NULL);
            *block = chain;
            chain = table->realloc(block, i * i * 45 + 8);
        }
        free_all(&chain);
        void *grown = table->malloc(3 * MIB);
        for (size_t size = 3; size < 40; size += 3)
            CHECK((grown = table->realloc(grown, size * MIB)) != NULL);
        table->free(grown);
        struct alcove_info info;
        table->info(&info);
        CHECK(info.live_blocks == 0);
        table->purge();
    }
}

/* Whatever else it called would end the process. */
static void
work_with_the_calls_in_the_documents(void)
{
    static const struct calls allowed[] = { CALLS(needed_to_allocate), CALLS(used_when_allowed), CALLS(of_threads),
                                            CALLS(of_the_test) };
    options_set("dirty_decay_ms:0");
    CHECK(group_open(NULL) == 0);
    sandbox(allowed, 4, SECCOMP_RET_KILL_PROCESS);
    use_everything();
    CHECK(dlclose(module) == 0);
}

static void
test_sandbox_with_the_system_calls_that_the_documents_name(void **unused)
{
    (void)unused;
    SKIP_IF_EMULATED();
    in_child(work_with_the_calls_in_the_documents);
}

/* All others are refused, the way a container's sandbox does. Threads are not to be had then. */
static void
work_with_the_calls_that_are_needed(void)
{
    static const struct calls allowed[] = { CALLS(needed_to_allocate), CALLS(of_the_test) };
    CHECK(group_open(NULL) == 0);
    sandbox(allowed, 2, SECCOMP_RET_ERRNO | EPERM);
    CHECK(allocator_works(table));
    unsigned char *block = table->malloc(3 * MIB);
    CHECK(block != NULL);
    memset(block, 0x77, 3 * MIB);
    for (size_t size = 4; size < 40; size += 4) {
        CHECK((block = table->realloc(block, size * MIB)) != NULL); /* without mremap it is copied */
        CHECK(block[0] == 0x77 && block[3 * MIB - 1] == 0x77);
    }
    table->free(block);
    table->purge();
    unsigned char *zeroed = table->calloc(1, MIB); /* pages that could not be given back */
    for (size_t i = 0; i < MIB; i++)
        CHECK(zeroed[i] == 0);
    table->free(zeroed);
    CHECK(allocator_works(table));
    CHECK(dlclose(module) == 0);
}

static void
test_sandbox_with_mmap_and_munmap_only(void **unused)
{
    (void)unused;
    SKIP_IF_EMULATED();
    in_child(work_with_the_calls_that_are_needed);
}

/* Memory that it has serves on; more is refused, and errno says so. */
static void
work_without_mmap(void)
{
    static const struct calls allowed[] = { CALLS(of_the_test) };
    CHECK(group_open(NULL) == 0);
    void *block = table->malloc(100);
    sandbox(allowed, 1, SECCOMP_RET_ERRNO | EPERM);
    for (unsigned i = 0; i < 1000; i++) {
        table->free(block);
        CHECK((block = table->malloc(100 + i)) != NULL);
    }
    errno = 0;
    CHECK(table->malloc(100 * MIB) == NULL);
    CHECK(errno == ENOMEM);
    table->free(block);
}

static void
test_sandbox_without_mmap(void **unused)
{
    (void)unused;
    SKIP_IF_EMULATED();
    in_child(work_without_mmap);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_address_space_64_mib_above_what_the_process_has),
        cmocka_unit_test(test_overcommit_forbidden),
        cmocka_unit_test(test_first_allocation_without_any_memory),
        cmocka_unit_test(test_sandbox_with_the_system_calls_that_the_documents_name),
        cmocka_unit_test(test_sandbox_with_mmap_and_munmap_only),
        cmocka_unit_test(test_sandbox_without_mmap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
