#!/bin/sh
# The thirty-line host of README.md: a limit that refuses, a leak that is reported, an error with its message.
set -eu
. "$ALCOVE_TEST_SRCDIR/tests/hosts/readme.sh"
readme_host "thirty lines" 30
readme_run
say() { echo "$1" >&2; exit 1; }
case $said in *"8 MiB: refused"*) ;; *) say "the limit did not refuse" ;; esac
case $said in *"refused 0 times"* | *"0 blocks left"*) say "the report tells of no refusal, or no leak" ;; esac
case $said in *"blocks left"*) ;; *) say "it did not report what was left" ;; esac
case $said in *"no-such-plugin.so"*) ;; *) say "it did not tell the error" ;; esac
