/* Threads that do to the same objects all that is not the loader's: each one thing, again and again. */
#include <dlfcn.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/plugins/blocks.h"
#include "tests/stress/loader/scenario.h"

#define CHILD_WAITS 60 /* s; then a child hangs */

atomic_bool stop;

/* Bound at the first call, which may be the release of a module's block, or all at once. */
static void
load_others(unsigned turn)
{
    const char *path = turn % 3 == 0 ? file_of("blocks_two", 0) : file_of("blocks", OPENERS);
    void *library = dlopen(path, turn % 2 == 0 ? RTLD_LAZY | RTLD_LOCAL : RTLD_NOW | RTLD_LOCAL);
    HOLDS(library != NULL);
    if (library == NULL)
        return;
    __typeof__(&blocks_release) release = (__typeof__(&blocks_release))dlsym(library, "blocks_release");
    __typeof__(&blocks_make) make = (__typeof__(&blocks_make))dlsym(library, "blocks_make");
    parcel_release(parcel_take(turn), release);
    parcel_release(parcel_pack(make(BLOCKS_MALLOC, 100), 100), turn % 2 == 0 ? release : free);
    parcel_release(parcel_pack(malloc(50), 50), *(void (**)(void *))dlsym(library, "blocks_free_pointer"));
    HOLDS(dlclose(library) == 0);
}

/* With a constructor that allocates, and is no module's. */
static void
load_keeper(unsigned turn)
{
    void *library = dlopen(file_of("keeper", OPENERS), turn % 2 == 0 ? RTLD_LAZY | RTLD_LOCAL : RTLD_NOW | RTLD_LOCAL);
    HOLDS(library != NULL);
    if (library != NULL)
        HOLDS(dlclose(library) == 0);
}

static void
look_up(unsigned turn)
{
    void *(*take)(size_t) = (void *(*)(size_t))dlsym(RTLD_DEFAULT, "malloc");
    void (*release)(void *) = (void (*)(void *))dlsym(RTLD_DEFAULT, "free");
    parcel_release(parcel_pack(take(200), 200), free);
    parcel_release(parcel_pack(malloc(200), 200), release);
    parcel_release(parcel_take(turn), release);
}

static pthread_key_t late;

static void
release_late(void *parcel)
{
    parcel_release(parcel, free);
}

static void *
live_shortly(void *parcel)
{
    if (parcel != NULL)
        pthread_setspecific(late, parcel);
    return NULL;
}

static void
end_threads(unsigned turn)
{
    pthread_t threads[4];
    for (unsigned i = 0; i < 4; i++)
        HOLDS(pthread_create(&threads[i], NULL, live_shortly, parcel_take(turn + i * 8)) == 0);
    for (unsigned i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
}

/* The child has a copy of the block, and no other thread. */
static void
fork_off(unsigned turn)
{
    if (emulated()) /* by what does not survive it */
        return;
    struct parcel *parcel = parcel_take(turn);
    int status = 0;
    pid_t child = fork();
    if (child == 0) {
        alarm(CHILD_WAITS);
        parcel_release(parcel, free);
        free(malloc(100));
        _exit(atomic_load(&failures) != 0);
    }
    HOLDS(child > 0 && waitpid(child, &status, 0) == child);
    HOLDS(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    parcel_release(parcel, free);
    usleep(2000);
}

static void
ask(unsigned turn)
{
    struct alcove_module_stats stats;
    alcove_module *opened = atomic_load(&open_modules[turn % OPENERS]);
    HOLDS(loader->refresh() == ALCOVE_OK);
    if (opened == NULL)
        return;
    int code = loader->module_stats(opened, &stats);
    HOLDS(code == ALCOVE_OK || code == ALCOVE_ECLOSED);
    (void)loader->module_symbol(opened, "free");
}

static void (*const others[])(unsigned turn) = {load_others, load_keeper, look_up, end_threads, fork_off, ask};
_Static_assert(sizeof others / sizeof others[0] == OTHERS, "each is a thread");

void
others_begin(void)
{
    pthread_key_create(&late, release_late);
}

void *
do_others(void *other)
{
    for (unsigned turn = 0; !atomic_load(&stop); turn++) {
        struct lease lease = borrow((unsigned)(uintptr_t)other, turn);
        others[(uintptr_t)other](turn);
        give_back(&lease);
    }
    return NULL;
}
