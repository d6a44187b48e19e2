# The allocator: libalcove.so, for dlopen, and libalcove.a.
# libalcore.la holds its objects, so that the unit tests can reach what the library hides.

lib_LTLIBRARIES += libalcove@S@.la
noinst_LTLIBRARIES += libalcore.la

# Pages of variables that are touched are resident. On one lies what comes before pagemap.c's large root, and on another what
# comes after it: free_runs.c, and last heap.c's table of heaps, of which the first entries are used.
libalcore_la_SOURCES = \
	src/ground/attributes.h src/ground/conf.h src/ground/defaults.c src/ground/fault.h src/ground/fault.c src/ground/loader_note.h src/ground/lock.h src/ground/lock.c src/ground/lock_counts.h \
	src/ground/message.h src/ground/message.c src/ground/misuse.h src/ground/misuse.c src/ground/options.def src/ground/page.h src/ground/services.h \
	src/ground/sizeclass.h src/ground/sizeclass.c src/ground/static_tls.h src/ground/system.h src/ground/system_linux.c \
	src/ground/versions.h \
	src/os/os.h src/os/os_linux.c \
	src/pages/base.h src/pages/base.c src/pages/decay.h src/pages/decay.c \
	src/pages/giants.h src/pages/giants.c src/pages/hooks.c src/pages/huge.c src/pages/purge.c \
	src/pages/pagemap.h src/pages/pagemap.c src/pages/free_runs.h src/pages/free_runs.c \
	src/pages/pool.h src/pages/pool.c src/pages/run.h src/pages/unmap.h src/pages/territory.c src/pages/territory.h src/pages/unmap.c \
	src/heap/heap.h src/heap/large.h src/heap/large.c src/heap/slab.h src/heap/slab.c \
	src/thread/arrays.h src/thread/arrays.c src/thread/cache.h src/thread/cache.c src/thread/cache_set.h src/thread/cache_set.c \
	src/thread/fork.h src/thread/fork.c \
	src/thread/ended.c src/thread/ending.h src/thread/ending.c src/thread/record.h src/thread/record.c src/thread/records.h \
	src/thread/peak.h src/thread/peak.c src/thread/sums.c \
	src/thread/tls.h src/thread/tls.c src/thread/turn.c \
	src/conf/conf.h src/conf/conf.c src/conf/option.h src/conf/option.c \
	src/stats/stats.h src/stats/stats.c \
	src/api/aligned.c src/api/calloc.c src/api/heaps.c src/api/hot.h \
	src/api/internal.h src/api/life.c src/api/life.h src/api/malloc.c src/api/origin.c src/api/origin.h src/api/realloc.c \
	src/api/slow.c src/api/spare.h src/api/strdup.c src/api/table.c \
	src/api/usable_size.c \
	src/heap/heap.c

libalcore_la_CFLAGS = $(AM_CFLAGS) \
	-fvisibility=hidden -fno-semantic-interposition -ftls-model=global-dynamic \
	-fno-builtin-malloc -fno-builtin-calloc -fno-builtin-realloc -fno-builtin-free
libalcore_la_LIBTOOLFLAGS = $(ONE_OBJECT)

libalcove@S@_la_SOURCES =
libalcove@S@_la_LIBADD = libalcore.la
libalcove@S@_la_LDFLAGS = $(AM_LDFLAGS) $(SHARED_LDFLAGS) -module -avoid-version \
	-export-symbols src/exports.sym
EXTRA_libalcove@S@_la_DEPENDENCIES = src/exports.sym
