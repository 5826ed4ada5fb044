"""How every command ends: with an exit code and at most one plain message. Imports nothing heavy.

Exit codes: 0 done; 1 it failed under way; 2 bad input; 130 stopped by Ctrl-C; 141 nobody reads its output any more,
which, as for any program in a pipe, needs no message. A traceback means a bug in this project.
"""

import errno
import io
import os
import select
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

from data.errors import BAD_INPUT, FAILED, STOPPED, AutodidactError
from data.text import visible

NOBODY_READS = 128 + signal.SIGPIPE


def ended_plainly(work: Callable[[], int]) -> int:
    """Run a command, and return the exit code.

    Until the work calls `raise_on_ctrl_c`, and again afterward, Ctrl-C does what it did before: it ends the process of
    a command started from a shell.
    """
    before = signal.getsignal(signal.SIGINT)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal may be ASCII-only, and a file name may not be text
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _code_of(work)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except AutodidactError as error:
        return _say(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _say("stopped.", STOPPED)
    except OSError as error:
        if isinstance(error, BrokenPipeError) and (_is_unread(1) or _is_unread(2)):
            _forget_output()
            return NOBODY_READS
        if error.errno is None:
            raise
        return _say(*_about(error))
    finally:
        _on_ctrl_c(before)  # the interpreter still has to shut down


def raise_on_ctrl_c() -> None:
    """From here on something may need cleanup: Ctrl-C raises KeyboardInterrupt instead of ending the process."""
    _on_ctrl_c(signal.default_int_handler)


def _on_ctrl_c(handler: Any) -> None:
    main = threading.current_thread() is threading.main_thread()
    if main and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as in a shell's background jobs
        signal.signal(signal.SIGINT, handler)


def _code_of(work: Callable[[], int]) -> int:
    try:
        return work()
    except SystemExit as end:  # --help
        return end.code if isinstance(end.code, int) else FAILED if end.code else 0


def _say(message: str, code: int) -> int:
    try:
        sys.stdout.flush()
    except (OSError, ValueError, AttributeError):
        _forget_output()
    print(f"autodidact: {visible(message)}", file=sys.stderr)
    return code


def _about(error: OSError) -> tuple[str, int]:
    """The system's error in words, and the exit code: an error that names a file is for the user to fix."""
    again = "and run the same command again."
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{error.filename or 'the output'}: {error.strerror}. Make room there, {again}", FAILED
    if error.filename is None:  # a limit of the machine, or a connection
        return f"{error.strerror}. Fix that, {again}", FAILED
    return f"{error.filename}: {error.strerror}. Check that it exists and that you may use it, {again}", BAD_INPUT


def _is_unread(descriptor: int) -> bool:
    """Whether a descriptor is a pipe that nobody reads."""
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(state & select.POLLERR for _, state in poll.poll(0))


def _forget_output() -> None:
    """Discard pending output, or the interpreter would complain about it at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
