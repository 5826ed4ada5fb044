"""The Hugging Face hub: whether it can be reached at all, asked once and briefly.

Its own libraries try again and again for half a minute, which is long for a path with a spelling mistake in it.
"""

import time
from difflib import get_close_matches
from pathlib import Path

PATIENCE_SECONDS = 3.0
REMEMBERED_SECONDS = 60.0

_failed: dict[str, tuple[float, str]] = {}  # by address: when, and why


def why_unreachable() -> str | None:
    """Why the hub (of HF_ENDPOINT) cannot be asked now; None if it answers, whatever it says.

    With HF_HUB_OFFLINE it is not asked: then the libraries do not try for long either.
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
    except Exception as error:  # of whatever library carries the request
        why = f"{address} does not answer: {error}"
        _failed[address] = time.monotonic(), why
        return why
    return None


def hub_is_off() -> bool:
    """Whether HF_HUB_OFFLINE says that nothing is to be fetched."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def meant_as_path(name: str) -> str:
    """A hint for a name that is on no hub: the path that it may have been meant as. Ends in a blank, or is empty."""
    first, *rest = Path(name).parts
    folders = [path.name for path in Path.cwd().iterdir() if path.is_dir()]
    if first in folders:
        return f"There is a folder {first} here, and no {name} in it. "
    for close in get_close_matches(first, folders):
        if (path := Path(close, *rest)).exists():
            return f"Did you mean {path}? "
    return ""
