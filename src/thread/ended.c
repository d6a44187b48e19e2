/* The search for threads that have ended, where no loader tells of it. `records.lock` is held. */
#include "ground/services.h"
#include "os/os.h"
#include "thread/records.h"

static bool
has_ended(const struct thread *t, int self)
{
    return t->state == THREAD_LIVE && (t->id == self || os_thread_has_ended(t->id));
}

void
records_find_ended(unsigned most, int self)
{
    /* A child that was made without our fork handlers cannot ask about threads of its parent: all would seem to have ended. */
    if (services.thread_started != NULL || os_process_id() != records.process)
        return;
    if (most == ALL_RECORDS)
        records.cursor = NULL; /* from the first */
    for (unsigned i = 0; i < most && records.all != NULL; i++) {
        struct thread *t = records.cursor != NULL ? records.cursor : records.all;
        records.cursor = t->next;
        if (has_ended(t, self))
            record_make_idle(t);
        if (t->next == NULL)
            break;
    }
}
