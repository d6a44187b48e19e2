/*
 * Many copies of the loader in one process, which work as one: in libraries that have it inside, in this program, which is linked
 * to it or has it inside (test_meeting_inside), of another prefix, and of other releases. Each test has a process of its own, in
 * which no copy was called before.
 */
#include "host.h"

#include <dlfcn.h>
#include <link.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <time.h>

#include "tests/child.h"
#include "tests/plugins/blocks.h"
#include "tests/plugins/extension.h"
#include "tests/plugins/keepers.h"

#include "config.h"

/* --- Copies of files, each of which the dynamic linker takes for a library of its own. */

static char folder[] = "/tmp/alcove-meeting-XXXXXX";

static const char *
copy_make(const char *file, const char *name)
{
    static char paths[32][sizeof folder + 32];
    static unsigned next;
    char *path = paths[next++ % 32], buffer[1 << 14];
    snprintf(path, sizeof paths[0], "%s/%s.so", folder, name);
    FILE *from = fopen(file, "r"), *to = fopen(path, "w");
    CHECK(from != NULL && to != NULL);
    for (size_t got; (got = fread(buffer, 1, sizeof buffer, from)) > 0;)
        CHECK(fwrite(buffer, 1, got, to) == got);
    fclose(from);
    CHECK(fclose(to) == 0);
    return path;
}

static const char *
allocator_copy(const char *name)
{
    return copy_make(allocator_path(), name);
}

static int
folder_make(void **state)
{
    (void)state;
    return mkdtemp(folder) == NULL;
}

static int
folder_remove(void **state)
{
    (void)state;
    char command[sizeof folder + 16];
    snprintf(command, sizeof command, "rm -r %s", folder);
    return system(command);
}

/* --- A copy of the loader, and what was loaded and opened there. */

struct copy {
    void *handle;
    const struct extension *of;
    alcove_allocator *allocator;
    alcove_module *module;
};

/* This program's own. */
static const struct extension program = {
    .load = alcove_load, .unload = alcove_unload, .table_of = alcove_table_of, .module_open = alcove_module_open,
    .module_symbol = alcove_module_symbol, .module_stats = alcove_module_stats, .module_heap = alcove_module_heap,
    .module_limit = alcove_module_limit, .module_close = alcove_module_close, .refresh = alcove_refresh,
    .error_message = alcove_error_message,
};

static struct copy
copy_open(const char *path)
{
    struct copy copy = {.handle = dlopen(path, RTLD_NOW | RTLD_LOCAL)};
    if (copy.handle == NULL)
        fprintf(stderr, "%s\n", dlerror());
    CHECK(copy.handle != NULL);
    copy.of = dlsym(copy.handle, "extension");
    CHECK(copy.of != NULL);
    return copy;
}

#define CHECK_OK(copy, call)                                                                    \
    do {                                                                                        \
        if ((call) != 0) {                                                                      \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #call, (copy)->of->error_message()); \
            _exit(1);                                                                           \
        }                                                                                       \
    } while (0)

#define CHECK_REFUSED(copy, call, code, words)                                                  \
    do {                                                                                        \
        int check_code = (call);                                                                \
        if (check_code != (code) || strstr((copy)->of->error_message(), (words)) == NULL) {      \
            fprintf(stderr, "%s:%d: %s: %d: %s\n", __FILE__, __LINE__, #call, check_code, (copy)->of->error_message()); \
            _exit(1);                                                                           \
        }                                                                                       \
    } while (0)

static void
copy_load(struct copy *copy, const char *allocator)
{
    CHECK_OK(copy, copy->of->load(&copy->allocator, &(struct alcove_load_options){.path = allocator, .prefix = ALCOVE_PREFIX}));
}

static int
copy_share(struct copy *copy, const char *allocator)
{
    return copy->of->load(&copy->allocator,
                          &(struct alcove_load_options){.path = allocator, .prefix = ALCOVE_PREFIX, .flags = ALCOVE_LOAD_SHARE});
}

/* Load an allocator, and open a plugin. */
static void
copy_begin(struct copy *copy, const char *allocator, const char *plugin)
{
    copy_load(copy, allocator);
    CHECK_OK(copy, copy->of->module_open(copy->allocator, plugin_path(plugin), NULL, &copy->module));
}

static void
copy_end(struct copy *copy)
{
    struct alcove_report report;
    CHECK_OK(copy, copy->of->module_close(copy->module, 0, &report));
    CHECK(!report.kept);
    CHECK_OK(copy, copy->of->unload(copy->allocator, 0));
}

static void *
copy_symbol(const struct copy *copy, const char *name)
{
    void *found = copy->of->module_symbol(copy->module, name);
    CHECK(found != NULL);
    return found;
}

static void *
block_of(const struct copy *copy)
{
    return ((__typeof__(&blocks_make))copy_symbol(copy, "blocks_make"))(BLOCKS_MALLOC, 100);
}

static void
release_by(const struct copy *copy, void *block)
{
    ((__typeof__(&blocks_release))copy_symbol(copy, "blocks_release"))(block);
}

static struct alcove_module_stats
stats_by(const struct copy *copy, alcove_module *module)
{
    struct alcove_module_stats stats;
    CHECK_OK(copy, copy->of->module_stats(module, &stats));
    return stats;
}

static void
check_released(const struct copy *copy, uint64_t outside, uint64_t foreign)
{
    struct alcove_module_stats stats = stats_by(copy, copy->module);
    CHECK(stats.heap.live_blocks == 0);
    CHECK(stats.released_outside == outside);
    CHECK(stats.released_foreign == foreign);
}

/* A module's block is its own, and goes home from here. */
static void
check_works(const struct copy *copy)
{
    uint64_t before = stats_by(copy, copy->module).released_outside;
    void *block = block_of(copy);
    CHECK(stats_by(copy, copy->module).heap.live_blocks == 1);
    free(block);
    CHECK(stats_by(copy, copy->module).heap.live_blocks == 0);
    CHECK(stats_by(copy, copy->module).released_outside == before + 1);
}

/* Is the copy's library still mapped after a dlclose? */
static bool
stays_after_close(const struct copy *copy, const char *path)
{
    CHECK(dlclose(copy->handle) == 0);
    return lines_mapped(path) != 0;
}

/* --- Two libraries with the loader inside. */

static void
two_with_an_allocator_each(void)
{
    struct copy one = copy_open(plugin_path("extension_one")), two = copy_open(plugin_path("extension_two"));
    copy_begin(&one, allocator_path(), "blocks");
    copy_begin(&two, allocator_copy("allocator"), "blocks_two");
    CHECK(one.of->table_of(one.allocator) != two.of->table_of(two.allocator));
    free(block_of(&one));
    free(block_of(&two));
    release_by(&two, block_of(&one));
    release_by(&one, block_of(&two));
    check_released(&one, 2, 1);
    check_released(&two, 2, 1);
    free(malloc(100));
    copy_end(&one);
    check_works(&two);
    copy_end(&two);
    if (DLCLOSE_UNLOADS)
        CHECK(lines_mapped(allocator_path()) == 0 && lines_mapped("/allocator.so") == 0);
}

static void
test_blocks_of_two_libraries_go_home_whoever_releases_them(void **state)
{
    (void)state;
    in_child(two_with_an_allocator_each);
}

static void
one_allocator_shared(void)
{
    struct copy one = copy_open(plugin_path("extension_one")), two = copy_open(plugin_path("extension_two"));
    const char *file = allocator_copy("allocator");
    CHECK_OK(&one, copy_share(&one, allocator_path()));
    CHECK_OK(&two, copy_share(&two, file));
    CHECK(one.allocator == two.allocator);
    CHECK(lines_mapped(file) == 0);
    CHECK_OK(&one, one.of->module_open(one.allocator, plugin_path("blocks"), NULL, &one.module));
    CHECK_OK(&two, two.of->module_open(two.allocator, plugin_path("blocks_two"), NULL, &two.module));
    release_by(&two, block_of(&one));
    release_by(&one, block_of(&two));
    copy_end(&one); /* counted: it stays for the other */
    check_works(&two);
    copy_end(&two);
    CHECK_REFUSED(&two, two.of->unload(two.allocator, 0), ALCOVE_ECLOSED, "not valid");
}

static void
test_one_allocator_is_shared_by_who_asks_for_it(void **state)
{
    (void)state;
    in_child(one_allocator_shared);
}

static void
share_takes_the_first(void)
{
    struct copy one = copy_open(plugin_path("extension_one")), two = copy_open(plugin_path("extension_two"));
    struct copy three = copy_open(plugin_path("extension_three"));
    alcove_allocator *gone;
    CHECK_OK(&one, one.of->load(&gone, &(struct alcove_load_options){.path = allocator_copy("first"), .prefix = ALCOVE_PREFIX}));
    copy_load(&one, allocator_path());
    CHECK_OK(&one, one.of->unload(gone, 0)); /* its place is free for the next */
    copy_load(&two, allocator_copy("second"));
    CHECK_OK(&three, copy_share(&three, "/nowhere/allocator.so"));
    CHECK(three.allocator == one.allocator && three.allocator != two.allocator);
    for (int i = 0; i < 2; i++)
        CHECK_OK(&three, three.of->unload(one.allocator, 0));
    CHECK_OK(&two, two.of->unload(two.allocator, 0));
    CHECK_REFUSED(&three, copy_share(&three, "/nowhere/allocator.so"), ALCOVE_ENOENT, "/nowhere/allocator.so");
    CHECK_OK(&three, copy_share(&three, allocator_path()));
    CHECK_REFUSED(&three, three.of->load(&gone, &(struct alcove_load_options){.flags = 6}), ALCOVE_EINVAL, "flags 0x6");
    CHECK_OK(&three, three.of->unload(three.allocator, 0));
}

static void
test_sharing_takes_the_first_that_is_loaded_else_its_own(void **state)
{
    (void)state;
    in_child(share_takes_the_first);
}

static void
blocks_after_an_unload(void)
{
    struct copy one = copy_open(plugin_path("extension_one")), two = copy_open(plugin_path("extension_two"));
    copy_begin(&one, allocator_path(), "blocks");
    copy_begin(&two, allocator_copy("allocator"), "blocks_two");
    void *left = block_of(&one), *left_too = block_of(&one), *lives = block_of(&two);
    CHECK_OK(&one, one.of->module_close(one.module, 0, NULL));
    CHECK_OK(&one, one.of->unload(one.allocator, ALCOVE_UNLOAD_LEAVE));
    free(left);
    release_by(&two, left_too);
    free(lives);
    check_works(&two);
    copy_begin(&one, allocator_path(), "blocks");
    check_works(&one);
    copy_end(&two);
    check_works(&one);
    copy_end(&one);
}

static void
test_blocks_go_home_after_either_was_unloaded(void **state)
{
    (void)state;
    in_child(blocks_after_an_unload);
}

/* --- Libraries that go. */

static void
keeper_goes_first(void)
{
    struct copy one = copy_open(plugin_path("extension_one")), two = copy_open(plugin_path("extension_two"));
    copy_begin(&one, allocator_path(), "blocks");
    copy_begin(&two, allocator_copy("allocator"), "blocks_two");
    void *block = block_of(&one);
    CHECK(stays_after_close(&one, "/extension_one.so"));
    free(block);
    check_works(&two);
    release_by(&two, block_of(&two));
    struct copy three = copy_open(plugin_path("extension_three"));
    CHECK_OK(&three, copy_share(&three, NULL));
    CHECK_OK(&three, three.of->unload(three.allocator, 0));
    CHECK(stats_by(&three, two.module).heap.live_blocks == 0);
    copy_end(&two);
    copy_end(&one);
}

static void
test_keeper_stays_mapped_when_its_library_is_closed(void **state)
{
    (void)state;
    in_child(keeper_goes_first);
}

static void
client_comes_and_goes(void)
{
    struct copy one = copy_open(plugin_path("extension_one"));
    const char *file = allocator_copy("allocator");
    copy_begin(&one, allocator_path(), "blocks");
    for (int cycle = 0; cycle < 10; cycle++) {
        struct copy two = copy_open(plugin_path("extension_two"));
        copy_begin(&two, file, "blocks_two");
        void *block = block_of(&two);
        CHECK(stays_after_close(&two, "/extension_two.so") == !DLCLOSE_UNLOADS);
        CHECK(stats_by(&one, two.module).heap.live_blocks == 1); /* what it opened is the keeper's */
        free(block);
        release_by(&one, ((__typeof__(&blocks_make))one.of->module_symbol(two.module, "blocks_make"))(BLOCKS_MALLOC, 100));
        CHECK(stats_by(&one, two.module).released_outside == 2);
        CHECK_OK(&one, one.of->module_close(two.module, 0, NULL));
        CHECK_OK(&one, one.of->unload(two.allocator, 0));
        pid_t child = fork(); /* which calls no handler of what has gone */
        if (child == 0)
            _exit(0);
        int status;
        CHECK(waitpid(child, &status, 0) == child && status == 0);
    }
    copy_end(&one);
}

static void
test_client_is_unmapped_when_its_library_is_closed_and_its_blocks_go_home(void **state)
{
    (void)state;
    in_child(client_comes_and_goes);
}

static struct copy leaver;
static int leaver_code;

static void
call_late(void)
{
    leaver_code = copy_share(&leaver, allocator_path());
}

static void
first_call_from_a_destructor(void)
{
    leaver = copy_open(plugin_path("extension_one"));
    *(void (**)(void))dlsym(leaver.handle, "extension_farewell") = call_late;
    if (!stays_after_close(&leaver, "/extension_one.so"))
        CHECK(leaver_code == ALCOVE_ESYSTEM);
    struct copy two = copy_open(plugin_path("extension_two"));
    copy_begin(&two, allocator_path(), "blocks");
    check_works(&two);
    copy_end(&two);
}

static void
test_library_that_is_going_does_not_become_the_keeper(void **state)
{
    (void)state;
    in_child(first_call_from_a_destructor);
}

static void
last_call_from_a_destructor(void)
{
    struct copy two = copy_open(plugin_path("extension_two"));
    CHECK_OK(&two, two.of->refresh());
    leaver = copy_open(plugin_path("extension_one"));
    *(void (**)(void))dlsym(leaver.handle, "extension_farewell") = call_late;
    leaver_code = -1;
    if (!stays_after_close(&leaver, "/extension_one.so")) {
        CHECK(leaver_code == ALCOVE_OK);
        CHECK_OK(&two, two.of->unload(leaver.allocator, 0));
    }
}

static void
test_library_that_is_going_is_still_served(void **state)
{
    (void)state;
    in_child(last_call_from_a_destructor);
}

/* --- Many. */

static void
three_and_the_program(void)
{
    static const char *const plugins[] = {"blocks", "blocks_two", "keeper", "caller"};
    struct copy copies[4] = {copy_open(plugin_path("extension_three")), copy_open(plugin_path("extension_two")), {.of = &program},
                             copy_open(plugin_path("extension_one"))};
    for (int i = 0; i < 4; i++) {
        char name[16];
        snprintf(name, sizeof name, "allocator%d", i);
        copy_begin(&copies[i], allocator_copy(name), plugins[i]);
    }
    for (int i = 0; i < 4; i++)
        for (int by = 0; by < 4; by++)
            stats_by(&copies[by], copies[i].module);
    check_works(&copies[0]);
    check_works(&copies[1]);
    release_by(&copies[0], block_of(&copies[1]));
    if (!DLCLOSE_UNLOADS) /* no destructor runs before the end of the process */
        ((void (*)(void))copy_symbol(&copies[2], "keeper_release_all"))();
    for (int i = 0; i < 4; i++)
        copy_end(&copies[i]);
}

static void
test_three_libraries_and_the_program_work_as_one(void **state)
{
    (void)state;
    in_child(three_and_the_program);
}

static void
program_first(void)
{
    struct copy first = {.of = &program}, one = copy_open(plugin_path("extension_one"));
    copy_begin(&first, allocator_path(), "blocks");
    copy_begin(&one, allocator_copy("allocator"), "blocks_two");
    release_by(&one, block_of(&first));
    CHECK(stays_after_close(&one, "/extension_one.so") == !DLCLOSE_UNLOADS);
    release_by(&first, block_of(&first));
    CHECK_OK(&first, first.of->module_close(one.module, 0, NULL));
    CHECK_OK(&first, first.of->unload(one.allocator, 0));
    copy_end(&first);
}

static void
test_program_may_be_the_keeper(void **state)
{
    (void)state;
    in_child(program_first);
}

static void
one_library_twice(void)
{
    struct copy one = copy_open(plugin_path("extension_one")), two = copy_open(plugin_path("extension_two"));
    copy_begin(&one, allocator_path(), "blocks");
    copy_load(&two, allocator_copy("allocator"));
    CHECK_REFUSED(&two, two.of->module_open(two.allocator, plugin_path("blocks"), NULL, &two.module), ALCOVE_EBUSY,
                  "as module \"blocks.so\"");
    CHECK_OK(&two, two.of->unload(two.allocator, 0));
    copy_end(&one);
}

static void
test_library_that_another_copy_has_opened_is_not_taken_away(void **state)
{
    (void)state;
    in_child(one_library_twice);
}

#define RACERS 8
static struct copy racers[RACERS];
static pthread_barrier_t start;

/* The copies find this in place of libc's. For racers it is musl's, whatever the libc: it holds no lock while it calls back; and each of
 * their first looks ends when all have looked. A look is a walk within a walk. */
typedef int (*each_object)(struct dl_phdr_info *, size_t, void *);
static int (*walk)(each_object, void *); /* libc's */
static bool unlocked;
static pthread_barrier_t all_have_looked;
static __thread int depth, looks;

struct object_list {
    struct dl_phdr_info objects[64];
    int count;
};

static int
object_list_add(struct dl_phdr_info *info, size_t size, void *argument)
{
    struct object_list *list = argument;
    CHECK(size >= sizeof *info && list->count < 64);
    list->objects[list->count++] = *info;
    return 0;
}

/* Not by the walk itself: dlsym would wait for a dlopen that waits for the walk. */
__attribute__((constructor)) static void
walk_find(void)
{
    walk = (int (*)(each_object, void *))dlsym(RTLD_NEXT, "dl_iterate_phdr");
}

/* For forks: a walk that lasts until it is told to go on, and a pause in the loader's text that lasts until its library is gone, or for a
 * while. */
static __thread bool long_walks, long_pauses;
static atomic_bool walking, pausing, go_on, gone;

#define PAUSE_MS 300

int
nanosleep(const struct timespec *time, struct timespec *left)
{
    for (int ms = 0; long_pauses && !atomic_load(&gone) && ms < PAUSE_MS; ms += atomic_load(&go_on)) {
        atomic_store(&pausing, true);
        usleep(1000);
    }
    return clock_nanosleep(CLOCK_REALTIME, 0, time, left) == 0 ? 0 : -1;
}

int
dl_iterate_phdr(each_object each, void *argument)
{
    while (long_walks && !atomic_load(&go_on)) {
        atomic_store(&walking, true);
        usleep(1000);
    }
    if (walk == NULL) /* called by a library's constructor */
        walk_find();
    if (!unlocked || looks == 2)
        return walk(each, argument);
    struct object_list list = {.count = 0};
    walk(object_list_add, &list);
    int result = 0;
    depth++;
    for (int i = 0; i < list.count && result == 0; i++)
        result = each(&list.objects[i], sizeof list.objects[i], argument);
    if (--depth == 1) {
        looks++;
        pthread_barrier_wait(&all_have_looked);
    }
    return result;
}

static void *
race(void *racer)
{
    pthread_barrier_wait(&start);
    return (void *)(intptr_t)copy_share(racer, NULL);
}

/* Each copy is called first by a thread of its own, at once. */
static void
first_calls_race(void)
{
    pthread_t threads[RACERS];
    setenv(ALCOVE_ENV_PREFIX "ALLOCATOR", allocator_path(), 1);
    pthread_barrier_init(&start, NULL, RACERS);
    for (int i = 0; i < RACERS; i++) {
        char path[sizeof folder + 32];
        snprintf(path, sizeof path, "%s/racer%d.so", folder, i);
        racers[i] = copy_open(path);
    }
    for (int i = 0; i < RACERS; i++)
        CHECK(pthread_create(&threads[i], NULL, race, &racers[i]) == 0);
    for (int i = 0; i < RACERS; i++) {
        void *code;
        pthread_join(threads[i], &code);
        CHECK(code == NULL);
    }
    for (int i = 0; i < RACERS; i++)
        CHECK(racers[i].allocator == racers[0].allocator);
    CHECK_OK(&racers[3], racers[3].of->module_open(racers[0].allocator, plugin_path("blocks"), NULL, &racers[3].module));
    for (int i = 0; i < RACERS; i++)
        stats_by(&racers[i], racers[3].module);
    CHECK_OK(&racers[0], racers[0].of->module_close(racers[3].module, 0, NULL));
    for (int i = 0; i < RACERS; i++) /* one counted all */
        CHECK_OK(&racers[5], racers[5].of->unload(racers[0].allocator, 0));
    CHECK_REFUSED(&racers[6], racers[6].of->unload(racers[0].allocator, 0), ALCOVE_ECLOSED, "not valid");
}

static void
first_calls_race_without_a_lock(void)
{
    pthread_barrier_init(&all_have_looked, NULL, RACERS);
    unlocked = true;
    looks = 2; /* this thread is none of them */
    first_calls_race();
}

static void
test_threads_that_call_first_in_many_copies_agree(void **state)
{
    (void)state;
    char name[16];
    for (int i = 0; i < RACERS; i++) {
        snprintf(name, sizeof name, "racer%d", i);
        copy_make(plugin_path("extension_one"), name);
    }
    for (int round = 0; round < 30; round++)
        in_child(first_calls_race);
    for (int round = 0; round < 5; round++)
        in_child(first_calls_race_without_a_lock);
}

static void *
race_with_own_file(void *racer)
{
    char path[sizeof folder + 32];
    snprintf(path, sizeof path, "%s/file%d.so", folder, (int)((struct copy *)racer - racers));
    pthread_barrier_wait(&start);
    return (void *)(intptr_t)copy_share(racer, path);
}

static void
sharing_races(void)
{
    pthread_t threads[RACERS];
    pthread_barrier_init(&start, NULL, RACERS);
    for (int i = 0; i < RACERS; i++) {
        racers[i] = (struct copy){.of = &program};
        CHECK(pthread_create(&threads[i], NULL, race_with_own_file, &racers[i]) == 0);
    }
    for (int i = 0; i < RACERS; i++) {
        void *code;
        pthread_join(threads[i], &code);
        CHECK(code == NULL && racers[i].allocator == racers[0].allocator);
    }
    for (int i = 0; i < RACERS; i++)
        CHECK_OK(&racers[0], program.unload(racers[0].allocator, 0));
    if (DLCLOSE_UNLOADS)
        CHECK(lines_mapped("/file") == 0);
}

static void
test_threads_that_share_each_with_a_file_of_its_own_get_one(void **state)
{
    (void)state;
    char name[16];
    for (int i = 0; i < RACERS; i++) {
        snprintf(name, sizeof name, "file%d", i);
        allocator_copy(name);
    }
    for (int round = 0; round < 10; round++)
        in_child(sharing_races);
}

/* --- Handlers. */

static void
client_with_a_handler(void)
{
    struct copy first = {.of = &program};
    copy_begin(&first, allocator_path(), "blocks");
    struct copy one = copy_open(plugin_path("extension_one"));
    __typeof__(&extension_listen) listen = (__typeof__(listen))dlsym(one.handle, "extension_listen");
    unsigned count = 0;
    CHECK(listen(&count) == ALCOVE_OK);
    CHECK(first.of->unload(NULL, 0) == ALCOVE_EINVAL && count == 1);
    CHECK(!stays_after_close(&one, "/extension_one.so"));
    CHECK(first.of->unload(NULL, 0) == ALCOVE_EINVAL && count == 1); /* its handler has gone with it */
    copy_end(&first);
}

static void
test_handlers_of_a_client_go_with_it(void **state)
{
    (void)state;
    if (!DLCLOSE_UNLOADS)
        SKIP_BECAUSE("with this libc nothing goes");
    in_child(client_with_a_handler);
}

/* --- Forks. */

#ifdef __GLIBC__
static atomic_uint registrations;

/* What pthread_atfork calls, with the library whose handlers they are. */
int __register_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void), void *library);

int
__register_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void), void *library)
{
    __typeof__(&__register_atfork) libc = (__typeof__(&__register_atfork))dlsym(RTLD_NEXT, "__register_atfork");
    atomic_fetch_add(&registrations, 1);
    return libc(prepare, parent, child, library);
}

static void
client_without_handlers(void)
{
    struct copy first = {.of = &program};
    copy_begin(&first, allocator_path(), "blocks");
    unsigned before = registrations;
    struct copy one = copy_open(plugin_path("extension_one"));
    CHECK(registrations == before);
    CHECK(stats_by(&one, first.module).heap.live_blocks == 0);
    CHECK(!stays_after_close(&one, "/extension_one.so"));
    one = copy_open(plugin_path("extension_one"));
    copy_load(&one, allocator_copy("allocator"));
    CHECK(registrations == before); /* nor has the allocator any, which its loader tells of forks */
    CHECK_OK(&one, one.of->unload(one.allocator, 0));
    copy_end(&first);
}

/* They would be called while another thread closes it. */
static void
test_client_that_comes_after_the_keeper_has_no_fork_handlers(void **state)
{
    (void)state;
    in_child(client_without_handlers);
}
#endif

static void *
call_first(void *copy)
{
    long_walks = true;
    CHECK_OK((struct copy *)copy, ((struct copy *)copy)->of->refresh());
    return NULL;
}

static void *
fork_off(void *unused)
{
    int status;
    long_pauses = true;
    pid_t child = fork();
    if (child == 0)
        _exit(0);
    CHECK(child > 0 && waitpid(child, &status, 0) == child && status == 0);
    return unused;
}

static void
closed_amid_a_fork(void)
{
    pthread_t caller, forker;
    struct copy first = {.of = &program}, one = copy_open(plugin_path("extension_one"));
    CHECK_OK(&first, first.of->refresh());
    CHECK(pthread_create(&caller, NULL, call_first, &one) == 0);
    while (!atomic_load(&walking))
        usleep(1000);
    CHECK(pthread_create(&forker, NULL, fork_off, NULL) == 0);
    while (!atomic_load(&pausing)) /* the client's handler waits for the walk */
        usleep(1000);
    atomic_store(&go_on, true);
    pthread_join(caller, NULL);
    CHECK(!stays_after_close(&one, "/extension_one.so"));
    atomic_store(&gone, true);
    pthread_join(forker, NULL);
}

static void
test_client_is_not_unmapped_while_a_fork_is_in_its_handler(void **state)
{
    (void)state;
    SKIP_WITHOUT_UNLOADING();
    in_child(closed_amid_a_fork);
}

/* --- Other prefixes and releases. */

static const char *
search_told(void *path)
{
    return path;
}

static void
another_prefix(bool first)
{
    struct copy other = copy_open(plugin_path("other_prefix")), own = {.of = &program};
    if (first)
        CHECK_OK(&other, other.of->refresh());
    copy_begin(&own, allocator_path(), "blocks");
    copy_begin(&other, allocator_copy("allocator"), "blocks_two");
    release_by(&own, block_of(&other));
    release_by(&other, block_of(&own));
    check_released(&own, 1, 1);
    check_released(&other, 1, 1);
    copy_end(&own);
    check_works(&other);
    copy_end(&other);

    /* What is each copy's own: prefix, environment, and who is asked. */
    struct alcove_load_options options = {.path = allocator_path()};
    CHECK_REFUSED(&other, other.of->load(&other.allocator, &options), ALCOVE_EABI, "\"other_\"");
    setenv("OTHER_ALLOCATOR", "/nowhere/other.so", 1);
    setenv(ALCOVE_ENV_PREFIX "ALLOCATOR", allocator_path(), 1);
    CHECK_REFUSED(&other, other.of->load(&other.allocator, NULL), ALCOVE_ENOENT, "/nowhere/other.so");
    CHECK_OK(&own, own.of->load(&own.allocator, NULL));
    CHECK_OK(&own, own.of->unload(own.allocator, 0));
    options = (struct alcove_load_options){.search = search_told, .context = "/nowhere/searched.so"};
    CHECK_REFUSED(&other, other.of->load(&other.allocator, &options), ALCOVE_ENOENT, "/nowhere/searched.so");
}

static void
other_prefix_is_client(void)
{
    another_prefix(false);
}

static void
other_prefix_is_keeper(void)
{
    another_prefix(true);
}

static void
test_copies_of_two_prefixes_work_as_one(void **state)
{
    (void)state;
    in_child(other_prefix_is_client);
    in_child(other_prefix_is_keeper);
}

static void
with_older_keeper(void)
{
    struct copy own = {.of = &program};
    CHECK(dlopen(plugin_path("older_keeper"), RTLD_NOW) != NULL);
    CHECK(own.of->load(&own.allocator, NULL) == KEEPERS_LOADED);
    CHECK_REFUSED(&own, own.of->module_open(own.allocator, plugin_path("blocks"), NULL, &own.module), ALCOVE_EABI,
                  "older_keeper.so, release 0.0.2");
    CHECK_REFUSED(&own, own.of->refresh(), ALCOVE_EABI, "refresh: ");
    CHECK(own.of->module_heap(own.module) == ALCOVE_HEAP_NONE);
    CHECK(own.of->module_symbol(own.module, "blocks_make") == NULL);
    CHECK_REFUSED(&own, own.of->load(&own.allocator, &(struct alcove_load_options){.flags = 6}), ALCOVE_EINVAL, "flags 0x6");
}

static void
test_what_an_older_keeper_lacks_is_refused_by_name(void **state)
{
    (void)state;
    in_child(with_older_keeper);
}

static void
with_keeper_without_messages(void)
{
    struct copy own = {.of = &program};
    CHECK(dlopen(plugin_path("oldest_keeper"), RTLD_NOW) != NULL);
    CHECK(own.of->error_message()[0] == 0);
    CHECK_REFUSED(&own, own.of->load(&own.allocator, NULL), ALCOVE_EABI, "oldest_keeper.so, release 0.0.1");
}

static void
test_messages_are_the_clients_own_where_the_keeper_takes_none(void **state)
{
    (void)state;
    in_child(with_keeper_without_messages);
}

static void
with_newer_keeper(void)
{
    struct copy own = {.of = &program};
    CHECK(dlopen(plugin_path("newer_keeper"), RTLD_NOW) != NULL);
    CHECK(own.of->load(&own.allocator, NULL) == KEEPERS_LOADED);
    CHECK(own.of->refresh() == KEEPERS_REFRESHED);
    CHECK_REFUSED(&own, own.of->unload(own.allocator, 0), ALCOVE_EABI, "newer_keeper.so, release 9.9.9"); /* a row that is empty */
}

static void
test_newer_keeper_serves(void **state)
{
    (void)state;
    in_child(with_newer_keeper);
}

static void
with_incompatible_keeper(void)
{
    struct copy own = {.of = &program};
    CHECK(dlopen(plugin_path("incompatible_keeper"), RTLD_NOW) != NULL);
    CHECK_REFUSED(&own, own.of->load(&own.allocator, NULL), ALCOVE_EABI, "incompatible_keeper.so, release 9.9.9");
    CHECK_REFUSED(&own, own.of->refresh(), ALCOVE_EABI, "Build both from one release");
    CHECK(own.of->table_of(own.allocator) == NULL);
    free(malloc(100));
}

static void
test_keeper_of_another_version_is_not_called(void **state)
{
    (void)state;
    in_child(with_incompatible_keeper);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_blocks_of_two_libraries_go_home_whoever_releases_them),
        cmocka_unit_test(test_one_allocator_is_shared_by_who_asks_for_it),
        cmocka_unit_test(test_sharing_takes_the_first_that_is_loaded_else_its_own),
        cmocka_unit_test(test_blocks_go_home_after_either_was_unloaded),
        cmocka_unit_test(test_keeper_stays_mapped_when_its_library_is_closed),
        cmocka_unit_test(test_client_is_unmapped_when_its_library_is_closed_and_its_blocks_go_home),
        cmocka_unit_test(test_library_that_is_going_does_not_become_the_keeper),
        cmocka_unit_test(test_library_that_is_going_is_still_served),
        cmocka_unit_test(test_three_libraries_and_the_program_work_as_one),
        cmocka_unit_test(test_program_may_be_the_keeper),
        cmocka_unit_test(test_library_that_another_copy_has_opened_is_not_taken_away),
        cmocka_unit_test(test_threads_that_call_first_in_many_copies_agree),
        cmocka_unit_test(test_threads_that_share_each_with_a_file_of_its_own_get_one),
        cmocka_unit_test(test_handlers_of_a_client_go_with_it),
#ifdef __GLIBC__
        cmocka_unit_test(test_client_that_comes_after_the_keeper_has_no_fork_handlers),
#endif
        cmocka_unit_test(test_client_is_not_unmapped_while_a_fork_is_in_its_handler),
        cmocka_unit_test(test_copies_of_two_prefixes_work_as_one),
        cmocka_unit_test(test_what_an_older_keeper_lacks_is_refused_by_name),
        cmocka_unit_test(test_messages_are_the_clients_own_where_the_keeper_takes_none),
        cmocka_unit_test(test_newer_keeper_serves),
        cmocka_unit_test(test_keeper_of_another_version_is_not_called),
    };
    if (setting("ALCOVE_TEST_STATIC")[0] == 0) {
        puts("1..0 # SKIP there is no archive of the loader to put into libraries (--enable-static)");
        return 77;
    }
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
