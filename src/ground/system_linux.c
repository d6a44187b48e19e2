/* Waiting, waking and writing: Linux. */
#include "ground/system.h"

#include <errno.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* As in <linux/futex.h>, which a libc does not come with. */
enum { FUTEX_WAIT_PRIVATE = 128 | 0, FUTEX_WAKE_PRIVATE = 128 | 1 };

void
system_futex_wait(_Atomic uint32_t *word, uint32_t seen)
{
    int saved = errno;
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
    errno = saved;
}

void
system_futex_wake(_Atomic uint32_t *word)
{
    int saved = errno;
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
    errno = saved;
}

bool
system_word_is(const uint32_t *word, uint32_t value)
{
    int saved = errno;
    const struct timespec no_time = { 0 }; /* it only looks, and does not sleep */
    bool is = syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, &no_time, NULL, 0) == 0 || errno == ETIMEDOUT || errno == EINTR;
    errno = saved;
    return is;
}

void
system_write_error(const char *text, size_t length)
{
    int saved = errno;
    while (length > 0) {
        ssize_t n = syscall(SYS_write, STDERR_FILENO, text, length); /* write() is where a thread may be cancelled: in the middle of free */
        if (n <= 0)
            break;
        text += n;
        length -= (size_t)n;
    }
    errno = saved;
}
