"""Embedded bases that ship with the package, so that a demo starts from the same bytes on any machine.

`models/bases/<name>/` holds a checkpoint in `policy/` and, in `base.json`, what it was made from and its accuracy.
A run looks here before it trains its own base. `make bases` makes them again.
"""

import hashlib
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

import models
from data.errors import AutodidactError
from data.metrics import Interval
from data.rows import Example
from tasks.policies.model_folder import folder_digest, model_files

BASES = Path(models.__file__).parent / "bases"
RECORD, POLICY = "base.json", "policy"


class ShippedBaseError(AutodidactError):
    """A shipped base does not match its record."""


class MeasuredBase(BaseModel):
    """A base's greedy accuracy on the embedded validation problems."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    problems: int
    accuracy: Interval
    without_steps: float = Field(description="Share of the answers that show no steps.")


class ShippedBase(BaseModel):
    """The record of a shipped base. Digests are SHA-256, hexadecimal."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    settings: str = Field(description="The settings file whose bootstrap made it.")
    fingerprint: str = Field(description="Fingerprint of the stage that would train it.")
    config: dict[str, Any] = Field(description="The settings that change the result.")
    seed: int
    examples: str = Field(description="Digest of the examples that it was trained on.")
    policy: str = Field(description="Digest of the checkpoint's files.")
    validation: MeasuredBase

    def copy_to(self, target: Path) -> None:
        """Copy the checkpoint, so that a run cannot change the package's files.

        Raises:
            ShippedBaseError: the checkpoint is not the recorded one.
        """
        source = BASES / self.name / POLICY
        if folder_digest(source) != self.policy:
            raise ShippedBaseError(
                f"{source} is not the base that {RECORD} beside it describes.",
                "One of its files was changed, removed or added.",
                "Restore the folder from the repository, or reinstall Autodidact.",
            )
        target.mkdir(exist_ok=True)
        for file in model_files(source):
            shutil.copyfile(file, target / file.name)


def shipped_bases() -> list[ShippedBase]:
    """Return the records of all shipped bases, by name."""
    return [ShippedBase.model_validate_json(file.read_bytes()) for file in sorted(BASES.glob(f"*/{RECORD}"))]


def find_base(fingerprint: str) -> ShippedBase | None:
    """Return the shipped base that a stage of this fingerprint would train, if any."""
    return next((base for base in shipped_bases() if base.fingerprint == fingerprint), None)


def digest_of_examples(examples: Iterable[Example]) -> str:
    """SHA-256 of a base's training examples, in order. A Parquet file's would change with the library."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(json.dumps([example.messages, example.completion]).encode() + b"\n")
    return digest.hexdigest()
