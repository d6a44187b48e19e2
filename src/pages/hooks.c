/* The system as a pool's source of memory. */
#include "ground/conf.h"
#include "os/os.h"
#include "pages/pool.h"

static void *
system_reserve(void *unused, size_t size, size_t alignment)
{
    (void)unused;
    void *p = os_map(size, alignment);
    if (p != NULL && conf.thp != CONF_THP_DEFAULT)
        os_huge_pages(p, size, conf.thp == CONF_THP_ALWAYS);
    return p;
}

static bool
system_reserve_at(void *unused, void *address, size_t size)
{
    (void)unused;
    bool done = os_map_at(address, size);
    if (done && conf.thp != CONF_THP_DEFAULT)
        os_huge_pages(address, size, conf.thp == CONF_THP_ALWAYS);
    return done;
}

static bool
system_release(void *unused, void *address, size_t size)
{
    (void)unused;
    return os_unmap(address, size);
}

static bool
system_commit(void *unused, void *address, size_t size)
{
    (void)unused, (void)address, (void)size;
    return true;
}

static bool
system_purge(void *unused, void *address, size_t size)
{
    (void)unused;
    return os_purge(address, size);
}

static bool
system_split(void *unused, void *address, size_t size, size_t first)
{
    (void)unused, (void)address, (void)size, (void)first;
    return true;
}

static bool
system_merge(void *unused, void *first, size_t first_size, void *second, size_t second_size)
{
    (void)unused, (void)first, (void)first_size, (void)second, (void)second_size;
    return true;
}

const struct pool_hooks pool_system_hooks = {
    .reserve = system_reserve, .reserve_at = system_reserve_at, .release = system_release, .commit = system_commit,
    .purge = system_purge, .split = system_split, .merge = system_merge,
};
