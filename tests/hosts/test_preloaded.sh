#!/bin/sh
# Next to another allocator, which LD_PRELOAD has made the process' own: interpreters and programs that
# pass with libc's must pass with that. Prints TAP.
here=$ALCOVE_TEST_SRCDIR/tests/hosts/interpreters
tests=$ALCOVE_TEST_BUILDDIR/tests
. "$ALCOVE_TEST_SRCDIR/tests/tap.sh"
skip_if_foreign /bin/sh
. "$here/cycles.sh"

# The scripts look for ALCOVE_TEST_PRELOADED among their mappings.
preloaded_script() {
    test="$1: ${2##*/}"
    if program=$(interpreter python3); then
        report "$test" "$(ten_cycles env ALCOVE_TEST_PRELOADED="$1" LD_PRELOAD="$1" "$program" "$2")"
    else
        skip "$test" "python3 is not installed"
    fi
}

preloaded_program() {
    report "$1: ${2##*/}" "$(
        LD_TRACE_LOADED_OBJECTS=1 LD_PRELOAD=$1 "$2" | grep -q "$1 => /" || echo "$1 is not preloaded"
        LD_PRELOAD=$1 "$2" >"$work/out" 2>&1 || { echo "it ended with status $?"; cat "$work/out"; }
    )"
}

steered_programs() {
    for program in test_bound_before test_constructors test_copies test_no_copies test_restored test_steering test_variants test_whole_or_not; do
        preloaded_program "$1" "$tests/hosts/$program"
    done
}

for library in libjemalloc.so.2 libmimalloc.so.2 libtcmalloc_minimal.so.4; do
    if [ -n "$(LD_PRELOAD=$library sh -c : 2>&1)" ]; then
        skip "$library" "it is not installed"
        continue
    fi
    preloaded_script "$library" "$here/python3.py"
    preloaded_script "$library" "$here/python3_loader.py"
    preloaded_script "$library" "$here/python3_releases.py"
    preloaded_program "$library" "$tests/module/test_heap_limits"
    preloaded_program "$library" "$tests/module/test_heaps"
    preloaded_program "$library" "$tests/module/test_threads"
    preloaded_program "$library" "$tests/hosts/test_policies"
    preloaded_program "$library" "$tests/hosts/test_routing"
    steered_programs "$library"
done

# Its functions have versions that they are found by, and others than libc's are found without one.
library=libc_malloc_debug.so.0
if [ -n "$(LD_PRELOAD=$library sh -c : 2>&1)" ]; then
    skip "$library" "it is not installed"
else
    steered_programs "$library"
    export MALLOC_CHECK_=3 # its blocks are then no longer as libc's are
    preloaded_program "$library" "$tests/hosts/test_variants"
fi

tap_end
