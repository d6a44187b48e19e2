/* A constructor that hands a function of its own to the program before it allocates anything. */
#include <stdlib.h>

void host_nesting(void *(*make)(void)) __attribute__((weak));

static void *taken;

static void *
make(void)
{
    void *volatile block = malloc(10);
    return block;
}

__attribute__((constructor)) static void
begin(void)
{
    if (host_nesting != NULL)
        host_nesting(make);
    taken = malloc(20);
}

__attribute__((destructor)) static void
end(void)
{
    free(taken);
}
