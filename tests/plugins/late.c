/* A library that a program is linked with behind the allocator: its destructor comes later. */
#include "late.h"

#include <stddef.h>

void (*late_call)(void);

__attribute__((destructor)) static void
end(void)
{
    if (late_call != NULL)
        late_call();
}
