"""Problems in a file of rows, and what then happens to a row."""

from collections.abc import Callable

from data.errors import AutodidactError

Drop = Callable[[str, str], None]  # takes the reason that the row is counted under, and a description of the row
DROPPABLE = "Correct or remove the row, or leave such rows out with unusable: drop."


class DataFileError(AutodidactError):
    """A user's file cannot be used; the message names file, line and field."""


def leave_out(drop: Drop | None, reason: str, what: str, advice: str = "") -> None:
    """Count an unreadable row, or refuse its file.

    Raises:
        DataFileError: rows are not to be dropped.
    """
    if drop is None:
        raise DataFileError(f"{what}.", advice, DROPPABLE) from None
    drop(reason, what)


def unreadable(path: object, problem: OSError) -> DataFileError:
    """The error for a file or folder that the system cannot read."""
    return DataFileError(
        f"{path} cannot be read: {problem.strerror or problem}.", what_next="Check that you have permission to read it."
    )
