/*
 * How the loader's copies in a process find each other, whatever their version, prefix or linkage: each has an ELF note,
 * which leads to its struct meeting. The copy whose public function is called first becomes the keeper and stays mapped.
 * The others are its clients: what is called there is done by the keeper.
 *
 * What is marked as lasting never changes its place or meaning, so that copies of all versions agree on one keeper.
 */
#ifndef KEEPER_MEETING_H
#define KEEPER_MEETING_H

#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <alcove/loader.h>

#include "ground/loader_note.h"

#pragma GCC visibility push(hidden)

/* What a keeper does for all. Within a version rows are only ever added at the end; every public function has one. One whose work
 * depends on who called it is told: `caller` points into the code that called the client. Options come with everything filled in
 * that would differ from copy to copy (which.c). */
#define KEEPER_VERSION 1u
struct keeper {
    uint32_t version;    /* lasting */
    uint32_t size;       /* lasting: bytes of this struct that the keeper has */
    const char *release; /* lasting: what it calls itself */

    const char *(*error_message)(void);
    int (*fail)(int code, const char *format, va_list arguments); /* a client's own message, for error_message(). Returns `code` */
    int (*load)(alcove_allocator **out, const struct alcove_load_options *options, const void *caller);
    int (*unload)(alcove_allocator *allocator, unsigned flags);
    const struct alcove_table *(*table_of)(alcove_allocator *allocator);
    int (*module_open)(alcove_allocator *allocator, const char *path, const struct alcove_module_options *options,
                       alcove_module **out, const void *caller);
    void *(*module_symbol)(alcove_module *module, const char *name);
    int (*module_stats)(alcove_module *module, struct alcove_module_stats *out);
    uint32_t (*module_heap)(alcove_module *module);
    int (*module_limit)(alcove_module *module, uint64_t limit);
    int (*module_close)(alcove_module *module, unsigned flags, struct alcove_report *report);
    int (*refresh)(void);
    int (*on)(enum alcove_event event, alcove_handler function, void *context);
    int (*modules)(struct alcove_module_entry *out, uint32_t stride, uint32_t *count);
    void (*off)(enum alcove_event event, alcove_handler function); /* if that is the handler: its code is about to go */
};

/* Is there a keeper that we understand, and does it have this function? */
#define KEEPER_HAS(keeper, function)                                                                                   \
    ((keeper) != NULL && (keeper)->version == KEEPER_VERSION &&                                                        \
     (keeper)->size >= offsetof(struct keeper, function) + sizeof (keeper)->function && (keeper)->function != NULL)

/* Does it take messages, and give them back? */
static inline bool
keeper_has_messages(const struct keeper *keeper)
{
    return KEEPER_HAS(keeper, error_message) && KEEPER_HAS(keeper, fail);
}

/* What a copy shows to the others. */
struct meeting {
    uint32_t version; /* lasting: of the struct keeper that it has */
    uint32_t size;    /* lasting: bytes of this struct */
    _Atomic(const struct keeper *) keeper; /* lasting: NULL until one is known, and then it stays */
};

/* The note: its text is the distance from there to a struct meeting. */
#define MEETING_NOTE(meeting)                          \
    __asm__(".pushsection .note.alcove,\"a\",@note\n"  \
            "\t.balign 4\n"                            \
            "\t.long 7, 8, 1\n"                        \
            "\t.asciz \"alcove\"\n"                    \
            "\t.balign 4\n"                            \
            "1:\t.quad " #meeting " - 1b\n"            \
            "\t.popsection")

extern struct meeting alcove_loader_meeting; /* our own */

/* The keeper if we have met; else NULL. */
static inline const struct keeper *
keeper_known(void)
{
    return atomic_load_explicit(&alcove_loader_meeting.keeper, memory_order_acquire);
}

/* Meet. NULL: there is no keeper, and we are being unloaded. Without any lock: it calls the dynamic linker. */
const struct keeper *keeper_meet(void);

/* Is there one already? Then we have met. It calls dl_iterate_phdr alone. */
bool keeper_is_found(void);

/* The keeper: some copy of the loader, perhaps our own. It may be of any version. */
static inline const struct keeper *
keeper_of_process(void)
{
    const struct keeper *keeper = keeper_known();
    return __builtin_expect(keeper != NULL, 1) ? keeper : keeper_meet();
}

#pragma GCC visibility pop
#endif
