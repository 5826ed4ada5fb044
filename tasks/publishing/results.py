"""What a model card says in figures: measurements on held-out rows, and the data that the policy was made from.

Everything is read from the stages' files, which the caller has opened.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.measures import MEASURES, Estimated, Measure
from data.storage import count_by, count_rows
from data.text import visible
from tasks.datasets.demonstrations import SFT
from tasks.history.runs import History
from tasks.stage.contract import Finished
from tasks.stage.run import Result
from tasks.tracking.contents import held_out

TRAINED_ON = ("examples", "pairs", "mix")  # inputs of a training stage that are rows; several have a suffix
INPUTS = {  # by its name in the manifest: the setting that names an input
    "file": "pairs",
    "judge": "reward.judge.model",
    "reward-model": "reward.model.path",
    "direct": "reward.direct.model",
    "labeler": "labeler.model",
}
SOURCE = {"problems": "source", "examples": "source", "mix": "source", "pairs": "chosen_source"}


@dataclass(frozen=True)
class Compared:
    """A measure of the published policy on one set, and of the base, if that was measured."""

    set_name: str
    measure: Measure
    base: Estimated | None
    best: Estimated

    def row(self) -> dict[str, str]:
        """A row of the table, every value with its interval."""
        difference = self.best.against.get("base")
        return {
            "set": self.set_name,
            "measure": self.measure.label,
            "rows": f"{self.best.rows:,} {self.measure.rows}",
            "base": self.measure.shown_interval(self.base.value) if self.base else "",
            "this policy": self.measure.shown_interval(self.best.value),
            "difference": self.measure.shown_interval(difference) if difference else "",
        }


def compared(history: History, iteration: int) -> list[Compared]:
    """Return the measurements of base and best policy on the final sets or, if there are none, on validation.

    Raises:
        CorruptStageError: a file of the final stages was changed after it was written.
    """
    seed = int(history.config.get("seed", 0))
    final = (_stages(history, "final/base"), _stages(history, "final/best"))
    found = held_out(final, seed) or held_out((_of(history, 0), _of(history, iteration)), seed)
    pairs = ((set_name, name, pair) for set_name, measured in found.items() for name, pair in measured.items())
    return [Compared(set_name, MEASURES[name], *pair) for set_name, name, pair in pairs]


def _stages(history: History, name: str) -> dict[str, Result]:
    """The stages that measured a policy at the end: final/best, final/best-likelihood and the like."""
    found = {known: stage for known, stage in history.stages.items() if known == name or known.startswith(f"{name}-")}
    for stage in found.values():
        stage.verify()
    return {known: Result(stage.path, stage) for known, stage in found.items()}


def _of(history: History, iteration: int) -> dict[str, Result]:
    found = {name: stage for name, stage in history.stages.items() if name.startswith(f"iter-{iteration}/")}
    return {name: Result(stage.path, stage) for name, stage in found.items()}


def rows_used(history: History, iteration: int) -> list[dict[str, str]]:
    """Return the files of rows behind the policy, with the data sets that they came from and their digests.

    These are the splits of the problems, and what the iterations up to this one were trained on.
    """
    files = dict(_splits(history.stages.get("problems")))
    for number in range(iteration + 1):
        train = history.stages.get(f"iter-{number}/train" if number else f"{SFT}/train")
        for name, digest in train.manifest.inputs.items() if train else ():
            origin = history.origin(digest, number)
            if origin is not None and name.split("_")[0] in TRAINED_ON:
                files[str(origin)] = (history.path(origin), SOURCE[name.split("_")[0]], _sha256(history, str(origin)))
    return [_row(name, *found) for name, found in files.items()]


def sources_of(history: History, set_name: str) -> str:
    """Return the names of the data sets that a set's rows are from; the set's own name if they are not known."""
    file = dict(_splits(history.stages.get("problems"))).get(f"problems/{set_name}.parquet")
    return visible(", ".join(map(public_name, count_by(*file[:2])))) if file else set_name


def _splits(problems: Finished | None) -> Iterator[tuple[str, tuple[Path, str, str]]]:
    for name, record in problems.manifest.outputs.items() if problems else ():
        if name.endswith(".parquet") and problems:
            yield f"problems/{name}", (problems.path / name, SOURCE["problems"], record.sha256)


def _sha256(history: History, name: str) -> str:
    """The digest of a file of the run, as its stage's manifest has it."""
    stage, found = next((stage, found) for stage, found in history.stages.items() if name.startswith(f"{stage}/"))
    return found.manifest.outputs[name.removeprefix(f"{stage}/")].sha256


def _row(name: str, file: Path, column: str, sha256: str) -> dict[str, str]:
    counts = count_by(file, column)
    sources = ", ".join(f"{public_name(source)}: {count:,}" for source, count in counts.items())
    return {"file": name, "rows": f"{count_rows(file):,}", "from": sources, "SHA-256": sha256}


def inputs_read(history: History) -> list[dict[str, str]]:
    """Return what the run read from outside, by the setting that names it, with digests."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for finished in history.stages.values():
        for name, digest in finished.manifest.inputs.items():
            if history.origin(digest, 1 << 30) is None:
                known = public_name(_named(history.config, name))
                found[name, digest] = {"input": INPUTS.get(name, name), "name": known, "SHA-256": digest}
    return list(found.values())


def _named(config: Mapping[str, Any], name: str) -> str:
    """The path or hub name that a setting has for an input; empty if it has another name there."""
    kind, _, number = name.partition(".")
    several = {"mixture": [*config.get("mixture", {})], "held_out": config.get("overlap", {}).get("held_out", [])}
    if number.isdecimal():  # counted from 1
        given: Any = dict(enumerate(several.get(kind, []), start=1)).get(int(number))
    else:
        given = config
        for part in INPUTS.get(name, name).split("."):
            given = given.get(part) if isinstance(given, Mapping) else None
    return given if isinstance(given, str) else ""


def public_name(source: str) -> str:
    """A data set's or model's name without the folders of this machine, which are nobody's business."""
    return Path(source).name if source.startswith(("/", "~", "..")) else source
