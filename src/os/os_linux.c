/* The operating system: Linux. */
#define _GNU_SOURCE
#include "os/os.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

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

static void *
map_anywhere(size_t size)
{
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                   -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

void *
os_map(size_t size, size_t alignment)
{
    int saved = errno;
    char *p = pages_too_large ? NULL : map_anywhere(size);
    if (p != NULL && ((uintptr_t)p & (alignment - 1)) != 0) {
        /* Map more than is wanted and cut off both ends. */
        munmap(p, size);
        size_t more = size + alignment - SYSTEM_PAGE_LEAST;
        p = more < size ? NULL : map_anywhere(more);
        if (p != NULL) {
            size_t head = -(uintptr_t)p & (alignment - 1);
            size_t tail = more - head - size;
            if (head != 0)
                munmap(p, head);
            if (tail != 0)
                munmap(p + head + size, tail);
            p += head;
        }
    }
    errno = saved;
    return p;
}

void
os_unmap(void *address, size_t size)
{
    int saved = errno;
    munmap(address, size);
    errno = saved;
}

void
os_purge(void *address, size_t size)
{
    int saved = errno;
    /* Locked pages (mlockall) cannot be dropped, only cleared. */
    if (madvise(address, size, MADV_DONTNEED) != 0)
        memset(address, 0, size);
    errno = saved;
}

void
os_forget(const void *begin, const void *end)
{
    int saved = errno;
    uintptr_t from = ((uintptr_t)begin + PAGE_MASK) & ~PAGE_MASK, to = (uintptr_t)end & ~PAGE_MASK;
    if (from < to)
        madvise((void *)from, to - from, MADV_DONTNEED);
    errno = saved;
}

void
os_huge_pages(void *address, size_t size, bool use)
{
    int saved = errno;
    madvise(address, size, use ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
    errno = saved;
}

bool
os_resize(void *address, size_t old_size, size_t new_size)
{
    int saved = errno;
    bool done = mremap(address, old_size, new_size, 0) != MAP_FAILED;
    errno = saved;
    return done;
}

bool
os_move(void *from, size_t old_size, void *to, size_t new_size)
{
    int saved = errno;
    bool done = mremap(from, old_size, new_size, MREMAP_MAYMOVE | MREMAP_FIXED, to) != MAP_FAILED;
    errno = saved;
    return done;
}

#ifdef MREMAP_DONTUNMAP
static bool
move_pages(void *from, size_t size, void *to)
{
    return mremap(from, size, size, MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP, to) != MAP_FAILED;
}

/* Do the old pages stay? qemu's emulation of a single program has the kernel move them, and takes them
 * for unmapped itself. Tried once, with pages of no use: a wait that is over before it begins reads its time
 * there, which qemu refuses where it thinks that nothing is. madvise it grants for any address. */
enum { FUTEX_WAIT_PRIVATE = 128 }; /* as in <linux/futex.h>, which a libc does not come with */

static bool
moved_pages_stay(void)
{
    static _Atomic enum { UNTRIED, STAY, LOST } outcome;
    if (outcome == UNTRIED) {
        uint32_t word = 0;
        char *pages = map_anywhere(2 * PAGE_SIZE);
        bool stay = pages != NULL && move_pages(pages, PAGE_SIZE, pages + PAGE_SIZE) &&
                    syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 1, pages, NULL, 0) != 0 && errno == EAGAIN;
        if (pages != NULL)
            munmap(pages, 2 * PAGE_SIZE);
        outcome = stay ? STAY : LOST;
    }
    return outcome == STAY;
}
#endif

bool
os_move_pages(void *from, size_t size, void *to)
{
    int saved = errno;
    bool done = false;
#ifdef MREMAP_DONTUNMAP
    done = moved_pages_stay() && move_pages(from, size, to);
#endif
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
    bool ended = syscall(SYS_tgkill, getpid(), id, 0) != 0 && errno == ESRCH;
    errno = saved;
    return ended;
}
