/*
 * What tests ask of the process they are in: what is mapped, how much is resident, and what kind of system it is.
 */
#ifndef TESTS_PROCESS_H
#define TESTS_PROCESS_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* musl's dlclose does nothing: what was loaded stays as it was, and its destructors run when the process ends. */
#ifdef __GLIBC__
#define DLCLOSE_UNLOADS 1
#else
#define DLCLOSE_UNLOADS 0
#endif

/* Is this program checked by ThreadSanitizer, which maps terabytes? */
#if defined __SANITIZE_THREAD__
#define UNDER_TSAN 1
#elif defined __has_feature
#if __has_feature(thread_sanitizer)
#define UNDER_TSAN 1
#endif
#endif
#ifndef UNDER_TSAN
#define UNDER_TSAN 0
#endif

/* Skip the test, and say why. */
#define SKIP_BECAUSE(reason)                      \
    do {                                         \
        print_message("skipped: %s\n", (reason)); \
        skip();                                  \
    } while (0)

#define SKIP_WITHOUT_UNLOADING()                              \
    do {                                                     \
        if (!DLCLOSE_UNLOADS)                                \
            SKIP_BECAUSE("this libc's dlclose unloads nothing"); \
    } while (0)

/* Does an emulator run this program (TEST_RUN, tests/tests.mk)? */
static inline bool
emulated(void)
{
    const char *run = getenv("ALCOVE_TEST_RUN");
    return run != NULL && run[0] != '\0';
}

/* qemu-user stops with an assertion of its own when a child of many threads makes threads. */
#define SKIP_FORK_OF_THREADS_IF_EMULATED()                                                       \
    do {                                                                                         \
        if (emulated())                                                                          \
            SKIP_BECAUSE("qemu's emulation of a program does not survive a fork of many threads"); \
    } while (0)

/* Mappings whose line contains a text; all of them for an empty one. */
static inline unsigned
mappings_with(const char *text)
{
    char line[PATH_MAX + 128];
    unsigned n = 0;
    FILE *f = fopen("/proc/self/maps", "r");
    while (f != NULL && fgets(line, sizeof line, f) != NULL)
        n += strstr(line, text) != NULL;
    if (f != NULL)
        fclose(f);
    return n;
}

/* A figure of /proc/self/status or of another such list, in bytes: VmSize, VmRSS, VmPTE. They are the emulator's where
 * there is one. */
static inline size_t
process_figure(const char *list, const char *name)
{
    char line[256];
    size_t length = strlen(name), kib = 0;
    bool found = false;
    FILE *f = fopen(list, "r");
    while (f != NULL && !found && fgets(line, sizeof line, f) != NULL)
        if ((found = strncmp(line, name, length) == 0 && line[length] == ':'))
            kib = strtoul(line + length + 1, NULL, 10);
    if (f != NULL)
        fclose(f);
    return kib << 10;
}

/* Memory in bytes: address space, and of it what is resident and belongs to no file. */
struct process_memory {
    size_t mapped, resident;
};

/* Add a range of one mapping. Emulated, it may be the emulator's in part, whose pages one cannot ask about. */
static inline void
process_memory_add(struct process_memory *memory, uintptr_t start, uintptr_t end, bool is_file, size_t page)
{
    unsigned char residency[4096];
    size_t most = sizeof residency * page;
    if (end - start > most) {
        for (uintptr_t from = start; from < end; from += most)
            process_memory_add(memory, from, end - from < most ? end : from + most, is_file, page);
        return;
    }
    if (mincore((void *)start, end - start, residency) == 0) {
        memory->mapped += end - start;
        for (size_t i = 0; i < (end - start) / page && !is_file; i++)
            memory->resident += (residency[i] & 1) * page;
    } else if (end - start > page) {
        uintptr_t middle = start + (end - start) / page / 2 * page;
        process_memory_add(memory, start, middle, is_file, page);
        process_memory_add(memory, middle, end, is_file, page);
    }
}

/* The process's own, from its list of mappings, since other figures are the emulator's where there is one. qemu makes up a list
 * of its own under the usual name, and leaves out what lies beside mappings of its own. */
static inline struct process_memory
process_memory(void)
{
    char line[PATH_MAX + 128];
    unsigned long start, end, inode;
    struct process_memory memory = { 0, 0 };
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    FILE *f = fopen(emulated() ? "/proc/thread-self/maps" : "/proc/self/maps", "r");
    if (f == NULL)
        fail_msg("the list of mappings cannot be read");
    while (fgets(line, sizeof line, f) != NULL)
        if (sscanf(line, "%lx-%lx %*s %*s %*s %lu", &start, &end, &inode) == 3)
            process_memory_add(&memory, start, end, inode != 0, page);
    fclose(f);
    return memory;
}

static inline size_t
resident_bytes(void)
{
    return process_memory().resident;
}

static inline size_t
mapped_bytes(void)
{
    return process_memory().mapped;
}

#endif
