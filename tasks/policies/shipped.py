"""Embedded bases that come with the package, so that a demo begins with the same bytes on any machine.

`models/bases/<name>/` holds a checkpoint in `policy/` and, in `base.json`, what it was made from and how good it is.
A run looks here before it trains a base of its own. `make bases` makes them anew.
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
    """A base that comes with the package is not what its record says."""


class MeasuredBase(BaseModel):
    """A base on the embedded validation problems, answering greedily."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    problems: int
    accuracy: Interval
    without_steps: float = Field(description="Share of the answers that show no steps.")


class ShippedBase(BaseModel):
    """The record of a shipped base. Digests are SHA-256, hexadecimal."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    settings: str = Field(description="The file of settings whose bootstrap made it.")
    fingerprint: str = Field(description="Of the stage that would train it.")
    config: dict[str, Any] = Field(description="What of the settings changes the result.")
    seed: int
    examples: str = Field(description="Digest of the examples that it was trained on.")
    policy: str = Field(description="Digest of the checkpoint's files.")
    validation: MeasuredBase

    def copy_to(self, target: Path) -> None:
        """Copy the checkpoint: what a run does to its own files changes none of the package's.

        Raises:
            ShippedBaseError: the checkpoint is not the one that was recorded.
        """
        source = BASES / self.name / POLICY
        if folder_digest(source) != self.policy:
            raise ShippedBaseError(
                f"{source} is not the base that {RECORD} beside it describes.",
                "A file of it was changed, is missing, or was added.",
                "Restore that folder from the repository, or install Autodidact again.",
            )
        target.mkdir(exist_ok=True)
        for file in model_files(source):
            shutil.copyfile(file, target / file.name)


def shipped_bases() -> list[ShippedBase]:
    """The records of all shipped bases, by name."""
    return [ShippedBase.model_validate_json(file.read_bytes()) for file in sorted(BASES.glob(f"*/{RECORD}"))]


def find_base(fingerprint: str) -> ShippedBase | None:
    """The shipped base that a stage of this fingerprint would train, if there is one."""
    return next((base for base in shipped_bases() if base.fingerprint == fingerprint), None)


def digest_of_examples(examples: Iterable[Example]) -> str:
    """SHA-256 of what a base is trained on, in order; that of a Parquet file would change with the library."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(json.dumps([example.messages, example.completion]).encode() + b"\n")
    return digest.hexdigest()
