/*
 * The search for threads that have ended, where no loader tells of it. `records.lock` is held.
 *
 * Asking the system costs a call for each thread. A few are asked about at a time; if one of them has ended, others
 * may have with it, and the search goes on. Two searches go round: over the threads that started lately, of which
 * the most end, when a thread wants a record; and over all, in turns.
 */
#include "ground/services.h"
#include "os/os.h"
#include "thread/records.h"

#define LOOK 4         /* threads asked about at a time, by a turn that is not late */
#define LOOK_NEWEST 2  /* by a thread that wants a record, before it looks at others */
#define LOOK_MOST 64   /* in such a turn, while some have ended */
#define LOOK_MS 10     /* between two turns' searches that find nothing */
#define ROUND_MS RECORDS_WAIT_MS /* that a search over all takes at least, while it finds nothing */
#define YOUNG_MS 1000  /* how long a thread is young */
#define NOBODY (-1)

/* A child that was made without our fork handlers cannot ask about threads of its parent: all would seem to have ended. */
static bool
can_ask(void)
{
    return services.thread_started == NULL && os_process_id() == records.process;
}

/* Look at `most` from *next on, which wraps at the end, or where threads are older than `youngest`. How many have ended? */
static unsigned
look(struct record_head **next, unsigned most, uint64_t youngest, int self)
{
    unsigned ended = 0;
    for (unsigned i = 0; i < most; i++) {
        struct record_head *head = *next != NULL && (*next)->since >= youngest ? *next : records.lists[THREAD_LIVE].newest;
        if (head == NULL || (head->since < youngest && i != 0))
            break;
        *next = head->older;
        bool known = head->id > 0; /* the system may refuse to tell a thread its number */
        if (known && (head->id == self || os_thread_has_ended(head->id))) {
            record_move(head, THREAD_RESTING);
            ended++;
        }
    }
    return ended;
}

/* The same on and on, while some have ended. `late`: so many ms ago there was one to look at. */
static unsigned
look_on(struct record_head **next, uint64_t youngest, int self, uint64_t late)
{
    unsigned ended = 0, found, looked = 0, all = records.live;
    unsigned enough = records_share(all, late, ROUND_MS, LOOK_MOST);
    do {
        unsigned most = records_share(all, looked == 0 ? late : 0, ROUND_MS, LOOK);
        found = look(next, most, youngest, self);
        ended += found;
        looked += most;
    } while (found != 0 && looked < enough);
    return ended;
}

void
records_find_ended_young(int self)
{
    if (!can_ask())
        return;
    uint64_t now = os_clock_ms();
    struct record_head *newest = NULL; /* has ended, where threads come one after the other */
    if (look(&newest, records.live < LOOK_NEWEST ? records.live : LOOK_NEWEST, 0, self) == 0)
        look_on(&records.next_young, now > YOUNG_MS ? now - YOUNG_MS : 0, self, 0);
}

void
records_find_ended(uint64_t now)
{
    if (!can_ask())
        return;
    uint64_t pace = ROUND_MS * LOOK / (records.live + 1);
    if (pace < LOOK_MS)
        pace = LOOK_MS;
    if (pace > ROUND_MS)
        pace = ROUND_MS;
    uint64_t late = now > records.next_look ? now - records.next_look : 0;
    records.next_look = look_on(&records.next, 0, NOBODY, late) != 0 ? now : now + pace;
}

void
records_find_all_ended(void)
{
    if (!can_ask())
        return;
    records.next = NULL;
    look(&records.next, records.live, 0, NOBODY);
}
