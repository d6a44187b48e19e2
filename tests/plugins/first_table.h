/*
 * The table and the structs of ABI version 2 as they were when it began: a copy that is never changed. What was built with
 * them works with what is built today, and the other way round (tests/hosts/test_abi.c).
 */
#ifndef PLUGINS_FIRST_TABLE_H
#define PLUGINS_FIRST_TABLE_H

#include <stddef.h>
#include <stdint.h>

#define FIRST_ABI_VERSION 2u

enum { FIRST_ENTRY_MALLOC = 0, FIRST_ENTRY_STRNDUP = 10, FIRST_ENTRY_FREE = 11, FIRST_ENTRIES = 13 };

struct first_heap_options {
    uint32_t size, flags;
    uint64_t limit;
    const char *name;
};

struct first_heap_stats {
    uint64_t size, live_blocks, live_bytes, peak_bytes, active_bytes, cached_bytes, limit, total_allocs, total_bytes,
             total_frees, limit_refused, room[21];
};

struct first_owner {
    uint32_t size, heap, live, room_32;
    void *block;
    size_t usable;
    uint64_t room[4];
};

struct first_info {
    uint64_t size;
    const char *tls, *version, *prefix;
    uint64_t mapped_bytes, active_bytes, dirty_bytes, metadata_bytes, live_blocks, live_bytes;
    uint32_t heaps, threads;
    uint64_t room[21];
};

struct first_services {
    uint32_t abi_version, size, lg_page, lg_vaddr;
    intptr_t tls_offset;
    int (*thread_started)(void);
    void *pagemap;
    void (*libc_free)(void *);
    void *(*libc_realloc)(void *, size_t);
    size_t (*libc_usable_size)(void *);
    void (*crossed)(uint32_t, uint32_t, void *, size_t);
};

struct first_table {
    uint32_t abi_version, size;
    int (*attach)(const struct first_services *);
    int (*detach)(void);
    void (*thread_exit)(void);
    void (*info)(struct first_info *);
    void *(*malloc)(size_t);
    void *(*calloc)(size_t, size_t);
    void *(*realloc)(void *, size_t);
    void (*free)(void *);
    void *(*aligned_alloc)(size_t, size_t);
    int (*posix_memalign)(void **, size_t, size_t);
    size_t (*malloc_usable_size)(void *);
    int (*heap_create)(const struct first_heap_options *, uint32_t *);
    int (*heap_destroy)(uint32_t);
    int (*heap_limit)(uint32_t, uint64_t);
    int (*heap_stats)(uint32_t, struct first_heap_stats *);
    void *(*heap_malloc)(uint32_t, size_t);
    void *(*heap_calloc)(uint32_t, size_t, size_t);
    void *(*heap_aligned_alloc)(uint32_t, size_t, size_t);
    void *(*heap_realloc)(uint32_t, void *, size_t);
    void *(*entry)(int, uint32_t);
    int (*owner)(const void *, struct first_owner *);
    void (*purge)(void);
    int (*detach_leaving)(void);
};

_Static_assert(sizeof(struct first_table) == 192, "the first table had 192 bytes");

#endif
