/* All thread records and what they are doing, for the files of this folder. */
#ifndef THREAD_RECORDS_H
#define THREAD_RECORDS_H

#include "thread/record.h"

struct record_list {
    struct record_head *newest, *oldest; /* by the time since when they are in it */
};

struct records {
    struct lock lock; /* guards all that is here, and what a record says of itself */
    struct record_head *all;
    struct record_list lists[THREAD_STATES];
    struct record_head *next, *next_young; /* live ones where the two looks for ended threads go on; NULL: at the newest */
    uint32_t live;                    /* how many are; read without the lock, too */
    uint32_t resting;
    unsigned emptied;                 /* records in a row, with others waiting all the time */
    _Atomic bool retiring;            /* a record's caches just now; read without the lock */
    int process;                      /* whose threads they are */
    uint64_t next_look;               /* ms */
    _Atomic uint64_t due;             /* when there is something to do about records, ms; read without the lock */
};

extern HIDDEN struct records records;

/* For who follows the list of all without the lock: it only ever becomes longer, at this end. */
static inline struct record_head *
records_first(void)
{
    return __atomic_load_n(&records.all, __ATOMIC_ACQUIRE);
}

/* The first from this one on that has caches; NULL: none. The pages of others are not to be touched. */
static inline struct record_head *
record_from(struct record_head *head)
{
    while (head != NULL && atomic_load(&head->state) == THREAD_BARE)
        head = head->next;
    return head;
}

/* No wait for records is longer. */
#define RECORDS_WAIT_MS 1000

/* Have `ms` gone by, which are at most RECORDS_WAIT_MS? A clock that went back since is taken for yes. */
static inline bool
record_waited(uint64_t since, uint64_t now, uint64_t ms)
{
    return now < since || now - since >= ms;
}

/* How many of `all` records are looked at by a turn that comes `late` ms after it was due, so that a round takes `round` ms
 * however seldom there is a turn; `least` at least, if there are so many. */
static inline uint32_t
records_share(uint32_t all, uint64_t late, uint64_t round, uint32_t least)
{
    uint64_t share = late < round ? all * late / round : all;
    if (share < least)
        share = least;
    return share < all ? (uint32_t)share : all;
}

/* Move a record to the list of a state, as its newest. */
void record_move(struct record_head *head, enum thread_state state);

/* Give back all that a resting record's caches hold. */
void record_empty(struct record_head *head);

/* Give back an empty record's caches and its pages. False: somebody looks at the caches just now. */
bool record_strip(struct record_head *head);

/* These look for live records whose threads have ended, and let them rest. With a loader, which tells of ends, they do nothing. */

/* Among those that started lately, for an heir. `self` is its number in the system: a record with that is of a thread before it. */
void records_find_ended_young(int self);

/* Among all, a few at a time, and on as long as there are some. */
void records_find_ended(uint64_t now);

/* All. */
void records_find_all_ended(void);

#endif
