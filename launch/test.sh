#!/usr/bin/env bash
# Sets up .venv and runs the whole test suite, ranks included. torch-scatter is built if no wheel of it is kept (5 to 6
# minutes, once). Arguments are passed to pytest, except a first one --no-build: torch-scatter is then used only if a
# wheel is available, and otherwise the tests that need it are skipped.
EXTRAS="test"
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
if [ "${1:-}" = --no-build ]; then
  shift
  use_scatter
else
  build_scatter
fi
say "testing"
# Two tests at a time: for half of its time a test starts one process after the other, each on one core.
# On a busy machine, threads that wait for each other cost more than they gain for such small matrices.
OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} python -m pytest -n 2 --dist worksteal --durations=15 "$@"
