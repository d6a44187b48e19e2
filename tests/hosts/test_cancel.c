/*
 * Threads that are cancelled while they are in a function of the loader: the function does its work to the end, and the loader works on.
 * What would be left half-done is for the whole process, so each test has one of its own.
 */
#include "host.h"

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <time.h>

#include "tests/child.h"
#include "tests/plugins/blocks.h"

static alcove_allocator *allocator;
static alcove_module *module;
static atomic_bool returned; /* the function did */

static bool asynchronous;
static sem_t arrived, cancelled;

static void
sleep_us(long us)
{
    nanosleep(&(struct timespec){.tv_nsec = us * 1000}, NULL);
}

/* Code of others that the loader calls: wait until the thread has been cancelled, at what is a cancellation point. */
static void
be_cancelled(void)
{
    sem_post(&arrived);
    while (sem_wait(&cancelled) != 0)
        ;
    sleep_us(1000);
}

static atomic_bool in_constructor; /* be cancelled there */

void host_moment(void);

/* The plugin `constructing` calls it in a constructor. */
void
host_moment(void)
{
    if (atomic_exchange(&in_constructor, false))
        be_cancelled();
}

static void
handle_message(enum alcove_event event, const void *message, void *context)
{
    (void)event, (void)message, (void)context;
    be_cancelled();
}

static int
call_load(void)
{
    return alcove_load(&allocator, &(struct alcove_load_options){.path = allocator_path()});
}

static const char *
search_for_allocator(void *context)
{
    (void)context;
    be_cancelled();
    return allocator_path();
}

static int
call_load_with_search(void)
{
    return alcove_load(&allocator, &(struct alcove_load_options){.search = search_for_allocator});
}

static int
call_open(void)
{
    return alcove_module_open(allocator, plugin_path("constructing"), NULL, &module);
}

static int
call_open_of_none(void)
{
    return alcove_module_open(allocator, plugin_path("there_is_none"), NULL, &module) == ALCOVE_ENOENT ? ALCOVE_OK : ALCOVE_ELOAD;
}

static int
call_symbol(void)
{
    return alcove_module_symbol(module, "constructing_blocks") != NULL ? ALCOVE_OK : ALCOVE_ENOENT;
}

static int
call_figures(void)
{
    struct alcove_module_stats stats;
    uint32_t count = 0;
    int code = alcove_module_stats(module, &stats);
    if (code == ALCOVE_OK)
        code = alcove_modules(NULL, sizeof(struct alcove_module_entry), &count);
    if (code == ALCOVE_OK)
        code = alcove_module_limit(module, 1 << 20);
    return code == ALCOVE_OK && count == 1 && alcove_module_heap(module) != ALCOVE_HEAP_NONE ? alcove_refresh() : code;
}

static int
call_close(void)
{
    return alcove_module_close(module, 0, NULL);
}

/* Where dlclose unloads nothing the plugin `constructing` leaves its blocks. */
static int
call_unload(void)
{
    return alcove_unload(allocator, DLCLOSE_UNLOADS ? 0 : ALCOVE_UNLOAD_RELEASE);
}

static int
call_nothing(void)
{
    return ALCOVE_OK;
}

static void *
be_cancelled_in(void *call)
{
    int unused;
    if (asynchronous)
        pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, &unused);
    int code = (*(int (**)(void))call)();
    pthread_setcanceltype(PTHREAD_CANCEL_DEFERRED, &unused);
    returned = true;
    CHECK(code == ALCOVE_OK);
    for (;;)
        pthread_testcancel();
    return NULL;
}

static void *
be_cancelled_before(void *call)
{
    pthread_cancel(pthread_self());
    return be_cancelled_in(call);
}

/* glibc before 2.37 forgets that as a result where a thread ends because it may be cancelled asynchronously again. */
static void
cancelled_join(pthread_t thread)
{
    void *result;
    CHECK(pthread_join(thread, &result) == 0 && (result == PTHREAD_CANCELED || asynchronous));
}

/* The call by a thread that ends at the first cancellation point. */
static void
call_cancelled(int (*call)(void))
{
    pthread_t thread;
    returned = false;
    CHECK(pthread_create(&thread, NULL, be_cancelled_before, &call) == 0);
    cancelled_join(thread);
    CHECK(returned);
}

/* The call by a thread that is cancelled when it arrives in be_cancelled(). If it is cancelled asynchronously it may end as it leaves the function. */
static void
call_cancelled_within(int (*call)(void))
{
    pthread_t thread;
    returned = false;
    CHECK(pthread_create(&thread, NULL, be_cancelled_in, &call) == 0);
    while (sem_wait(&arrived) != 0)
        ;
    CHECK(pthread_cancel(thread) == 0);
    sem_post(&cancelled);
    cancelled_join(thread);
    CHECK(returned || asynchronous);
}

/* Everything works, and nothing is open. */
static void
live_a_life(void)
{
    struct alcove_report report;
    uint32_t count = 0;
    CHECK(alcove_on(ALCOVE_EVENT_MESSAGE, NULL, NULL) == ALCOVE_OK);
    CHECK(call_load() == ALCOVE_OK);
    CHECK(alcove_modules(NULL, sizeof(struct alcove_module_entry), &count) == ALCOVE_OK && count == 0);
    CHECK(call_open() == ALCOVE_OK && call_figures() == ALCOVE_OK);
    CHECK(alcove_module_close(module, 0, &report) == ALCOVE_OK && report.opens == 0);
    CHECK(alcove_module_open(allocator, plugin_path("blocks"), NULL, &module) == ALCOVE_OK);
    void *(*make)(enum blocks_kind, size_t) = (__typeof__(make))alcove_module_symbol(module, "blocks_make");
    void *block = make(BLOCKS_MALLOC, 100);
    struct alcove_owner owner = {.heap = ALCOVE_HEAP_NONE};
    CHECK(alcove_table_of(allocator)->owner(block, &owner) && owner.heap == alcove_module_heap(module));
    free(block);
    CHECK(alcove_module_close(module, 0, &report) == ALCOVE_OK && !report.kept);
    CHECK(call_unload() == ALCOVE_OK);
    CHECK(alcove_unload(allocator, 0) == ALCOVE_ECLOSED);
}

static void
cancel_before_each(void)
{
    call_cancelled(call_load);
    call_cancelled(call_open);
    call_cancelled(call_open_of_none);
    call_cancelled(call_symbol);
    call_cancelled(call_figures);
    call_cancelled(call_close);
    call_cancelled(call_unload);
    live_a_life();
}

static void
test_a_thread_that_is_cancelled_before_a_call(void **state)
{
    (void)state;
    in_child(cancel_before_each);
}

static void
cancel_in_a_constructor(void)
{
    CHECK(call_load() == ALCOVE_OK);
    in_constructor = true;
    call_cancelled_within(call_open);
    CHECK(call_close() == ALCOVE_OK && call_unload() == ALCOVE_OK);
    live_a_life();
}

static void
cancel_in_a_search(void)
{
    call_cancelled_within(call_load_with_search);
    CHECK(call_unload() == ALCOVE_OK);
    live_a_life();
}

/* alcove_on() would wait for the handler for ever. */
static void
cancel_in_a_handler(void)
{
    CHECK(call_load() == ALCOVE_OK);
    CHECK(alcove_on(ALCOVE_EVENT_MESSAGE, handle_message, NULL) == ALCOVE_OK);
    call_cancelled_within(call_open_of_none);
    CHECK(alcove_on(ALCOVE_EVENT_MESSAGE, NULL, NULL) == ALCOVE_OK);
    CHECK(call_unload() == ALCOVE_OK);
    live_a_life();
}

static void (*const within[])(void) = {cancel_in_a_constructor, cancel_in_a_search, cancel_in_a_handler};

static void
test_a_thread_that_is_cancelled_in_code_that_is_called(void **state)
{
    (void)state;
    for (unsigned i = 0; i < sizeof within / sizeof *within; i++)
        in_child(within[i]);
}

static void
test_a_thread_that_is_cancelled_asynchronously_in_code_that_is_called(void **state)
{
    (void)state;
    asynchronous = true;
    for (unsigned i = 0; i < sizeof within / sizeof *within; i++)
        in_child(within[i]);
    asynchronous = false;
}

#define MOMENTS 100
#define CALLS_MOST 4000 /* us until a thread is cancelled, at most */

/* Call everything, over and over. Cancelled between calls, a thread leaves a handle that may be good yet. */
static void *
call_all(void *unused)
{
    int before;
    pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, &before);
    for (;;) {
        call_load();
        call_open();
        call_symbol();
        call_figures();
        call_open_of_none();
        call_close();
        module = NULL;
        call_unload();
        allocator = NULL;
        pthread_testcancel(); /* musl forgets to look when it enables cancellation again */
    }
    return unused;
}

static void
cancel_at_any_moment(void)
{
    asynchronous = true;
    for (int i = 0; i < MOMENTS; i++) {
        pthread_t thread;
        module = NULL;
        allocator = NULL;
        CHECK(pthread_create(&thread, NULL, call_all, NULL) == 0);
        sleep_us(1 + i * (CALLS_MOST / MOMENTS));
        CHECK(pthread_cancel(thread) == 0);
        cancelled_join(thread);
        int code = module != NULL ? call_close() : ALCOVE_OK;
        CHECK(code == ALCOVE_OK || code == ALCOVE_ECLOSED);
        code = allocator != NULL ? call_unload() : ALCOVE_OK;
        CHECK(code == ALCOVE_OK || code == ALCOVE_ECLOSED);
        live_a_life();
    }
}

static void
test_a_thread_that_is_cancelled_at_any_moment(void **state)
{
    (void)state;
    if (UNDER_TSAN)
        SKIP_BECAUSE("ThreadSanitizer's own functions are no place to be cancelled in");
    in_child(cancel_at_any_moment);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_thread_that_is_cancelled_before_a_call),
        cmocka_unit_test(test_a_thread_that_is_cancelled_in_code_that_is_called),
        cmocka_unit_test(test_a_thread_that_is_cancelled_asynchronously_in_code_that_is_called),
        cmocka_unit_test(test_a_thread_that_is_cancelled_at_any_moment),
    };
    call_cancelled(call_nothing); /* glibc's first pthread_cancel opens a library, which would wait for a constructor */
    sem_init(&arrived, 0, 0);
    sem_init(&cancelled, 0, 0);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
