/*
 * The table and the structs of ABI version 3 as they were when it began: a copy that is never changed. What was built with
 * them works with what is built today, and the other way round (tests/hosts/test_abi.c).
 */
#ifndef PLUGINS_FIRST_TABLE_H
#define PLUGINS_FIRST_TABLE_H

#include <stddef.h>
#include <stdint.h>

#define FIRST_ABI_VERSION 3u

enum { FIRST_ENTRY_MALLOC = 0, FIRST_ENTRY_STRNDUP = 10, FIRST_ENTRY_FREE = 11, FIRST_ENTRIES = 13 };

struct first_heap_options {
    uint32_t size, flags;
    uint64_t limit;
    const char *name;
    const void *seal;
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

struct first_bin_stats {
    uint64_t block_size, slabs, live_blocks, live_bytes, cached_blocks, total_allocs, total_bytes;
};

struct first_info {
    uint64_t size;
    const char *tls, *version, *prefix;
    uint64_t mapped_bytes, active_bytes, dirty_bytes, metadata_bytes, live_blocks, live_bytes;
    uint32_t heaps, threads;
    uint64_t room[21];
};

struct first_services {
    uint32_t abi_version, size;
    void *lender;
    intptr_t tls_offset;
    int (*thread_started)(void *);
    int (*territory_reserve)(void *, uintptr_t, size_t);
    void (*territory_enter)(void *, uintptr_t, size_t);
    void (*territory_leave)(void *, uintptr_t, size_t);
    void (*territory_abandon)(void *, uintptr_t, size_t);
    void (*foreign_free)(void *, void *);
    void *(*foreign_realloc)(void *, void *, size_t);
    size_t (*foreign_usable_size)(void *, void *);
    void (*crossed)(void *, uint32_t, uint32_t, void *, size_t);
    void (*heap_gone)(void *, uint32_t);
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
    void *(*entry)(int);
    int (*owner)(const void *, struct first_owner *);
    void (*purge)(void);
    int (*detach_leaving)(void);
    int (*heap_end)(uint32_t);
    void (*tick)(void);
    int (*heap_bins)(uint32_t, struct first_bin_stats *, uint32_t, uint32_t *);
    int (*heap_peak_reset)(uint32_t);
    int (*heap_unseal)(uint32_t, const void *);
    uint32_t (*heap_of)(const void *);
};

_Static_assert(sizeof(struct first_table) == 240, "the first table had 240 bytes");

#endif
