/*
 * Walks an object's notes. They may be of any length up to 4 GiB, as they say themselves: sums are of 64 bits.
 */
#include "elf/notes.h"

#include <string.h>

struct note_cursor
notes_of(const struct object *object)
{
    return (struct note_cursor){.object = object};
}

/* Go on to the next segment of notes. False: there is none. */
static bool
segment_next(struct note_cursor *cursor)
{
    const struct object *object = cursor->object;
    while (cursor->segment < object->segment_count) {
        const ElfW(Phdr) *segment = &object->segments[cursor->segment++];
        if (segment->p_type != PT_NOTE)
            continue;
        cursor->at = object->base + segment->p_vaddr;
        size_t room = object_room(object, cursor->at, PF_R);
        cursor->left = segment->p_memsz < room ? segment->p_memsz : room;
        cursor->alignment = segment->p_align == 8 ? 8 : 4; /* nothing else is in use */
        return true;
    }
    return false;
}

static uint64_t
aligned_up(uint64_t bytes, uint64_t alignment)
{
    return (bytes + alignment - 1) & ~(alignment - 1);
}

bool
note_next(struct note_cursor *cursor, struct note *out)
{
    for (;;) {
        ElfW(Nhdr) header;
        while (cursor->left < sizeof header)
            if (!segment_next(cursor))
                return false;
        memcpy(&header, (const void *)cursor->at, sizeof header);
        uint64_t text = aligned_up(sizeof header + (uint64_t)header.n_namesz, cursor->alignment);
        uint64_t end = text + header.n_descsz;
        if (end > cursor->left) {
            cursor->left = 0;
            continue;
        }
        *out = (struct note){
            .name = (const char *)cursor->at + sizeof header,
            .name_bytes = header.n_namesz,
            .type = header.n_type,
            .text = (const char *)cursor->at + text,
            .bytes = header.n_descsz,
        };
        uint64_t next = aligned_up(end, cursor->alignment);
        size_t step = next < cursor->left ? (size_t)next : cursor->left;
        cursor->at += step;
        cursor->left -= step;
        return true;
    }
}
