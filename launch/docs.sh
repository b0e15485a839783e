#!/usr/bin/env bash
# Sets up .venv and builds the documentation in docs/_build/html; a warning, such as a broken link, is an error. The
# tutorial is run; its outputs are kept until it changes.
EXTRAS="test,docs"
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
say "building the documentation"
OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} python -m sphinx -W --keep-going -q -d docs/_build/doctrees docs docs/_build/html
say "docs/_build/html/index.html"
