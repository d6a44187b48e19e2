/*
 * Pools that come and go while other threads purge all pools, read their figures, and fork.
 */
#include "stress.h"

#include <sys/wait.h>
#include <unistd.h>

#include "os/os.h"
#include "pages/pool.h"

#define CHILD_SECONDS 60

static const struct run_use use = { RUN_LARGE, 0, 0 };
static atomic_bool stop;

static void
live_and_end(struct pool *pool, int64_t decay_ms, size_t pages)
{
    pool_make(pool, &pool_system_hooks, NULL, decay_ms);
    struct run *r = pool_take(pool, pages, PAGE_SIZE, use);
    if (r == NULL)
        abort();
    *(char *)r->base = 1;
    r->next = NULL;
    pool_give(pool, r);
    pool_end(pool);
}

static void *
make_and_end(void *unused)
{
    for (unsigned n = 0; !stop; n++) {
        struct pool *pool = calloc(1, sizeof *pool);
        if (pool == NULL)
            abort();
        live_and_end(pool, (int64_t)(n % 3) - 1, 1 + n % CHUNK_PAGES);
        memset(pool, 0x5a, sizeof *pool); /* who looks at it now falls */
        free(pool);
    }
    return unused;
}

static void *
purge_and_tick(void *unused)
{
    for (uint64_t now = os_clock_ms(); !stop; now += 1000) {
        struct pool_figures figures;
        table->purge();
        pool_tick(now);
        pool_figures_get(&figures);
    }
    return unused;
}

static void
test_pools_come_and_go_amid_purges_and_forks(void **unused)
{
    (void)unused;
    pthread_t threads[3];
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, i < 2 ? make_and_end : purge_and_tick, NULL), 0);
    for (unsigned i = 0; i < rounds * 100; i++) {
        int status;
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            static struct pool pool;
            alarm(CHILD_SECONDS);
            pool_purge();
            live_and_end(&pool, 0, 1);
            _exit(0);
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        if (status != 0)
            fail_msg("the child of fork %u ended with wait status %#x", i, (unsigned)status);
    }
    stop = true;
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(message_count, 0);
    assert_null(pool_default.next);
    assert_int_equal(pool_default.mapped, 0);
}

int
main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pools_come_and_go_amid_purges_and_forks),
    };
    rounds_read(argc, argv);
    ALCOVE_PUBLIC(malloc_message) = messages_count;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
