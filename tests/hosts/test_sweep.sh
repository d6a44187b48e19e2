#!/bin/sh
# Does the program of dev/sweep find what differs, and nothing else? Prints TAP.
. "$ALCOVE_TEST_SRCDIR/tests/tap.sh"
if [ -n "$ALCOVE_TEST_RUN" ]; then
    echo "1..0 # SKIP the program starts itself, which an emulator cannot"
    exit 77
fi

# expect <verdict> <library> [<text in what is said>]
expect() {
    found=$("$ALCOVE_TEST_BUILDDIR/tests/sweep/sweep_one" "$ALCOVE_TEST_MODULE" "$2" 2>&1)
    case $found in
        "$1	$2	"*"${3-}"*) ;;
        *) echo "not $1${3+ with \"$3\"}: $found" ;;
    esac
}

for plugin in blocks blocks_two caller differing keeper late; do
    report "$plugin is the same as a module" "$(expect same "$ALCOVE_TEST_PLUGINS/$plugin.so")"
done
report "a library that is not there is refused" "$(expect refused /nowhere/none.so)"

differing=$ALCOVE_TEST_PLUGINS/differing.so
export ALCOVE_TEST_DIFFERING
ALCOVE_TEST_DIFFERING=slot
report "a slot that leads elsewhere is found" "$(expect differs "$differing" "gave no block")"
ALCOVE_TEST_DIFFERING=words
report "words that are printed are found" "$(expect differs "$differing" '"other words"')"
ALCOVE_TEST_DIFFERING=exit
report "another exit status is found" "$(expect differs "$differing" "exit status 3")"
ALCOVE_TEST_DIFFERING=crash
report "a crash is found" "$(expect crashed "$differing" "opening")"

tap_end
