"""The model registry in MLflow: versions by reference, and which of them is the champion.

Every move of the alias `champion` is recorded on the version that it moves to: when, by whom, and which version was
champion before. So a move can be undone.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from data.errors import AutodidactError

CHAMPION, CHALLENGER = "champion", "challenger"
DIGEST, PATH = "digest", "path"
PUBLISHED = "published"  # the address on a hub
SINCE, BEFORE, BY = "champion_since", "champion_before", "champion_by"


class RegistryError(AutodidactError):
    """The registry has no such model or version; the message says what it has."""


@dataclass(frozen=True)
class Version:
    """One version of a registered model: a checkpoint, by path and digest."""

    model: str
    number: str
    path: Path
    digest: str
    tags: dict[str, str]

    def __str__(self) -> str:
        return f"version {self.number} of {self.model}"


class Registry:
    """Versions and aliases of registered models, through an MLflow client."""

    def __init__(self, client: Any) -> None:
        self.client = client

    def champion(self, model: str) -> Version | None:
        """Return the version that the alias `champion` points to; None if there is none."""
        number = self._aliases(model).get(CHAMPION)
        return self.version(model, number) if number else None

    def version(self, model: str, number: str) -> Version:
        """Return a version by its number.

        Raises:
            RegistryError: no such version.
        """
        found = {version.number: version for version in self.versions(model)}
        if number not in found:
            there = f"versions {', '.join(found)}" if found else "no version"
            raise RegistryError(
                f"There is no version {number} of {model}.", what_next=f"The registry has {there} of this model."
            )
        return found[number]

    def versions(self, model: str) -> list[Version]:
        """Return all versions of a model, oldest first."""
        return sorted(self._search(f"name = '{model}'"), key=lambda version: int(version.number))

    def tagged(self, tag: str, value: str) -> list[Version]:
        """Return the versions of all models that have a tag with this value."""
        return self._search(f"tags.{tag} = '{value}'")

    def _search(self, what: str) -> list[Version]:
        ours = [v for v in self._pages(self.client.search_model_versions, what) if DIGEST in v.tags]
        return [Version(v.name, str(v.version), Path(v.tags[PATH]), v.tags[DIGEST], dict(v.tags)) for v in ours]

    @staticmethod
    def _pages(search: Callable[..., Any], what: str | None) -> Iterator[Any]:
        """Yield all results of an MLflow search, page by page."""
        token = None
        while True:
            page = search(what, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def holding(self, run: str, model: str) -> dict[Path, str]:
        """Return the checkpoints that the registry needs, each with the reason.

        Being registered automatically by a loop is not enough. A version needs its checkpoint if it has an alias, was
        champion before (so `roll_back` may return to it), or was not registered by the loop.

        Args:
            run: name of the run that registers its iterations automatically.
            model: the registered model that they are versions of.
        """
        models = self._pages(self.client.search_registered_models, None)
        aliases = {(row.name, str(number)): alias for row in models for alias, number in row.aliases.items()}
        held = {}
        for version in self._pages(self.client.search_model_versions, None):
            name, number = version.name, str(version.version)
            alias = aliases.get((name, number)) or ("a champion before" if SINCE in version.tags else None)
            automatic = name == model and version.tags.get("run") == run and DIGEST in version.tags
            if (alias or not automatic) and (path := version.tags.get(PATH) or _local(version.source)):
                held[Path(path)] = f"version {number} of {name}" + (f", {alias}," if alias else "") + " names it"
        return held

    def crown(self, version: Version, by: str) -> None:
        """Make a version the champion, and record the previous one. Does nothing if it is already champion.

        Args:
            by: what moved the alias, such as "gate" or "hand".
        """
        before = self._aliases(version.model).get(CHAMPION, "")
        if before == version.number:
            return
        since = datetime.now(UTC).isoformat(timespec="seconds")
        # Tags first, so that a champion always names its predecessor, even after a kill between the two steps.
        self.tag(version, {SINCE: since, BEFORE: before, BY: by})
        self.client.set_registered_model_alias(version.model, CHAMPION, version.number)
        if self._aliases(version.model).get(CHALLENGER) == version.number:
            self.client.delete_registered_model_alias(version.model, CHALLENGER)

    def challenge(self, version: Version) -> None:
        """Point the alias `challenger` to a version."""
        self.client.set_registered_model_alias(version.model, CHALLENGER, version.number)

    def roll_back(self, model: str) -> Version:
        """Make the previous champion the champion again.

        Raises:
            RegistryError: there is no champion, or none before it.
        """
        champion = self.champion(model)
        if champion is None:
            raise RegistryError(f"{model} has no champion.", what_next=f"Name one: autodidact promote {model} VERSION.")
        if not champion.tags.get(BEFORE):
            raise RegistryError(
                f"There was no champion before {champion}.",
                what_next=f"Name one: autodidact promote {model} VERSION.",
            )
        before = self.version(model, champion.tags[BEFORE])
        self.crown(before, "rollback")
        return before

    def tag(self, version: Version, tags: dict[str, str]) -> None:
        for name, value in tags.items():
            self.client.set_model_version_tag(version.model, version.number, name, value)

    def models(self) -> list[str]:
        """Return the names of all registered models."""
        return [model.name for model in self.client.search_registered_models()]

    def _aliases(self, model: str) -> dict[str, str]:
        found = self.client.search_registered_models(filter_string=f"name = '{model}'")
        return {alias: str(number) for row in found for alias, number in row.aliases.items()}


def _local(source: str | None) -> str | None:
    """The path of a version that was registered by hand from a local folder."""
    parsed = urlparse(source or "")
    return unquote(parsed.path) if parsed.scheme in ("", "file") and parsed.path else None
