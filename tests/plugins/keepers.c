/*
 * A library that says it is the keeper, of a loader's release that is not ours. Built four times: an older one, which does not
 * have all functions; the oldest, which has none; a newer one, which has more; one of another version.
 */
#include "keepers.h"

#include "keeper/meeting.h"

#include <stdio.h>
#include <stdlib.h>

static char said[1024];

static const char *
message(void)
{
    return said;
}

static int
fail(int code, const char *format, va_list arguments)
{
    vsnprintf(said, sizeof said, format, arguments);
    return code;
}

static int
load(alcove_allocator **out, const struct alcove_load_options *options, const void *caller)
{
    (void)out;
    (void)options;
    (void)caller;
    return KEEPERS_LOADED;
}

static int
refresh(void)
{
    return KEEPERS_REFRESHED;
}

static const struct {
    struct keeper known;
    void (*unknown)(void);
} keeper = {
    .known = {
        .version = KEEPERS_VERSION,
        .size = KEEPERS_SIZE,
        .release = KEEPERS_RELEASE,
        .error_message = message,
        .fail = fail,
        .load = load,
        .refresh = refresh,
    },
    .unknown = abort,
};

__attribute__((visibility("hidden"), used)) struct meeting keepers_meeting = {
    .version = KEEPERS_VERSION,
    .size = sizeof(struct meeting),
    .keeper = &keeper.known,
};
MEETING_NOTE(keepers_meeting);
