/* The walk over an object's words that hold addresses we know. */
#include "keeper/lead.h"
#include "keeper/thunks.h"

#include "elf/words.h"

#include <string.h>

/* What we know the originals by, and where thunks lead, stays what it is. */
static bool
is_ours(const void *word)
{
    return (uintptr_t)word - (uintptr_t)&routes < sizeof routes || thunk_way_is(word);
}

/* What is being done to an object. */
struct leading {
    const struct values *values;
    lead_choice *choose;
    const void *context;
    struct writer writer;
    unsigned count;
    int first_error;
};

static void
word_lead(struct leading *leading, void **word)
{
    void *value = word_load(word);
    struct route route = route_of(value, -1);
    void *to = is_ours(word) || route.kind == ROUTE_NONE ? NULL : leading->choose(route, leading->context);
    if (to == NULL || to == value)
        return;
    int error = writer_store(&leading->writer, word, value, to);
    leading->count += error == 0;
    if (error != 0 && error != WORD_CHANGED && leading->first_error == 0)
        leading->first_error = error;
}

/* Packed tables, and text. A program's copy of a variable may be packed, too: it may have a word at any place. */
static void
imports_lead(struct leading *leading, const struct object *object)
{
    struct import_cursor cursor = imports_beside_words(object);
    struct import import;
    while (import_next(&cursor, &import)) {
        char *start = (char *)import.slot, *last = start + import.bytes - 1;
        if (import.bytes < sizeof(void *) || !word_readable(NULL, object, (uintptr_t)start) || !word_readable(NULL, object, (uintptr_t)last))
            continue;
        for (char *word = start; word + sizeof(void *) - 1 <= last; word++)
            if (value_among(leading->values->of, leading->values->count, (uintptr_t)word_load(word)))
                word_lead(leading, (void **)word);
    }
}

int
object_lead(const struct object *object, const struct values *values, lead_choice *choose, const void *context, unsigned *count)
{
    struct word_cursor cursor = words_of(object, values->of, values->count);
    struct leading leading = {.values = values, .choose = choose, .context = context, .writer = writer_of(object)};
    void **word;
    while (word_next(&cursor, &word))
        word_lead(&leading, word);
    imports_lead(&leading, object);
    int error = writer_end(&leading.writer);
    if (count != NULL)
        *count += leading.count;
    return leading.first_error != 0 ? leading.first_error : error;
}

/* They lie in memory that is always writable, nobody else stores into them, and they are few: each place is looked at. */
UNSEEN_BY_TSAN unsigned
thread_lead(const struct dl_phdr_info *info, const struct values *values, lead_choice *choose, const void *context)
{
    unsigned count = 0;
    size_t bytes = 0;
    for (size_t i = 0; i < info->dlpi_phnum; i++) /* of several the dynamic linkers take the last */
        if (info->dlpi_phdr[i].p_type == PT_TLS && info->dlpi_phdr[i].p_memsz != 0)
            bytes = info->dlpi_phdr[i].p_memsz;
    for (size_t at = 0; info->dlpi_tls_data != NULL && at + sizeof(void *) <= bytes; at++) {
        char *word = (char *)info->dlpi_tls_data + at;
        void *value = word_load(word);
        if (!value_among(values->of, values->count, (uintptr_t)value))
            continue;
        struct route route = route_of(value, -1);
        void *to = route.kind != ROUTE_NONE ? choose(route, context) : NULL;
        if (to != NULL && to != value) {
            memcpy(word, &to, sizeof to);
            count++;
        }
    }
    return count;
}

void *
lead_to_rest(struct route route, const void *unused)
{
    (void)unused;
    if (route.kind == ROUTE_ORIGINAL || route.kind == ROUTE_DISPATCHER)
        return route_resting(route.which, route.variant);
    return NULL;
}

void *
lead_to_original(struct route route, const void *unused)
{
    (void)unused;
    return route.kind == ROUTE_GUARD || route.kind == ROUTE_DISPATCHER ? routes.original[route.which][route.variant] : NULL;
}
