"""The base class of this project's errors: what a user can read and act on, never a bug in the code itself.

Whoever shows an error prints its text and exits with its exit code; no list of subclasses is needed.
"""

from typing import ClassVar

BAD_INPUT, FAILED, STOPPED = 2, 1, 130  # exit codes: refused before it began; failed under way; Ctrl-C


class AutodidactError(Exception):
    """An expected failure, described in up to three sentences.

    Attributes:
        what: what happened or cannot be done.
        why: the reason, unless the first sentence gives it.
        what_next: what the reader can do about it.
        exit_code: of a command that ends with this error.
    """

    exit_code: ClassVar[int] = BAD_INPUT

    def __init__(self, what: str, why: str = "", what_next: str = "") -> None:
        super().__init__(what, why, what_next)  # all three, so it can be pickled
        self.what, self.why, self.what_next = what, why, what_next

    def __str__(self) -> str:
        said = ""
        for sentence in (self.what, self.why, self.what_next):
            said += (" " if said and sentence and not said.endswith("\n") else "") + sentence
        return said


class UsageError(AutodidactError):
    """The command line or the configuration file cannot be used."""


class RunFailedError(AutodidactError):
    """A failure while the run was under way: the input was fine."""

    exit_code = FAILED
