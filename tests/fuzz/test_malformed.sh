#!/bin/sh
# Malformed libraries: what was found before, then a few new ones (ALCOVE_TEST_VARIANTS). Prints TAP.
tests=$ALCOVE_TEST_BUILDDIR/tests
. "$ALCOVE_TEST_SRCDIR/tests/tap.sh"
skip_if_foreign /bin/sh

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
set -- "$tests"/fuzz/.libs/*.so

# findings <arguments…>: what fuzz_elf found, or why it could not look
findings() {
    "$tests/fuzz/fuzz_elf" --save "$work" "$@" >"$work/out" 2>&1 || cat "$work/out"
}

report "variants that once ended badly" "$(findings --replay "$ALCOVE_TEST_SRCDIR/tests/fuzz/findings" "$@")"
if [ -n "${ALCOVE_TEST_VARIANTS-}" ]; then
    report "$ALCOVE_TEST_VARIANTS variants" "$(findings --jobs "$(nproc)" --count "$ALCOVE_TEST_VARIANTS" "$@")"
else
    skip "new variants" "ALCOVE_TEST_VARIANTS is not set"
fi
tap_end
