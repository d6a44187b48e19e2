/* What the allocator has to say, it says through <prefix>malloc_message, or on standard error. */
#ifndef GROUND_MESSAGE_H
#define GROUND_MESSAGE_H

/* A line of its own; the library's name is put before it. Keeps errno. */
void message(const char *format, ...) __attribute__((format(printf, 1, 2), cold));

/* The same about a misuse by the caller; aborts if the option abort is set. No lock is held, and whoever takes the message or
 * handles SIGABRT may allocate: where locks are held, see ground/misuse.h. */
void message_misuse(const char *format, ...) __attribute__((format(printf, 1, 2), cold));

/* Abort if the option abort is set. */
void message_abort(void) __attribute__((cold));

#endif
