/*
 * The calling thread's last message. Each thread owns its buffer, taken at its first failure and
 * freed when it ends; no TLS variable, so that the loader's TLS block stays small enough for libc
 * to place it statically when the loader comes late. Clients' messages are the keeper's too: fail() goes there.
 */
#include "loader.h"

#include "keeper/meeting.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MESSAGE_BYTES 1024
#define LETTER_MOST 3 /* bytes of a letter in UTF-8 after its first */

static _Atomic int64_t key = -1; /* -1: none was free yet */

/* For threads that have no buffer, since no key is free or no memory: the last message of one of them, and whose. */
static char shared[MESSAGE_BYTES];
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
static char *
own_buffer(void)
{
    pthread_key_t own;
    if (!key_get(&own))
        return NULL;
    char *buffer = pthread_getspecific(own);
    if (buffer == NULL) {
        buffer = calloc(1, MESSAGE_BYTES);
        if (buffer != NULL && pthread_setspecific(own, buffer) != 0) {
            free(buffer);
            buffer = NULL;
        }
    }
    return buffer;
}

static char *
message_buffer(void)
{
    char *buffer = own_buffer();
    if (buffer != NULL)
        return buffer;
    atomic_store(&shared_by, pthread_self());
    atomic_store(&shared_used, true);
    return shared;
}

int
fail_here(int code, const char *format, va_list arguments)
{
    vsnprintf(message_buffer(), MESSAGE_BYTES, format, arguments);
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
    char *buffer = message_buffer();
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(buffer, MESSAGE_BYTES, format, arguments);
    va_end(arguments);
    size_t length = strlen(buffer);
    snprintf(buffer + length, MESSAGE_BYTES - length, ": %s", strerror(error));
    return code;
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
    int64_t known = atomic_load(&key);
    const char *own = known >= 0 ? pthread_getspecific((pthread_key_t)known) : NULL;
    if (own != NULL)
        return own;
    return atomic_load(&shared_used) && pthread_equal(atomic_load(&shared_by), pthread_self()) ? shared : "";
}
