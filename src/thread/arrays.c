/* Memory for the arrays of a cache set's bins. */
#include "thread/arrays.h"

#include <stdint.h>
#include <string.h>

#include "ground/page.h"
#include "os/os.h"
#include "pages/base.h"

void
arrays_init(struct arrays *a, void *memory, size_t size)
{
    memset(a, 0, sizeof *a);
    a->begin = a->next = (char *)(((uintptr_t)memory + PAGE_MASK) & ~(uintptr_t)PAGE_MASK);
    a->end = (char *)(((uintptr_t)memory + size) & ~(uintptr_t)PAGE_MASK);
    if (a->end < a->begin) /* pages are larger than what there is */
        a->end = a->begin;
}

static struct arrays_spare **
spares_of(struct arrays *a, size_t size)
{
    return &a->spares[__builtin_ctzl(size) - ARRAYS_LG_LEAST];
}

void *
arrays_take(struct arrays *a, size_t size)
{
    if (a == NULL)
        return base_alloc(size);
    struct arrays_spare **list = spares_of(a, size), *spare = *list;
    if (spare != NULL) {
        *list = spare->next;
        return spare;
    }
    if ((size_t)(a->end - a->next) < size)
        return base_alloc(size);
    a->next += size;
    return a->next - size;
}

void
arrays_give(struct arrays *a, void *array, size_t size)
{
    if (a == NULL || (uintptr_t)array < (uintptr_t)a->begin || (uintptr_t)array >= (uintptr_t)a->end) {
        base_free(array, size);
        return;
    }
    struct arrays_spare **list = spares_of(a, size), *spare = array;
    spare->next = *list;
    *list = spare;
}

void
arrays_purge(struct arrays *a)
{
    size_t used = ((size_t)(a->next - a->begin) + PAGE_MASK) & ~(size_t)PAGE_MASK;
    if (used == 0 || !os_purge(a->begin, used))
        return; /* refused: they are spare ones, and purged the next time */
    arrays_init(a, a->begin, (size_t)(a->end - a->begin));
}
