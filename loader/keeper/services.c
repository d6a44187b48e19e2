/*
 * What the loader lends to allocators, because it stays and they may go: slots in
 * static TLS, the callback at a thread's end, the territory map, and the process' own functions.
 */
#include "events.h"
#include "keeper/territory.h"
#include "keeper/thunks.h"

#include "ground/static_tls.h"
#include "ground/versions.h"

#include <errno.h>
#include <unistd.h>

/* Each is lent to one allocator at a time, which leaves it null in every thread when it detaches. Those that come when all are lent
 * have their own. Not static: the assembler text below names them. */
#define SLOTS 8
__thread void *alcove_loader_tls_slots[SLOTS] __attribute__((visibility("hidden"), used));
static unsigned slot_users[SLOTS]; /* numbers of allocators; 0: free */

static pthread_key_t key; /* of a thread that some allocator has a record of: STARTED, or ENDED */

/* The thread has given its records back. Destructors of other keys that run later, or again, may
 * allocate: they do without a record, whose end nobody would notice. */
#define STARTED ((void *)1)
#define ENDED ((void *)2)

/* The slots' offset from the thread pointer if it is the same in every thread, else 0. */
static intptr_t
tls_offset(void)
{
    intptr_t descriptor;
    TLS_DESCRIPTOR(alcove_loader_tls_slots, descriptor);
    return static_tls_offset(descriptor, alcove_loader_tls_slots);
}

/* With the lock held. 0: the allocator must do with its own. */
static intptr_t
slot_lend(unsigned number)
{
    intptr_t offset = tls_offset();
    for (unsigned i = 0; offset != 0 && i < SLOTS; i++)
        if (slot_users[i] == 0) {
            slot_users[i] = number;
            return offset + (intptr_t)(i * sizeof(void *));
        }
    return 0;
}

void
services_return(const struct allocator *allocator)
{
    for (unsigned i = 0; i < SLOTS; i++)
        if (slot_users[i] == allocator->number)
            slot_users[i] = 0;
}

static void
thread_ended(void *before)
{
    pthread_setspecific(key, ENDED); /* libc has cleared it, and calls this once more */
    if (before == ENDED)
        return;
    pthread_rwlock_rdlock(&loader.lifetime);
    for (unsigned number = 0; number < ALLOCATORS_MAX; number++) {
        const struct alcove_table *table = atomic_load(&loader_tables[number]);
        if (table != NULL)
            table->thread_exit(); /* of an allocator that knows the thread */
    }
    pthread_rwlock_unlock(&loader.lifetime);
}

static int
thread_started(void *lender)
{
    (void)lender;
    if (pthread_getspecific(key) == ENDED)
        return ESRCH;
    return pthread_setspecific(key, STARTED);
}

static int
reserve(void *lender, uintptr_t base, size_t bytes)
{
    (void)lender;
    return territory_reserve(base, bytes);
}

static void
enter(void *lender, uintptr_t base, size_t bytes)
{
    territory_enter(((struct allocator *)lender)->number, base, bytes);
}

static void
leave(void *lender, uintptr_t base, size_t bytes)
{
    (void)lender;
    territory_leave(base, bytes);
}

static void
abandon(void *lender, uintptr_t base, size_t bytes)
{
    (void)lender;
    territory_abandon(base, bytes);
}

/* Nobody takes it while an allocator is detached. */
static int
message_tell(void *lender, const char *text)
{
    if (!event_wanted[ALCOVE_EVENT_MESSAGE])
        return 0;
    struct alcove_message message = {
        .size = FIGURES_SIZE(struct alcove_message),
        .allocator = ((struct allocator *)lender)->id,
        .text = text,
    };
    return event_tell(ALCOVE_EVENT_MESSAGE, &message, &message.missed);
}

static pthread_mutex_t start_lock = PTHREAD_MUTEX_INITIALIZER; /* of what is done before the first load */

void
services_fork_child(void)
{
    start_lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
}

static atomic_bool started;

/* With start_lock held. What has been done is not done again; what failed is, at the next load. */
static int
start(const struct route_answers *answers)
{
    static bool have_key;
    if (started)
        return ALCOVE_OK;
    if (!have_key) {
        int error = pthread_key_create(&key, thread_ended);
        if (error != 0)
            return fail_errno(ALCOVE_ESYSTEM, error, "no thread key is free, and the loader needs one to learn that a thread ends. "
                              "Delete one (pthread_key_delete) and load again");
        have_key = true;
        thunks_forget_pages();
    }
    int code = routes_start(answers);
    started = code == ALCOVE_OK;
    return code;
}

int
services_start(void)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), most = (size_t)1 << ALCOVE_LG_PAGE;
    if (page > most)
        return fail(ALCOVE_ESYSTEM, "alcove is configured for pages of %zu KiB, this system has %zu KiB. Configure it with "
                                    "--with-lg-page=%d", most >> 10, page >> 10, __builtin_ctzl(page));
    int code = forks_watch(); /* before start_lock is taken, so that a child finds that free */
    if (code != ALCOVE_OK)
        return code;
    struct route_answers answers;
    if (!started)
        routes_ask(&answers);
    pthread_mutex_lock(&start_lock);
    holder_begin(&loader.starter);
    code = start(&answers);
    atomic_store(&loader.starter.held, false);
    pthread_mutex_unlock(&start_lock);
    error_tell();
    return code;
}

void
services_fill(struct alcove_services *services, struct allocator *allocator)
{
    *services = (struct alcove_services){
        .abi_version = ALCOVE_ABI_VERSION,
        .size = sizeof *services,
        .lender = allocator,
        .tls_offset = slot_lend(allocator->number),
        .thread_started = thread_started,
        .territory_reserve = reserve,
        .territory_enter = enter,
        .territory_leave = leave,
        .territory_abandon = abandon,
        .foreign_free = foreign_free,
        .foreign_realloc = foreign_realloc,
        .foreign_usable_size = foreign_usable_size,
        .crossed = crossing_by_module,
        .heap_gone = crossings_end,
        .forks = 1,
        .message = message_tell,
        .refused = heap_refused,
        .module_free = module_free,
        .module_realloc = module_realloc,
        .module_usable_size = module_usable_size,
    };
}
