#include "bridge.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BLOCKS 33 /* the largest grows to 2.1 MB: small, large and huge ones */

static void *
symbol(void *library, const char *name)
{
    char full[256];
    const char *prefix = getenv("ALCOVE_TEST_PREFIX");
    snprintf(full, sizeof full, "%s%s", prefix != NULL ? prefix : "", name);
    return dlsym(library, full);
}

const char *
bridge_load(const char *path, void **library, struct functions *out)
{
    *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (*library == NULL)
        return dlerror();
    out->malloc = (void *(*)(size_t))symbol(*library, "malloc");
    out->realloc = (void *(*)(void *, size_t))symbol(*library, "realloc");
    out->free = (void (*)(void *))symbol(*library, "free");
    return out->malloc && out->realloc && out->free ? NULL : dlerror();
}

const char *
bridge_unload(void *library)
{
    return dlclose(library) == 0 ? NULL : dlerror();
}

static size_t
size_of(unsigned i)
{
    return (size_t)i * i * i * i + 1;
}

static int
filled(const unsigned char *block, size_t size, unsigned char with)
{
    return block[0] == with && memcmp(block, block + 1, size - 1) == 0;
}

const char *
bridge_use(const struct functions *functions, unsigned seed)
{
    unsigned char *blocks[BLOCKS];
    for (unsigned i = 0; i < BLOCKS; i++) {
        blocks[i] = functions->malloc(size_of(i));
        if (blocks[i] == NULL)
            return "malloc returned NULL";
        memset(blocks[i], (int)(seed + i) & 255, size_of(i));
    }
    for (unsigned i = 0; i < BLOCKS; i++) {
        unsigned char *grown = functions->realloc(blocks[i], size_of(i) * 2);
        if (grown == NULL)
            return "realloc returned NULL";
        blocks[i] = grown;
    }
    for (unsigned i = 0; i < BLOCKS; i++) {
        if (!filled(blocks[i], size_of(i), (unsigned char)(seed + i)))
            return "a block has lost its contents";
        functions->free(blocks[i]);
    }
    return NULL;
}

static struct {
    pthread_t thread[2];
    const char *wrong[2];
    struct functions functions;
    pthread_barrier_t barrier;
} pair;

static void *
use_and_outlive(void *wrong)
{
    *(const char **)wrong = bridge_use(&pair.functions, (unsigned)((const char **)wrong - pair.wrong));
    pthread_barrier_wait(&pair.barrier); /* used */
    pthread_barrier_wait(&pair.barrier); /* to end */
    return NULL;
}

const char *
bridge_threads_start(const struct functions *functions)
{
    pair.functions = *functions;
    pthread_barrier_init(&pair.barrier, NULL, 3);
    for (int i = 0; i < 2; i++)
        if (pthread_create(&pair.thread[i], NULL, use_and_outlive, &pair.wrong[i]) != 0)
            return "a thread cannot be made";
    pthread_barrier_wait(&pair.barrier);
    return pair.wrong[0] != NULL ? pair.wrong[0] : pair.wrong[1];
}

const char *
bridge_threads_end(void)
{
    pthread_barrier_wait(&pair.barrier);
    for (int i = 0; i < 2; i++)
        if (pthread_join(pair.thread[i], NULL) != 0)
            return "a thread cannot be joined";
    pthread_barrier_destroy(&pair.barrier);
    return NULL;
}
