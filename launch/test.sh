#!/usr/bin/env bash
# Sets up .venv and runs the whole test suite, ranks included. Arguments go to pytest.
EXTRAS=test
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
build_scatter
say "testing"
OMP_NUM_THREADS=${OMP_NUM_THREADS:-2} python -m pytest --durations=15 "$@"
