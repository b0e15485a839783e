"""One file a verb of the command line; `hpcspin.api` calls the same functions."""
