#!/bin/sh
# The ten-line host of README.md, exactly as printed: it compiles without a warning against the
# headers and the built loader, runs Debian's libxml2 as a module, and leaves nothing live.
set -eu
source=$ALCOVE_TEST_SRCDIR build=$ALCOVE_TEST_BUILDDIR
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

sed -n '/^<!-- ten lines -->$/,/^```$/p' "$source/README.md" | sed '1,2d;$d' >"$work/host.c"
lines=$(wc -l <"$work/host.c")
[ "$lines" -ge 5 ] || { echo "no program follows <!-- ten lines --> in README.md" >&2; exit 1; }
[ "$(grep -vc '^#include' "$work/host.c")" -le 10 ] || { echo "it has more than ten lines: $lines" >&2; exit 1; }

if [ -f "$build/.libs/libalcove-loader.so" ]; then
    link="-L$build/.libs -lalcove-loader -Wl,-rpath,$build/.libs"
else
    link="$build/.libs/libalcove-loader.a -pthread -ldl"
fi
${CC:-cc} -Wall -Wextra -Werror -include "$build/default-names.h" \
    -I"$build/include" -I"$source/include" "$work/host.c" -o "$work/host" $link

said=$(${ALCOVE_TEST_RUN-} "$work/host" "$ALCOVE_TEST_MODULE") || {
    case $said in
    *libxml2*folders*) echo "skipped: libxml2.so.2 is not installed"; exit 77 ;;
    esac
    echo "the program failed: $said" >&2; exit 1
}
echo "$said"
case $said in
"in use 0,"*) echo "the module used nothing: its allocations were not routed" >&2; exit 1 ;;
"in use "*", left "*) ;;
*) echo "it did not print its figures" >&2; exit 1 ;;
esac
