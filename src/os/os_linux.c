/* The operating system: Linux. */
#define _GNU_SOURCE
#include "os/os.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0 /* then the address is a hint */
#endif

#include "ground/fault.h"
#include "ground/page.h"
#include "ground/system.h"

/* The system's pages may be smaller than those that we are configured for, but not larger. */
#define SYSTEM_PAGE_LEAST ((size_t)4096)
static bool pages_too_large;

static void __attribute__((constructor))
check_pages(void)
{
    char text[160];
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    if (page <= PAGE_SIZE)
        return; /* without a store, which would make a page of variables resident */
    pages_too_large = true;
    int length = snprintf(text, sizeof text,
                          "<alcove>: configured for pages of %zu KiB, this system has %zu KiB: there will be no memory. "
                          "Configure with --with-lg-page=%d\n",
                          PAGE_SIZE >> 10, page >> 10, __builtin_ctzl(page));
    system_write_error(text, (size_t)length);
}

/* The calls that the system may refuse, and a test can have refused. */

static void *
call_map(enum fault_call call, void *hint, size_t size, int flags)
{
    if (pages_too_large || fault(call))
        return MAP_FAILED;
    return mmap(hint, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | flags, -1, 0);
}

static bool
call_unmap(void *address, size_t size)
{
    return !fault(FAULT_UNMAP) && munmap(address, size) == 0;
}

static bool
call_advise(enum fault_call call, void *address, size_t size, int advice)
{
    return !fault(call) && madvise(address, size, advice) == 0;
}

bool
os_map_at(void *address, size_t size)
{
    int saved = errno;
    void *p = call_map(FAULT_MAP_AT, address, size, MAP_FIXED_NOREPLACE);
    if (p != MAP_FAILED && p != address) { /* a system that does not know the flag takes it for a hint */
        os_give_up(p, size);
        p = MAP_FAILED;
    }
    errno = saved;
    return p != MAP_FAILED;
}

/* Where the next mapping would lie below the last one: there most have the alignment that is asked for at once, and are
 * each other's neighbours. Addresses that were unmapped above it are used first: mappings that come and go would walk down
 * through the addresses, and the page map grows with these. */
static _Atomic uintptr_t below;

static void
below_rise(const void *address, size_t size)
{
    if ((uintptr_t)address + size > atomic_load_explicit(&below, memory_order_relaxed))
        atomic_store_explicit(&below, (uintptr_t)address + size, memory_order_relaxed);
}

bool
os_unmap(void *address, size_t size)
{
    int saved = errno;
    bool done = call_unmap(address, size);
    if (done)
        below_rise(address, size);
    errno = saved;
    return done;
}

/* What the system refused to unmap, in a list that lies in itself. */
struct refused {
    struct refused *next;
    size_t size;
};
static _Atomic(struct refused *) refused;
static _Atomic size_t refused_bytes;

#define REFUSED_TRIES 16 /* that fail, in one turn */

static void
refused_push(struct refused *r)
{
    r->next = atomic_load_explicit(&refused, memory_order_relaxed);
    while (!atomic_compare_exchange_weak(&refused, &r->next, r))
        ;
}

/* What was not tried this time comes first the next. */
static void
refused_try_again(void)
{
    if (atomic_load_explicit(&refused, memory_order_relaxed) == NULL)
        return;
    unsigned tries = REFUSED_TRIES;
    for (struct refused *r = atomic_exchange(&refused, NULL), *next; r != NULL; r = next) {
        size_t size = r->size;
        next = r->next;
        if (tries > 0 && call_unmap(r, size)) {
            atomic_fetch_sub(&refused_bytes, size);
        } else {
            tries -= tries > 0;
            refused_push(r);
        }
    }
}

/* False: it stays mapped. */
static bool
give_up(void *address, size_t size)
{
    refused_try_again();
    if (call_unmap(address, size))
        return true;
    call_advise(FAULT_PURGE, address, size, MADV_DONTNEED);
    struct refused *r = address;
    r->size = size;
    atomic_fetch_add(&refused_bytes, size);
    refused_push(r);
    return false;
}

void
os_give_up(void *address, size_t size)
{
    int saved = errno;
    if (give_up(address, size))
        below_rise(address, size);
    errno = saved;
}

void
os_give_up_refused(void)
{
    int saved = errno;
    refused_try_again();
    errno = saved;
}

size_t
os_refused_bytes(void)
{
    return atomic_load_explicit(&refused_bytes, memory_order_relaxed);
}

static char *
map_aligned(size_t size, size_t alignment)
{
    uintptr_t hint = atomic_load_explicit(&below, memory_order_relaxed);
    hint = hint > size && alignment > SYSTEM_PAGE_LEAST ? (hint - size) & ~(alignment - 1) : 0;
    char *p = call_map(FAULT_MAP, (void *)hint, size, 0);
    /* What is free there may begin lower: the next multiple below takes no more addresses than are wanted. */
    for (int tries = 0; p != MAP_FAILED && ((uintptr_t)p & (alignment - 1)) != 0; tries++) {
        give_up(p, size);
        if (tries == 1)
            break;
        p = call_map(FAULT_MAP, (void *)((uintptr_t)p & ~(alignment - 1)), size, 0);
    }
    if (p == MAP_FAILED || ((uintptr_t)p & (alignment - 1)) == 0)
        return p != MAP_FAILED ? p : NULL;
    /* Map more than is wanted and cut off both ends. */
    size_t more = size + alignment - SYSTEM_PAGE_LEAST;
    p = more < size ? MAP_FAILED : call_map(FAULT_MAP, NULL, more, 0);
    if (p == MAP_FAILED)
        return NULL;
    size_t head = -(uintptr_t)p & (alignment - 1), tail = more - head - size;
    if (head != 0)
        give_up(p, head);
    if (tail != 0)
        give_up(p + head + size, tail);
    return p + head;
}

void *
os_map(size_t size, size_t alignment)
{
    int saved = errno;
    char *p = map_aligned(size, alignment);
    if (p != NULL && alignment > SYSTEM_PAGE_LEAST)
        atomic_store_explicit(&below, (uintptr_t)p, memory_order_relaxed);
    errno = saved;
    return p;
}

bool
os_purge(void *address, size_t size)
{
    int saved = errno;
    bool done = call_advise(FAULT_PURGE, address, size, MADV_DONTNEED);
    errno = saved;
    return done;
}

void
os_huge_pages(void *address, size_t size, bool use)
{
    int saved = errno;
    call_advise(FAULT_HINT, address, size, use ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
    errno = saved;
}

bool
os_resize(void *address, size_t old_size, size_t new_size, bool *movable)
{
    int saved = errno;
    bool done = !fault(FAULT_RESIZE) && mremap(address, old_size, new_size, 0) != MAP_FAILED;
    *movable = !done && errno == ENOMEM;
    errno = saved;
    return done;
}

/* Where a mapping is to be moved to, two words are written that nobody else writes. The system may unmap what is there before it
 * finds that it cannot move, and others may have been given these addresses before we are told. The number of this move is one. */
static _Atomic uint32_t moves;

bool
os_move(void *from, size_t old_size, void *to, size_t new_size)
{
    int saved = errno;
    uint32_t *words = to, ours = (uint32_t)((uintptr_t)&moves >> 4 ^ (uintptr_t)to >> 12) | 1;
    uint32_t number = atomic_fetch_add_explicit(&moves, 1, memory_order_relaxed);
    call_advise(FAULT_HINT, to, PAGE_SIZE, MADV_NOHUGEPAGE); /* one page is enough for them */
    words[0] = ours;
    words[1] = number;
    bool done = !fault(FAULT_MOVE) && !(fault(FAULT_MOVE_LATE) && munmap(to, new_size) == 0) &&
                mremap(from, old_size, new_size, MREMAP_MAYMOVE | MREMAP_FIXED, to) != MAP_FAILED;
    if (done)
        below_rise(from, old_size);
    else if (system_word_is(&words[0], ours) && system_word_is(&words[1], number))
        os_give_up(to, new_size);
    errno = saved;
    return done;
}

uint64_t
os_clock_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

int
os_process_id(void)
{
    return (int)getpid();
}

int
os_thread_id(void)
{
    return (int)syscall(SYS_gettid);
}

bool
os_thread_has_ended(int id)
{
    int saved = errno;
    bool ended = !fault(FAULT_THREAD) && syscall(SYS_tgkill, getpid(), id, 0) != 0 && errno == ESRCH;
    errno = saved;
    return ended;
}
