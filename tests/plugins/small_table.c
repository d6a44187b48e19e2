/* An allocator whose table ends before that of this loader's ABI. */
#include <alcove/table.h>

extern const struct alcove_table alcove_table;
const struct alcove_table alcove_table = {.abi_version = ALCOVE_ABI_VERSION, .size = sizeof alcove_table - 8};
