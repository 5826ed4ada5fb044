"""The logger of the run under way: Prefect's where a flow runs, the standard one elsewhere."""

import logging


def run_logger() -> logging.Logger:
    """A logger whose lines appear in the Prefect UI if called within a flow or task run."""
    from prefect.exceptions import MissingContextError
    from prefect.logging import get_run_logger

    try:
        return get_run_logger()  # type: ignore[return-value]
    except MissingContextError:
        return logging.getLogger("autodidact")
