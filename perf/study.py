"""Studies: experiments of physics and of training; ``python perf/study.py`` lists them.

python perf/study.py NAME [ARGUMENTS ...]
"""

from shared import run_script

run_script("studies")
