"""One file per verb of the command line; `hpcspin.api` calls the same functions.

A verb is a function of what it reads, often a config, of the file or directory that it writes, and of the ranks, all of
which call it. It reports anything wrong as an `HpcspinError`, where possible before anything is computed. A verb that
can be stopped returns an exit code: 0 when it has finished, 75 when a signal has stopped it with a checkpoint. Called
again, it continues from its directory, and refuses the directory of another config.
"""
