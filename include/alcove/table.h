/*
 * The one symbol that a loader looks up in the allocator, <prefix>table, and what it finds there. Everything
 * here is plain C with fixed layout.
 *
 * Loader, allocator and host may be of different versions. Within one ABI version, members are only ever
 * added at the end, and every struct says how long it is:
 *   the table      works with any reader if it is as long as the first one of its ABI version
 *                  (ALCOVE_TABLE_FIRST). A function is there if it lies within `size` and is not NULL
 *   the services   likewise (ALCOVE_SERVICES_FIRST). What is not there is not lent, and what the allocator
 *                  does not know it does without
 *   options        are filled by the caller. A `size` of 0 stands for the struct's first version. A shorter
 *                  one has zero in what is missing, and a longer one must have zero in what the callee does
 *                  not know, for it would not be done. Sizes are multiples of 8
 *   figures        are filled by the callee, which sets `size` to how many bytes it knew. The struct never
 *                  becomes longer: there is room at its end, where new members come, and what the callee
 *                  did not know reads as zero. The caller need not clear anything
 *   lists          have a stride, the size that the caller knows of one element
 *   entries        that the allocator does not know are NULL, and imports of that name are left alone
 * ABI version 3 began when page maps became the allocators' own, and thunks the loader's. What is earlier does not work with it.
 *
 * Glossary
 *   allocator  a loaded copy of libalcove.so
 *   heap       slabs, statistics and limit of their own; heap 0 is the default
 *   owner      the heap that a block belongs to, found from its address
 *   entry      the allocator's function for a libc allocation function: the same arguments, and
 *              behind them the number of a heap. A loader leads a module's imports to it
 *   territory  the addresses that are an allocator's, in units of ALCOVE_TERRITORY bytes: a
 *              loader's guards ask whose a block is by them
 *   services   what a loader, which stays, lends to an allocator, which may go
 */
#ifndef ALCOVE_TABLE_H
#define ALCOVE_TABLE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define ALCOVE_ABI_VERSION 3u

/* Heap numbers run from 0 to ALCOVE_HEAP_MAX - 1. */
#define ALCOVE_HEAP_MAX 16384u
#define ALCOVE_HEAP_DEFAULT 0u
/* Not a heap: code that belongs to no module (the host, libc), or a foreign block. */
#define ALCOVE_HEAP_NONE 0xffffu

/* Bytes that the territory is told in, and aligned to. */
#define ALCOVE_TERRITORY ((size_t)1 << 22)

/* Functions that can be routed. The order is part of the ABI: add at the end. */
#define ALCOVE_ENTRIES(X) \
    X(malloc)             \
    X(calloc)             \
    X(realloc)            \
    X(reallocarray)       \
    X(aligned_alloc)      \
    X(memalign)           \
    X(posix_memalign)     \
    X(valloc)             \
    X(pvalloc)            \
    X(strdup)             \
    X(strndup)            \
    X(free)               \
    X(malloc_usable_size)

enum alcove_entry {
#define ALCOVE_ENTRY_ENUM(name) ALCOVE_ENTRY_##name,
    ALCOVE_ENTRIES(ALCOVE_ENTRY_ENUM)
#undef ALCOVE_ENTRY_ENUM
    ALCOVE_ENTRY_COUNT
};

/* Options of a heap. All zero is the default. */
struct alcove_heap_options {
    uint32_t size;    /* sizeof(struct alcove_heap_options); 0: ALCOVE_HEAP_OPTIONS_FIRST, and what follows that is not read */
    uint32_t flags;   /* none yet: 0 */
    uint64_t limit;   /* most that active_bytes may be, 64 KiB to 2^47; 0: no limit */
    const char *name; /* copied, at most 63 bytes are kept; NULL: "heap N" */
    const void *seal; /* an address of the creator's own: until heap_unseal() with the same one, nobody can end or destroy the
                       * heap; NULL: anybody can */
};
#define ALCOVE_HEAP_OPTIONS_FIRST 24u

/* Figures of one heap. Read without stopping anyone: each figure is true of some moment
 * during the call, and exact when no thread is using the heap. */
struct alcove_heap_stats {
    uint64_t size;          /* bytes of this struct that the allocator knew */
    uint64_t live_blocks;   /* allocated and not freed */
    uint64_t live_bytes;    /* usable sizes of those */
    uint64_t peak_bytes;    /* highest that live_bytes has been, as a rule within 16 KiB (or a block, if larger) for each thread
                             * that uses the heap, a few 10 KiB if it uses many sizes and the peak was never reset; never less
                             * than is live now */
    uint64_t active_bytes;  /* what is charged, and compared with the limit: pages of slabs that blocks were handed out of, the
                             * usable bytes of large blocks in whole pages, and for each block that was to be aligned to 16
                             * pages or more what the allocator keeps of it: 8 bytes for each page of the alignment, up to a
                             * page, and 128 */
    uint64_t cached_bytes;  /* free blocks in thread caches; part of active_bytes */
    uint64_t limit;         /* 0: none */
    uint64_t total_allocs;  /* allocations ever made. A realloc that copies to another block is one, and a free; one in place is
                             * neither, nor one that moves the pages of a huge block to other addresses */
    uint64_t total_bytes;   /* usable sizes of those, and what blocks have grown by that were not copied */
    uint64_t total_frees;   /* blocks ever freed */
    uint64_t limit_refused; /* allocations that failed because of the limit */
    uint64_t room[21];      /* for figures to come */
};

/* Figures of one size class of a heap. The last one in a list is of blocks that are larger than any class. */
struct alcove_bin_stats {
    uint64_t block_size;    /* usable bytes of a block; 0: they differ */
    uint64_t slabs;         /* that blocks of this size are cut from; 0 also for blocks with pages of their own */
    uint64_t live_blocks;   /* allocated and not freed */
    uint64_t live_bytes;    /* usable sizes of those */
    uint64_t cached_blocks; /* free, in thread caches */
    uint64_t total_allocs;  /* allocations ever made */
    uint64_t total_bytes;   /* usable sizes of those */
};

/* What the page map says of an address. */
struct alcove_owner {
    uint32_t size;    /* bytes of this struct that the allocator knew */
    uint32_t heap;    /* ALCOVE_HEAP_NONE: not ours */
    uint32_t live;    /* 1: a block starts or lies here (cached free blocks count), 0: no block */
    uint32_t room_32; /* for what is to come */
    void *block;      /* start of the block that holds the address; NULL if none */
    size_t usable;    /* its usable size in bytes */
    uint64_t room[4]; /* for what is to come */
};

/* The allocator as a whole. */
struct alcove_info {
    uint64_t size;          /* bytes of this struct that the allocator knew */
    const char *tls;        /* "static" or "dynamic": how the thread's record is reached */
    const char *version;
    const char *prefix;
    uint64_t mapped_bytes;  /* address space taken from the system */
    uint64_t active_bytes;  /* pages in slabs and large blocks */
    uint64_t dirty_bytes;   /* free pages that may still be resident */
    uint64_t metadata_bytes;/* of mapped_bytes: the allocator's own records */
    uint64_t live_blocks;   /* all heaps */
    uint64_t live_bytes;
    uint32_t heaps;         /* heaps that exist, heap 0 included */
    uint32_t threads;       /* thread records in use; without a loader one that was just joined may still count */
    uint64_t room[21];      /* for figures to come */
};

/* What the loader lends. It must outlive the allocator. Each member may be zero, or lie beyond `size`: the
 * allocator then does without. Functions get `lender` back. Those of the territory and heap_gone are called with locks held: they must
 * not wait for long, nor call the allocator. */
struct alcove_services {
    uint32_t abi_version; /* ALCOVE_ABI_VERSION */
    uint32_t size;        /* sizeof(struct alcove_services), at least ALCOVE_SERVICES_FIRST */
    void *lender;

    /* Offset from the thread pointer of a pointer in static TLS, null in every thread. */
    intptr_t tls_offset;

    /* Called by a thread when it gets a record. The lender arranges for table->thread_exit() to be
     * called in that thread when it ends. Returns 0, or an errno value: the thread then does
     * without caches. */
    int (*thread_started)(void *lender);

    /* The allocator is about to have blocks in these addresses. Returns 0, or ENOMEM: it then does without them. */
    int (*territory_reserve)(void *lender, uintptr_t base, size_t bytes);
    /* They are the allocator's from now on. Of a mapping larger than 1 GiB only the beginning may be told. All were reserved. */
    void (*territory_enter)(void *lender, uintptr_t base, size_t bytes);
    /* They are not any more, and may be somebody else's next. */
    void (*territory_leave)(void *lender, uintptr_t base, size_t bytes);
    /* Pages, not all of a unit, that stay mapped for ever when the allocator goes, because blocks in them are live. The rest of the unit
     * is somebody else's next. */
    void (*territory_abandon)(void *lender, uintptr_t base, size_t bytes);

    /* Where the release of a foreign block by a module goes, if the last three functions here are not lent. */
    void (*foreign_free)(void *lender, void *block);
    void *(*foreign_realloc)(void *lender, void *block, size_t size);
    size_t (*foreign_usable_size)(void *lender, void *block);

    /* A module released what is not its own, before it is released.
     * caller: the heap of the module; owner: the block's heap, or ALCOVE_HEAP_NONE if foreign. */
    void (*crossed)(void *lender, uint32_t caller, uint32_t owner, void *block, size_t usable);

    /* A heap has gone that was told to end, or was destroyed: its number may be another heap's next. */
    void (*heap_gone)(void *lender, uint32_t heap);

    /* Not 0: the lender calls the table's fork_prepare, and so on, for every fork. Else the allocator's own fork handlers do. */
    uint64_t forks;

    /* The allocator has something to say: one line, without its end. No lock of the allocator's is held, and who is called may
     * allocate. Returns 1 if somebody took it; 0: then the allocator writes it to standard error. */
    int (*message)(void *lender, const char *text);

    /* An allocation of so many bytes fails because of the heap's limit, which may be set anew meanwhile, for the next one. As above. */
    void (*refused)(void *lender, uint32_t heap, size_t size);

    /* As foreign_free and so on, and called instead of them: `caller` is the heap of the module that releases. Where a process has several
     * functions of one name, that tells which of them the module would have called. */
    void (*module_free)(void *lender, uint32_t caller, void *block);
    void *(*module_realloc)(void *lender, uint32_t caller, void *block, size_t size);
    size_t (*module_usable_size)(void *lender, uint32_t caller, void *block);
};
#define ALCOVE_SERVICES_FIRST 16u /* up to the lender */

/* The functions may be called by any thread, but attach and detach, and none by a signal handler. */
struct alcove_table {
    uint32_t abi_version; /* ALCOVE_ABI_VERSION */
    uint32_t size;        /* sizeof(struct alcove_table), at least ALCOVE_TABLE_FIRST */

    /* Take over a loader's services. Must be the first call into a freshly loaded allocator; the
     * struct is copied. Returns 0; EINVAL: another ABI version, or too short; EBUSY: the allocator
     * is in use already; EAGAIN: a thread is forking, and has come by the allocator's own fork handler: once more, when that is done. */
    int (*attach)(const struct alcove_services *services);

    /* Prepare for dlclose: clear the slots of the threads that live, forget the records of all,
     * give all memory back, live blocks or not. No thread may be inside the allocator, and nothing
     * but dlclose may follow. Returns 0. */
    int (*detach)(void);

    /* The calling thread ends: its caches wait for the next thread that starts, and are emptied if none does. Safe to call
     * twice. */
    void (*thread_exit)(void);

    void (*info)(struct alcove_info *out);

    /* As the C library's, on heap 0. free, realloc and usable_size take blocks of any heap; realloc keeps a block's heap. */
    void *(*malloc)(size_t size);
    void *(*calloc)(size_t count, size_t size);
    void *(*realloc)(void *block, size_t size);
    void (*free)(void *block);
    void *(*aligned_alloc)(size_t alignment, size_t size);
    int (*posix_memalign)(void **out, size_t alignment, size_t size);
    size_t (*malloc_usable_size)(void *block);

    /* heap_create: 0 and the number in *heap; EINVAL: options not understood or an impossible limit;
     * EAGAIN: ALCOVE_HEAP_MAX heaps exist; ENOMEM.
     * heap_destroy: drops the heap with all its blocks, in time proportional to its pages. No
     * thread may use the heap or its blocks any more. 0; EINVAL: no such heap, or heap 0; EPERM: it is
     * sealed, as the heaps of a loader's modules are.
     * heap_limit: sets the limit (0: none). What threads keep free in their caches does not stand in its way: it is taken
     * back before an allocation is refused. Only what a thread kept before the heap's first limit, if that was not one of
     * its options, counts as used until the thread next calls for that heap and its cache does not serve. From the
     * first limit on, for good, a malloc and a free of the heap cost about 20 ns more. 0; EINVAL.
     * heap_stats: 0; EINVAL: no such heap. */
    int (*heap_create)(const struct alcove_heap_options *options, uint32_t *heap);
    int (*heap_destroy)(uint32_t heap);
    int (*heap_limit)(uint32_t heap, uint64_t limit);
    int (*heap_stats)(uint32_t heap, struct alcove_heap_stats *out);

    /* As malloc and its family, on a given heap that exists. */
    void *(*heap_malloc)(uint32_t heap, size_t size);
    void *(*heap_calloc)(uint32_t heap, size_t count, size_t size);
    void *(*heap_aligned_alloc)(uint32_t heap, size_t alignment, size_t size);
    /* A block for realloc(NULL) comes from `heap`; an existing one stays with its owner. */
    void *(*heap_realloc)(uint32_t heap, void *block, size_t size);

    /* The entry for libc's `which`: the same arguments, and the heap's number (as a size_t) behind them. With the number of a heap that
     * does not exist it works on the default one. NULL: this allocator does not know it: then imports of that name are left alone. */
    void *(*entry)(enum alcove_entry which);

    /* Whose is this address? Never touches it. Fills *out and returns 1 if it is the allocator's, else 0. */
    int (*owner)(const void *address, struct alcove_owner *out);

    /* Give unused memory back to the system now: this thread's caches, then every dirty page. */
    void (*purge)(void);

    /* As detach, but blocks that are live stay mapped and readable for ever, with the rest of their pages. Nobody can
     * free them; the loader is told where they are. */
    int (*detach_leaving)(void);

    /* Let a heap end as soon as it can: when its last block has been released and no thread can be inside of it any more. Its pages
     * go back to the system as they become free. Blocks that are live stay valid, and count for it; one for which
     * realloc takes another is the default heap's from then on. Entries go on to work with its number: what they
     * allocate is the default heap's, until the number is given to another heap; numbers that were given up longest ago are
     * given first. A thread that used the heap and sleeps since keeps it until its
     * caches are looked through again, once in hundreds of its calls or by tick(), or until it ends. 0; EINVAL: no such heap,
     * heap 0, or it is ending already; EPERM: it is sealed. */
    int (*heap_end)(uint32_t heap);

    /* A turn for whoever has nothing else to call: what this thread keeps in vain is given back, heaps that are done are forgotten,
     * and dirty pages decay, as it is time. Cheap when it is not. Like heap_end, it gives no message: the caller may hold a lock
     * that who takes messages wants. What was noticed is told by the next call that allocates or frees past the caches. */
    void (*tick)(void);

    /* Figures of a heap by size class, from the smallest on.
     * bins: room for *count elements that are `stride` bytes apart: sizeof(struct alcove_bin_stats), a multiple of 8. Of each
     * as much is written as both sides know, and the rest of the stride is zero. May be NULL if *count is 0.
     * *count: how many there is room for; set to how many there are.
     * If no thread uses the heap, their sums are the figures of heap_stats. Returns 0; EINVAL: no such heap, no count, no
     * room, or an impossible stride: nothing is written then. */
    int (*heap_bins)(uint32_t heap, struct alcove_bin_stats *bins, uint32_t stride, uint32_t *count);

    /* Begin a new peak: peak_bytes becomes what is live now, and from then on, for good, it is within 16 KiB a thread however many
     * sizes are used. To allocate what may be a new peak takes longer then. 0; EINVAL: no such heap. */
    int (*heap_peak_reset)(uint32_t heap);

    /* Take the seal away that a heap was made with, so that it can be ended or destroyed. 0; EINVAL: no such heap; EPERM: it has
     * another seal, or none. */
    int (*heap_unseal)(uint32_t heap, const void *seal);

    /* The heap of a block; ALCOVE_HEAP_NONE if it is not a live one. */
    uint32_t (*heap_of)(const void *block);

    /* Fork handlers, for a lender who has said so in its services: before a fork, as the last of all handlers, if possible, and after it,
     * as the first, in the parent and in the child. Between the two the allocator must not be detached. */
    void (*fork_prepare)(void);
    void (*fork_parent)(void);
    void (*fork_child)(void);
};
#define ALCOVE_TABLE_FIRST 240u /* up to heap_of */

#ifdef __cplusplus
}
#endif
#endif
