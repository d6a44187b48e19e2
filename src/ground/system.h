/*
 * What the ground itself needs of the system: to wait, to wake, to write a message; and to look at a word as a futex. All else
 * is behind os/os.h. Functions keep errno.
 */
#ifndef GROUND_SYSTEM_H
#define GROUND_SYSTEM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Sleep as long as *word is `seen`; may wake for no reason. */
void system_futex_wait(_Atomic uint32_t *word, uint32_t seen);
/* Wake one that sleeps. */
void system_futex_wake(_Atomic uint32_t *word);
/* Is this a word's value? It need not be mapped: then it is not; nor if the system does not tell. */
bool system_word_is(const uint32_t *word, uint32_t value);

/* Write a message to standard error. */
void system_write_error(const char *text, size_t length);

static inline void
system_cpu_pause(void)
{
#if defined __x86_64__ || defined __i386__
    __builtin_ia32_pause();
#elif defined __aarch64__
    __asm__ volatile("yield");
#else
    __asm__ volatile("" ::: "memory");
#endif
}

#endif
