/* An allocator whose table is shorter than the first one of this ABI version. */
#include <alcove/table.h>

extern const struct alcove_table alcove_table;
const struct alcove_table alcove_table = {.abi_version = ALCOVE_ABI_VERSION, .size = ALCOVE_TABLE_FIRST - 8};
