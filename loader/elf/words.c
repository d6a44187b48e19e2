/*
 * Walks the writable segments of an object page by page, and the words of a page one by one. Each aligned word is read once; with the one
 * before it, it makes the word that lies across the two.
 */
#include "elf/words.h"

#include <errno.h>
#include <sys/mman.h>

#include "ground/attributes.h"

#define HALF ((unsigned)sizeof(void *) / 2)
#define HALF_BITS (8 * HALF)
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
        cursor->segment_start = start;
        cursor->segment_stop = end;
        cursor->stop = start & ~(sizeof(void *) - 1); /* in the same page */
        cursor->segment_end = (end + sizeof(void *) - 1) & ~(sizeof(void *) - 1);
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
        if ((cursor->large && !page_resident(cursor, page)) || !word_readable(&cursor->known, cursor->object, cursor->at))
            continue;
        if (cursor->at != cursor->read_stop)
            cursor->read_start = cursor->at;
        cursor->read_stop = cursor->stop;
        return true;
    }
    return false;
}

UNSEEN_BY_TSAN bool
value_among(const uintptr_t *values, size_t count, uintptr_t value)
{
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (values[middle] < value)
            low = middle + 1;
        else
            high = middle;
    }
    return low < count && values[low] == value;
}

READS_ALL static bool
word_wanted(const struct word_cursor *cursor, uintptr_t address)
{
    return address >= cursor->segment_start && address <= cursor->segment_stop - sizeof(void *) &&
           value_among(cursor->values, cursor->value_count, (uintptr_t)word_load((const void *)address));
}

/* The word that lies across two that follow each other. */
static inline uintptr_t
across(uintptr_t before, uintptr_t value)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    return before >> HALF_BITS | value << HALF_BITS;
#else
    return before << HALF_BITS | value >> HALF_BITS;
#endif
}

READS_ALL bool
word_next(struct word_cursor *cursor, void ***out)
{
    for (;;) {
        if (cursor->at == cursor->stop && !page_next(cursor))
            return false;
        const uintptr_t least = cursor->values[0], range = cursor->range, stop = cursor->stop;
        uintptr_t at = cursor->at, value;
        bool alone = at == cursor->read_start; /* what is before it was not read */
        uintptr_t before = alone ? 0 : __atomic_load_n((const uintptr_t *)at - 1, __ATOMIC_RELAXED);
        for (; at < stop; at += sizeof(void *), before = value) {
            value = __atomic_load_n((const uintptr_t *)at, __ATOMIC_RELAXED);
            if (value - least <= range || across(before, value) - least <= range)
                break;
        }
        alone = alone && at == cursor->at;
        cursor->at = at;
        if (at == stop)
            continue;
        cursor->at += sizeof(void *);
        uintptr_t found = word_wanted(cursor, at) || alone ? at : at - HALF;
        if (word_wanted(cursor, found)) {
            *out = (void **)found;
            return true;
        }
    }
}
