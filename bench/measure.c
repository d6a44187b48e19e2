/*
 * How things are measured: the clock, random numbers that are the same for every peer, loops that
 * are repeated until the best of them is steady, and resident memory read without allocating.
 */
#define _GNU_SOURCE
#include "bench.h"

#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

double clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static double time_once(body_function *body, void *context, long count)
{
    double start = clock_ns();
    body(context, count);
    return clock_ns() - start;
}

/* How many counts take about `wanted` ns. The runs that find out also warm everything up. */
static long count_for(double wanted, body_function *body, void *context)
{
    long count = 1;
    for (;;) {
        double took = time_once(body, context, count);
        if (took > wanted / 2)
            return count;
        double factor = took > 0 ? wanted / took : 16;
        count = factor < 16 ? (long)((double)count * factor) + 1 : count * 16;
    }
}

enum { REPETITIONS = 16, LEAST_REPETITIONS = 2, MOST_SAMPLES = 256 };

double best_ns(double seconds, body_function *body, void *context, double operations)
{
    double budget = seconds * 1e9;
    long count = count_for(budget / REPETITIONS, body, context);
    double best = INFINITY, spent = 0;
    for (int i = 0; i < LEAST_REPETITIONS || spent < budget; i++) {
        double took = time_once(body, context, count);
        spent += took;
        if (took < best)
            best = took;
    }
    return best / ((double)count * operations);
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double median_of(const double *values, int count)
{
    double sorted[MOST_SAMPLES];
    if (count == 0)
        return 0;
    memcpy(sorted, values, (size_t)count * sizeof *sorted);
    qsort(sorted, (size_t)count, sizeof *sorted, compare_doubles);
    return count % 2 ? sorted[count / 2] : (sorted[count / 2 - 1] + sorted[count / 2]) / 2;
}

double median_ns(double seconds, body_function *body, void *context, double operations)
{
    double budget = seconds * 1e9, spent = 0, sample[MOST_SAMPLES];
    long count = count_for(budget / REPETITIONS, body, context);
    int samples = 0;
    while (samples < MOST_SAMPLES && (samples < LEAST_REPETITIONS || spent < budget)) {
        sample[samples] = time_once(body, context, count);
        spent += sample[samples++];
    }
    return median_of(sample, samples) / ((double)count * operations);
}

void best_ns_of_two(double seconds, body_function *const body[2], void *const context[2],
                    double operations, double best[2])
{
    double budget = seconds * 1e9, spent = 0;
    long count[2];
    for (int i = 0; i < 2; i++) {
        count[i] = count_for(budget / REPETITIONS, body[i], context[i]);
        best[i] = INFINITY;
    }
    for (int turn = 0; turn < LEAST_REPETITIONS || spent < 2 * budget; turn++)
        for (int i = 0; i < 2; i++) {
            double took = time_once(body[i], context[i], count[i]);
            spent += took;
            double each = took / ((double)count[i] * operations);
            if (each < best[i])
                best[i] = each;
        }
}

/* splitmix64 */
uint64_t random_next(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

size_t random_between(uint64_t *state, size_t low, size_t high)
{
    return low + (size_t)(random_next(state) % (high - low + 1));
}

size_t random_log(uint64_t *state, size_t low, size_t high)
{
    double part = (double)(random_next(state) >> 11) * 0x1p-53;
    return (size_t)((double)low * pow((double)high / (double)low, part));
}

void random_shuffle(uint64_t *state, uint32_t *items, size_t count)
{
    for (size_t i = count; i > 1; i--) {
        size_t j = random_between(state, 0, i - 1);
        uint32_t kept = items[i - 1];
        items[i - 1] = items[j];
        items[j] = kept;
    }
}

/* What is in a small file, read without allocating; empty if it cannot be read. */
static const char *file_text(const char *path)
{
    static char text[2048];
    int file = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = file < 0 ? -1 : read(file, text, sizeof text - 1);
    if (file >= 0)
        close(file);
    text[length > 0 ? length : 0] = 0;
    return text;
}

size_t resident_bytes(void)
{
    /* It walks the pages; statm is an estimate on some kernels since 6.2. */
    const char *line = strstr(file_text("/proc/self/smaps_rollup"), "\nRss:");
    return line ? (size_t)strtoul(line + 5, NULL, 10) * 1024 : 0;
}

size_t statm_bytes(void)
{
    /* The second number, in pages. */
    const char *resident = strchr(file_text("/proc/self/statm"), ' ');
    return resident ? (size_t)strtoul(resident, NULL, 10) * (size_t)sysconf(_SC_PAGESIZE) : 0;
}

double faults_so_far(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)usage.ru_minflt;
}

void mappings_count(size_t *mappings, size_t *bytes)
{
    char line[4352]; /* a path and what stands before it */
    unsigned long start, end;
    FILE *maps = fopen("/proc/self/maps", "re");
    *mappings = *bytes = 0;
    while (maps && fgets(line, sizeof line, maps))
        if (sscanf(line, "%lx-%lx", &start, &end) == 2) {
            ++*mappings;
            *bytes += end - start;
        }
    if (maps)
        fclose(maps);
}

int thread_keys(void)
{
    static pthread_key_t key[PTHREAD_KEYS_MAX];
    int left = 0;
    while (left < PTHREAD_KEYS_MAX && pthread_key_create(&key[left], NULL) == 0)
        left++;
    for (int i = 0; i < left; i++)
        pthread_key_delete(key[i]);
    return PTHREAD_KEYS_MAX - left;
}

void *pages_get(size_t bytes)
{
    void *pages = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (pages == MAP_FAILED) {
        perror("alcove-bench: mmap");
        exit(1);
    }
    return pages;
}
