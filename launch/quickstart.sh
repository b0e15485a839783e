#!/usr/bin/env bash
# Sets up .venv and runs the main workflow on a small driven lattice: exact trajectories, training,
# the same spins under the learned field, figures. When run again, it continues where it stopped.
EXTRAS="test"
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
use_scatter
hpcspin info

output=${1:-runs/quickstart}
cores=$(python -c 'import os; print(len(os.sched_getaffinity(0)))')
ranks=$((cores < 4 ? cores : 4))
say "reproducing configs/driven_sd_small.yaml on $ranks rank(s) into $output"
if [ "$ranks" -gt 1 ]; then
  OMP_NUM_THREADS=1 mpiexec -n "$ranks" hpcspin reproduce configs/driven_sd_small.yaml --output "$output"
else
  hpcspin reproduce configs/driven_sd_small.yaml --output "$output"
fi
say "figures and numbers.json are in $output"
