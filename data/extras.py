"""Optional packages: which extra installs each, and the error without it."""

import importlib.util

from data.errors import UsageError

# By the module's name.
EXTRAS = {"gradio": "ui", "openai": "endpoint", "psycopg2": "postgres", "supervisor": "services"}


def require_extra(module: str, purpose: str) -> None:
    """Check that an optional package is installed, without importing it.

    Args:
        purpose: what needs the package; the message starts with it.

    Raises:
        UsageError: it is not installed.
    """
    if importlib.util.find_spec(module) is None:
        raise UsageError(
            f"{purpose} needs the package {module}, which is not installed.",
            what_next=f"Install it: pip install 'autodidact[{EXTRAS[module]}]', or make setup in a checkout.",
        )
