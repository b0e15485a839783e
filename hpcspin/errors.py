"""The one exception that a user is meant to read."""


class HpcspinError(Exception):
    """A failure whose message is one line: what is wrong, where, and how to mend it."""
