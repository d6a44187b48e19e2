/* Lists the modules: those that are open, and closed ones of which blocks are live. */
#include "loader.h"

#include <stdio.h>
#include <string.h>

struct list {
    char *out;
    size_t stride;
    uint32_t room, count;
};

static void
list_add(struct list *list, const struct alcove_module_entry *entry)
{
    if (list->count < list->room) {
        char *to = list->out + list->count * list->stride;
        memset(to, 0, list->stride);
        memcpy(to, entry, list->stride < sizeof *entry ? list->stride : sizeof *entry);
    }
    list->count++;
}

static void
list_figures(struct alcove_module_entry *entry, const struct allocator *allocator, uint32_t heap)
{
    struct alcove_heap_stats stats;
    entry->allocator = allocator->id;
    entry->heap = heap;
    if (heap == ALCOVE_HEAP_NONE || allocator->table->heap_stats(heap, &stats) != 0)
        return;
    entry->live_blocks = stats.live_blocks;
    entry->live_bytes = stats.live_bytes;
    entry->active_bytes = stats.active_bytes;
    entry->limit = stats.limit;
}

static void
list_open(struct list *list)
{
    for (const struct module *module = loader.modules; module != NULL; module = module->next) {
        if (module->closing) /* it is neither yet */
            continue;
        struct alcove_module_entry entry = {.module = module->id, .opens = module->opens, .policy = (uint32_t)module->policy, .resident = 1};
        snprintf(entry.name, sizeof entry.name, "%s", module->name);
        list_figures(&entry, module->allocator, module->heap);
        list_add(list, &entry);
    }
}

static void
list_closed(struct list *list, const struct allocator *allocator)
{
    for (uint32_t heap = 0; heap < allocator->records_end; heap++) {
        struct alcove_module_entry entry = {.module = NULL};
        if (!crossings_closed(allocator, heap, &entry))
            continue;
        list_figures(&entry, allocator, heap);
        if (entry.live_blocks != 0)
            list_add(list, &entry);
    }
}

int
modules_list(struct alcove_module_entry *out, uint32_t stride, uint32_t *count)
{
    if (count == NULL || (out == NULL && *count != 0))
        return fail(ALCOVE_EINVAL, "modules: %s is NULL; pass room for entries, and how many it is for", count == NULL ? "`count`" : "`out`");
    if (stride == 0 || stride % 8 != 0)
        return fail(ALCOVE_EINVAL, "modules: a stride of %u bytes is impossible: give sizeof(struct alcove_module_entry)", (unsigned)stride);
    struct list list = {.out = (char *)out, .stride = stride, .room = *count};
    loader_enter();
    list_open(&list);
    for EACH_ALLOCATOR(allocator)
        list_closed(&list, allocator);
    loader_leave();
    *count = list.count;
    return ALCOVE_OK;
}
