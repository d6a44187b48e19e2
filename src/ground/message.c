/* Messages. */
#include "ground/message.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ground/attributes.h"
#include "ground/conf.h"
#include "ground/lock.h"
#include "ground/services.h"
#include "ground/system.h"

/* Replaced by a program that wants the messages; the first argument is NULL. */
API_WEAK void (*ALCOVE_PUBLIC(malloc_message))(void *, const char *);

static void __attribute__((format(printf, 1, 0)))
message_write(const char *format, va_list arguments)
{
    int saved = errno;
    char line[512];
    int start = snprintf(line, sizeof line, "<alcove>: ");
    int n = vsnprintf(line + start, sizeof line - (size_t)start - 1, format, arguments);
    size_t length = strlen(line);
    if (n < 0)
        length = (size_t)start;
    line[length] = '\0';
    if (ALCOVE_PUBLIC(malloc_message) == NULL && services.message != NULL && services.message(services.lender, line + start) != 0) {
        errno = saved;
        return;
    }
    line[length++] = '\n';
    if (length < sizeof line)
        line[length] = '\0';
    else
        line[sizeof line - 1] = '\0';
    if (ALCOVE_PUBLIC(malloc_message) != NULL)
        ALCOVE_PUBLIC(malloc_message)(NULL, line);
    else
        system_write_error(line, length);
    errno = saved;
}

void
message(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    message_write(format, arguments);
    va_end(arguments);
}

void
message_misuse(const char *format, ...)
{
    va_list arguments;
    lock_check_none();
    va_start(arguments, format);
    message_write(format, arguments);
    va_end(arguments);
    message_abort();
}

void
message_abort(void)
{
    if (conf.abort)
        abort();
}
