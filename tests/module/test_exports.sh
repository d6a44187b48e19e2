#!/bin/sh
# What the built module shows to the outside, and what it asks of the dynamic linker. Prints TAP.
export LC_ALL=C
module=$ALCOVE_TEST_MODULE
prefix=$ALCOVE_TEST_PREFIX
loader=$ALCOVE_TEST_BUILDDIR/.libs/libalcove-loader.so
. "$ALCOVE_TEST_SRCDIR/tests/tap.sh"

exported() { nm -D --defined-only "$1" | awk '{ print $NF }'; }

# absent <what> <where it must not be>: prints the lines that have it, or that the tool failed
absent() {
    [ -n "$2" ] || echo "nothing could be read of $module"
    printf '%s\n' "$2" | grep "$1"
}

report test_module_exports_only_prefixed_names "$(exported "$module" | grep -v "^$prefix")"
report test_module_exports_its_table \
    "$(exported "$module" | grep -qx "${prefix}table" || echo "no ${prefix}table in $module")"
grep -qx '#define ALCOVE_DEBUG 1' "$ALCOVE_TEST_BUILDDIR/config.h" && wanted=1 || wanted=0
report test_module_exports_lock_counts_in_debug_builds_only \
    "$([ "$(exported "$module" | grep -cx "${prefix}lock_counts")" = $wanted ] || echo "not $wanted of ${prefix}lock_counts in $module")"
grep -qx '#define ALCOVE_FAULT_INJECTION 1' "$ALCOVE_TEST_BUILDDIR/config.h" && wanted=1 || wanted=0
report test_module_exports_its_fault_plan_in_fault_builds_only \
    "$([ "$(exported "$module" | grep -cx "${prefix}fault_plan")" = $wanted ] || echo "not $wanted of ${prefix}fault_plan in $module")"
report test_loader_exports_only_prefixed_names "$(exported "$loader" | grep -v "^$prefix")"
report test_module_has_no_static_tls_flag "$(absent STATIC_TLS "$(readelf -dW "$module")")"
report test_module_has_no_tpoff_relocation "$(absent TPOFF "$(readelf -rW "$module")")"
report test_module_is_bound_at_load_time \
    "$(readelf -dW "$module" | grep -q 'FLAGS.*NOW' || echo "no NOW flag in $module")"
report test_module_needs_no_executable_stack \
    "$(readelf -lW "$module" | grep -q 'GNU_STACK.* RW ' || echo "GNU_STACK of $module is not RW")"
tap_end
