# Tests, with cmocka. `make check` runs them all; dev/check counts them.
#
# unit_tests    tests/unit/     linked with the objects of the allocator and of the loader
# module_tests  tests/module/   reach the allocator through dlopen only
# stress_tests  tests/stress/   many threads, linked as unit tests are
# unload_tests  tests/stress/   many threads, that load the built allocator; ThreadSanitizer sees both kinds
# host_tests    tests/hosts/    link the loader library as a host does, and name its functions
#                               alcove_… whatever the prefix
#
# A new test is its name in one of the lists; its source is then <name>.c. A host test needs two
# lines more, its CPPFLAGS and LDADD, as those that are here.
# tests/hosts/interpreters/ has a script for each interpreter, and an extension in C for those that cannot
# call C themselves; test_interpreters.sh compiles it and runs the script.
# first_table.h is a copy of the ABI's first version, and is never changed.
# A small library that a test opens is a name in plugin_libraries and a line with its LDFLAGS.
# tests/fuzz/ opens malformed libraries: fuzz_elf makes them of corpus_libraries, test_malformed.sh runs it.
#
# A test finds in its environment:
#   ALCOVE_TEST_MODULE    file of the built allocator
#   ALCOVE_TEST_PLUGINS   folder of the built plugin_libraries
#   ALCOVE_TEST_PREFIX    prefix of the public symbols
#   ALCOVE_TEST_SRCDIR, ALCOVE_TEST_BUILDDIR, CC
#   ALCOVE_TEST_STATIC    empty if the build has no archives, and no plugins static_… and extension_…
#   ALCOVE_TEST_LOADS     if set, how often a test loads and unloads: dev/check --matrix wants 10,000 times
#   ALCOVE_TEST_VARIANTS  if set, how many new malformed libraries test_malformed.sh tries
#   ALCOVE_TEST_VALGRIND  set when valgrind runs it, which knows some 30,000 mappings only

unit_tests = tests/unit/test_cache tests/unit/test_cache_set tests/unit/test_conf tests/unit/test_decay \
	tests/unit/test_elf_notes tests/unit/test_elf_object tests/unit/test_elf_symbols tests/unit/test_elf_words tests/unit/test_elf_writer tests/unit/test_fork_locks \
	tests/unit/test_lock tests/unit/test_pagemap tests/unit/test_peak tests/unit/test_pool tests/unit/test_records \
	tests/unit/test_sizeclass tests/unit/test_slab tests/unit/test_territory tests/unit/test_tls

# Of the loader.
tests_unit_test_territory_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/loader

elf_cppflags = $(AM_CPPFLAGS) -I$(top_srcdir)/loader
tests_unit_test_elf_notes_CPPFLAGS = $(elf_cppflags)
tests_unit_test_elf_object_CPPFLAGS = $(elf_cppflags)
tests_unit_test_elf_symbols_CPPFLAGS = $(elf_cppflags)
tests_unit_test_elf_words_CPPFLAGS = $(elf_cppflags)
tests_unit_test_elf_writer_CPPFLAGS = $(elf_cppflags)

module_tests = tests/module/test_decay_purge tests/module/test_ended_threads \
	tests/module/test_exhaustion tests/module/test_figures tests/module/test_fork tests/module/test_fork_amid_locks \
	tests/module/test_fork_amid_moves tests/module/test_heap_drop tests/module/test_heap_ends \
	tests/module/test_heap_limits tests/module/test_heaps tests/module/test_huge_blocks \
	tests/module/test_limit_caches tests/module/test_limit_fill tests/module/test_limit_realloc \
	tests/module/test_limits tests/module/test_loading tests/module/test_message_hook \
	tests/module/test_misuse tests/module/test_processes tests/module/test_refused_pages tests/module/test_signals tests/module/test_spare \
	tests/module/test_standard tests/module/test_threads tests/module/test_tls \
	tests/module/test_unload

# Their functions are found by the allocator in place of libc's.
tests_module_test_fork_amid_locks_LDFLAGS = $(AM_LDFLAGS) -export-dynamic
tests_module_test_fork_amid_moves_LDFLAGS = $(AM_LDFLAGS) -export-dynamic
tests_module_test_heap_drop_LDFLAGS = $(AM_LDFLAGS) -export-dynamic
tests_module_test_refused_pages_LDFLAGS = $(AM_LDFLAGS) -export-dynamic

# Only in a build where a test can have system calls refused.
if FAULT_INJECTION
module_tests += tests/module/test_refusal
endif

host_tests = tests/hosts/test_abi tests/hosts/test_bound_before tests/hosts/test_cancel tests/hosts/test_constructors tests/hosts/test_copies tests/hosts/test_copies_pie \
	tests/hosts/test_endings tests/hosts/test_events tests/hosts/test_given_away tests/hosts/test_half_made tests/hosts/test_no_copies \
	tests/hosts/test_leftovers tests/hosts/test_linked_plugins \
	tests/hosts/test_linked_program tests/hosts/test_scarce \
	tests/hosts/test_loader tests/hosts/test_loader_forks tests/hosts/test_lua tests/hosts/test_meeting tests/hosts/test_modules tests/hosts/test_namespaces tests/hosts/test_page_size tests/hosts/test_paths \
	tests/hosts/test_policies tests/hosts/test_program_stub tests/hosts/test_residents tests/hosts/test_restored tests/hosts/test_routing \
	tests/hosts/test_static_allocator tests/hosts/test_steering tests/hosts/test_strict tests/hosts/test_variants tests/hosts/test_whole_or_not
# Plugins call back into test_cancel, test_constructors, test_endings, test_half_made and test_loader, and read variables of test_steering and
# test_whole_or_not; the loader finds functions of test_given_away, test_half_made,
# test_loader_forks and test_meeting in place of libc's; test_program_stub is about programs that are not PIE; test_leftovers
# compares where imports lead, which is to change by nothing but the allocator.
tests_hosts_test_abi_CPPFLAGS = $(host_cppflags)
tests_hosts_test_abi_LDADD = $(host_ldadd)
tests_hosts_test_bound_before_CPPFLAGS = $(host_cppflags)
tests_hosts_test_bound_before_CFLAGS = $(AM_CFLAGS) -fno-builtin
tests_hosts_test_bound_before_LDADD = $(host_ldadd)
# Bound at once: a thread may be cancelled at any moment, and so must be in no function of the dynamic linker then.
tests_hosts_test_cancel_CPPFLAGS = $(host_cppflags)
tests_hosts_test_cancel_LDADD = $(host_ldadd)
tests_hosts_test_cancel_LDFLAGS = $(AM_LDFLAGS) -export-dynamic -Wl,-z,now
tests_hosts_test_constructors_CPPFLAGS = $(host_cppflags)
tests_hosts_test_constructors_LDADD = $(host_ldadd)
tests_hosts_test_constructors_LDFLAGS = $(AM_LDFLAGS) -export-dynamic
# One program in each of the ways that it can reach a library's variables.
needs_variables = -Wl,--no-as-needed -Wl,tests/plugins/.libs/variables.so -Wl,-rpath,$(abs_top_builddir)/tests/plugins/.libs
tests_hosts_test_copies_CPPFLAGS = $(host_cppflags)
tests_hosts_test_copies_CFLAGS = $(AM_CFLAGS) -fno-pie
tests_hosts_test_copies_LDADD = $(host_ldadd)
tests_hosts_test_copies_LDFLAGS = $(AM_LDFLAGS) -no-pie $(needs_variables)
EXTRA_tests_hosts_test_copies_DEPENDENCIES = tests/plugins/variables.la
tests_hosts_test_copies_pie_SOURCES = tests/hosts/test_copies.c
tests_hosts_test_copies_pie_CPPFLAGS = $(host_cppflags)
tests_hosts_test_copies_pie_CFLAGS = $(AM_CFLAGS) -fPIE
tests_hosts_test_copies_pie_LDADD = $(host_ldadd)
tests_hosts_test_copies_pie_LDFLAGS = $(AM_LDFLAGS) -pie $(needs_variables)
EXTRA_tests_hosts_test_copies_pie_DEPENDENCIES = tests/plugins/variables.la
tests_hosts_test_no_copies_SOURCES = tests/hosts/test_copies.c
tests_hosts_test_no_copies_CPPFLAGS = $(host_cppflags)
tests_hosts_test_no_copies_CFLAGS = $(AM_CFLAGS) -fPIC
tests_hosts_test_no_copies_LDADD = $(host_ldadd)
tests_hosts_test_no_copies_LDFLAGS = $(AM_LDFLAGS) -pie $(needs_variables)
EXTRA_tests_hosts_test_no_copies_DEPENDENCIES = tests/plugins/variables.la
tests_hosts_test_endings_CPPFLAGS = $(host_cppflags)
tests_hosts_test_endings_LDADD = $(host_ldadd)
tests_hosts_test_endings_LDFLAGS = $(AM_LDFLAGS) -export-dynamic
tests_hosts_test_events_CPPFLAGS = $(host_cppflags)
tests_hosts_test_events_LDADD = $(host_ldadd)
tests_hosts_test_given_away_CPPFLAGS = $(host_cppflags)
tests_hosts_test_given_away_LDADD = $(host_ldadd)
tests_hosts_test_given_away_LDFLAGS = $(AM_LDFLAGS) -export-dynamic
tests_hosts_test_half_made_CPPFLAGS = $(host_cppflags)
tests_hosts_test_half_made_LDADD = $(host_ldadd)
tests_hosts_test_half_made_LDFLAGS = $(AM_LDFLAGS) -export-dynamic
tests_hosts_test_leftovers_CPPFLAGS = $(host_cppflags)
tests_hosts_test_leftovers_LDADD = $(host_ldadd)
tests_hosts_test_leftovers_LDFLAGS = $(AM_LDFLAGS) -Wl,-z,now
tests_hosts_test_linked_plugins_CPPFLAGS = $(host_cppflags)
tests_hosts_test_linked_plugins_LDADD = $(host_ldadd)
# The allocator first, then the library whose destructor comes later than the allocator's.
tests_hosts_test_linked_program_CPPFLAGS = $(host_cppflags)
tests_hosts_test_linked_program_LDADD = $(host_ldadd)
tests_hosts_test_linked_program_LDFLAGS = $(AM_LDFLAGS) -Wl,--no-as-needed $(needs_allocator) \
	-Wl,tests/plugins/.libs/late.so -Wl,-rpath,$(abs_top_builddir)/tests/plugins/.libs
EXTRA_tests_hosts_test_linked_program_DEPENDENCIES = libalcove@S@.la tests/plugins/late.la
tests_hosts_test_loader_CPPFLAGS = $(host_cppflags)
tests_hosts_test_loader_LDADD = $(host_ldadd)
tests_hosts_test_loader_LDFLAGS = $(AM_LDFLAGS) -export-dynamic
tests_hosts_test_loader_forks_CPPFLAGS = $(host_cppflags)
tests_hosts_test_loader_forks_LDADD = $(host_ldadd)
tests_hosts_test_loader_forks_LDFLAGS = $(AM_LDFLAGS) -export-dynamic
tests_hosts_test_lua_CPPFLAGS = $(host_cppflags)
tests_hosts_test_lua_LDADD = $(host_ldadd)
tests_hosts_test_meeting_CPPFLAGS = $(host_cppflags)
tests_hosts_test_meeting_LDADD = $(host_ldadd)
tests_hosts_test_meeting_LDFLAGS = $(AM_LDFLAGS) -export-dynamic
if STATIC
# The same with the loader in the program.
host_tests += tests/hosts/test_meeting_inside
tests_hosts_test_meeting_inside_SOURCES = tests/hosts/test_meeting.c
tests_hosts_test_meeting_inside_CPPFLAGS = $(host_cppflags)
tests_hosts_test_meeting_inside_LDFLAGS = $(AM_LDFLAGS) -static -export-dynamic
tests_hosts_test_meeting_inside_LDADD = libalcove-loader.la $(CMOCKA_LIBS)
EXTRA_tests_hosts_test_meeting_inside_DEPENDENCIES = archives.stamp
endif
tests_hosts_test_namespaces_CPPFLAGS = $(host_cppflags)
tests_hosts_test_namespaces_LDADD = $(host_ldadd)
tests_hosts_test_modules_CPPFLAGS = $(host_cppflags)
tests_hosts_test_modules_LDADD = $(host_ldadd)
tests_hosts_test_page_size_CPPFLAGS = $(host_cppflags)
tests_hosts_test_page_size_LDADD = $(host_ldadd)
# It finds plugins by name; and it has a function that stands before a plugin's.
tests_hosts_test_paths_CPPFLAGS = $(host_cppflags)
tests_hosts_test_paths_LDADD = $(host_ldadd)
tests_hosts_test_paths_LDFLAGS = $(AM_LDFLAGS) -export-dynamic -Wl,-rpath,'$$ORIGIN/../plugins/.libs'
tests_hosts_test_policies_CPPFLAGS = $(host_cppflags)
tests_hosts_test_policies_LDADD = $(host_ldadd)
tests_hosts_test_program_stub_CPPFLAGS = $(host_cppflags)
tests_hosts_test_program_stub_CFLAGS = $(AM_CFLAGS) -fno-pie
tests_hosts_test_program_stub_LDADD = $(host_ldadd)
tests_hosts_test_program_stub_LDFLAGS = $(AM_LDFLAGS) -no-pie
tests_hosts_test_residents_CPPFLAGS = $(host_cppflags)
tests_hosts_test_residents_LDADD = $(host_ldadd)
tests_hosts_test_restored_CPPFLAGS = $(host_cppflags)
tests_hosts_test_restored_LDADD = $(host_ldadd)
tests_hosts_test_routing_CPPFLAGS = $(host_cppflags)
tests_hosts_test_routing_LDADD = $(host_ldadd)
tests_hosts_test_scarce_CPPFLAGS = $(host_cppflags)
tests_hosts_test_scarce_LDADD = $(host_ldadd)
tests_hosts_test_static_allocator_CPPFLAGS = $(host_cppflags)
tests_hosts_test_static_allocator_CFLAGS = $(AM_CFLAGS) -fno-builtin
tests_hosts_test_static_allocator_LDADD = $(host_ldadd) $(STATIC_ALLOCATOR_LIBS)
tests_hosts_test_strict_CPPFLAGS = $(host_cppflags)
tests_hosts_test_strict_LDADD = $(host_ldadd)

tests_hosts_test_steering_CPPFLAGS = $(host_cppflags)
tests_hosts_test_steering_CFLAGS = $(AM_CFLAGS) -fno-builtin
tests_hosts_test_steering_LDADD = $(host_ldadd)
tests_hosts_test_steering_LDFLAGS = $(AM_LDFLAGS) -export-dynamic
tests_hosts_test_variants_CPPFLAGS = $(host_cppflags)
tests_hosts_test_variants_CFLAGS = $(AM_CFLAGS) -fno-builtin
tests_hosts_test_variants_LDADD = $(host_ldadd)
tests_hosts_test_whole_or_not_CPPFLAGS = $(host_cppflags)
tests_hosts_test_whole_or_not_LDADD = $(host_ldadd)
tests_hosts_test_whole_or_not_LDFLAGS = $(AM_LDFLAGS) -export-dynamic

stress_tests = tests/stress/stress_fork tests/stress/stress_heaps tests/stress/stress_pools tests/stress/stress_threads

# Those that load the built module, by itself or by the loader.
unload_tests = tests/stress/stress_loader tests/stress/stress_unload
tests_stress_stress_loader_SOURCES = tests/stress/stress_loader.c tests/stress/loader/allocators.c tests/stress/loader/files.c \
	tests/stress/loader/leftovers.c tests/stress/loader/loaders.c tests/stress/loader/market.c tests/stress/loader/openers.c tests/stress/loader/others.c
tests_stress_stress_loader_CPPFLAGS = $(host_cppflags) -I$(top_srcdir)/tests/module
tests_stress_stress_loader_CFLAGS = $(AM_CFLAGS) -fno-builtin
tests_stress_stress_loader_LDADD = $(host_ldadd)
tests_stress_stress_loader_LDFLAGS = $(AM_LDFLAGS) -Wl,-z,now
tests_stress_stress_unload_CPPFLAGS = $(host_cppflags) -I$(top_srcdir)/tests/module
tests_stress_stress_unload_LDADD = $(host_ldadd)
script_tests = tests/fuzz/test_malformed.sh tests/hosts/test_interpreters.sh tests/hosts/test_preloaded.sh \
	tests/hosts/test_sweep.sh tests/hosts/test_ten_lines.sh tests/hosts/test_thirty_lines.sh tests/module/test_exports.sh tests/module/test_fibers.sh
fuzz_programs = tests/fuzz/fuzz_elf
tests_fuzz_fuzz_elf_SOURCES = tests/fuzz/fuzz.h tests/fuzz/fuzz_elf.c tests/fuzz/trial.c tests/fuzz/variant.c
tests_fuzz_fuzz_elf_CPPFLAGS = $(host_cppflags)
tests_fuzz_fuzz_elf_LDADD = $(host_ldadd)
interpreter_files = tests/hosts/interpreters/bridge.c tests/hosts/interpreters/bridge.h  \
	tests/hosts/interpreters/cycles.sh tests/hosts/interpreters/java.c \
	tests/hosts/interpreters/java.java  tests/hosts/interpreters/lua.c tests/hosts/interpreters/lua.lua tests/hosts/interpreters/luajit.lua \
	tests/hosts/interpreters/node.c  tests/hosts/interpreters/node.js tests/hosts/interpreters/perl.c \
	tests/hosts/interpreters/perl.pl  tests/hosts/interpreters/php.php \
	tests/hosts/interpreters/python3.py  tests/hosts/interpreters/python3_extensions.py tests/hosts/interpreters/python3_loader.py \
	tests/hosts/interpreters/python3_releases.py \
	tests/hosts/interpreters/ruby.rb

plugin_libraries = tests/plugins/asker.la tests/plugins/blocks.la tests/plugins/blocks_two.la tests/plugins/caller.la \
	tests/plugins/caller_two.la tests/plugins/differing.la tests/plugins/first_table.la tests/plugins/half_made.la tests/plugins/incompatible_keeper.la tests/plugins/keeper.la tests/plugins/lacking_table.la \
	tests/plugins/late.la tests/plugins/newer_keeper.la tests/plugins/newer_table.la tests/plugins/needs_one.la tests/plugins/needs_two.la \
	tests/plugins/older_keeper.la tests/plugins/oldest_keeper.la tests/plugins/opener.la tests/plugins/other_abi.la tests/plugins/other_prefix.la tests/plugins/releaser.la tests/plugins/small_table.la \
	tests/plugins/static_tls.la tests/plugins/stayer.la tests/plugins/stayer_nodelete.la tests/plugins/stayer_thread.la \
	tests/plugins/stayer_unique.la tests/plugins/walker.la tests/plugins/large_tls.la tests/plugins/nesting.la tests/plugins/nesting_two.la
plugin_libraries += tests/plugins/constructing.la tests/plugins/dependency.la tests/plugins/giving.la tests/plugins/grower.la tests/plugins/grower_lazy.la \
	tests/plugins/grower_of_arrays.la tests/plugins/hooker.la tests/plugins/in_text.la \
	tests/plugins/no_imports.la tests/plugins/of_cxx.la tests/plugins/of_thread.la tests/plugins/of_thread_static.la tests/plugins/own.la tests/plugins/own_chosen.la tests/plugins/own_symbolic.la \
	tests/plugins/own_version.la tests/plugins/partial.la tests/plugins/selfmade.la tests/plugins/variables.la tests/plugins/ways.la \
	tests/plugins/ways_lazy.la tests/plugins/ways_relro.la
tests_plugins_asker_la_CPPFLAGS = $(host_cppflags)
tests_plugins_asker_la_LDFLAGS = $(plugin_ldflags) -Wl,-rpath,'$$ORIGIN/own' -Wl,-rpath,'$$ORIGIN/other'
tests_plugins_blocks_la_CFLAGS = $(AM_CFLAGS) -fno-builtin
tests_plugins_blocks_la_LDFLAGS = $(plugin_ldflags)
tests_plugins_nesting_two_la_SOURCES = tests/plugins/nesting.c
tests_plugins_blocks_two_la_SOURCES = tests/plugins/blocks.c
tests_plugins_blocks_two_la_CFLAGS = $(AM_CFLAGS) -fno-builtin
tests_plugins_blocks_two_la_LDFLAGS = $(plugin_ldflags) -Wl,-z,relro -Wl,-z,now
tests_plugins_large_tls_la_LDFLAGS = $(plugin_ldflags)
tests_plugins_nesting_la_CFLAGS = $(AM_CFLAGS) -fno-builtin
tests_plugins_nesting_la_LDFLAGS = $(plugin_ldflags)
tests_plugins_nesting_two_la_CFLAGS = $(AM_CFLAGS) -fno-builtin
tests_plugins_nesting_two_la_LDFLAGS = $(plugin_ldflags)
tests_plugins_caller_la_LDFLAGS = $(plugin_ldflags)
tests_plugins_caller_two_la_SOURCES = tests/plugins/caller.c
tests_plugins_caller_two_la_LDFLAGS = $(plugin_ldflags)
tests_plugins_differing_la_LDFLAGS = $(plugin_ldflags)
tests_plugins_first_table_la_CPPFLAGS = $(host_cppflags)
tests_plugins_first_table_la_LDFLAGS = $(plugin_ldflags) -export-symbols-regex '^first_table$$'
tests_plugins_first_table_la_LIBADD = libalcore.la
tests_plugins_half_made_la_LDFLAGS = $(plugin_ldflags) -Wl,-z,relro -Wl,-z,now
tests_plugins_keeper_la_LDFLAGS = $(plugin_ldflags)
# Of a loader's release that is not this one.
keeper_of = $(host_cppflags) -I$(top_srcdir)/loader
tests_plugins_incompatible_keeper_la_SOURCES = tests/plugins/keepers.c
tests_plugins_incompatible_keeper_la_CPPFLAGS = $(keeper_of) \
	-DKEEPERS_VERSION='KEEPER_VERSION + 1' -DKEEPERS_SIZE='sizeof(struct keeper)' -DKEEPERS_RELEASE='"9.9.9"'
tests_plugins_incompatible_keeper_la_LDFLAGS = $(plugin_ldflags)
tests_plugins_newer_keeper_la_SOURCES = tests/plugins/keepers.c
tests_plugins_newer_keeper_la_CPPFLAGS = $(keeper_of) \
	-DKEEPERS_VERSION='KEEPER_VERSION' -DKEEPERS_SIZE='sizeof(struct keeper) + sizeof(void (*)(void))' -DKEEPERS_RELEASE='"9.9.9"'
tests_plugins_newer_keeper_la_LDFLAGS = $(plugin_ldflags)
tests_plugins_older_keeper_la_SOURCES = tests/plugins/keepers.c
tests_plugins_older_keeper_la_CPPFLAGS = $(keeper_of) \
	-DKEEPERS_VERSION='KEEPER_VERSION' -DKEEPERS_SIZE='offsetof(struct keeper, module_open)' -DKEEPERS_RELEASE='"0.0.2"'
tests_plugins_older_keeper_la_LDFLAGS = $(plugin_ldflags)
tests_plugins_oldest_keeper_la_SOURCES = tests/plugins/keepers.c
tests_plugins_oldest_keeper_la_CPPFLAGS = $(keeper_of) \
	-DKEEPERS_VERSION='KEEPER_VERSION' -DKEEPERS_SIZE='offsetof(struct keeper, error_message)' -DKEEPERS_RELEASE='"0.0.1"'
tests_plugins_oldest_keeper_la_LDFLAGS = $(plugin_ldflags)
tests_plugins_lacking_table_la_CPPFLAGS = $(host_cppflags)
tests_plugins_lacking_table_la_LDFLAGS = $(plugin_ldflags)
tests_plugins_late_la_LDFLAGS = $(plugin_ldflags)
tests_plugins_newer_table_la_CPPFLAGS = $(host_cppflags)
tests_plugins_newer_table_la_LDFLAGS = $(plugin_ldflags) -export-symbols-regex '^newer_table$$'
tests_plugins_newer_table_la_LIBADD = libalcore.la
tests_plugins_needs_one_la_SOURCES = tests/plugins/allocating.c
tests_plugins_needs_one_la_CPPFLAGS = $(host_cppflags)
tests_plugins_needs_one_la_LDFLAGS = $(plugin_ldflags) $(needs_allocator)
EXTRA_tests_plugins_needs_one_la_DEPENDENCIES = libalcove@S@.la
tests_plugins_needs_two_la_SOURCES = tests/plugins/allocating.c
tests_plugins_needs_two_la_CPPFLAGS = $(host_cppflags)
tests_plugins_needs_two_la_LDFLAGS = $(plugin_ldflags) $(needs_allocator)
EXTRA_tests_plugins_needs_two_la_DEPENDENCIES = libalcove@S@.la
tests_plugins_opener_la_LDFLAGS = $(plugin_ldflags)
tests_plugins_other_abi_la_CPPFLAGS = $(host_cppflags)
tests_plugins_other_abi_la_LDFLAGS = $(plugin_ldflags)
tests_plugins_releaser_la_LDFLAGS = $(plugin_ldflags)
tests_plugins_small_table_la_CPPFLAGS = $(host_cppflags)
tests_plugins_small_table_la_LDFLAGS = $(plugin_ldflags)
tests_plugins_static_tls_la_LDFLAGS = $(plugin_ldflags)
tests_plugins_stayer_la_LDFLAGS = $(plugin_ldflags)
tests_plugins_stayer_nodelete_la_SOURCES = tests/plugins/stayer.c
tests_plugins_stayer_nodelete_la_LDFLAGS = $(plugin_ldflags) -Wl,-z,nodelete
tests_plugins_stayer_thread_la_SOURCES = tests/plugins/stayer.c
tests_plugins_stayer_thread_la_CPPFLAGS = $(AM_CPPFLAGS) -DSTAYS_FOR_THREAD
tests_plugins_stayer_thread_la_LDFLAGS = $(plugin_ldflags)
tests_plugins_stayer_unique_la_SOURCES = tests/plugins/stayer.c
tests_plugins_stayer_unique_la_CPPFLAGS = $(AM_CPPFLAGS) -DSTAYS_UNIQUE
tests_plugins_stayer_unique_la_LDFLAGS = $(plugin_ldflags)
tests_plugins_walker_la_LDFLAGS = $(plugin_ldflags)
tests_plugins_other_prefix_la_SOURCES = tests/plugins/extension.c $(libloadcore_la_SOURCES)
tests_plugins_other_prefix_la_CPPFLAGS = -iquote $(top_srcdir)/tests/plugins/other_prefix $(libloadcore_la_CPPFLAGS) \
	$(default_names) -include $(top_builddir)/other-names.h
tests_plugins_other_prefix_la_LDFLAGS = $(plugin_ldflags) -export-symbols-regex '^extension'
BUILT_SOURCES += other-names.h
CLEANFILES += other-names.h
other-names.h: loader/exports.sym
	$(AM_V_GEN)$(SED) 's/^$(P)\(.*\)/#define $(P)\1 other_\1/' loader/exports.sym >$@
tests_plugins_constructing_la_CFLAGS = $(AM_CFLAGS) -fno-builtin
tests_plugins_constructing_la_LDFLAGS = $(plugin_ldflags) -Wl,--no-as-needed -Wl,tests/plugins/.libs/dependency.so -Wl,-rpath,'$$ORIGIN'
EXTRA_tests_plugins_constructing_la_DEPENDENCIES = tests/plugins/dependency.la
tests_plugins_dependency_la_CFLAGS = $(AM_CFLAGS) -fno-builtin
tests_plugins_dependency_la_LDFLAGS = $(plugin_ldflags)
tests_plugins_giving_la_LDFLAGS = $(plugin_ldflags)
tests_plugins_grower_la_LDFLAGS = $(plugin_ldflags)
tests_plugins_grower_lazy_la_SOURCES = tests/plugins/grower.c
tests_plugins_grower_lazy_la_LDFLAGS = $(plugin_ldflags) -Wl,-z,lazy
tests_plugins_grower_of_arrays_la_SOURCES = tests/plugins/grower.c
tests_plugins_grower_of_arrays_la_CPPFLAGS = $(AM_CPPFLAGS) -DGROWS_ARRAYS
tests_plugins_grower_of_arrays_la_LDFLAGS = $(plugin_ldflags)
tests_plugins_hooker_la_LDFLAGS = $(plugin_ldflags)
tests_plugins_in_text_la_LDFLAGS = $(plugin_ldflags) -Wl,-z,notext
tests_plugins_no_imports_la_LDFLAGS = $(plugin_ldflags)
tests_plugins_of_cxx_la_LDFLAGS = $(plugin_ldflags)
tests_plugins_of_thread_la_LDFLAGS = $(plugin_ldflags)
tests_plugins_of_thread_static_la_SOURCES = tests/plugins/of_thread.c
tests_plugins_of_thread_static_la_CPPFLAGS = $(AM_CPPFLAGS) -DOF_THREAD_STATIC
tests_plugins_of_thread_static_la_LDFLAGS = $(plugin_ldflags)
tests_plugins_own_la_CFLAGS = $(AM_CFLAGS) -fno-builtin
tests_plugins_own_la_LDFLAGS = $(plugin_ldflags) -Wl,-z,lazy
tests_plugins_own_chosen_la_SOURCES = tests/plugins/own.c
tests_plugins_own_chosen_la_CPPFLAGS = $(AM_CPPFLAGS) -DOWN_CHOSEN
tests_plugins_own_chosen_la_CFLAGS = $(AM_CFLAGS) -fno-builtin
tests_plugins_own_chosen_la_LDFLAGS = $(plugin_ldflags) -Wl,-z,lazy
tests_plugins_own_symbolic_la_SOURCES = tests/plugins/own.c
tests_plugins_own_symbolic_la_CFLAGS = $(AM_CFLAGS) -fno-builtin
tests_plugins_own_symbolic_la_LDFLAGS = $(plugin_ldflags) -Wl,-Bsymbolic
tests_plugins_own_version_la_SOURCES = tests/plugins/own.c
tests_plugins_own_version_la_CFLAGS = $(AM_CFLAGS) -fno-builtin
tests_plugins_own_version_la_LDFLAGS = $(plugin_ldflags) -Wl,-z,lazy -Wl,--version-script=$(srcdir)/tests/plugins/own.map
tests_plugins_partial_la_CFLAGS = $(AM_CFLAGS) -fno-builtin
tests_plugins_partial_la_LDFLAGS = $(plugin_ldflags) -Wl,-z,lazy -Wl,-z,norelro
tests_plugins_selfmade_la_LDFLAGS = $(plugin_ldflags) -Wl,-z,norelro
tests_plugins_variables_la_CFLAGS = $(AM_CFLAGS) -fno-builtin
tests_plugins_variables_la_LDFLAGS = $(plugin_ldflags) -Wl,-soname,variables.so
tests_plugins_ways_la_CFLAGS = $(AM_CFLAGS) -fno-builtin
tests_plugins_ways_la_LDFLAGS = $(plugin_ldflags)
tests_plugins_ways_lazy_la_SOURCES = tests/plugins/ways.c
tests_plugins_ways_lazy_la_CFLAGS = $(AM_CFLAGS) -fno-builtin
tests_plugins_ways_lazy_la_LDFLAGS = $(plugin_ldflags) -Wl,-z,lazy
tests_plugins_ways_relro_la_SOURCES = tests/plugins/ways.c
tests_plugins_ways_relro_la_CFLAGS = $(AM_CFLAGS) -fno-builtin
tests_plugins_ways_relro_la_LDFLAGS = $(plugin_ldflags) -Wl,-z,relro -Wl,-z,now
if STATIC
plugin_libraries += tests/plugins/static_one.la tests/plugins/static_two.la
plugin_libraries += tests/plugins/extension_one.la tests/plugins/extension_two.la tests/plugins/extension_three.la
tests_plugins_extension_one_la_SOURCES = tests/plugins/extension.c
tests_plugins_extension_one_la_CPPFLAGS = $(host_cppflags)
tests_plugins_extension_one_la_LDFLAGS = $(plugin_ldflags) $(loader_inside)
EXTRA_tests_plugins_extension_one_la_DEPENDENCIES = archives.stamp
tests_plugins_extension_two_la_SOURCES = tests/plugins/extension.c
tests_plugins_extension_two_la_CPPFLAGS = $(host_cppflags)
tests_plugins_extension_two_la_LDFLAGS = $(plugin_ldflags) $(loader_inside)
EXTRA_tests_plugins_extension_two_la_DEPENDENCIES = archives.stamp
tests_plugins_extension_three_la_SOURCES = tests/plugins/extension.c
tests_plugins_extension_three_la_CPPFLAGS = $(host_cppflags)
tests_plugins_extension_three_la_LDFLAGS = $(plugin_ldflags) $(loader_inside)
EXTRA_tests_plugins_extension_three_la_DEPENDENCIES = archives.stamp
tests_plugins_static_one_la_SOURCES = tests/plugins/allocating.c
tests_plugins_static_one_la_CPPFLAGS = $(host_cppflags)
tests_plugins_static_one_la_LDFLAGS = $(plugin_ldflags) $(allocator_inside)
EXTRA_tests_plugins_static_one_la_DEPENDENCIES = archives.stamp
tests_plugins_static_two_la_SOURCES = tests/plugins/allocating.c
tests_plugins_static_two_la_CPPFLAGS = $(host_cppflags)
tests_plugins_static_two_la_LDFLAGS = $(plugin_ldflags) $(allocator_inside)
EXTRA_tests_plugins_static_two_la_DEPENDENCIES = archives.stamp
endif

# One source in the shapes that libraries have: each kind of hash table, of binding and of what only some need.
corpus_libraries = tests/fuzz/chosen.la tests/fuzz/gnu.la tests/fuzz/quiet.la tests/fuzz/sysv.la \
	tests/fuzz/threaded.la tests/fuzz/versions.la
tests_fuzz_chosen_la_SOURCES = tests/fuzz/corpus.c
tests_fuzz_chosen_la_CPPFLAGS = $(AM_CPPFLAGS) -DCORPUS_IFUNC -DCORPUS_UNIQUE
tests_fuzz_chosen_la_LDFLAGS = $(plugin_ldflags) -Wl,--hash-style=both -Wl,-z,lazy -Wl,-z,relro
tests_fuzz_gnu_la_SOURCES = tests/fuzz/corpus.c
tests_fuzz_gnu_la_LDFLAGS = $(plugin_ldflags) -Wl,--hash-style=gnu -Wl,-z,now -Wl,-z,relro
tests_fuzz_quiet_la_SOURCES = tests/fuzz/corpus.c
tests_fuzz_quiet_la_CPPFLAGS = $(AM_CPPFLAGS) -DCORPUS_QUIET
tests_fuzz_quiet_la_LDFLAGS = $(plugin_ldflags) -Wl,--hash-style=gnu -Wl,-z,now -Wl,-z,relro
tests_fuzz_sysv_la_SOURCES = tests/fuzz/corpus.c
tests_fuzz_sysv_la_LDFLAGS = $(plugin_ldflags) -Wl,--hash-style=sysv -Wl,-z,lazy -Wl,-z,norelro
tests_fuzz_threaded_la_SOURCES = tests/fuzz/corpus.c
tests_fuzz_threaded_la_CPPFLAGS = $(AM_CPPFLAGS) -DCORPUS_TLS
tests_fuzz_threaded_la_LDFLAGS = $(plugin_ldflags) -Wl,--hash-style=gnu -Wl,-z,lazy -Wl,-z,relro
tests_fuzz_versions_la_SOURCES = tests/fuzz/corpus.c
tests_fuzz_versions_la_CPPFLAGS = $(AM_CPPFLAGS) -DCORPUS_VERSIONS
tests_fuzz_versions_la_LDFLAGS = $(plugin_ldflags) -Wl,--hash-style=both -Wl,-z,now -Wl,-z,relro \
	-Wl,--version-script=$(srcdir)/tests/fuzz/corpus.map
if PACKED_RELOCATIONS
corpus_libraries += tests/fuzz/packed.la
endif
tests_fuzz_packed_la_SOURCES = tests/fuzz/corpus.c
tests_fuzz_packed_la_LDFLAGS = $(plugin_ldflags) -Wl,--hash-style=gnu -Wl,-z,pack-relative-relocs

EXTRA_DIST += $(script_tests) $(interpreter_files) tests/tap.sh tests/hosts/readme.sh tests/hosts/host.h tests/hosts/loaded.h tests/hosts/routed.h \
	tests/module/heaps.h tests/module/module.h tests/plugins/blocks.h tests/stress/stress.h tests/stress/loader/scenario.h tests/unit/elf.h tests/unit/unit.h \
	tests/plugins/allocating.h tests/plugins/asker.h tests/plugins/constructing.h tests/plugins/dependency.h tests/plugins/giving.h tests/plugins/grower.h \
	tests/plugins/hooker.h tests/plugins/in_text.h tests/plugins/of_thread.h tests/plugins/own.h tests/plugins/own.map tests/plugins/partial.h tests/plugins/slots.h tests/plugins/variables.h tests/plugins/ways.h \
	tests/plugins/extension.h tests/plugins/first_table.h tests/plugins/keepers.h tests/plugins/other_prefix/config.h tests/plugins/half_made.h tests/plugins/late.h tests/plugins/newer_table.h tests/plugins/opener.h tests/plugins/releaser.h tests/plugins/stayer.h tests/work.h tests/child.h tests/module/fibers.c \
	tests/process.h tests/module/system_calls.h dev/fuzz tests/fuzz/corpus.map tests/fuzz/findings

# dev/sweep runs it, once for each library of the system; tests/sweep/sweep.h explains.
if SHARED
noinst_PROGRAMS += tests/sweep/sweep_one
endif
tests_sweep_sweep_one_SOURCES = tests/sweep/opened.c tests/sweep/slots.c tests/sweep/slots.h tests/sweep/sweep.h tests/sweep/sweep_one.c
tests_sweep_sweep_one_CPPFLAGS = $(host_cppflags)
tests_sweep_sweep_one_CFLAGS = $(AM_CFLAGS) -fno-builtin
tests_sweep_sweep_one_LDADD = libalcove-loader.la
tests_sweep_sweep_one_LDFLAGS = $(AM_LDFLAGS) -Wl,-z,now
EXTRA_DIST += dev/sweep

# Without shared libraries there is nothing to load: the tests that link objects are left.
check_PROGRAMS = $(unit_tests) $(stress_tests)
TESTS = $(unit_tests) $(stress_tests)
if SHARED
check_PROGRAMS += $(module_tests) $(host_tests) $(unload_tests) $(fuzz_programs)
check_LTLIBRARIES = $(plugin_libraries) $(corpus_libraries)
TESTS += $(module_tests) $(host_tests) $(unload_tests) $(script_tests)
all_stress_tests = $(stress_tests) $(unload_tests)
else
all_stress_tests = $(stress_tests)
endif

# How each kind is built. A module test takes nothing of LDADD's archives, for it names nothing of them.
LDADD = libloadcore.la libalcore.la $(CMOCKA_LIBS)
host_cppflags = $(AM_CPPFLAGS) $(default_names)
host_ldadd = libalcove-lua.la libalcove-loader.la $(CMOCKA_LIBS)
plugin_ldflags = -module -avoid-version -shared -rpath /nowhere
needs_allocator = -Wl,.libs/libalcove@S@.so -Wl,-rpath,$(abs_top_builddir)/.libs
loader_inside = -Wl,.libs/libalcove-loader.a -Wl,--exclude-libs,ALL
allocator_inside = -Wl,.libs/libalcove@S@.a -Wl,--exclude-libs,ALL

# A test that hangs fails after so many seconds. TEST_RUN runs programs of another machine: make check TEST_RUN='qemu-aarch64 …'.
TEST_SECONDS = 300
TEST_RUN =
TEST_EXTENSIONS = .sh
LOG_COMPILER = timeout $(TEST_SECONDS) $(TEST_RUN)
SH_LOG_COMPILER = timeout $(TEST_SECONDS) $(SHELL)
AM_TESTS_ENVIRONMENT = \
	ALCOVE_TEST_MODULE='$(abs_top_builddir)/.libs/libalcove@S@.so'; export ALCOVE_TEST_MODULE; \
	ALCOVE_TEST_PLUGINS='$(abs_top_builddir)/tests/plugins/.libs'; export ALCOVE_TEST_PLUGINS; \
	ALCOVE_TEST_PREFIX='$(P)'; export ALCOVE_TEST_PREFIX; \
	ALCOVE_TEST_SRCDIR='$(abs_top_srcdir)'; export ALCOVE_TEST_SRCDIR; \
	ALCOVE_TEST_BUILDDIR='$(abs_top_builddir)'; export ALCOVE_TEST_BUILDDIR; \
	ALCOVE_TEST_STATIC='$(static_built)'; export ALCOVE_TEST_STATIC; \
	ALCOVE_TEST_RUN='$(TEST_RUN)'; export ALCOVE_TEST_RUN; \
	CC='$(CC)'; export CC;
if STATIC
static_built = yes
endif

# What takes longest, and hardly depends on how the compiler optimizes or on a page's size.
long_tests = $(all_stress_tests) tests/hosts/test_given_away tests/hosts/test_interpreters.sh tests/hosts/test_preloaded.sh tests/module/test_exhaustion \
	tests/module/test_fibers.sh tests/module/test_spare

# Only some of them: make check-unit, make check-stress, make check-short.
.PHONY: check-unit check-stress check-short
check-unit:
	$(MAKE) $(AM_MAKEFLAGS) check TESTS='$(unit_tests)' check_PROGRAMS='$(unit_tests)' check_LTLIBRARIES=
check-stress:
	$(MAKE) $(AM_MAKEFLAGS) check TESTS='$(all_stress_tests)' check_PROGRAMS='$(all_stress_tests)'
check-short:
	$(MAKE) $(AM_MAKEFLAGS) check TESTS="`printf '%s\n' $(TESTS) | grep -vxF $(long_tests:%=-e %) | tr '\n' ' '`"
