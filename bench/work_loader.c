/*
 * A host that is linked with the loader: its own free, which is guarded once the allocator is
 * loaded, a module whose malloc and free are routed, and opening and closing a module. The child
 * has the loader library preloaded, which is the same to the dynamic linker as being linked with
 * it, so that the other works run without it.
 */
#define _GNU_SOURCE
#include "works.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

int loader_find(struct job *job, struct loader *loader)
{
    struct {
        const char *name;
        void *where;
    } functions[] = {
        {"load", &loader->load},
        {"unload", &loader->unload},
        {"table_of", &loader->table_of},
        {"module_open", &loader->module_open},
        {"module_symbol", &loader->module_symbol},
        {"module_close", &loader->module_close},
        {"error_message", &loader->error_message},
    };
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        char name[96];
        snprintf(name, sizeof name, "%s%s", job->peer->prefix, functions[i].name);
        void *found = dlsym(RTLD_DEFAULT, name);
        if (!found) {
            snprintf(job->note, sizeof job->note, "%s has no %s", job->loader, name);
            return -1;
        }
        memcpy(functions[i].where, &found, sizeof found);
    }
    return 0;
}

int loader_load(struct job *job, struct loader *loader)
{
    struct alcove_load_options options = {.path = job->peer->path, .prefix = job->peer->prefix};
    if (loader->load(&loader->allocator, &options)) {
        snprintf(job->note, sizeof job->note, "%s", loader->error_message());
        return -1;
    }
    loader->table = loader->table_of(loader->allocator);
    return 0;
}

static int loader_start(struct job *job, struct loader *loader)
{
    return loader_find(job, loader) || loader_load(job, loader) ? -1 : 0;
}

/* ---- the host's own free ---- */

enum { FREED = 2000, FREED_SIZE = 64 };

/* Only the frees are timed. */
static double time_frees(double seconds)
{
    static void *block[FREED];
    double best = 1e300, end = clock_ns() + seconds * 1e9;
    while (clock_ns() < end) {
        for (int i = 0; i < FREED; i++)
            block[i] = malloc(FREED_SIZE);
        double start = clock_ns();
        for (int i = 0; i < FREED; i++)
            free(block[i]);
        double took = clock_ns() - start;
        if (took < best)
            best = took;
    }
    return best / FREED;
}

static void body_own_pairs(void *unused, long count)
{
    (void)unused;
    for (long i = 0; i < count; i++) {
        void *block = malloc(FREED_SIZE);
        OPAQUE(block);
        free(block);
    }
}

/* The guard must be in this program's own imports: libc would abort on the allocator's block. */
static int host_start(struct job *job)
{
    struct loader loader;
    if (loader_start(job, &loader))
        return -1;
    void *block = loader.table->malloc(FREED_SIZE);
    OPAQUE(block);
    free(block);
    return 0;
}

void work_own_free(struct job *job)
{
    job->value = time_frees(job->seconds);
}

void work_own_pair(struct job *job)
{
    job->value = best_ns(job->seconds, body_own_pairs, NULL, 1);
}

void work_guarded_free(struct job *job)
{
    if (host_start(job) == 0)
        work_own_free(job);
}

void work_guarded_pair(struct job *job)
{
    if (host_start(job) == 0)
        work_own_pair(job);
}

/* ---- a module's own malloc and free ---- */

/* Opens the plugin and finds one function of it. */
static void *module_start(struct job *job, struct loader *loader, const char *name)
{
    alcove_module *module;
    if (loader_start(job, loader))
        return NULL;
    void *symbol = NULL;
    if (loader->module_open(loader->allocator, job->plugin, NULL, &module) == 0)
        symbol = loader->module_symbol(module, name);
    if (!symbol)
        snprintf(job->note, sizeof job->note, "%s", loader->error_message());
    return symbol;
}

struct routed_pairs {
    plugin_pairs_function *run;
    size_t size;
};

static void body_module_pairs(void *context, long count)
{
    struct routed_pairs *routed = context;
    routed->run(routed->size, count);
}

void work_module_pair(struct job *job)
{
    struct loader loader;
    struct routed_pairs routed = {.size = (size_t)job->parameter};
    *(void **)&routed.run = module_start(job, &loader, "plugin_pairs");
    if (!routed.run)
        return;
    struct pairs direct = {loader.table->malloc, loader.table->free, (size_t)job->parameter};
    double best[2];
    best_ns_of_two(job->seconds, (body_function *const[]){body_module_pairs, body_pairs}, (void *const[]){&routed, &direct}, 1, best);
    job->value = best[0];
    job->reference = best[1];
}

struct routed_batch {
    plugin_batch_function *run;
    struct batch *batch;
};

static void body_module_batch(void *context, long count)
{
    struct routed_batch *routed = context;
    routed->run(routed->batch, count);
}

void work_module_batch(struct job *job)
{
    static struct batch direct, own;
    struct loader loader;
    struct routed_batch routed = {.batch = &own};
    *(void **)&routed.run = module_start(job, &loader, "plugin_batch");
    if (!routed.run)
        return;
    direct.malloc = loader.table->malloc;
    direct.free = loader.table->free;
    batch_prepare(&direct, &job->seed, (int)job->parameter);
    own = direct;
    double best[2];
    best_ns_of_two(job->seconds, (body_function *const[]){body_module_batch, body_batch}, (void *const[]){&routed, &direct}, BATCH, best);
    job->value = best[0];
    job->reference = best[1];
}

/* ---- opening and closing ---- */

struct opening {
    struct loader loader;
    const char *path;
    int failed;
};

static void body_open(void *context, long count)
{
    struct opening *opening = context;
    struct loader *loader = &opening->loader;
    for (long i = 0; i < count && !opening->failed; i++) {
        alcove_module *module;
        opening->failed = loader->module_open(loader->allocator, opening->path, NULL, &module) ||
                          loader->module_close(module, 0, NULL);
    }
}

static void body_dlopen(void *context, long count)
{
    struct opening *opening = context;
    for (long i = 0; i < count && !opening->failed; i++) {
        void *handle = dlopen(opening->path, RTLD_NOW | RTLD_LOCAL);
        opening->failed = !handle || dlclose(handle);
    }
}

void work_module_open(struct job *job)
{
    struct opening opening = {.path = job->plugin};
    if (loader_start(job, &opening.loader))
        return;
    job->value = best_ns(job->seconds, body_open, &opening, 1) / 1e3;
    if (opening.failed)
        snprintf(job->note, sizeof job->note, "%s", opening.loader.error_message());
}

void work_module_open_reference(struct job *job)
{
    struct opening opening = {.path = job->plugin};
    job->value = best_ns(job->seconds, body_dlopen, &opening, 1) / 1e3;
    if (opening.failed)
        snprintf(job->note, sizeof job->note, "%s", dlerror());
}
