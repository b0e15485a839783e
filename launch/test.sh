#!/usr/bin/env bash
# Sets up .venv and runs the whole test suite, ranks included. torch-scatter is built where no wheel of it is kept
# (5 to 6 minutes, once). Arguments go to pytest, but for a first one --no-build: torch-scatter is then used where a
# wheel is at hand, and where there is none the tests that need it are skipped.
EXTRAS="test"
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
if [ "${1:-}" = --no-build ]; then
  shift
  use_scatter
else
  build_scatter
fi
say "testing"
# Two tests at a time: half of a test is one process after the other, each of which starts on one core.
# Threads that wait for each other on a busy machine cost more than they bring on matrices this small.
OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} python -m pytest -n 2 --dist worksteal --durations=15 "$@"
