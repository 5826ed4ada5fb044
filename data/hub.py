"""The Hugging Face hub: whether it can be reached, checked once and quickly.

Its own libraries retry for half a minute, which is long if the cause is a typo in a path.
"""

import time
from difflib import get_close_matches
from pathlib import Path

PATIENCE_SECONDS = 3.0
REMEMBERED_SECONDS = 60.0

_failed: dict[str, tuple[float, str]] = {}  # by address: when it failed, and why


def why_unreachable() -> str | None:
    """Why the hub (HF_ENDPOINT) cannot be reached now; None if it responds, with whatever status.

    Not checked with HF_HUB_OFFLINE: the libraries do not retry then.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    if hub_is_off():
        return None
    address = constants.ENDPOINT
    when, why = _failed.get(address, (float("-inf"), ""))
    if time.monotonic() - when < REMEMBERED_SECONDS:
        return why
    try:
        get_session().head(address, timeout=PATIENCE_SECONDS)
    except Exception as error:  # whichever HTTP library is used
        why = f"{address} does not answer: {error}"
        _failed[address] = time.monotonic(), why
        return why
    return None


def hub_is_off() -> bool:
    """Whether HF_HUB_OFFLINE forbids downloads."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def meant_as_path(name: str) -> str:
    """A hint for a name that is not on the hub: the path it may have been meant as. Ends in a space, or is empty."""
    first, *rest = Path(name).parts
    folders = [path.name for path in Path.cwd().iterdir() if path.is_dir()]
    if first in folders:
        return f"There is a folder {first} here, but no {name} in it. "
    for close in get_close_matches(first, folders):
        if (path := Path(close, *rest)).exists():
            return f"Did you mean {path}? "
    return ""
