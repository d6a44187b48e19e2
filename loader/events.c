/*
 * Tells the host of events. The lock here guards the handlers, and is held to read or replace one, never while one runs. Who is in the
 * middle of one is written down in a few places, for a variable of each thread's own could not be had wherever an event may happen.
 */
#include "events.h"

#include <errno.h>
#include <time.h>

#define TELLERS 64 /* threads that are in a handler at a time; for more an event is only counted */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
    alcove_handler function;
    void *context;
    uint64_t round; /* how often it was replaced, and one */
} handlers[EVENTS] = {{.round = 1}, {.round = 1}, {.round = 1}};

_Atomic bool event_wanted[EVENTS];
static _Atomic uint64_t missed_events[EVENTS];

enum teller_state { TELLER_FREE, TELLER_TAKEN, TELLER_READY };

static struct teller {
    _Atomic int state;
    _Atomic(pthread_t) thread;
    _Atomic int event;
    _Atomic uint64_t round; /* of the handler that it calls; 0: it has not looked yet */
} tellers[TELLERS];

static bool
is_ready(const struct teller *teller)
{
    return atomic_load(&teller->state) == TELLER_READY;
}

static bool
is_mine(const struct teller *teller)
{
    return is_ready(teller) && pthread_equal(atomic_load(&teller->thread), pthread_self());
}

static bool
is_telling(void)
{
    for (size_t i = 0; i < TELLERS; i++)
        if (is_mine(&tellers[i]))
            return true;
    return false;
}

/* NULL: there is no place, or this thread has one. */
static struct teller *
teller_take(enum alcove_event event)
{
    if (is_telling())
        return NULL;
    for (size_t i = 0; i < TELLERS; i++) {
        int state = TELLER_FREE;
        if (!atomic_compare_exchange_strong(&tellers[i].state, &state, TELLER_TAKEN))
            continue;
        atomic_store(&tellers[i].thread, pthread_self());
        atomic_store(&tellers[i].event, (int)event);
        atomic_store(&tellers[i].round, 0);
        atomic_store(&tellers[i].state, TELLER_READY);
        return &tellers[i];
    }
    return NULL;
}

bool
event_tell(enum alcove_event event, void *what, uint64_t *missed)
{
    int saved = errno;
    struct teller *teller = loader_is_held() ? NULL : teller_take(event);
    if (teller == NULL) {
        atomic_fetch_add(&missed_events[event], 1);
        return false;
    }
    pthread_mutex_lock(&lock);
    alcove_handler function = handlers[event].function;
    void *context = handlers[event].context;
    atomic_store(&teller->round, handlers[event].round);
    pthread_mutex_unlock(&lock);
    if (function != NULL) {
        *missed = atomic_exchange(&missed_events[event], 0);
        function(event, what, context);
    }
    atomic_store(&teller->state, TELLER_FREE);
    errno = saved;
    return function != NULL;
}

/* Is another thread in a handler that was replaced before this round? */
static bool
is_told_before(enum alcove_event event, uint64_t round)
{
    for (size_t i = 0; i < TELLERS; i++) {
        uint64_t its = atomic_load(&tellers[i].round);
        if (is_ready(&tellers[i]) && atomic_load(&tellers[i].event) == (int)event && its != 0 && its < round && !is_mine(&tellers[i]))
            return true;
    }
    return false;
}

int
events_on(enum alcove_event event, alcove_handler function, void *context)
{
    if ((unsigned)event >= EVENTS)
        return fail(ALCOVE_EINVAL, "on: there is no event %u: 0 is a message, 1 a refusal, 2 a crossing", (unsigned)event);
    pthread_mutex_lock(&lock);
    handlers[event].function = function;
    handlers[event].context = context;
    uint64_t round = ++handlers[event].round;
    atomic_store(&event_wanted[event], function != NULL);
    pthread_mutex_unlock(&lock);
    while (!is_telling() && is_told_before(event, round)) /* two handlers that replace each other would wait for ever */
        nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
    return ALCOVE_OK;
}

void
events_off(enum alcove_event event, alcove_handler function)
{
    pthread_mutex_lock(&lock);
    bool its = (unsigned)event < EVENTS && handlers[event].function == function;
    pthread_mutex_unlock(&lock);
    if (its)
        events_on(event, NULL, NULL);
}

void
events_forked(void)
{
    lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    for (size_t i = 0; i < TELLERS; i++)
        if (!is_mine(&tellers[i]))
            atomic_store(&tellers[i].state, TELLER_FREE);
}
