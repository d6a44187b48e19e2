/* An allocator of an ABI version that no loader knows. */
#include <alcove/table.h>

extern const struct alcove_table alcove_table;
const struct alcove_table alcove_table = {.abi_version = 999, .size = sizeof alcove_table};
