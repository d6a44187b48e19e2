/* The peak of a heap. peak.h has what is known, and when. No lock is taken here, and any may be held. */
#include "thread/peak.h"

#include "thread/records.h"

#define UNSEEN_BYTES ((int64_t)8 << 10) /* half a batch: of a bin, and of a cache where much is live */
#define LOOK_BYTES ((uint64_t)8 << 10)   /* the other half, for each cache: what the peak may be higher by before anybody looks */
#define MISSED_BYTES ((uint64_t)32 << 10) /* that may be live beyond that without a second thread that looks */
/* Of what may be live without anybody looking: what a cache may grow by before it is looked at, and one of its bins. */
#define CACHE_SHARE 2
#define BIN_SHARE 8
#define BIN_SHARE_OF_MANY 64 /* where several threads do: all their bins may use their leave before one has a look */
#define SPARED_MOST 8 /* events at which not all bins of a cache are looked at, in turn */

/* So many blocks of a bin are known to be cached now, and by so many bytes more is live than was known. */
static int64_t
know(struct cache *c, unsigned bin, unsigned count)
{
    unsigned known = atomic_exchange_explicit(&c->known[bin], (uint16_t)count, memory_order_relaxed);
    return ((int64_t)known - (int64_t)count) * (int64_t)bin_size(bin);
}

/* The same of what a bin holds, which may be another thread's. */
static inline __attribute__((always_inline)) int64_t
look_at_bin(struct cache *c, unsigned bin)
{
    int count = cache_count_seen(&c->bins[bin]);
    bool known = count < 0 || count == atomic_load_explicit(&c->known[bin], memory_order_relaxed);
    return likely(known) ? 0 : know(c, bin, (unsigned)count);
}

/* The same of one of its own thread's. */
static inline int64_t
look_at_own(struct cache *c, unsigned bin)
{
    unsigned count = cache_count(&c->bins[bin]);
    return count == atomic_load_explicit(&c->known[bin], memory_order_relaxed) ? 0 : know(c, bin, count);
}

/* Is there anything to look at in this cache of the heap? */
static bool
look_at_cache(struct heap *h, struct cache *c)
{
    int64_t grown = 0;
    bool used = false;
    for (unsigned word = 0; word < sizeof c->has_array / sizeof *c->has_array; word++) {
        uint64_t bits = counter_read(&c->has_array[word]);
        used = used || bits != 0;
        for (; bits != 0; bits &= bits - 1)
            grown += look_at_bin(c, word * 64 + (unsigned)__builtin_ctzll(bits));
    }
    if (grown != 0)
        heap_count_live(h, grown);
    return used;
}

void
peak_look_at(struct cache *c)
{
    look_at_cache(c->heap, c);
}

/* Look at all caches of the heap; returns how many are used. */
static unsigned
look_at_all(struct heap *h)
{
    unsigned used = 0;
    if (!heap_look_begin(h))
        return 0;
    for (struct record_head *head = record_from(records_first()); head != NULL; head = record_from(head->next)) {
        struct cache *c = cache_set_find(&head->record->set, h->index);
        used += c != NULL && look_at_cache(h, c);
    }
    heap_look_end(h);
    return used;
}

/* Look at one bin of all of them. */
static void
look_at_bin_of_all(struct heap *h, unsigned bin)
{
    int64_t grown = 0;
    if (!heap_look_begin(h))
        return;
    for (struct record_head *head = record_from(records_first()); head != NULL; head = record_from(head->next)) {
        struct cache *c = cache_set_find(&head->record->set, h->index);
        grown += c != NULL ? look_at_bin(c, bin) : 0;
    }
    heap_look_end(h);
    heap_count_live(h, grown);
}

static uint64_t
live_now(const struct heap *h)
{
    int64_t live = (int64_t)atomic_load_explicit(&h->live, memory_order_relaxed);
    return live > 0 ? (uint64_t)live : 0;
}

static void
peak_next(struct heap *h, uint64_t peak, unsigned caches)
{
    atomic_store_explicit(&h->peak_due, peak + LOOK_BYTES * (caches != 0 ? caches : 1), memory_order_relaxed);
}

uint64_t
peak_at_least(struct heap *h, uint64_t bytes)
{
    uint64_t peak = atomic_load_explicit(&h->peak, memory_order_relaxed);
    while (bytes > peak && !atomic_compare_exchange_weak_explicit(&h->peak, &peak, bytes, memory_order_relaxed,
                                                                  memory_order_relaxed))
        ;
    return bytes > peak ? bytes : peak;
}

/* So many caches were looked at. */
static void
peak_raise(struct heap *h, unsigned caches)
{
    peak_next(h, peak_at_least(h, live_now(h)), caches);
}

void
peak_look(struct heap *h)
{
    peak_raise(h, look_at_all(h));
}

void
peak_fork_child(struct cache *c)
{
    for (unsigned bin = 1; bin < BINS; bin++) {
        unsigned known = atomic_load_explicit(&c->known[bin], memory_order_relaxed);
        if (known != 0)
            heap_count_live(c->heap, -(int64_t)(known * bin_size(bin)));
    }
}

/* How far above what is due. */
static int64_t
above(const struct heap *h, uint64_t live)
{
    return (int64_t)(live - atomic_load_explicit(&h->peak_due, memory_order_relaxed));
}

void
peak_is_due(struct heap *h, unsigned bin)
{
    /* One thread is enough, unless it has been stopped. */
    bool alone = !atomic_flag_test_and_set_explicit(&h->peak_looked_for, memory_order_relaxed);
    if (!alone && above(h, live_now(h)) <= (int64_t)MISSED_BYTES)
        return;
    /* What one thread allocates and others free is of the same bin: it may be enough to know of that. */
    if (bin != 0)
        look_at_bin_of_all(h, bin);
    if (heap_peak_is_due(h))
        peak_look(h);
    if (alone) /* else who has it may be recalling countdowns */
        atomic_flag_clear_explicit(&h->peak_looked_for, memory_order_relaxed);
}

/* What may become live before somebody knows: a share of what is below the peak. */
static int64_t
share(int64_t below, int part, int64_t least)
{
    return below / part > least ? below / part : least;
}

/* What a bin may let become live at the least. Who resets a peak wants to know of what is new from then on, though all of it may be in
 * caches already: there, the bins of a cache may a batch together. */
static int64_t
bin_least(const struct cache *c)
{
    int bins = 0;
    if (!atomic_load_explicit(&c->heap->peak_was_reset, memory_order_relaxed))
        return UNSEEN_BYTES;
    for (unsigned word = 0; word < sizeof c->has_array / sizeof *c->has_array; word++)
        bins += __builtin_popcountll(counter_read(&c->has_array[word]));
    return bins > 2 ? 2 * UNSEEN_BYTES / bins : UNSEEN_BYTES;
}

/* What a bin may let become live. */
static int64_t
bin_share(const struct cache *c, int64_t below)
{
    bool alone = atomic_load_explicit(&c->heap->caches, memory_order_relaxed) == 1;
    return share(below, alone ? BIN_SHARE : BIN_SHARE_OF_MANY, bin_least(c));
}

/* How many blocks may be popped from a bin so that it is no more than so many bytes. */
static int32_t
pops_within(const struct cache *c, unsigned bin, int64_t bytes)
{
    uint32_t size = (uint32_t)bin_size(bin), known = atomic_load_explicit(&c->known[bin], memory_order_relaxed);
    if ((int64_t)known * size <= bytes)
        return COUNTDOWN;
    return bytes < size ? 0 : (int32_t)((uint32_t)bytes / size); /* less than what is cached, so it has 32 bits */
}

/* Let a bin have a turn before more than so many bytes are popped from it. */
static inline void
limit_unseen(struct cache *c, unsigned bin, int64_t bytes)
{
    struct cache_bin *b = &c->bins[bin];
    int32_t most = pops_within(c, bin, bytes);
    if (b->countdown < 0 || b->countdown > most)
        cache_turn_after(b, most);
}

/* The same for all bins that hold something, if some had leave for more, while less was live. */
static void
limit_all_unseen(struct cache *c, int64_t bytes)
{
    if (c->unseen < 2 * bytes)
        return;
    c->unseen = bytes;
    for (unsigned word = 0; word < sizeof c->has_array / sizeof *c->has_array; word++)
        for (uint64_t bits = c->has_array[word]; bits != 0; bits &= bits - 1)
            limit_unseen(c, word * 64 + (unsigned)__builtin_ctzll(bits), bytes);
}

static void
recall_bins(struct cache *c, int64_t bytes)
{
    for (unsigned word = 0; word < sizeof c->has_array / sizeof *c->has_array; word++) {
        for (uint64_t bits = counter_read(&c->has_array[word]); bits != 0; bits &= bits - 1) {
            unsigned bin = word * 64 + (unsigned)__builtin_ctzll(bits);
            cache_recall(c, bin, pops_within(c, bin, bytes));
        }
    }
}

/* Bins of other caches than this have leave of a time when less was live, or the peak was higher: they are to have a turn soon, lest
 * they let as much become live as nobody sees. */
static __attribute__((noinline)) void
recall(struct heap *h, const struct cache *c, int64_t bytes)
{
    if (atomic_flag_test_and_set_explicit(&h->peak_looked_for, memory_order_relaxed))
        return;
    atomic_store_explicit(&h->leave, bytes, memory_order_relaxed); /* first: others may be given more meanwhile */
    if (heap_look_begin(h)) {
        for (struct record_head *head = record_from(records_first()); head != NULL; head = record_from(head->next)) {
            struct cache *other = cache_set_find(&head->record->set, h->index);
            if (other != NULL && other != c)
                recall_bins(other, bytes);
        }
        heap_look_end(h);
    }
    atomic_flag_clear_explicit(&h->peak_looked_for, memory_order_relaxed);
}

void
peak_reset(struct heap *h)
{
    unsigned caches = look_at_all(h);
    uint64_t live = live_now(h);
    atomic_store_explicit(&h->peak, live, memory_order_relaxed);
    peak_next(h, live, caches);
    atomic_store_explicit(&h->peak_was_reset, true, memory_order_relaxed);
    recall(h, NULL, 0);
}

/* As much has grown that it is time to look at a cache's other bins, or there were as many events, or as much is live that there may
 * be a new peak. */
static __attribute__((noinline)) void
look_around(struct cache *c, unsigned bin)
{
    struct heap *h = c->heap;
    bool alone = atomic_load_explicit(&h->caches, memory_order_relaxed) == 1;
    c->grown = 0;
    c->spared = 0;
    if (alone || !heap_peak_is_due(h)) {
        look_at_cache(h, c);
        bin = 0;
    }
    if (heap_peak_is_due(h)) {
        if (alone)
            peak_raise(h, 1);
        else
            peak_is_due(h, bin);
    }
    limit_all_unseen(c, bin_share(c, -above(h, live_now(h))));
}

/* An event of a bin, when by `more` bytes more is out of the heap than was counted. */
static void
count(struct cache *c, unsigned bin, int64_t more)
{
    struct heap *h = c->heap;
    int64_t grown = look_at_own(c, bin) + more;
    if (grown > 0) {
        /* Of large blocks that come and go every one is an event: the one of the last event has often been freed since. */
        grown += look_at_own(c, c->grew);
        c->grew = (uint8_t)bin;
    }
    uint64_t live = grown != 0 ? heap_count_live(h, grown) : live_now(h);
    int64_t below = -above(h, live), unseen = bin_share(c, below);
    c->grown = c->grown + grown > -UNSEEN_BYTES ? c->grown + grown : -UNSEEN_BYTES; /* what was freed since all were looked at */
    c->unseen = c->unseen > unseen ? c->unseen : unseen;
    limit_unseen(c, bin, unseen);
    int64_t leave = atomic_load_explicit(&h->leave, memory_order_relaxed);
    if (unseen > leave)
        atomic_store_explicit(&h->leave, unseen, memory_order_relaxed);
    else if (unlikely(leave >= 2 * unseen) && atomic_load_explicit(&h->caches, memory_order_relaxed) > 1)
        recall(h, c, unseen);
    if (c->grown >= share(below, CACHE_SHARE, UNSEEN_BYTES) || unlikely(below < 0) || ++c->spared >= SPARED_MOST)
        look_around(c, bin);
}

void
peak_allocated(struct cache *c, unsigned bin, unsigned taken)
{
    count(c, bin, (int64_t)(taken * bin_size(bin)));
}

void
peak_freed(struct cache *c, unsigned bin)
{
    count(c, bin, 0);
}
