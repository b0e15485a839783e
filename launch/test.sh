#!/usr/bin/env bash
# Sets up .venv and runs the whole test suite, ranks included. Arguments go to pytest.
EXTRAS=test
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
build_scatter
say "testing"
# Threads that wait for each other on a busy machine cost more than they bring on matrices this small.
OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} python -m pytest --durations=15 "$@"
