/*
 * The calling thread's last message. Each thread owns its buffer, taken at its first failure and
 * freed when it ends; no TLS variable, so that the loader's TLS block stays small enough for libc
 * to place it statically when the loader comes late.
 */
#include "loader.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MESSAGE_BYTES 1024

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t key;
static bool have_key;

static void
key_create(void)
{
    have_key = pthread_key_create(&key, free) == 0;
}

static char *
message_buffer(void)
{
    pthread_once(&once, key_create);
    if (!have_key)
        return NULL;
    char *buffer = pthread_getspecific(key);
    if (buffer == NULL) {
        buffer = calloc(1, MESSAGE_BYTES);
        if (buffer != NULL && pthread_setspecific(key, buffer) != 0) {
            free(buffer);
            buffer = NULL;
        }
    }
    return buffer;
}

int
fail(int code, const char *format, ...)
{
    char *buffer = message_buffer();
    if (buffer != NULL) {
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(buffer, MESSAGE_BYTES, format, arguments);
        va_end(arguments);
    }
    return code;
}

int
fail_errno(int code, int error, const char *format, ...)
{
    char *buffer = message_buffer();
    if (buffer != NULL) {
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(buffer, MESSAGE_BYTES, format, arguments);
        va_end(arguments);
        size_t length = strlen(buffer);
        snprintf(buffer + length, MESSAGE_BYTES - length, ": %s", strerror(error));
    }
    return code;
}

const char *
ALCOVE_PUBLIC(error_message)(void)
{
    pthread_once(&once, key_create);
    const char *buffer = have_key ? pthread_getspecific(key) : NULL;
    return buffer != NULL ? buffer : "";
}
