/*
 * Walks the writable segments of an object page by page, and the words of a page one by one.
 */
#include "elf/words.h"

#include <errno.h>
#include <sys/mman.h>

#include "ground/attributes.h"

#define LARGE ((uintptr_t)1 << 20) /* bytes; a smaller segment is read faster than asked about */

/* It reads between variables too, where AddressSanitizer expects nobody, and what others write meanwhile. */
#define READS_ALL __attribute__((no_sanitize_address)) UNSEEN_BY_TSAN

struct word_cursor
words_of(const struct object *object, const uintptr_t *values, size_t count)
{
    return (struct word_cursor){
        .object = object,
        .values = values,
        .value_count = count,
        .range = count != 0 ? values[count - 1] - values[0] : 0,
        .segment = count != 0 ? 0 : object->segment_count,
    };
}

static bool
segment_next(struct word_cursor *cursor)
{
    const struct object *object = cursor->object;
    while (cursor->segment < object->segment_count) {
        const ElfW(Phdr) *segment = &object->segments[cursor->segment++];
        uintptr_t start = object->base + segment->p_vaddr, end = start + segment->p_memsz;
        if (segment->p_type != PT_LOAD || (segment->p_flags & (PF_R | PF_W)) != (PF_R | PF_W) || end <= start)
            continue;
        cursor->stop = (start + sizeof(void *) - 1) & ~(sizeof(void *) - 1);
        cursor->segment_end = end & ~(sizeof(void *) - 1);
        cursor->large = end - start > LARGE;
        cursor->resident_end = 0;
        if (cursor->stop < cursor->segment_end)
            return true;
    }
    return false;
}

/* Of what the system doesn't tell, the page is as if it were resident. */
static bool
page_resident(struct word_cursor *cursor, uintptr_t page)
{
    const uintptr_t bytes = page_bytes();
    if (page < cursor->resident_start || page >= cursor->resident_end) {
        uintptr_t pages = (cursor->segment_end - page + bytes - 1) / bytes;
        if (pages > WORDS_LOOKED_UP)
            pages = WORDS_LOOKED_UP;
        cursor->resident_start = page;
        cursor->resident_end = page + pages * bytes;
        int saved = errno;
        if (mincore((void *)page, pages * bytes, cursor->resident) != 0)
            for (uintptr_t i = 0; i < pages; i++)
                cursor->resident[i] = 1;
        errno = saved;
    }
    return (cursor->resident[(page - cursor->resident_start) / bytes] & 1) != 0;
}

/* The words of the next page that is to be read. */
static bool
page_next(struct word_cursor *cursor)
{
    const uintptr_t bytes = page_bytes();
    while (cursor->stop < cursor->segment_end || segment_next(cursor)) {
        uintptr_t page = cursor->stop & ~(bytes - 1);
        cursor->at = cursor->stop;
        cursor->stop = cursor->segment_end - page > bytes ? page + bytes : cursor->segment_end;
        if ((!cursor->large || page_resident(cursor, page)) && word_readable(&cursor->known, cursor->object, cursor->at))
            return true;
    }
    return false;
}

UNSEEN_BY_TSAN static bool
value_wanted(const struct word_cursor *cursor, uintptr_t value)
{
    size_t low = 0, high = cursor->value_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (cursor->values[middle] < value)
            low = middle + 1;
        else
            high = middle;
    }
    return low < cursor->value_count && cursor->values[low] == value;
}

READS_ALL bool
word_next(struct word_cursor *cursor, void ***out)
{
    for (;;) {
        if (cursor->at == cursor->stop && !page_next(cursor))
            return false;
        const uintptr_t least = cursor->values[0], range = cursor->range, stop = cursor->stop;
        uintptr_t at = cursor->at;
        while (at < stop && __atomic_load_n((const uintptr_t *)at, __ATOMIC_RELAXED) - least > range)
            at += sizeof(void *);
        cursor->at = at;
        if (at == stop)
            continue;
        cursor->at += sizeof(void *);
        if (value_wanted(cursor, __atomic_load_n((const uintptr_t *)at, __ATOMIC_RELAXED))) {
            *out = (void **)at;
            return true;
        }
    }
}
