"""Packages that not every machine needs: which extra of this project brings which, and what to do without it."""

import importlib.util

from data.errors import UsageError

EXTRAS = {"openai": "endpoint", "psycopg2": "postgres", "supervisor": "services"}  # by the module's name


def require_extra(module: str, purpose: str) -> None:
    """See that an optional package is there, without importing it.

    Args:
        purpose: what needs it; begins the message.

    Raises:
        UsageError: it is not installed.
    """
    if importlib.util.find_spec(module) is None:
        raise UsageError(
            f"{purpose} needs the package {module}, which is not installed.",
            what_next=f"Install it: pip install 'autodidact[{EXTRAS[module]}]', or make setup in a checkout.",
        )
