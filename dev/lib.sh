# Sourced by the commands in dev/ (bash): how to get from a clean clone to a built tree.
#
#   alcove_setup [group…]                   install what is missing (see dev/setup)
#   alcove_build <builddir> [configure arguments…]
#       setup, bootstrap, configure and make, each only when needed. One line of progress for
#       each; their output goes to <builddir>/*.log, which is shown from the first error when one fails.
#   alcove_make <builddir> <log> <make arguments…>
#       make in a tree that alcove_build made, its output in <builddir>/<log>.log
#
# All return non-zero when something failed. A relative <builddir> is taken from the top.

alcove_top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd) || exit 1
alcove_jobs=$(nproc 2>/dev/null || echo 2)

alcove_say() { printf '== %s\n' "$*" >&2; }

# The part of a log that tells what went wrong: around the first error, or the end.
alcove_log_show() {
    printf -- '-- %s:\n' "$1"
    grep -E -m1 -B8 -A40 '(error|undefined reference)[: ]|\*\*\*' "$1" || tail -n 40 "$1"
}

# alcove_quietly <log> <what> <command…>
alcove_quietly() {
    local log=$1 what=$2
    shift 2
    alcove_say "$what"
    "$@" >"$log" 2>&1 && return 0
    alcove_say "FAILED: $what"
    alcove_log_show "$log" >&2
    return 1
}

alcove_setup() { "$alcove_top/dev/setup" "$@"; }

# The build tree's absolute name, so that callers may be anywhere.
alcove_dir() {
    case $1 in
        /*) printf '%s\n' "$1" ;;
        *) printf '%s/%s\n' "$alcove_top" "$1" ;;
    esac
}

# configure must be made when it is missing, or older than what it is made from.
alcove_bootstrap() {
    local log=$1
    (
        cd "$alcove_top" || exit 1
        exec 9<bootstrap && flock 9 # two builds may start at once
        if [ -f configure ] && [ -f Makefile.in ] && [ -f config.h.in ] &&
            [ -z "$(find configure.ac Makefile.am m4 src loader plugins tests bench demo doc \
                \( -name '*.mk' -o -name 'alcove*.m4' -o -name configure.ac -o -name Makefile.am \) \
                -newer Makefile.in -print -quit)" ]; then
            exit 0
        fi
        alcove_quietly "$log" "bootstrap" ./bootstrap
    )
}

alcove_build() {
    local dir args
    dir=$(alcove_dir "$1")
    shift
    args=$(printf '%q ' "$@")
    mkdir -p "$dir" && alcove_setup && alcove_bootstrap "$dir/bootstrap.log" || return 1
    (
        exec 9>"$dir/.lock" && flock 9 # one build at a time in one tree
        alcove_configure "$dir" "$args" "$@" && alcove_make "$dir" make all
    )
}

# Configure unless it is done already, with these arguments.
alcove_configure() {
    local dir=$1 args=$2
    shift 2
    if [ ! -f "$dir/Makefile" ] || [ "$(cat "$dir/.configured" 2>/dev/null)" != "$args" ]; then
        rm -f "$dir/.configured"
        (cd "$dir" && alcove_quietly configure.log "configure in ${dir##*/} $*" \
            "$alcove_top/configure" --quiet "$@") || return 1
        printf '%s\n' "$args" >"$dir/.configured"
    fi
}

alcove_make() {
    local dir log=$2
    dir=$(alcove_dir "$1")
    shift 2
    (cd "$dir" && alcove_quietly "$log.log" "make $* in ${dir##*/}" make -j "$alcove_jobs" "$@")
}
