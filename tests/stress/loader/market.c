/* The markets: blocks that others release. */
#include "tests/stress/loader/scenario.h"

static _Atomic(struct parcel *) markets[MARKETS][STALLS];
static __thread unsigned own, other; /* where the thread is */

void
market_enter(unsigned one, unsigned another)
{
    own = one;
    other = another;
}

struct parcel *
parcel_pack(void *block, size_t size)
{
    struct parcel *parcel = block;
    memset(parcel, 0x5a, size);
    *parcel = (struct parcel){~(uintptr_t)parcel, size};
    return parcel;
}

static bool
parcel_is_whole(const struct parcel *parcel)
{
    return parcel->self == ~(uintptr_t)parcel && ((const unsigned char *)parcel)[parcel->size - 1] == 0x5a;
}

void
parcel_release(struct parcel *parcel, void (*release)(void *))
{
    if (parcel == NULL)
        return;
    HOLDS(parcel_is_whole(parcel));
    release(parcel);
}

void
stall_fill(unsigned at, struct parcel *parcel)
{
    parcel_release(atomic_exchange(&markets[own][at], parcel), free);
}

void
stall_clear(unsigned market, unsigned at)
{
    parcel_release(atomic_exchange(&markets[market][at], NULL), free);
}

struct parcel *
parcel_take(unsigned seed)
{
    struct parcel *parcel = NULL;
    unsigned market = seed % 2 == 0 ? own : other;
    for (unsigned i = 0; i < 8 && parcel == NULL; i++)
        parcel = atomic_exchange(&markets[market][(seed + i) % STALLS], NULL);
    return parcel;
}
