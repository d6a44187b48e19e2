/* What the plugins needs_one, needs_two, static_one and static_two export. */
#ifndef PLUGINS_ALLOCATING_H
#define PLUGINS_ALLOCATING_H

#include <alcove/table.h>

void *allocating_first(void); /* the block that its constructor took */
const struct alcove_table *allocating_table(void);

#endif
