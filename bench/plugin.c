/*
 * The small library that the benchmark opens as a module: it works with its own malloc and free,
 * which are routed, and knows nothing of alcove.
 */
#include "works.h"

#include <stdlib.h>

__attribute__((visibility("default"))) plugin_pairs_function plugin_pairs;
__attribute__((visibility("default"))) plugin_batch_function plugin_batch;

void plugin_pairs(size_t size, long count)
{
    for (long i = 0; i < count; i++) {
        void *block = malloc(size);
        OPAQUE(block);
        free(block);
    }
}

void plugin_batch(struct batch *batch, long count)
{
    for (long turn = 0; turn < count; turn++) {
        for (int i = 0; i < BATCH; i++)
            batch->block[i] = malloc(batch->size[i]);
        for (int i = 0; i < BATCH; i++)
            free(batch->block[batch->order[i]]);
    }
}
