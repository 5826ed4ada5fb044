"""The logger of the current run, Prefect's inside a flow run, and the filters that keep its lines plain."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from data.errors import AutodidactError
from data.text import visible
from tasks.stage.noise import PREFECT_LOGGERS, tells_something

OWN = "autodidact"  # logger for lines outside a flow run


def run_logger() -> logging.Logger:
    """Return a logger whose lines appear in the Prefect UI if called within a flow or task run."""
    from prefect.exceptions import MissingContextError
    from prefect.logging import get_run_logger

    try:
        return get_run_logger()  # type: ignore[return-value]
    except MissingContextError:
        return logging.getLogger(OWN)


@contextmanager
def progress_shown() -> Iterator[None]:
    """Show lines logged outside a flow run on stderr, as plain text."""
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
    """Keep Prefect's log free of tracebacks of self-explanatory errors, of terminal control characters and of noise."""
    for name in PREFECT_LOGGERS:
        logging.getLogger(name).addFilter(tells_something)
    for name in ("prefect.flow_runs", "prefect.task_runs", "prefect.engine", OWN):
        logging.getLogger(name).addFilter(_made_plain)


def _made_plain(record: logging.LogRecord) -> bool:
    if record.exc_info and isinstance(record.exc_info[1], AutodidactError):
        return False  # the run's final state has its message, and is logged next
    record.msg, record.args = visible(record.getMessage()), None
    if record.exc_info:
        record.exc_text = visible(logging.Formatter().formatException(record.exc_info))
    return True
