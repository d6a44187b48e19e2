/*
 * The calling thread's last message. Each thread owns its buffer, taken at its first failure and
 * freed when it ends; no TLS variable, so that the loader's TLS block stays small enough for libc
 * to place it statically when the loader comes late. Clients' messages are the keeper's too: fail() goes there.
 */
#include "escape.h"
#include "events.h"
#include "loader.h"

#include "keeper/meeting.h"

#include "ground/versions.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MESSAGE_BYTES 1024
#define LETTER_MOST 3 /* bytes of a letter in UTF-8 after its first */

struct buffer {
    char text[MESSAGE_BYTES];
    bool untold; /* whoever wants messages was not told of it yet */
};

static _Atomic int64_t key = -1; /* -1: none was free yet */

/* For threads that have no buffer, since no key is free or no memory: the last message of one of them, and whose. */
static struct buffer shared;
static _Atomic(pthread_t) shared_by;
static atomic_bool shared_used;

/* The key, made if there is none. False: none is free. */
static bool
key_get(pthread_key_t *out)
{
    int64_t known = atomic_load(&key);
    if (known < 0) {
        pthread_key_t made;
        if (pthread_key_create(&made, free) != 0)
            return false;
        if (atomic_compare_exchange_strong(&key, &known, (int64_t)made))
            known = (int64_t)made;
        else
            pthread_key_delete(made); /* another thread was first */
    }
    *out = (pthread_key_t)known;
    return true;
}

/* The thread's own buffer; NULL: it can have none. */
static struct buffer *
own_buffer(void)
{
    pthread_key_t own;
    if (!key_get(&own))
        return NULL;
    struct buffer *buffer = pthread_getspecific(own);
    if (buffer == NULL) {
        buffer = calloc(1, sizeof *buffer);
        if (buffer != NULL && pthread_setspecific(own, buffer) != 0) {
            free(buffer);
            buffer = NULL;
        }
    }
    return buffer;
}

static struct buffer *
message_buffer(void)
{
    struct buffer *buffer = own_buffer();
    if (buffer != NULL)
        return buffer;
    atomic_store(&shared_by, pthread_self());
    atomic_store(&shared_used, true);
    return &shared;
}

/* The thread's own, if it has one already. */
static struct buffer *
buffer_known(void)
{
    int64_t known = atomic_load(&key);
    return known >= 0 ? pthread_getspecific((pthread_key_t)known) : NULL;
}

/* The text is the caller's again when the handler has returned, whatever failed in there. */
void
error_tell(void)
{
    struct buffer *buffer = buffer_known();
    if (buffer == NULL || !buffer->untold || loader_is_held())
        return;
    buffer->untold = false;
    if (!event_wanted[ALCOVE_EVENT_MESSAGE])
        return;
    char text[MESSAGE_BYTES];
    memcpy(text, buffer->text, sizeof text);
    struct alcove_message message = {.size = FIGURES_SIZE(struct alcove_message), .text = text};
    event_tell(ALCOVE_EVENT_MESSAGE, &message, &message.missed);
    memcpy(buffer->text, text, sizeof text);
    buffer->untold = false;
}

/* Names in a text may hold anything. */
static void
message_set(const char *text)
{
    struct buffer *buffer = message_buffer();
    escape(buffer->text, sizeof buffer->text, text, false);
    buffer->untold = true;
    error_tell();
}

int
fail_here(int code, const char *format, va_list arguments)
{
    char text[MESSAGE_BYTES];
    vsnprintf(text, sizeof text, format, arguments);
    message_set(text);
    return code;
}

int
fail(int code, const char *format, ...)
{
    const struct keeper *keeper = keeper_known();
    va_list arguments;
    va_start(arguments, format);
    (keeper_has_messages(keeper) ? keeper->fail : fail_here)(code, format, arguments);
    va_end(arguments);
    return code;
}

int
fail_errno(int code, int error, const char *format, ...)
{
    char text[MESSAGE_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    size_t length = strlen(text);
    snprintf(text + length, sizeof text - length, ": %s", strerror(error));
    return fail(code, "%s", text);
}

/* How many characters a byte is shown in. One above 0x7f is part of a letter. */
static size_t
byte_width(unsigned char byte)
{
    return byte >= 0x20 && byte != 0x7f ? 1 : 4;
}

static char *
bytes_show(char *to, const char *from, const char *end)
{
    for (; from < end; from++)
        if (byte_width((unsigned char)*from) == 1)
            *to++ = *from;
        else
            to += sprintf(to, "\\x%02x", (unsigned char)*from);
    return to;
}

size_t
letter_begin(const char *text, size_t cut)
{
    for (unsigned i = 0; i < LETTER_MOST && cut > 0 && ((unsigned char)text[cut] & 0xc0) == 0x80; i++)
        cut--;
    return cut;
}

const char *
text_show(struct shown *out, const char *text)
{
    enum { ROOM = sizeof out->text - sizeof "..." - LETTER_MOST, HEAD = ROOM / 3, TAIL = ROOM - HEAD };
    size_t length = strlen(text), head = 0, tail = length, used = 0;
    while (head < length && used + byte_width((unsigned char)text[head]) <= ROOM)
        used += byte_width((unsigned char)text[head++]);
    bool cut = head < length;
    while (cut && used > HEAD)
        used -= byte_width((unsigned char)text[--head]);
    for (used = 0; cut && used + byte_width((unsigned char)text[tail - 1]) <= TAIL; tail--)
        used += byte_width((unsigned char)text[tail - 1]);
    char *to = bytes_show(out->text, text, text + letter_begin(text, head));
    if (cut)
        to = bytes_show(stpcpy(to, "..."), text + letter_begin(text, tail), text + length);
    *to = 0;
    return out->text;
}

const char *
error_message(void)
{
    const struct buffer *own = buffer_known();
    if (own != NULL)
        return own->text;
    return atomic_load(&shared_used) && pthread_equal(atomic_load(&shared_by), pthread_self()) ? shared.text : "";
}
