/* An allocator whose table is long enough, and has none of its functions. */
#include <alcove/table.h>

extern const struct alcove_table alcove_table;
const struct alcove_table alcove_table = {.abi_version = ALCOVE_ABI_VERSION, .size = sizeof alcove_table};
