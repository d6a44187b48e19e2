/* Figures: what heaps and thread caches have counted, put together. */
#ifndef STATS_STATS_H
#define STATS_STATS_H

#include "alcove/table.h"

/* As table->heap_stats() and so on. */
int stats_heap(uint32_t heap, struct alcove_heap_stats *out);
int stats_bins(uint32_t heap, struct alcove_bin_stats *bins, uint32_t stride, uint32_t *count);
/* Begin a new peak: what is live now. 0; EINVAL: no such heap. */
int stats_peak_reset(uint32_t heap);
void stats_info(struct alcove_info *out);

#endif
