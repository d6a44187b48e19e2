# Sourced by the tests of README.md's programs. readme_host <mark> compiles, exactly as printed, the program that follows <!-- mark -->, without a
# warning, against the headers and the built loader, into $work/host; readme_run runs it: what it prints is $said.
source=$ALCOVE_TEST_SRCDIR build=$ALCOVE_TEST_BUILDDIR
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# readme_host <mark> <most lines>, includes not counted
readme_host() {
    sed -n "/^<!-- $1 -->\$/,/^\`\`\`\$/p" "$source/README.md" | sed '1,2d;$d' >"$work/host.c"
    lines=$(wc -l <"$work/host.c")
    [ "$lines" -ge 5 ] || { echo "no program follows <!-- $1 --> in README.md" >&2; exit 1; }
    [ "$(grep -vc '^#include' "$work/host.c")" -le "$2" ] || { echo "it has more than $1: $lines" >&2; exit 1; }

    if [ -f "$build/.libs/libalcove-loader.so" ]; then
        link="-L$build/.libs -lalcove-loader -Wl,-rpath,$build/.libs"
    else
        link="$build/.libs/libalcove-loader.a -pthread -ldl"
    fi
    ${CC:-cc} -Wall -Wextra -Werror -include "$build/default-names.h" \
        -I"$build/include" -I"$source/include" "$work/host.c" -o "$work/host" $link
}

readme_run() {
    said=$(${ALCOVE_TEST_RUN-} "$work/host" "$ALCOVE_TEST_MODULE" 2>&1) || {
        case $said in
        *libxml2*folders*) echo "skipped: libxml2.so.2 is not installed"; exit 77 ;;
        esac
        echo "the program failed: $said" >&2; exit 1
    }
    echo "$said"
}
