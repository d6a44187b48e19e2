/* With more thread-local variables than a program has. */
#include <stdlib.h>

void *large_tls_block(void);

__thread void *volatile large[32 * 1024];

void *
large_tls_block(void)
{
    return large[1000] = malloc(10);
}
