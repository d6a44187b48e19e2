#!/bin/sh
# The thirty-line host of README.md: a limit that refuses, a leak that is reported, an error with its message.
set -eu
. "$ALCOVE_TEST_SRCDIR/tests/hosts/readme.sh"
readme_host "thirty lines" 30
readme_run
say() { echo "$1" >&2; exit 1; }
case $said in *"8 MiB: refused"*) ;; *) say "the limit did not refuse" ;; esac
case $said in *"refused 0 times"*) say "the report tells of no refusal" ;; esac
left=$(printf '%s\n' "$said" | sed -n 's/^xml: .* blocks left with \([0-9]*\) bytes$/\1/p')
[ "${left:-0}" -ge 102400 ] || say "the report does not tell of the 100 KiB that were left"
case $said in *"no-such-plugin.so"*) ;; *) say "it did not tell the error" ;; esac
