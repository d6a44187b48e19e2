# Sourced by script tests: TAP, one line for each test.

tap_number=0
tap_failed=0

# report <name> <what was found; nothing means it passed>
report() {
    tap_number=$((tap_number + 1))
    if [ -z "$2" ]; then
        echo "ok $tap_number - $1"
    else
        echo "not ok $tap_number - $1"
        printf '%s\n' "$2" | sed 's/^/# /'
        tap_failed=1
    fi
}

# skip <name> <why>
skip() {
    tap_number=$((tap_number + 1))
    echo "ok $tap_number - $1 # SKIP $2"
}

# skip_if_foreign <program>: skip all of the script unless a program of this system could load the built module
skip_if_foreign() {
    machine_and_libc() { readelf -hdW "$1" | grep -oE 'Machine:.*|NEEDED.*libc\..*'; }
    [ "$(machine_and_libc "$ALCOVE_TEST_MODULE")" != "$(machine_and_libc "$1")" ] || return 0
    echo "1..0 # SKIP the module is for another machine or another libc than $1"
    exit 77
}

tap_end() {
    echo "1..$tap_number"
    exit $tap_failed
}
