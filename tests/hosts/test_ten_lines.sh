#!/bin/sh
# The ten-line host of README.md: it runs Debian's libxml2 as a module, and leaves nothing live.
set -eu
. "$ALCOVE_TEST_SRCDIR/tests/hosts/readme.sh"
readme_host "ten lines" 10
readme_run
case $said in
"in use 0,"*) echo "the module used nothing: its allocations were not routed" >&2; exit 1 ;;
"in use "*", left "*) ;;
*) echo "it did not print its figures" >&2; exit 1 ;;
esac
