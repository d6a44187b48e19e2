/* malloc_usable_size. */
#include "alcove/alcove.h"
#include "api/internal.h"
#include "ground/message.h"
#include "ground/services.h"
#include "pages/pool.h"

API size_t
ALCOVE_PUBLIC(malloc_usable_size)(void *block)
{
    size_t usable = block_usable(block);
    if (unlikely(usable == 0 && block != NULL))
        message_misuse("malloc_usable_size of %p, which is not a live block of this allocator", block);
    return usable;
}

size_t
entry_malloc_usable_size(void *block, size_t heap)
{
    size_t usable = block_usable(block);
    bool foreign = usable == 0 && block != NULL && !pool_holds(block);
    if (foreign && services.module_usable_size != NULL)
        return services.module_usable_size(services.lender, (uint32_t)heap, block);
    return foreign && services.foreign_usable_size != NULL ? services.foreign_usable_size(services.lender, block) : usable;
}
