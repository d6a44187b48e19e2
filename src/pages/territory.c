/* Tells the territory to the loader. */
#include "pages/territory.h"

#include "ground/services.h"
#include "pages/giants.h"

_Static_assert(CHUNK_SIZE == ALCOVE_TERRITORY, "chunks are what the territory is told in");

static size_t
told(size_t pages)
{
    return pages > GIANT_PAGES ? CHUNK_SIZE : pages << PAGE_LG;
}

int
chunks_reserve(uintptr_t base, size_t pages)
{
    return services.territory_reserve != NULL ? services.territory_reserve(services.lender, base, told(pages)) : 0;
}

void
chunks_enter(uintptr_t base, size_t pages)
{
    if (services.territory_enter != NULL)
        services.territory_enter(services.lender, base, told(pages));
}

void
chunks_leave(uintptr_t base, size_t pages)
{
    if (services.territory_leave != NULL)
        services.territory_leave(services.lender, base, pages << PAGE_LG);
}

void
chunks_abandon(uintptr_t base, size_t pages)
{
    if (services.territory_abandon != NULL)
        services.territory_abandon(services.lender, base, pages << PAGE_LG);
}
