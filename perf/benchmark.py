"""Benchmarks: how fast, how far from the limit, how safe; ``python perf/benchmark.py`` lists them.

python perf/benchmark.py NAME [ARGUMENTS ...]
"""

from shared import run_script

run_script("benchmarks")
