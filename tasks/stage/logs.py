"""The logger of the run under way, Prefect's where a flow runs, and what keeps its lines plain."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from data.errors import AutodidactError
from data.text import visible
from tasks.stage.noise import PREFECT_LOGGERS, tells_something

OWN = "autodidact"  # of what is logged outside of a flow run


def run_logger() -> logging.Logger:
    """A logger whose lines appear in the Prefect UI if called within a flow or task run."""
    from prefect.exceptions import MissingContextError
    from prefect.logging import get_run_logger

    try:
        return get_run_logger()  # type: ignore[return-value]
    except MissingContextError:
        return logging.getLogger(OWN)


@contextmanager
def progress_shown() -> Iterator[None]:
    """Have all that is logged outside of a flow run stand on stderr, as plain lines."""
    logger, handler = logging.getLogger(OWN), logging.StreamHandler()
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]


def keep_logs_plain() -> None:
    """Have Prefect log no traceback of an error that says itself what happened, and nothing that acts on a terminal.

    Nor does it log what tells a run's user nothing.
    """
    for name in PREFECT_LOGGERS:
        logging.getLogger(name).addFilter(tells_something)
    for name in ("prefect.flow_runs", "prefect.task_runs", "prefect.engine", OWN):
        logging.getLogger(name).addFilter(_made_plain)


def _made_plain(record: logging.LogRecord) -> bool:
    if record.exc_info and isinstance(record.exc_info[1], AutodidactError):
        return False  # the state in which the run ends holds its sentences, and is logged next
    record.msg, record.args = visible(record.getMessage()), None
    if record.exc_info:
        record.exc_text = visible(logging.Formatter().formatException(record.exc_info))
    return True
