"""The one exception that a user is meant to read."""


class HpcspinError(Exception):
    """A failure whose message is one line: what is wrong, where, and how to mend it."""


def one_line(failure: BaseException) -> str:
    """What to tell a user about a failure: its message, or its kind where it is not ours."""
    if isinstance(failure, HpcspinError):
        return str(failure)
    if isinstance(failure, KeyboardInterrupt):
        return "interrupted; give the same command again to go on"
    if isinstance(failure, OSError) and failure.strerror:
        return f"{failure.filename or 'input/output'}: {failure.strerror}"
    message = " ".join(str(failure).split())
    return f"unexpected {type(failure).__name__}: {message} (hpcspin --debug shows the traceback)"


def exit_code(failure: BaseException) -> int:
    """Exit code of a process that ends by a failure: 130 by Ctrl-C, as of any process that SIGINT ends."""
    return 130 if isinstance(failure, KeyboardInterrupt) else 1
