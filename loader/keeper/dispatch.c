/*
 * Dispatchers and the openings that they serve. An opening belongs to the thread that is in it, which alone finds it. How many there are is
 * changed with the loader's lock held.
 */
#include "keeper/dispatch.h"
#include "keeper/code.h"
#include "keeper/lead.h"
#include "keeper/steering.h"
#include "module.h"

#include <dlfcn.h>
#include <string.h>
#include <errno.h>
#include <time.h>

#define LOCK_WAIT 100000000 /* ns */

struct opening {
    _Atomic(struct module *) module; /* NULL: this place is free */
    _Atomic(pthread_t) thread;
    unsigned depth; /* among those of its thread */
    const char *name;
    bool found; /* its object is known */
};
static struct opening openings[OPENINGS_MOST];
static _Atomic unsigned opening_count;

/* Those that were there when the first of the present openings began. */
static struct objects_before {
    size_t count;
    unsigned long long subs;
} objects_before;
static int objects_count(struct dl_phdr_info *info, size_t size, void *argument);
static bool forked; /* the symbol tables may say what was wanted by threads that are not in this process */
static struct module *orphans[OPENINGS_MOST]; /* that such threads were opening */

/* Return addresses of calls whose object has been led already, and which will come again: through a pointer that the object has copied. Forgotten
 * when a module is opened, which may be where another object was. */
#define LED_CALLERS 64
static _Atomic(const void *) led_callers[LED_CALLERS];

static _Atomic(const void *) *
led_place(const void *caller)
{
    return &led_callers[((uintptr_t)caller >> 2) % LED_CALLERS];
}

/* The innermost one of the calling thread, or the innermost around another one of its. */
static struct opening *
own_opening(const struct opening *inner)
{
    struct opening *own = NULL;
    for (unsigned i = 0; i < OPENINGS_MOST && atomic_load(&opening_count) != 0; i++) {
        struct opening *o = &openings[i];
        if (atomic_load(&o->module) != NULL && pthread_equal(atomic_load(&o->thread), pthread_self()) &&
            (own == NULL || o->depth > own->depth) && (inner == NULL || o->depth < inner->depth))
            own = o;
    }
    return own;
}

struct opening *
opening_begin(struct module *module)
{
    struct opening *opening = NULL, *outer = own_opening(NULL);
    loader_lock();
    for (unsigned i = 0; i < OPENINGS_MOST && opening == NULL; i++)
        if (atomic_load(&openings[i].module) == NULL)
            opening = &openings[i];
    if (opening != NULL && steering_is_on()) {
        atomic_store(&opening->thread, pthread_self());
        opening->depth = outer != NULL ? outer->depth + 1 : 0;
        opening->name = NULL;
        opening->found = false;
        atomic_store(&opening->module, module);
        for (unsigned i = 0; i < LED_CALLERS; i++)
            if (atomic_load_explicit(&led_callers[i], memory_order_relaxed) != NULL)
                atomic_store(&led_callers[i], NULL);
        if (atomic_fetch_add(&opening_count, 1) == 0) {
            objects_before = (struct objects_before){.count = 0};
            objects_walk(objects_count, &objects_before);
            steering_dispatch(true);
        }
    } else {
        opening = NULL;
    }
    loader_unlock();
    return opening;
}

/* What was bound to dispatchers meanwhile, where objects that came since then did not allocate yet, or by code that showed another one's
 * return address. */
struct leftovers {
    size_t skip; /* objects that were there before, as far as they are not gone */
};

static int
leftovers_lead(struct dl_phdr_info *info, size_t size, void *argument)
{
    (void)size;
    struct leftovers *leftovers = argument;
    struct object object;
    if (leftovers->skip != 0)
        leftovers->skip--;
    else if (object_read(&object, info) && !object_is_half_made(&object)) {
        object_lead(&object, &routes.ours, lead_to_rest, NULL, NULL);
        thread_lead(info, &routes.ours, lead_to_rest, NULL);
    }
    return 0;
}

static int
objects_count(struct dl_phdr_info *info, size_t size, void *argument)
{
    (void)size;
    struct objects_before *before = argument;
    before->count++;
    before->subs = info->dlpi_subs;
    return 0;
}

static void
lead_leftovers(void)
{
    struct objects_before now = {.count = 0};
    objects_walk(objects_count, &now);
    unsigned long long gone = now.subs - objects_before.subs;
    struct leftovers leftovers = {.skip = objects_before.count > gone ? objects_before.count - (size_t)gone : 0};
    if (now.count > leftovers.skip)
        objects_walk(leftovers_lead, &leftovers);
}

void
opening_end(struct opening *opening)
{
    if (opening == NULL)
        return;
    loader_lock();
    atomic_store(&opening->module, NULL);
    if (atomic_fetch_sub(&opening_count, 1) == 1) {
        steering_dispatch(false);
        lead_leftovers();
    }
    loader_unlock();
}

/* The other threads are not there, and one that is made may be taken for one of them. */
void
openings_fork_child(void)
{
    unsigned own = 0;
    for (unsigned i = 0; i < OPENINGS_MOST; i++) {
        struct module *module = atomic_load(&openings[i].module);
        if (!pthread_equal(atomic_load(&openings[i].thread), pthread_self())) {
            if (module != NULL)
                orphans[i] = module;
            atomic_store(&openings[i].module, NULL);
        } else if (module != NULL) {
            own++;
            module->allocator->users++; /* by its module_open, which goes on in the child */
        }
    }
    atomic_store(&opening_count, own);
    forked = true;
}

void
openings_settle(void)
{
    if (!forked)
        return;
    forked = false;
    routes_values_collect(); /* one of them may have been at it */
    steering_dispatch(atomic_load(&opening_count) != 0);
    modules_settle_forked();
    for (unsigned i = 0; i < OPENINGS_MOST; i++) {
        if (orphans[i] != NULL)
            module_forsake(orphans[i]);
        orphans[i] = NULL;
    }
}

struct opening *
opening_named(const char *name)
{
    struct opening *opening = own_opening(NULL);
    if (opening == NULL || opening->name != NULL)
        return NULL;
    opening->name = name;
    return opening;
}

void
opening_unnamed(struct opening *opening)
{
    if (opening != NULL)
        opening->name = NULL;
}

/* The object of the library that is being opened, which is mapped when one of its constructors runs. */
#ifndef __GLIBC__ /* musl's dlopen would run the constructors that are yet to run */
struct named {
    const char *name;
    const void *dynamic;
};

static int
object_named(struct dl_phdr_info *info, size_t size, void *argument)
{
    (void)size;
    struct named *named = argument;
    struct object object;
    const char *slash = strrchr(info->dlpi_name, '/'), *last = slash != NULL ? slash + 1 : info->dlpi_name;
    if (strcmp(strchr(named->name, '/') != NULL ? info->dlpi_name : last, named->name) != 0 || !object_read(&object, info))
        return 0;
    named->dynamic = object.dynamic;
    return 1;
}

static void
opening_find(struct opening *opening, struct module *module)
{
    struct named named = {.name = opening->name};
    if (opening->name != NULL && module->dynamic == NULL && objects_walk(object_named, &named) != 0)
        module->dynamic = named.dynamic;
}
#else
static void
opening_find(struct opening *opening, struct module *module)
{
    if (opening->found || opening->name == NULL) /* not yet: it is called by what is loaded already */
        return;
    opening->found = true;
    void *handle = linker_open(opening->name, RTLD_LAZY | RTLD_NOLOAD);
    if (handle == NULL) {
        dlerror();
        return;
    }
    const struct link_map *map = linker_map(handle);
    if (map != NULL)
        module->dynamic = map->l_ld;
    linker_variables(handle);
    linker_close(handle);
}
#endif

/* The object that an address is in. */
struct search {
    uintptr_t address;
    struct object object;
};

static int
object_with(struct dl_phdr_info *info, size_t size, void *argument)
{
    (void)size;
    struct search *search = argument;
    return object_read(&search->object, info) && object_holds(&search->object, search->address);
}

/* Lead the words of the object that is calling elsewhere, once. */
static void
caller_lead(const void *caller)
{
    struct search search = {.address = (uintptr_t)caller};
    if (objects_walk(object_with, &search) != 0)
        object_lead(&search.object, &routes.ours, lead_to_rest, NULL, NULL);
}

/* Whoever has the lock may wait for us, in dl_iterate_phdr or a fork handler, where this thread is within a callback or has a lock of the host's. */
bool
loader_lock_soon(void)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += LOCK_WAIT;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    if (pthread_mutex_timedlock(&loader.lock, &until) != 0)
        return false;
    holder_begin(&loader.holder);
    return true;
}

/* Is it code of the module that this thread is opening? Then what it wants is that one's. */
static void *
module_call(struct opening *opening, enum alcove_entry which, const void *caller)
{
    struct module *module = atomic_load(&opening->module);
    opening_find(opening, module);
    struct search search = {.address = (uintptr_t)caller};
    if (module->dynamic == NULL || objects_walk(object_with, &search) == 0 || search.object.dynamic != module->dynamic)
        return NULL;
    return module_begins(module, &search.object) ? module->entries[which] : NULL;
}

static void *__attribute__((noinline))
dispatch(enum alcove_entry which, unsigned variant, const void *caller)
{
    void *resting = route_resting(which, variant);
    if (atomic_load_explicit(led_place(caller), memory_order_relaxed) == caller)
        return resting;
    int saved = errno;
    struct opening *opening = loader_is_held() ? NULL : own_opening(NULL);
    void *to = NULL;
    for (struct opening *o = opening; o != NULL && to == NULL; o = own_opening(o))
        to = module_call(o, which, caller);
    if (to == NULL)
        to = code_thunk(caller, which); /* of a module that is open: a constructor took our address */
    /* While others open modules, code of theirs may be calling, in a thread that a constructor made. */
    bool others = atomic_load(&opening_count) != 0 && opening == NULL;
    if (to == NULL && !others && loader_trylock()) {
        caller_lead(caller);
        atomic_store(led_place(caller), caller);
        loader_unlock();
    }
    errno = saved;
    return to != NULL ? to : resting;
}

#define DISPATCHER(name, variant, result, declared, passed)                                               \
    static result dispatch_##name##_##variant declared                                                    \
    {                                                                                                     \
        return ((result(*) declared)dispatch(ALCOVE_ENTRY_##name, variant, __builtin_return_address(0))) passed; \
    }

#define DISPATCHERS(variant)                                                                              \
    DISPATCHER(malloc, variant, void *, (size_t size), (size))                                            \
    DISPATCHER(calloc, variant, void *, (size_t count, size_t size), (count, size))                       \
    DISPATCHER(realloc, variant, void *, (void *block, size_t size), (block, size))                       \
    DISPATCHER(reallocarray, variant, void *, (void *block, size_t count, size_t size), (block, count, size)) \
    DISPATCHER(aligned_alloc, variant, void *, (size_t alignment, size_t size), (alignment, size))        \
    DISPATCHER(memalign, variant, void *, (size_t alignment, size_t size), (alignment, size))             \
    DISPATCHER(posix_memalign, variant, int, (void **out, size_t alignment, size_t size), (out, alignment, size)) \
    DISPATCHER(valloc, variant, void *, (size_t size), (size))                                            \
    DISPATCHER(pvalloc, variant, void *, (size_t size), (size))                                           \
    DISPATCHER(strdup, variant, char *, (const char *text), (text))                                       \
    DISPATCHER(strndup, variant, char *, (const char *text, size_t most), (text, most))
EACH_DISPATCHED(DISPATCHERS)

#define ROW(name, variant) [ALCOVE_ENTRY_##name] = HIDDEN_AS(dispatch_##name##_##variant),
#define ROWS(variant)                                                                                  \
    {                                                                                                  \
        ROW(malloc, variant) ROW(calloc, variant) ROW(realloc, variant) ROW(reallocarray, variant)     \
        ROW(aligned_alloc, variant) ROW(memalign, variant) ROW(posix_memalign, variant)                \
        ROW(valloc, variant) ROW(pvalloc, variant) ROW(strdup, variant) ROW(strndup, variant)          \
    },

void *
dispatcher_of(unsigned which, unsigned variant)
{
    static char *const dispatchers[DISPATCHED][ALCOVE_ENTRY_COUNT] = {EACH_DISPATCHED(ROWS)};
    const char *hidden = variant < DISPATCHED && which < ALCOVE_ENTRY_COUNT ? dispatchers[variant][which] : NULL;
    return hidden != NULL ? HIDDEN_FUNCTION(hidden) : NULL;
}
