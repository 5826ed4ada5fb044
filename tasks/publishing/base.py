"""The model that a run began with, as a model card names it, and its license."""

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from data.errors import UsageError
from data.wording import counted
from tasks.history.runs import History, load_history
from tasks.stage.run import CONFIG

CARD = "README.md"
LICENSE_FIELDS = ("license", "license_name", "license_link")
# This package makes the embedded model's problems, and trains it from random weights.
EMBEDDED_LICENSE = {"license": "apache-2.0"}


@dataclass(frozen=True)
class HubModel:
    """A model on the hub, at a commit."""

    name: str
    commit: str


@dataclass(frozen=True)
class Base:
    """What a run began with.

    Attributes:
        said: in words.
        model: the model on the hub with these weights; None if there is none.
        descends_from: the model on the hub that it, or what it was made from, began with.
        license: the license fields of its model card; empty if it is not known.
    """

    said: str
    model: HubModel | None = None
    descends_from: HubModel | None = None
    license: dict[str, str] = field(default_factory=dict)


def base_of(history: History, later: Collection[Path] = ()) -> Base:
    """Return what a run began with. If that is the policy of an earlier run, its history counts too.

    Args:
        later: folders of the runs that began with this one's policy.
    """
    if "base" not in history.stages:  # a flow of another package
        return Base("a model that the run does not name")
    manifest, given = history.stages["base"].manifest, history.config.get("model")
    if given is None:
        said = f"the embedded tiny model, trained on {counted(manifest.rows_in or 0, 'worked example')} of arithmetic"
        return Base(said, license=EMBEDDED_LICENSE)
    merged = " with an adapter merged into it" if "adapter" in manifest.inputs else ""
    if {"model", "commit"} <= manifest.origin.keys():
        model = HubModel(manifest.origin["model"], manifest.origin["commit"])
        said = f"{model.name} at commit {model.commit}{merged}"
        return Base(said, None if merged else model, model, _license_in(_cached_card(model), model))
    folder = Path(str(given)).expanduser()
    earlier = _run_of(folder)
    if earlier is None or earlier in (history.directory.absolute(), *later):
        return Base(f"a model in the folder {folder.name}{merged}", license=_license_in(folder / CARD))
    before = base_of(load_history(earlier), (history.directory.absolute(), *later))
    said = f"the policy of the run {earlier.name}{merged}, which began with {before.said}"
    return Base(said, None, before.descends_from, _license_in(folder / CARD) or before.license)


def require_license(base: Base, given: str | None, run: str) -> dict[str, str]:
    """Return the license fields of the card: the given license, or the base's.

    Raises:
        UsageError: no license is given, and the base's is not known.
    """
    if given:
        return {"license": given}
    if not base.license:
        raise UsageError(
            f"The license of {run} is not known.",
            f"It began with {base.said}, and there is no model card here that names its license.",
            "Look up what that model's license asks of models made from it, and give one: --license apache-2.0.",
        )
    return base.license


def _run_of(policy: Path) -> Path | None:
    """The run that made a policy, if it is still there."""
    parents = list(policy.absolute().parents)[:4]
    return next((folder for folder in parents if (folder / CONFIG).is_file() and (folder / "base").is_dir()), None)


def _cached_card(model: HubModel) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(model.name, CARD, revision=model.commit)
    return Path(found) if isinstance(found, str) else None


def _license_in(card: Path | None, model: HubModel | None = None) -> dict[str, str]:
    """The license fields of a model card; empty if there is none, or it names no single license."""
    from huggingface_hub import ModelCard

    if card is None or not card.is_file():
        return {}
    try:
        told = ModelCard(card.read_text(encoding="utf-8"), ignore_metadata_errors=True).data.to_dict()
    except (OSError, ValueError, TypeError, yaml.YAMLError):  # written by somebody else
        return {}
    found = {name: told[name] for name in LICENSE_FIELDS if isinstance(told.get(name), str)}
    link = found.pop("license_link", "")
    if urlsplit(link).scheme in ("http", "https"):
        found["license_link"] = link
    elif link and model:  # a file of the base's repository
        found["license_link"] = f"https://huggingface.co/{model.name}/blob/{model.commit}/{link}"
    return found if "license" in found else {}
