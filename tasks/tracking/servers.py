"""Checks that the servers a flow reports to answer, before anything heavy starts."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from data.errors import RunFailedError, UsageError
from tasks.tracking.mlflow import reach_history

PROBE_SECONDS = 10.0
ADDRESS = "PREFECT_API_URL"


class PrefectError(RunFailedError):
    """Prefect's server cannot be reached, or refuses."""


def reach_servers(runs: Path) -> None:
    """Check that MLflow and Prefect answer. If no Prefect server is set, start one that ends with this process.

    Raises:
        HistoryError: MLflow cannot be reached, or refuses.
        PrefectError: Prefect cannot be reached, or refuses, or does not start.
        UsageError: the configured address is invalid.
    """
    from prefect.settings import PREFECT_API_URL

    reach_history(runs)
    if PREFECT_API_URL.value():
        reach_prefect()
        return
    from tasks.tracking.prefect_server import start_own_server

    try:
        start_own_server()
    except (RuntimeError, httpx.HTTPError) as error:
        raise PrefectError(
            "This run's own Prefect server does not start.",
            f"{error}",
            "Run the same command again, or start a server for all runs (`autodidact up`).",
        ) from None


def reach_prefect() -> None:
    """Check that the configured Prefect server answers and accepts the key.

    Raises:
        PrefectError: it does not.
        UsageError: the configured address is invalid.
    """
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    address = str(PREFECT_API_URL.value())
    if urlsplit(address).scheme not in ("http", "https") or not urlsplit(address).hostname:
        raise UsageError(
            f"{ADDRESS}={address} is not an address.",
            what_next="Set one such as http://127.0.0.1:4200/api, or unset the variable to run without a server.",
        )
    patience, timeout = temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 1}), {"timeout": PROBE_SECONDS}
    with patience, reaching_prefect(), get_client(timeout, sync_client=True) as client:
        try:
            client.read_flows(limit=1)
        except ValueError:  # an answer, but not from Prefect
            raise PrefectError(*_refusal(address, 200)) from None


@contextmanager
def reaching_prefect() -> Iterator[None]:
    """Turn the errors of Prefect's client into a `PrefectError` that says what to do.

    Raises:
        PrefectError: Prefect cannot be reached, or refuses.
    """
    from prefect.settings import PREFECT_API_URL

    address = PREFECT_API_URL.value()
    try:
        yield
    except httpx.HTTPStatusError as error:
        raise PrefectError(*_refusal(address, error.response.status_code)) from None
    except (httpx.TransportError, httpx.InvalidURL) as error:
        raise PrefectError(
            f"Prefect's server at {address} cannot be reached ({str(error) or type(error).__name__}).",
            f"The address is from {ADDRESS}.",
            "Start it, correct the address, or unset the variable to run without a server.",
        ) from None


def _refusal(address: str | None, status: int) -> tuple[str, str, str]:
    if status in (401, 403):
        return (
            f"Prefect's server at {address} refuses this key, or needs one (HTTP {status}).",
            "",
            "Set PREFECT_API_AUTH_STRING to its key: `autodidact status --key` prints it in the folder of its runs.",
        )
    return (
        f"The server at {address} is not Prefect's API, or not working (HTTP {status}).",
        f"The address is from {ADDRESS}.",
        "Check the server, or correct the address: that of a self-hosted server ends in /api.",
    )
