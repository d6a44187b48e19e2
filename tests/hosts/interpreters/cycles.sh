# Sourced by the script tests that run interpreters. They work in a folder of their own, $work, where
# one that crashes may leave what it likes.

export LC_ALL=C
unset JAVA_TOOL_OPTIONS NODE_OPTIONS PERL5OPT PYTHONWARNINGS RUBYOPT # a developer's own
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 99

# interpreter <name>: its file, the system's rather than a developer's own
interpreter() { PATH=/usr/bin:$PATH command -v "$1"; }

# ten_cycles <command…>: prints what is wrong with it; nothing: it ended well, having done its ten cycles.
ten_cycles() {
    said=$("$@" 2>"$work/errors")
    status=$?
    [ $status = 0 ] || echo "it ended with status $status"
    [ "$said" = "10 cycles" ] || echo "it said: $said"
    cat "$work/errors"
}
