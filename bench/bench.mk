# Measurements; dev/bench makes and runs them. No other build is to wait for that: make benchmarks.

EXTRA_PROGRAMS = bench/alcove-bench
CLEANFILES += bench/alcove-bench$(EXEEXT)
.PHONY: benchmarks
benchmarks: bench/alcove-bench$(EXEEXT) $(EXTRA_LTLIBRARIES)

bench_alcove_bench_SOURCES = \
	bench/baseline.c bench/bench.h bench/main.c bench/measure.c bench/peers.c bench/plot.c \
	bench/report.c bench/run.c bench/work_batch.c bench/work_heaps.c \
	bench/work_large.c bench/work_loader.c bench/work_memory.c bench/work_realloc.c bench/work_small.c \
	bench/work_threads.c bench/work_unload.c bench/works.h bench/works.c \
	loader/keeper/thunk_sizes.h loader/keeper/thunk_text.S
bench_alcove_bench_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/loader -DBENCH_PREFIX='"$(P)"' -DBENCH_SUFFIX='"@S@"'
bench_alcove_bench_LDADD = -lm

# What it opens as a module: bench/.libs/plugin.so.
if SHARED
EXTRA_LTLIBRARIES = bench/plugin.la
CLEANFILES += bench/plugin.la
endif
bench_plugin_la_SOURCES = bench/plugin.c
bench_plugin_la_LDFLAGS = $(plugin_ldflags)

EXTRA_DIST += bench/baseline.tsv dev/bench bench/README.md
