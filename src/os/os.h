/*
 * The only door to the operating system for memory, clock and threads. One os_*.c file
 * per system implements it; nothing else includes sys/mman.h. Functions keep errno as it was
 * unless they say otherwise.
 */
#ifndef OS_OS_H
#define OS_OS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Address space of `size` bytes, readable, writable and zero, aligned to `alignment` (a power of
 * two, at least a page). NULL if the system has none. */
void *os_map(size_t size, size_t alignment);

/* The same at this address. False if something is there, or the system has none. */
bool os_map_at(void *address, size_t size);

/* Give address space back. False if the system refuses, as it may where that would part one mapping in two: it is as it was. */
bool os_unmap(void *address, size_t size);

/* Give address space back, now or later: what the system refuses is purged, and tried again at later calls. */
void os_give_up(void *address, size_t size);
/* Try that again now. How many bytes are refused still. */
void os_give_up_refused(void);
size_t os_refused_bytes(void);

/* Drop the contents of pages that stay mapped: they read as zero afterwards. False: the system refuses; they are as they
 * were. */
bool os_purge(void *address, size_t size);

/* Let huge pages be used (true) or not (false) in a range. A hint. */
void os_huge_pages(void *address, size_t size, bool use);

/* Grow a mapping where it is. False if it cannot; *movable: because what follows is taken, or the system has no more. Else the
 * range is more than one mapping, or the system forbids it, and will do so for os_move(). */
bool os_resize(void *address, size_t old_size, size_t new_size, bool *movable);

/* Move a mapping into `to`, a range just had from os_map(), of new_size bytes; the rest stays zero. False if the system refuses:
 * it is as it was, and `to` was given up. */
bool os_move(void *from, size_t old_size, void *to, size_t new_size);

/* Milliseconds of a clock that only goes forward; cheap, a few milliseconds coarse. */
uint64_t os_clock_ms(void);

/* This thread's number in the system, above 0, or -1 if it refuses to tell; has the thread of a number ended, late destructors and
 * all? */
int os_process_id(void);
int os_thread_id(void);
bool os_thread_has_ended(int id);

#endif
