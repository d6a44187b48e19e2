#!/bin/sh
# Inside the interpreters that Debian has. Each loads the allocator, uses it from its main thread and two
# others, and unloads it while those live, ten times; then it loads it and exits. It must say so, end with
# status 0, and write nothing to standard error. Prints TAP.
here=$ALCOVE_TEST_SRCDIR/tests/hosts/interpreters
. "$ALCOVE_TEST_SRCDIR/tests/tap.sh"
skip_if_foreign /bin/sh
. "$here/cycles.sh"

# host <test> <interpreter> <arguments…>
host() {
    test=$1 name=$2
    shift 2
    if program=$(interpreter "$name"); then
        report "$test" "$(ten_cycles "$program" "$@")"
    else
        skip "$test" "$name is not installed"
    fi
}

# extension <test> [source and flags…]: compile it, with the bridge, as $work/extension.so. False: the test is over.
extension() {
    test=$1
    shift
    set -- "$@" -std=gnu11 -pthread "$here/bridge.c"
    if ! ${CC:-cc} "$@" -E >/dev/null 2>"$work/errors"; then
        skip "$test" "no headers: $(grep -m1 error "$work/errors")"
    elif ! ${CC:-cc} "$@" -Wall -Wextra -Werror -fPIC -shared -o "$work/extension.so" 2>"$work/errors"; then
        report "$test" "$(cat "$work/errors")"
    else
        return 0
    fi
    return 1
}

host "python3: ctypes" python3 "$here/python3.py"
host "python3: the loader, with SQLite as a module" python3 "$here/python3_loader.py"
host "python3: ctypes, blocks of a module" python3 "$here/python3_releases.py"
host "luajit: ffi, blocks of a module" luajit "$here/luajit.lua"
test="python3: two extensions with a loader inside each"
if [ -n "$ALCOVE_TEST_STATIC" ]; then
    host "$test" python3 "$here/python3_extensions.py"
else
    skip "$test" "there is no archive of the loader"
fi
host "ruby: fiddle" ruby "$here/ruby.rb"

test="php: FFI"
extension "$test" && host "$test" php -d ffi.enable=1 "$here/php.php" "$work/extension.so"

test="lua5.4: an extension"
extension "$test" "$here/lua.c" $(pkg-config --cflags lua5.4) &&
    host "$test" lua5.4 "$here/lua.lua" "$work/extension.so"

test="perl: DynaLoader"
flags=$($(interpreter perl) -MConfig -e 'print "$Config{ccflags} -isystem $Config{archlibexp}/CORE"')
extension "$test" "$here/perl.c" $flags && host "$test" perl "$here/perl.pl" "$work/extension.so"

test="node: an addon"
extension "$test" "$here/node.c" && host "$test" node "$here/node.js" "$work/extension.so"

test="java: JNI"
jdk=$($(interpreter java) -XshowSettings:properties -version 2>&1 | sed -n 's/^ *java\.home = //p')
extension "$test" "$here/java.c" -I"$jdk/include" -I"$jdk/include/linux" &&
    host "$test" java --enable-native-access=ALL-UNNAMED "$here/java.java" "$work/extension.so"

tap_end
