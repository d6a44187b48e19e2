#include "hooker.h"
#include "slots.h"

#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

_Atomic unsigned long hooker_calls;

/* The places that were changed, and what they held. */
#define CHANGED_MOST 4096
static struct {
    void **slot;
    void *before;
} changed[CHANGED_MOST];
static unsigned count;
static void (*original)(void *);

static void
hook(void *block)
{
    hooker_calls++;
    original(block);
}

static void
slot_store(void **slot, void *value)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), start = (uintptr_t)slot & ~(page - 1);
    if (mprotect((void *)start, page, PROT_READ | PROT_WRITE) == 0)
        *slot = value;
}

static void
slot_hook(void **slot)
{
    if (count == CHANGED_MOST)
        return;
    changed[count].slot = slot;
    changed[count++].before = *slot;
    slot_store(slot, (void *)hook);
}

static int
object_hook(struct dl_phdr_info *info, size_t size, void *unused)
{
    (void)size;
    (void)unused;
    if (strstr(info->dlpi_name, "hooker") == NULL && strstr(info->dlpi_name, "/ld") == NULL)
        slots_named(info, "free", slot_hook);
    return 0;
}

unsigned
hooker_on(void)
{
    original = free;
    count = 0;
    dl_iterate_phdr(object_hook, NULL);
    return count;
}

void
hooker_off(void)
{
    while (count > 0) {
        count--;
        slot_store(changed[count].slot, changed[count].before);
    }
}
