"""The command `autodidact publish`: a run's best policy with its model card, to a hub or into a folder."""

import argparse
import re
from contextlib import suppress
from pathlib import Path

from data.errors import UsageError
from flows.commands.flow_table import find_flow
from flows.commands.parser import CommandParser
from flows.commands.printing import say
from flows.commands.yaml_file import path_at_home
from tasks.publishing.base import require_license
from tasks.publishing.card import model_card
from tasks.publishing.folder import assembled, require_empty, write_folder
from tasks.publishing.hub import check_name, require_hub_and_token, upload
from tasks.publishing.policy import Published, open_published
from tasks.stage.environment import prepare
from tasks.tracking.mlflow import open_registry, reaching, tracking_uri
from tasks.tracking.registry import PUBLISHED


def publish(arguments: list[str]) -> int:
    """Publish a run's best policy with its tokenizer and a model card, on the hub or in a folder.

    The token is read from the environment variable HF_TOKEN.
    """
    parser = CommandParser("publish", publish.__doc__)
    parser.add_argument("run", metavar="RUN")
    parser.add_argument("name", metavar="OWNER/NAME", help="name of the model on the hub")
    parser.add_argument(
        "--to", type=path_at_home, metavar="FOLDER", help="write the same files into a new folder, without a hub"
    )
    parser.add_argument("--adapter", action="store_true", help="the adapter alone, with its base named")
    parser.add_argument("--private", action="store_true", help="nobody else may see it")
    parser.add_argument("--revision", metavar="BRANCH", help="branch to publish on (default: main)")
    parser.add_argument(
        "--license", type=_license, metavar="LICENSE", help="such as apache-2.0 (default: that of the base)"
    )
    told = parser.parse_args(arguments)
    prepare(told.runs_dir)
    check_name(told.name)
    if told.to and (told.private or told.revision):
        raise UsageError("--private and --revision are about a hub, and --to uses none.", what_next="Leave one out.")
    if told.to:
        require_empty(told.to)
    token = "" if told.to else require_hub_and_token()
    published = open_published(told.runs_dir, told.run, told.adapter)
    license_fields = require_license(published.base, told.license, told.run)
    card = model_card(published, told.name, license_fields, _about(published.history.algorithm))
    with assembled(published, card) as folder:
        if told.to:
            write_folder(folder, told.to)
            say(f"{told.run}, iteration {published.iteration}, is in {told.to}.")
            return 0
        message = f"Iteration {published.iteration} of the run {told.run}"
        address = upload(folder, told.name, token, message, told.private, told.revision)
    say(f"{told.run}, iteration {published.iteration}, is published at {address}")
    say(_registered(told.runs_dir, published, address))
    return 0


def _license(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a license identifier of the hub, such as apache-2.0 or mit")
    return text


def _registered(runs: Path, published: Published, address: str) -> str:
    """Note the address with the policy's version in MLflow; return a sentence about it."""
    model = str(published.history.config.get("registry") or f"autodidact-{published.history.name}")
    with reaching(tracking_uri(runs)):
        registry = open_registry(runs)
        found = [version for version in registry.versions(model) if version.digest == published.digest]
        for version in found:
            registry.tag(version, {PUBLISHED: address})
    noted = " and ".join(map(str, found))
    return f"The address is noted with {noted} in MLflow." if found else f"MLflow has no version of it in {model}."


def _about(algorithm: str | None) -> str:
    """The flow's own sentence about its algorithm; empty if the flow is not installed here."""
    with suppress(UsageError):
        if flow := find_flow((algorithm or "").lower().replace(" ", "-")):
            return flow.about
    return ""
