"""The way to a hub, through huggingface_hub: one commit at the end, so nothing is ever half published."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data.errors import AutodidactError, RunFailedError, UsageError
from data.hub import hub_is_off, why_unreachable

TOKEN = "HF_TOKEN"
# What an earlier commit may have left that would be loaded along with, or instead of, what is published now.
REPLACED = ["*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json", "adapter_config.json", "*.jinja"]


def check_name(name: str) -> None:
    """Check the name of a model on the hub.

    Raises:
        UsageError: it has no owner, or signs that the hub does not allow.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    what_next = "Give OWNER/NAME, such as ada/arithmetic-1: a user or organization, and letters, digits, '-', '_', '.'."
    owner, slash, rest = name.partition("/")
    if not (owner and slash and rest):
        raise UsageError(f"{name!r} has no owner, so it is not a model's name on the hub.", what_next=what_next)
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise UsageError(f"{name!r} cannot be a model's name on the hub ({error}).", what_next=what_next) from None


def require_hub_and_token() -> str:
    """Return the token, which is only taken from the environment, if there is a hub to use it for.

    Raises:
        UsageError: there is no token, or the hub may not be used or does not answer.
    """
    token = os.environ.get(TOKEN, "").strip()
    if not token:
        raise UsageError(
            f"There is no token for the hub: the environment variable {TOKEN} is not set.",
            what_next=f"Make one with the right to write, at {_endpoint()}/settings/tokens, and set {TOKEN} to it; or "
            "write a folder with --to.",
        )
    why = "HF_HUB_OFFLINE forbids it" if hub_is_off() else why_unreachable()
    if why:
        raise UsageError(
            f"The hub cannot be reached: {why}.",
            "Nothing was published.",
            "Check the network and HF_ENDPOINT, and give the same command again; or write a folder with --to.",
        )
    return token


def upload(
    folder: Path, name: str, token: str, message: str, private: bool = False, revision: str | None = None
) -> str:
    """Upload a folder as one commit, making the repository or the branch if needed; return its address.

    Args:
        private: nobody else may see it. A repository that others can see already is refused.
        revision: the branch; by default main.

    Raises:
        UsageError: the hub refuses the token, the name or the card.
        RunFailedError: the upload failed under way.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.utils import disable_progress_bars

    if not sys.stderr.isatty():
        disable_progress_bars()
    hub = HfApi(token=token)
    with _in_words(name):
        address = str(hub.create_repo(name, private=private or None, exist_ok=True))
        if private and not hub.model_info(name).private:
            raise UsageError(
                f"{name} is there already, and others can see it.",
                "Nothing was published.",
                f"Make it private at {address}/settings, choose another name, or leave out --private.",
            )
        if revision:
            hub.create_branch(name, branch=revision, exist_ok=True)
        hub.upload_folder(
            repo_id=name, folder_path=folder, revision=revision, commit_message=message, delete_patterns=REPLACED
        )
    return f"{address}/tree/{revision}" if revision else address


def _endpoint() -> str:
    from huggingface_hub import constants

    return str(constants.ENDPOINT)


@contextmanager
def _in_words(name: str) -> Iterator[None]:
    """Turn what the hub's library raises, which is of several kinds, into an error that says what to do."""
    try:
        yield
    except AutodidactError:
        raise
    except Exception as error:
        raise _explained(name, error) from error


def _explained(name: str, error: Exception) -> AutodidactError:
    first = _first(error)
    response = getattr(first, "response", None)
    status = getattr(response, "status_code", None)
    said = str(getattr(first, "server_message", None) or first).strip().replace("\n", " ").rstrip(".")
    nothing = "Nothing was published."
    if status == 401:
        return UsageError(
            f"The hub does not know the token in {TOKEN} ({said}).",
            nothing,
            f"Make another at {_endpoint()}/settings/tokens, with the right to write.",
        )
    if status == 403:
        return UsageError(
            f"The token in {TOKEN} has no right to write {name} ({said}).",
            nothing,
            "Use your own name or that of an organization you belong to, or a token with the right to write.",
        )
    if status in (400, 404, 422) or isinstance(first, ValueError):
        return UsageError(
            f"The hub refuses {name} ({said}).",
            nothing,
            "Correct what it names, such as --license or --revision, and give the same command again.",
        )
    return RunFailedError(
        f"Publishing {name} failed under way ({said or type(first).__name__}).",
        "The files would have appeared with one commit at the end, so nothing is half published.",
        "Give the same command again; what was uploaded is not sent twice.",
    )


def _first(error: BaseException) -> BaseException:
    """The error of the hub's answer, if there is one among the causes."""
    found: BaseException | None = error
    while found is not None:
        if getattr(found, "response", None) is not None:
            return found
        found = found.__cause__
    return error
