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
# A source tree that was built in is not fit for other build trees, whose make would take its objects for theirs. It is left as it is, and they
# are built from a copy of what would be distributed, build-copy/.

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

# The folder to configure from: the top, or the copy, brought up to date. Files that did not change keep their times.
alcove_sources() {
    local log=$1 copy=$alcove_top/build-copy
    if [ ! -f "$alcove_top/config.status" ]; then
        printf '%s\n' "$alcove_top"
        return 0
    fi
    (
        mkdir -p "$copy" && exec 9>"$copy/.lock" && flock 9
        alcove_quietly "$log" "this source tree was built in: building from a copy of it, ${copy##*/}/" \
            make -C "$alcove_top" distdir distdir="${copy##*/}/new" &&
            cp -Rpu "$copy/new/." "$copy/sources" && rm -rf "$copy/new"
    ) && printf '%s\n' "$copy/sources"
}

alcove_build() {
    local dir args sources
    dir=$(alcove_dir "$1")
    shift
    mkdir -p "$dir" && alcove_setup && alcove_bootstrap "$dir/bootstrap.log" &&
        sources=$(alcove_sources "$dir/sources.log") || return 1
    args=$(printf '%q ' "$sources" "$@")
    (
        exec 9>"$dir/.lock" && flock 9 # one build at a time in one tree
        alcove_configure "$dir" "$args" "$sources" "$@" && alcove_make "$dir" make all
    )
}

# Configure unless it is done already, from these sources and with these arguments.
alcove_configure() {
    local dir=$1 args=$2 sources=$3
    shift 3
    if [ ! -f "$dir/Makefile" ] || [ "$(cat "$dir/.configured" 2>/dev/null)" != "$args" ]; then
        rm -f "$dir/.configured"
        (cd "$dir" && alcove_quietly configure.log "configure in ${dir##*/} $*" \
            "$sources/configure" --quiet "$@") || return 1
        printf '%s\n' "$args" >"$dir/.configured"
    fi
}

alcove_make() {
    local dir log=$2
    dir=$(alcove_dir "$1")
    shift 2
    (cd "$dir" && alcove_quietly "$log.log" "make $* in ${dir##*/}" make -j "$alcove_jobs" "$@")
}
