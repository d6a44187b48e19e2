/*
 * The allocators that are compared, and how they are loaded: each with dlopen, its symbols kept to
 * itself (RTLD_LOCAL), so that one that exports plain "malloc" replaces nobody's.
 */
#define _GNU_SOURCE
#include "bench.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

struct peer peers[MAX_PEERS] = {
    [PEER_ALCOVE] = {.name = "alcove", .prefix = BENCH_PREFIX, .install = "build it: make"},
    [PEER_LIBC] = {.name = "libc", .prefix = ""},
    {.name = "jemalloc", .path = "libjemalloc.so.2", .prefix = "", .install = "apt-get install libjemalloc2"},
    {.name = "mimalloc", .path = "libmimalloc.so.2.0", .prefix = "mi_", .install = "apt-get install libmimalloc2.0"},
    {.name = "tcmalloc", .path = "libtcmalloc_minimal.so.4", .prefix = "tc_", .install = "apt-get install libtcmalloc-minimal4"},
};
int peer_count = 5;

char *prefix_split(char *path)
{
    char *prefix = strrchr(path, ':');
    if (prefix)
        *prefix++ = 0;
    return prefix;
}

int peer_add(const char *text)
{
    char *copy = strdup(text);
    char *path = copy ? strchr(copy, '=') : NULL;
    if (!path || path == copy || !path[1]) {
        free(copy);
        return -1;
    }
    *path++ = 0;
    char *prefix = prefix_split(path);

    int place = 0;
    while (place < peer_count && strcmp(peers[place].name, copy) != 0)
        place++;
    if (place == MAX_PEERS)
        return -1;
    if (place == peer_count)
        peer_count++;
    const char *old_prefix = peers[place].prefix;
    peers[place] = (struct peer){.name = copy, .path = path,
                                 .prefix = prefix ? prefix : old_prefix ? old_prefix : "",
                                 .install = "check the path"};
    return 0;
}

static void *symbol(const struct peer *peer, void *handle, const char *name)
{
    char full[96];
    snprintf(full, sizeof full, "%s%s", peer->prefix, name);
    return dlsym(handle, full);
}

int peer_load(const struct peer *peer, struct api *out, char *why, size_t why_size)
{
    memset(out, 0, sizeof *out);
    if (peer->path)
        out->handle = dlopen(peer->path, RTLD_NOW | RTLD_LOCAL);
    else
        out->handle = dlopen("libc.so.6", RTLD_NOW | RTLD_LOCAL | RTLD_NOLOAD);
    if (!out->handle) {
        snprintf(why, why_size, "%s", dlerror());
        return -1;
    }

    void *found[5];
    static const char *const needed[5] = {"malloc", "free", "calloc", "realloc", "malloc_usable_size"};
    for (int i = 0; i < 5; i++) {
        found[i] = symbol(peer, out->handle, needed[i]);
        if (!found[i] && i == 4)
            found[i] = symbol(peer, out->handle, "malloc_size"); /* tcmalloc's other name */
        if (!found[i]) {
            snprintf(why, why_size, "%s has no %s%s", peer->path, peer->prefix, needed[i]);
            return -1;
        }
    }
    void *aligned = symbol(peer, out->handle, "aligned_alloc");
    if (!aligned)
        aligned = symbol(peer, out->handle, "memalign");

    /* POSIX's way from an object pointer to a function pointer. */
    *(void **)&out->malloc = found[0];
    *(void **)&out->free = found[1];
    *(void **)&out->calloc = found[2];
    *(void **)&out->realloc = found[3];
    *(void **)&out->usable_size = found[4];
    *(void **)&out->aligned_alloc = aligned;

    if (*peer->prefix) {
        const struct alcove_table *table = symbol(peer, out->handle, "table");
        if (table && table->abi_version == ALCOVE_ABI_VERSION && table->size >= sizeof *table)
            out->table = table;
        out->lock_counts = symbol(peer, out->handle, "lock_counts");
    }
    return 0;
}

void api_use_once(const struct api *api)
{
    void *block = api->malloc(64);
    OPAQUE(block);
    memset(block, 1, 64);
    api->free(block);
}
