/* The walk over an object's words that hold addresses we know. */
#include "keeper/lead.h"
#include "keeper/thunks.h"

#include "elf/words.h"

/* What we know the originals by, and where thunks lead, stays what it is. */
static bool
is_ours(const void *word)
{
    return (uintptr_t)word - (uintptr_t)&routes < sizeof routes || thunk_way_is(word);
}

int
object_lead(const struct object *object, const struct values *values, lead_choice *choose, const void *context, unsigned *count)
{
    struct word_cursor cursor = words_of(object, values->of, values->count);
    struct writer writer = writer_of(object);
    void **word;
    int first_error = 0;
    while (word_next(&cursor, &word)) {
        void *value = __atomic_load_n(word, __ATOMIC_RELAXED);
        struct route route = route_of(value, -1);
        void *to = is_ours(word) || route.kind == ROUTE_NONE ? NULL : choose(route, context);
        if (to == NULL || to == value)
            continue;
        int error = writer_store(&writer, word, value, to);
        if (error == 0 && count != NULL)
            ++*count;
        if (error != 0 && error != WORD_CHANGED && first_error == 0)
            first_error = error;
    }
    int error = writer_end(&writer);
    return first_error != 0 ? first_error : error;
}

/* They lie in memory that is always writable, and nobody else stores into them. */
UNSEEN_BY_TSAN unsigned
thread_lead(const struct dl_phdr_info *info, const struct values *values, lead_choice *choose, const void *context)
{
    unsigned count = 0;
    for (size_t i = 0; i < info->dlpi_phnum; i++) {
        if (info->dlpi_phdr[i].p_type != PT_TLS || info->dlpi_tls_data == NULL)
            continue;
        uintptr_t start = ((uintptr_t)info->dlpi_tls_data + sizeof(void *) - 1) & ~(sizeof(void *) - 1);
        uintptr_t end = (uintptr_t)info->dlpi_tls_data + info->dlpi_phdr[i].p_memsz;
        for (void **word = (void **)start; (uintptr_t)(word + 1) <= end && values->count != 0; word++) {
            if ((uintptr_t)*word - values->of[0] > values->of[values->count - 1] - values->of[0])
                continue;
            struct route route = route_of(*word, -1);
            void *to = route.kind != ROUTE_NONE ? choose(route, context) : NULL;
            if (to != NULL && to != *word) {
                *word = to;
                count++;
            }
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
