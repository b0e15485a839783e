#!/usr/bin/env bash
# Sets up .venv and runs the whole test suite, ranks included. Arguments go to pytest, but for a first one
# --with-scatter: it builds torch-scatter where no wheel of it is kept (5 to 6 minutes, once). Without it the tests
# use torch-scatter where a wheel is at hand, and those that need it are skipped where there is none.
EXTRAS="test"
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
if [ "${1:-}" = --with-scatter ]; then
  shift
  build_scatter
else
  use_scatter
fi
say "testing"
# Two tests at a time: half of a test is one process after the other, each of which starts on one core.
# Threads that wait for each other on a busy machine cost more than they bring on matrices this small.
OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} python -m pytest -n 2 --dist worksteal --durations=15 "$@"
