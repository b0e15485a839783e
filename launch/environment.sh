# shellcheck shell=bash
# Creates .venv with hpcspin in it, once; sourced by quickstart.sh and test.sh, which set EXTRAS.
# Settings: PYTHON (interpreter to start from), HPCSPIN_TORCH (the torch to install).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf '[hpcspin] %s\n' "$*"; }

python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  say "Python 3.11 or newer is needed and $python is older; set PYTHON=/path/to/python3.11" >&2
  exit 1
}
if [ ! -x .venv/bin/python ]; then
  say "making .venv"
  "$python" -m venv .venv
fi
export PATH="$PWD/.venv/bin:$PATH"
pip() { python -m pip --disable-pip-version-check --quiet "$@"; }

if ! python -c 'import torch' 2>/dev/null; then
  say "installing torch"
  pip install "${HPCSPIN_TORCH:-torch==2.13.0}"
fi
# An MPI of the machine takes precedence; without one a wheel installs mpiexec and the library.
type mpiexec >/dev/null 2>&1 || EXTRAS="$EXTRAS,mpi"
# With a GPU, CuPy is installed too.
type nvidia-smi >/dev/null 2>&1 && EXTRAS="$EXTRAS,gpu"
stamp=.venv/.hpcspin-$(cksum <pyproject.toml | cut -d' ' -f1)-${EXTRAS//,/-}
if [ ! -e "$stamp" ]; then
  say "installing hpcspin[$EXTRAS]"
  pip install -e ".[$EXTRAS]"
  touch "$stamp"
fi

# torch-scatter has no wheel for current torch and takes minutes to compile: a wheel is built once and kept.
wheels=${XDG_CACHE_HOME:-$HOME/.cache}/hpcspin/wheels/$(python -c '
import sys, torch
print(f"torch-{torch.__version__}-py{sys.version_info[0]}{sys.version_info[1]}")')
has_scatter() { python -c 'import torch_scatter' 2>/dev/null; }
build_scatter() {
  has_scatter && return
  if ! compgen -G "$wheels/*.whl" >/dev/null; then
    say "building torch-scatter (5 to 6 minutes, once; kept in $wheels)"
    pip install "setuptools<81" wheel ninja
    pip wheel --no-build-isolation --no-deps --wheel-dir "$wheels" torch-scatter==2.1.2 || {
      say "torch-scatter could not be built; native torch does its work"
      return
    }
  fi
  use_scatter
}
use_scatter() {
  if ! has_scatter && compgen -G "$wheels/*.whl" >/dev/null; then
    pip install --no-deps "$wheels"/*.whl
  fi
}
