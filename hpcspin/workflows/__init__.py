"""One file a verb of the command line; `hpcspin.api` calls the same functions.

A verb is a function of what it reads, often a config, of the file or directory that it writes, and of the ranks, all of
which call it. What is wrong it raises as an `HpcspinError`, before anything is computed where that can be known. A verb
that can be stopped gives an exit code: 0 when it has finished, 75 when a signal has stopped it with a checkpoint.
Called again, it goes on where its directory stands, and refuses the directory of another config.
"""
