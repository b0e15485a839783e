#!/usr/bin/env bash
# Sets up .venv and runs the whole test suite, ranks included. Arguments go to pytest.
EXTRAS="test"
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
build_scatter
say "testing"
# Two tests at a time: half of a test is one process after the other, each of which starts on one core.
# Threads that wait for each other on a busy machine cost more than they bring on matrices this small.
OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} python -m pytest -n 2 --dist worksteal --durations=15 "$@"
