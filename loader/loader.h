/*
 * The loader's parts and what they say to each other. The public face is <alcove/loader.h>.
 *
 *   elf/     what the dynamic linker has mapped: objects, their imports; files before they are mapped
 *   keeper/  what is one per process: guards, routes, what allocators are lent, who released whose
 *   .        the public functions, one per copy (api.c), what they do in the keeper, and how they find and open a library
 *
 * Glossary
 *   object    anything the dynamic linker has mapped: the program, libc, a plugin (elf/object.h)
 *   import    a word in an object that holds the address of a function of another one (elf/imports.h)
 *   route     a name of the malloc family, and where imports of it lead (keeper/routes.h)
 *   entry     the allocator's function for one name
 *   thunk     what a module's imports lead to: it goes on to the entry with the module's heap (keeper/thunks.h)
 *   guard     the loader's function for a release (free, realloc ...); everyone else's imports of
 *             those names lead there, and it asks the territory map whose the block is (keeper/guards.c)
 *   crossing  a block released by code that is not its owner (keeper/crossings.c)
 *   handle    what a caller holds: a serial number in a pointer's clothes, never dereferenced and
 *             never used twice, so a stale one is always recognised
 *
 * Locks. loader.lock guards everything in struct loader and the list of modules. It is never held
 * around dlopen, dlclose, dlsym or dladdr: another thread may be inside dlopen, hold the dynamic
 * linker's lock, and call us from a constructor. dl_iterate_phdr takes another lock, under which no
 * foreign code runs but callbacks of others', who must not call us there; so it may be called under it.
 * loader.lifetime is read by threads that end and that fork, and other fork handlers may call us meanwhile; load and unload try to have it to
 * write while they have the lock, which they let go of between.
 */
#ifndef LOADER_LOADER_H
#define LOADER_LOADER_H

#include "config.h"

#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif

#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#pragma GCC visibility push(default)
#include <alcove/loader.h>
#pragma GCC visibility pop

#pragma GCC visibility push(hidden) /* spares the guards a trip through the GOT */

#define LIMIT_LEAST ((uint64_t)64 << 10) /* bytes; what one slab and its neighbours need */
#define LIMIT_MOST ((uint64_t)1 << 47)   /* bytes; more than a process can map */
#define NAME_BYTES 64                    /* of a module's name in reports, final 0 included */

/* With whom a strict module may exchange blocks. */
struct partners {
    uint32_t allow; /* ALCOVE_ALLOW_ */
    uint32_t count;
    char names[ALCOVE_ALLOWED_MAX][NAME_BYTES];
};

/* An open plugin. Lives from module_open to the end of module_close; the name is lent to callers. */
struct module {
    struct module *next;
    alcove_module *id;
    struct allocator *allocator;
    void *handle;         /* dlopen's */
    const void *dynamic;  /* address of its dynamic section, which tells mapped objects apart */
    uint32_t heap;        /* the allocator's number of it; ALCOVE_HEAP_NONE when its policy is off */
    uint32_t thunks;      /* its thunks' number; 0 when it has none */
    /* Imports of routed names: that lead to what we know; of those, that lead to its thunks; that lead to nothing we know; and imports of C++'s
     * operator new, which go by way of another library. */
    uint32_t imports_found, imports_routed, imports_lost, imports_new;
    uint32_t known, strange; /* a bit for each name: an import that is not bound yet would lead to what we know; it would not */
    uint8_t variant[ALCOVE_ENTRY_COUNT]; /* of the original that its imports led to */
    uint8_t looked[ALCOVE_ENTRY_COUNT];  /* of the original that one which is not bound yet would lead to */
    uint32_t named;       /* a bit for each name: that is what such an import is called, and not another name of it */
    unsigned users;       /* calls that use `handle` without the lock */
    const struct alcove_module_options *options; /* while it is being opened */
    unsigned opens;       /* calls of module_open that module_close has to match */
    uint64_t limit;       /* 0: none */
    enum alcove_policy policy;
    struct partners partners;
    bool closing;
    pthread_t closer;     /* the thread that is closing it */
    bool led;             /* words of its object lead to its thunks, or some do */
    bool failed_early;    /* it could not be led before its constructors ran */
    bool hooked;          /* somebody has put other functions in place of its thunks */
    bool given_away;      /* somebody may have an address of its thunks for good */
    bool copied;          /* the program has copies of its variables, with addresses of thunks in them */
    void *entries[ALCOVE_ENTRY_COUNT]; /* its thunks; NULL: the allocator does not know that name */
    char name[NAME_BYTES];
};

#define ALLOCATORS_MAX 64 /* loaded at a time */

/* A loaded allocator. Its place in loader.allocators is its number in the territory map. */
struct allocator {
    alcove_allocator *id;   /* NULL: this place is free */
    void *handle;           /* dlopen's */
    const struct alcove_table *table;  /* as long as ours: the allocator's own, or else `complete` */
    const struct alcove_table *origin; /* in the allocator */
    struct alcove_table complete;
    struct record *records; /* of its heaps (keeper/crossings.c) */
    uint32_t records_end;   /* none from this one on was written since it was loaded */
    unsigned number;
    unsigned references;    /* calls of load that unload has to match */
    unsigned users;         /* calls that use the table without the lock */
};

/* The thread that has a lock. */
struct holder {
    _Atomic bool held;
    _Atomic(pthread_t) by;
};

/* What a loader has. */
struct loader {
    pthread_mutex_t lock;
    struct holder holder;   /* of the lock */
    struct holder starter;  /* in services_start() */
    struct allocator allocators[ALLOCATORS_MAX]; /* number 0 is nobody's */
    unsigned loaded;        /* how many */
    unsigned passing;       /* calls of load and unload with a dlopen reference of their own */
    bool draining;          /* a detached allocator is mapped until `passing` is 0 */
    unsigned drains;        /* how often that has been so */
    struct module *modules;
    uintptr_t serial;       /* of the last handle */

    /* A thread that ends calls into allocators under the read side, and one that forks holds that; load and unload take the write side, in which
     * an allocator gets its number, slot, table and all at once, or loses them: a child of a fork has it whole or not at all. */
    pthread_rwlock_t lifetime;
    struct holder changer; /* who has it to write */
};
extern struct loader loader;

static inline void
holder_begin(struct holder *holder)
{
    atomic_store(&holder->by, pthread_self());
    atomic_store(&holder->held, true);
}

static inline bool
holder_is_self(const struct holder *holder)
{
    return atomic_load(&holder->held) && pthread_equal(atomic_load(&holder->by), pthread_self());
}

/* To the end of its block nobody cancels the thread, which has counts to take back and locks to leave, and whose system calls are cancellation
 * points. Code of others that runs meanwhile, a constructor or a handler, is spared too. Some glibcs (2.36) cancel a thread asynchronously although
 * that is disabled, if the signal was on its way already, but not one of the deferred type. */
#define UNCANCELLED \
    __attribute__((unused, cleanup(cancellation_restore))) struct cancellation cancellation = cancellation_off()

struct cancellation {
    int type, state;
};

static inline struct cancellation
cancellation_off(void)
{
    struct cancellation before;
    pthread_setcanceltype(PTHREAD_CANCEL_DEFERRED, &before.type);
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before.state);
    return before;
}

/* The type comes last: glibc looks there for what came meanwhile. */
static inline void
cancellation_restore(const struct cancellation *before)
{
    int unused;
    pthread_setcancelstate(before->state, &unused);
    pthread_setcanceltype(before->type, &unused);
}

/* The lock, and who has it: for what may have to wait until it hasn't. */
static inline void
loader_lock(void)
{
    pthread_mutex_lock(&loader.lock);
    holder_begin(&loader.holder);
}

/* False: another thread has it. */
static inline bool
loader_trylock(void)
{
    if (pthread_mutex_trylock(&loader.lock) != 0)
        return false;
    holder_begin(&loader.holder);
    return true;
}

/* The same, waiting for a while (keeper/dispatch.c). */
bool loader_lock_soon(void);

static inline void
loader_unlock(void)
{
    atomic_store(&loader.holder.held, false);
    pthread_mutex_unlock(&loader.lock);
}

/* Has this thread a lock of ours, so that nobody may be told of anything? */
static inline bool
loader_is_held(void)
{
    return holder_is_self(&loader.holder) || holder_is_self(&loader.starter);
}

/* Tables of the allocators that are loaded, by number, for guards and callbacks, which have no lock. */
extern _Atomic(const struct alcove_table *) loader_tables[ALLOCATORS_MAX];

/* The next allocator that is loaded, from this one on; NULL: none. */
static inline struct allocator *
allocator_next(struct allocator *from)
{
    for (; from < loader.allocators + ALLOCATORS_MAX; from++)
        if (from->id != NULL)
            return from;
    return NULL;
}

#define EACH_ALLOCATOR(a) (struct allocator *a = allocator_next(loader.allocators); a != NULL; a = allocator_next(a + 1))

/* --- error.c: the calling thread's message. Those with a code return it. */
int fail(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));
int fail_errno(int code, int error, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* A path, name or foreign words as a message shows them: on one line, and without the middle where they are long, so that
 * the rest of the message has room. Returns out->text. */
struct shown {
    char text[384];
};
const char *text_show(struct shown *out, const char *text);
/* Where to cut a text so that no letter of UTF-8 is cut in two: at `cut`, or before. */
size_t letter_begin(const char *text, size_t cut);

/* Whoever wants messages is told of each that fails. With the lock held that waits until error_tell(), which leaving calls. */
void error_tell(void);
int fail_here(int code, const char *format, va_list arguments); /* whoever the keeper is */
const char *error_message(void);

/* --- file.c: can this file be loaded? 0, or a code with its message set. */
int elf_file_check(const char *path);
/* Does dlopen's search for a name end at this file, good or bad? It passes by what cannot be opened, and what other machines load. */
bool elf_file_ends_search(const char *path);

/* --- search.c: where the dlopen of the object that `caller` points into would look. */
/* *found: a path to give to dlopen here, the caller's to free; NULL: the one that was given. 0, or a code with its message set. */
int library_find(const char *path, const void *caller, char **found);
/* Is an object loaded by that path or soname? */
bool library_is_loaded(const char *name);
/* Are there tokens in the path that dlopen replaces ($ORIGIN, $LIB, $PLATFORM)? */
bool path_has_tokens(const char *path);

/* --- open.c: dlopen as the code that `caller` points into would call it, of a file that was checked. NULL: *code and the
 * message are set. */
void *library_open(const char *path, int flags, const void *caller, int *code);

/* --- keeper/linker.c: dl_iterate_phdr, dlopen, dlclose, dlsym, dlinfo (NULL: fails) and dladdr's file (NULL: of none), which no thread
 * is in the middle of when another forks. */
struct dl_phdr_info;
struct link_map;
int objects_walk(int (*each)(struct dl_phdr_info *info, size_t size, void *argument), void *argument);
/* *settled: false if a namespace was left out, because a thread is at it. */
int objects_walk_all(int (*each)(struct dl_phdr_info *info, size_t size, void *argument), void *argument, bool *settled);
/* Was a namespace left out of a walk, since the last call, because a thread is at it? */
bool objects_unsettled(void);
/* keeper/namespaces.c, for objects_walk: those of other namespaces than the program's. *settled: not while one was being changed. */
int namespaces_walk(const struct dl_phdr_info *program, int (*each)(struct dl_phdr_info *, size_t, void *), void *argument, bool *settled);
/* Is the object with this dynamic section mapped? */
bool object_is_mapped(const void *dynamic);
void *linker_open(const char *path, int flags);
void linker_close(void *handle);
void *linker_symbol(void *handle, const char *name);
void *linker_symbol_of(void *handle, const char *name, const char *version); /* NULL: of any */
struct link_map *linker_map(void *handle);
/* Have the calling thread's copy of an object's thread-local variables, where objects_walk() shows it: glibc may have it in static TLS and not know
 * it yet. Not in a walk. */
void linker_variables(void *handle);
const char *linker_file(const void *address);
void linker_enter(void); /* around others of its functions */
void linker_leave(void);
void linker_fork_prepare(void);
void linker_fork_parent(void);
void linker_fork_child(void);
bool linker_forks_here(void); /* the calling thread does, and is in a handler */

/* --- keeper/scan.c: which objects are guarded. */
/* Take the lock, with every object that was loaded before the call guarded. Returns 0, or a code
 * with its message set when one could not be; the lock is held either way. */
int loader_enter(void);
void loader_leave(void);
/* Undo all guards. With the lock held. */
void guards_remove(void);
/* In a forked child, whose one thread need not wait for others' dlopen. */
void guards_forked(void);

/* --- keeper/guards.c */
/* What modules of an allocator release that is not its own (struct alcove_services): as guards do, for any other, but it was counted. */
void foreign_free(void *lender, void *block);
void *foreign_realloc(void *lender, void *block, size_t size);
size_t foreign_usable_size(void *lender, void *block);
/* The same, by the variant that the import of the module with this heap led to. */
void module_free(void *lender, uint32_t heap, void *block);
void *module_realloc(void *lender, uint32_t heap, void *block, size_t size);
size_t module_usable_size(void *lender, uint32_t heap, void *block);

/* --- keeper/crossings.c: per heap, who released whose. Heaps are registered with the lock held. */
/* Have room for an allocator's heaps. 0 or an errno value. */
int crossings_begin(struct allocator *allocator);
void crossings_start(struct allocator *allocator, uint32_t heap, const struct module *module);
void crossings_read(const struct allocator *allocator, uint32_t heap, uint64_t *outside, uint64_t *foreign);
/* The heap is no module's any more. By any thread, without a lock: the allocator calls it, too (struct alcove_services). */
void crossings_end(void *allocator, uint32_t heap);
void crossings_end_all(struct allocator *allocator); /* with the lock held */
/* With the lock held: its module's code is known by this number (keeper/code.h), or is not there any more: THUNK_NONE. */
void crossings_code(struct allocator *allocator, uint32_t heap, uint32_t number);
/* With the lock held: what the module's import of a name led to. */
void crossings_variant(struct allocator *allocator, uint32_t heap, unsigned which, unsigned variant);
/* By any thread, without a lock. -1: it has no import of the name, or the heap is no module's. */
int crossings_variant_of(const struct allocator *allocator, uint32_t heap, unsigned which);
/* With the lock held: the heap's module is open: its handle, and its library's dynamic section. */
void crossings_open(struct allocator *allocator, uint32_t heap, alcove_module *module, const void *library);
/* With the lock held: it was closed. If its library stays mapped, nobody is strict about what it left. */
void crossings_close(struct allocator *allocator, uint32_t heap, bool stays);
/* With the lock held: is it a module's that was closed? Then what is known of it is written. */
bool crossings_closed(const struct allocator *allocator, uint32_t heap, struct alcove_module_entry *entry);
/* An allocation failed because of the heap's limit: the allocator's callback (struct alcove_services). */
void heap_refused(void *allocator, uint32_t heap, size_t size);
/* With the lock held: has a library that is still mapped left blocks, which its destructors may release? */
const char *crossings_pending(const struct allocator *allocator);
/* A heap as messages name it: by its module if it has one, else by its number. The text may be in *out. */
struct side {
    char text[NAME_BYTES + 16];
};
const char *crossings_side(struct side *out, const struct allocator *allocator, uint32_t heap);
/* A block of a heap is released by what is no module's import; `caller`: where it goes on. That may be in the module's own code all the same, by an
 * address that a constructor took before the module was routed: then it is no crossing. */
void crossing_outside(struct allocator *allocator, uint32_t owner, const void *block, const void *caller);
/* The same by a module: the allocator's callback (struct alcove_services). */
void crossing_by_module(void *allocator, uint32_t module, uint32_t owner, void *block, size_t usable);

/* --- keeper/forks.c. Called again where it failed; 0 or a code with its message set. */
int forks_watch(void);

/* --- keeper/services.c: what the loader lends to allocators. */
/* Before the first load: fork handlers, keys. 0 or a code with message, and then it may be called again. */
int services_start(void);
void services_fill(struct alcove_services *services, struct allocator *allocator);
/* The allocator is gone, and its slots in static TLS are null in every thread. */
void services_return(const struct allocator *allocator);
void services_fork_child(void);

/* --- which.c: what options mean in this copy. */
/* A host's own search, and whether it came to the installed file. */
struct which {
    const char *(*search)(void *context);
    void *context;
    bool installed;
};
/* Read a host's options, and fill in what it left open. `which` is used by the search in them. 0, or a code with its message set. */
int which_fill(struct which *which, struct alcove_load_options *options, const struct alcove_load_options *given);
/* The message of a load with those options that failed with `code`, where a better one is known. Returns the code. */
int which_told(const struct which *which, int code);

/* --- What the keeper does when public functions are called (keeper/meeting.h). */
int loader_load(alcove_allocator **out, const struct alcove_load_options *given, const void *caller);
int loader_unload(alcove_allocator *id, unsigned flags);
const struct alcove_table *loader_table_of(alcove_allocator *id);
int loader_refresh(void);
int module_open(alcove_allocator *id, const char *path, const struct alcove_module_options *given, alcove_module **out,
                const void *caller);
void *module_symbol(alcove_module *id, const char *name);
int module_stats(alcove_module *id, struct alcove_module_stats *out);
uint32_t module_heap(alcove_module *id);
int module_limit(alcove_module *id, uint64_t limit);
int modules_list(struct alcove_module_entry *out, uint32_t stride, uint32_t *count); /* list.c */
int events_on(enum alcove_event event, alcove_handler function, void *context);      /* events.c */
void events_off(enum alcove_event event, alcove_handler function);
int module_close(alcove_module *id, unsigned flags, struct alcove_report *report);

/* --- load.c */
/* Read and check options; NULL: all are 0. */
int load_options_read(struct alcove_load_options *options, const struct alcove_load_options *given);
/* Options of a caller that options_read() could not read. */
int options_fail(const char *function, uint32_t size, size_t known);
/* With the lock held: a loaded allocator. NULL: *code and a message: it is none. */
struct allocator *allocator_find(const alcove_allocator *id, int *code);
/* With the lock held: options for heaps that only we can end or destroy, and how. */
struct alcove_heap_options heap_options(const char *name, uint64_t limit);
void heap_give_up(struct allocator *allocator, uint32_t heap); /* it ends when nobody uses it any more */
void heap_drop(struct allocator *allocator, uint32_t heap);    /* now */

#pragma GCC visibility pop
#endif
