"""The stage `pairs` of people's pairs that a judge is measured on, or whose judgments it learns."""

import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from data.files import write_json
from data.judging import as_samples
from data.prepare.overlap import Overlaps, Rules
from data.prepare.preferences import read_pairs
from data.prepare.reading import Reading, Tally
from data.rows import Pair, Problem, Split
from data.storage import read_rows, write_rows
from data.wording import and_left_out, counted
from tasks.datasets.inputs import dataset_artifact, dataset_bytes, expected_rows
from tasks.datasets.pairs import all_repeat
from tasks.datasets.problems import DATA, write_notes
from tasks.datasets.select import SELECTION
from tasks.stage.contract import Artifact, Estimate, Outcome, Stage
from tasks.stage.run import Place, Result

VERSION = 1
RANKED, EFT = "ranked", "eft"  # the folders of such stages: measured, learned
BASELINE = "baseline"  # the folder of the stages that make the policy whose judgments are learned
RANKED_FILE, PROMPTS = "ranked.parquet", "prompts.parquet"  # no training rows


@dataclass(frozen=True)
class Ranked:
    """A data set of people's pairs.

    Attributes:
        setting: the one that names it: `ranked` is measured, `eft` is learned.
        most: use at most so many, from the first.
        apart: sets of problems whose prompts no pair may repeat, by name.
        rules: what counts as repeating.
    """

    setting: str
    reading: Reading
    most: int | None
    apart: Mapping[str, Artifact] = field(default_factory=dict)
    rules: Rules = field(default_factory=Rules)

    @property
    def split(self) -> Split:
        """Which of the data set's files serve, if they are named after splits."""
        return "train" if self.setting == EFT else "validation"

    def read(self, tally: Tally) -> Iterator[Pair]:
        return read_pairs(self.reading, tally, self.split)


def ranked_pairs(at: Place, given: Ranked) -> Result:
    """Write the pairs of a data set to `ranked.parquet`, and their prompts as problems to `prompts.parquet`.

    Counts by reason go to `selection.json`.

    Raises:
        DataFileError: see `data.prepare.preferences.read_pairs`.
        NothingKeptError: all repeat such prompts.
    """
    reading, apart, most = given.reading, given.apart, given.most
    settings = {"drop": reading.drop, "reasoning": reading.reasoning, "placeholders": reading.placeholders}
    settings |= {"format": reading.format, "columns": reading.columns, "most": most}
    there = expected_rows(reading.source, given.split)
    expected = min(there, most or there)
    stage = Stage(
        at.stage("pairs"),
        VERSION,
        settings | {"split": given.split} | ({"overlap": asdict(given.rules)} if apart else {}),
        {given.setting: dataset_artifact(reading.source, at.run.planning), **apart},
        estimate=Estimate(disk_bytes=3 * dataset_bytes(reading.source) + 1_000_000),
        expected={RANKED_FILE: expected, PROMPTS: expected},
    )

    def work(attempt: Path) -> Outcome:
        tally, counts, left_out = Tally(), Counter[str](), Counter[str]()
        (scratch := attempt / ".scratch").mkdir()

        def first(overlaps: Overlaps) -> Iterator[Pair]:
            for pair in given.read(tally):
                if overlaps.leave_out(pair.problem_id, pair.messages, left_out):
                    continue
                if most is not None and counts["kept"] == most:
                    counts["beyond the limit"] += 1
                else:
                    counts["kept"] += 1
                    yield pair

        with closing(
            Overlaps(given.rules, scratch, {name: artifact.path for name, artifact in apart.items()})
        ) as overlaps:
            kept = write_rows(Pair, attempt / RANKED_FILE, first(overlaps))
            write_notes(attempt / DATA, tally, overlaps.contaminated, overlaps.shown())
        shutil.rmtree(scratch)
        if not kept and left_out:
            raise all_repeat(left_out, "pairs")
        write_rows(Problem, attempt / PROMPTS, _prompts(attempt / RANKED_FILE))
        dropped = dict(tally.dropped + left_out) | {name: n for name, n in counts.items() if name != "kept"}
        write_json(attempt / SELECTION, {"samples": tally.rows, "kept": kept} | dropped)
        return Outcome(tally.rows, kept, dropped, said=counted(kept, "pair") + and_left_out(dropped))

    return at.run.execute(stage, work)


def _prompts(pairs: Path) -> Iterator[Problem]:
    """Each prompt once: one in many pairs would look like a template, which may be repeated."""
    seen = set[str]()
    for pair in read_rows(Pair, pairs):
        if pair.problem_id not in seen:
            seen.add(pair.problem_id)
            yield as_samples(replace(pair, index=0))[0]
