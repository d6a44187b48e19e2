/* All thread records and what they are doing, for the files of this folder. */
#ifndef THREAD_RECORDS_H
#define THREAD_RECORDS_H

#include "thread/record.h"

struct records {
    struct lock lock; /* guards all that is here, and what a record says of itself */
    struct thread *all, *idle;
    struct thread *cursor; /* where the next look for ended threads goes on */
    uint32_t live;
    int process;           /* whose threads they are */
};

extern HIDDEN struct records records;

/* A record's thread has ended: it waits for an heir. */
void record_make_idle(struct thread *t);

#define NOBODY (-1)
#define ALL_RECORDS UINT32_MAX

/* Look at `most` live records for some whose threads have ended, and make them idle; with a loader, which tells, at none.
 * `self`: the calling thread's number, if it has no record: then a record with that number is of a thread before it. */
void records_find_ended(unsigned most, int self);

#endif
