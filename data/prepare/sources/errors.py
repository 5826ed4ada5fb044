"""What can be wrong with a file of rows, and what then becomes of a row."""

from collections.abc import Callable

from data.errors import AutodidactError

Drop = Callable[[str, str], None]  # takes the reason under which the row is counted, and a description of the row
DROPPABLE = "Correct or remove the row, or have such rows left out: unusable: drop."


class DataFileError(AutodidactError):
    """A file of the user's cannot be used; the message names file, line and field."""


def leave_out(drop: Drop | None, reason: str, what: str, advice: str = "") -> None:
    """Count a row that is no row, or refuse its file.

    Raises:
        DataFileError: rows are not to be dropped.
    """
    if drop is None:
        raise DataFileError(f"{what}.", advice, DROPPABLE) from None
    drop(reason, what)


def unreadable(path: object, problem: OSError) -> DataFileError:
    """The error for a file or folder that the system does not give."""
    return DataFileError(
        f"{path} cannot be read: {problem.strerror or problem}.", what_next="See that you may read it."
    )
