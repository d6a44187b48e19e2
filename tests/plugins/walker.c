/* A plugin whose constructor allocates while it holds a lock of the dynamic linker's, in a callback of dl_iterate_phdr. */
#include <link.h>
#include <stdlib.h>
#include <unistd.h>

static void *taken;

static int
take(struct dl_phdr_info *info, size_t size, void *unused)
{
    (void)info;
    (void)size;
    (void)unused;
    usleep(1000); /* let others come to where they wait for it */
    taken = malloc(100);
    return 1;
}

__attribute__((constructor)) static void
begin(void)
{
    dl_iterate_phdr(take, NULL);
}

__attribute__((destructor)) static void
end(void)
{
    free(taken);
}
