"""The one base of this project's errors: what a user can read and act on, never a fault in the code itself.

Whoever shows one prints its text and ends with its exit code; nobody needs a list of its subclasses.
"""

from typing import ClassVar

BAD_INPUT, FAILED, STOPPED = 2, 1, 130  # exit codes: refused before it began; failed under way; Ctrl-C


class AutodidactError(Exception):
    """An expected failure, in up to three sentences.

    Attributes:
        what: what happened or cannot be done.
        why: the reason, where it is not part of the first sentence.
        what_next: what the reader can do about it.
        exit_code: of a command that ends with this error.
    """

    exit_code: ClassVar[int] = BAD_INPUT

    def __init__(self, what: str, why: str = "", what_next: str = "") -> None:
        super().__init__(what, why, what_next)  # all three, so that it can be pickled
        self.what, self.why, self.what_next = what, why, what_next

    def __str__(self) -> str:
        said = ""
        for sentence in (self.what, self.why, self.what_next):
            said += (" " if said and sentence and not said.endswith("\n") else "") + sentence
        return said


class UsageError(AutodidactError):
    """The command line or the configuration file cannot be used as it is."""


class RunFailedError(AutodidactError):
    """A failure under way: what was asked for was fine."""

    exit_code = FAILED
