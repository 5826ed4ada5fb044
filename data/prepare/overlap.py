"""Which training prompts are left out because they overlap with other prompts."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from data.prepare.similar import HeldOutRuns, NearDuplicates, Overlap, Prompt, prompt_of, scratch_database
from data.rows import Problem
from data.storage import read_rows

TRAIN = "train"
NEAR_DUPLICATE, CONTAMINATED = "near_duplicate", "contaminated"
SHOWN = 5


@dataclass(frozen=True)
class Rules:
    """Which training prompts are left out because they overlap with other prompts.

    Attributes:
        near_duplicates: similarity to an earlier or held-out prompt at which one is left out, in (0, 1]; None: never.
        contamination: repeated share of a held-out prompt at which one is left out, in (0, 1]; None: never.
        keep_contaminated: count prompts that are near a held-out prompt or repeat one, but train on them.
    """

    near_duplicates: float | None = None
    contamination: float | None = None
    keep_contaminated: bool = False


@dataclass(frozen=True)
class Repeated:
    """A training prompt and the earlier or held-out prompt that it repeats, for display."""

    reason: str
    share: float
    prompt: str
    repeats: str
    source: str


class Overlaps:
    """Finds training prompts that repeat held-out prompts or each other.

    Args:
        rules: what to look for.
        scratch: a folder for the indices, which can be deleted afterward.
        files: the Parquet files of Problem rows to compare: all training prompts under the name "train", if they are to
            be compared with each other; held-out prompts under other names.
    """

    def __init__(self, rules: Rules, scratch: Path, files: Mapping[str, Path]) -> None:
        self.rules, self.files = rules, files
        self.contaminated = 0
        self._shown: list[tuple[str, str, Overlap]] = []
        self._runs = self._near_held_out = self._near = None
        if rules.near_duplicates is not None and TRAIN in files:
            self._near = NearDuplicates(scratch / "near.sqlite", rules.near_duplicates)
        if rules.contamination is not None:
            self._seen = scratch_database(scratch / "held-out-ids.sqlite")
            self._seen.execute("CREATE TABLE held_out (id TEXT PRIMARY KEY, name TEXT) WITHOUT ROWID")
            self._seen.executemany(
                "INSERT OR IGNORE INTO held_out VALUES (?, ?)",
                ((problem.id, name) for name, problem in self._held_out()),
            )
            prompts = ((name, prompt_of(problem.messages)) for name, problem in self._held_out())
            self._runs = HeldOutRuns(scratch / "held-out-runs.sqlite", prompts, rules.contamination)
            if rules.near_duplicates is not None:
                self._near_held_out = NearDuplicates(scratch / "near-held-out.sqlite", rules.near_duplicates)
                for name, problem in self._held_out():
                    self._near_held_out.add(name, prompt_of(problem.messages))

    def leave_out(self, identity: str, messages: list[dict[str, str]], dropped: Counter[str]) -> bool:
        """Whether to leave out a training prompt; if so, it is counted by reason."""
        if self.rules == Rules():
            return False
        prompt = prompt_of(messages)
        if overlap := self._repeats_held_out(identity, prompt):
            self.contaminated += 1
            self._show(CONTAMINATED, messages, overlap)
            if not self.rules.keep_contaminated:
                dropped[CONTAMINATED] += 1
                return True
        if self._near and (overlap := self._near.add(f"{TRAIN}/{identity}", prompt)):
            self._show(NEAR_DUPLICATE, messages, overlap)
            dropped[NEAR_DUPLICATE] += 1
            return True
        return False

    def shown(self) -> list[Repeated]:
        """The first example of each reason."""
        wanted = {overlap.name for _, _, overlap in self._shown}
        others: dict[str, Problem] = {}
        for file in sorted({other.partition("/")[0] for other in wanted}):
            for problem in read_rows(Problem, self.files[file]):
                if f"{file}/{problem.id}" in wanted:
                    others.setdefault(f"{file}/{problem.id}", problem)
        return [
            Repeated(reason, overlap.share, prompt, _text(others[overlap.name].messages), others[overlap.name].source)
            for reason, prompt, overlap in self._shown
        ]

    def close(self) -> None:
        if self._runs:
            self._seen.close()
        for index in (self._runs, self._near_held_out, self._near):
            if index:
                index.close()

    def _held_out(self) -> Iterator[tuple[str, Problem]]:
        for file, path in self.files.items():
            if file != TRAIN:
                for problem in read_rows(Problem, path):
                    yield f"{file}/{problem.id}", problem

    def _repeats_held_out(self, identity: str, prompt: Prompt) -> Overlap | None:
        if self._runs is None:
            return None
        if same := self._seen.execute("SELECT name FROM held_out WHERE id = ?", (identity,)).fetchone():
            return Overlap(same[0], 1.0)
        overlap = self._runs.repeated_by(prompt)
        if overlap is None and self._near_held_out:
            overlap = self._near_held_out.add("", prompt, keep=False)
        return overlap

    def _show(self, reason: str, messages: list[dict[str, str]], overlap: Overlap) -> None:
        if sum(known == reason for known, *_ in self._shown) < SHOWN:
            self._shown.append((reason, _text(messages), overlap))


def _text(messages: list[dict[str, str]]) -> str:
    return "\n".join(turn["content"] for turn in messages if turn["role"] != "system")
