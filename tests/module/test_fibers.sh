#!/bin/sh
# fibers.c with the allocator's sources, optimised as one program (-flto) and inlined as far as the compiler
# can be talked into. With static and with dynamic thread-local storage. Prints TAP.
source=$ALCOVE_TEST_SRCDIR build=$ALCOVE_TEST_BUILDDIR
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

echo 'int main(void) { return 0; }' >"$work/empty.c"
if ! ${CC:-cc} -O2 -flto "$work/empty.c" -o "$work/empty" 2>"$work/said"; then
    echo "1..0 # skipped: $CC cannot link with -flto: $(head -n 1 "$work/said")"
    exit 77
fi
echo '#include <ucontext.h>
int main(void) { static ucontext_t c; return swapcontext(&c, &c); }' >"$work/empty.c"
if ! ${CC:-cc} "$work/empty.c" -o "$work/empty" 2>/dev/null; then
    echo "1..0 # skipped: this libc has no swapcontext"
    exit 77
fi
inlined=
for option in -finline-limit=2000 --param=inline-unit-growth=300; do
    ${CC:-cc} -Werror "$option" -c "$work/empty.c" -o "$work/empty.o" 2>/dev/null && inlined="$inlined $option"
done

# fibers <config.h's folder> <number> <name>
fibers() {
    if ! ${CC:-cc} -std=gnu11 -O3 -flto $inlined -fPIC -pthread -D_GNU_SOURCE= -I"$1" -I"$build" -I"$build/include" \
        -I"$source/include" -I"$source/src" -fno-builtin-malloc -fno-builtin-calloc -fno-builtin-realloc \
        -fno-builtin-free "$source/tests/module/fibers.c" "$source"/src/*/*.c \
        -o "$work/fibers" >"$work/said" 2>&1; then
        sed 's/^/# /' "$work/said"
        echo "not ok $2 - $3"
        return 1
    fi
    ${ALCOVE_TEST_RUN-} "$work/fibers" && echo "ok $2 - $3" || { echo "not ok $2 - $3"; return 1; }
}

echo 1..2
bad=0
fibers "$build" 1 test_fiber_gets_the_cache_of_the_thread_it_goes_on_in || bad=1
sed 's/\(define ALCOVE_FORCE_DYNAMIC_TLS\) 0/\1 1/' "$build/config.h" >"$work/config.h"
fibers "$work" 2 test_fiber_gets_the_cache_of_the_thread_it_goes_on_in_with_dynamic_tls || bad=1
exit $bad
