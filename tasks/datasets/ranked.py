"""The stage `pairs` of people's pairs that a judge is measured on, or whose judgments it learns."""

import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

from data.files import write_json
from data.judging import as_samples
from data.prepare.overlap import Overlaps, Rules
from data.prepare.preferences import read_pairs
from data.prepare.reading import Reading, Tally
from data.rows import Pair, Problem
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


def ranked_pairs(at: Place, reading: Reading, most: int | None, apart: Mapping[str, Artifact], rules: Rules) -> Result:
    """Write the pairs of a data set to `ranked.parquet`, and their prompts as problems to `prompts.parquet`.

    Counts by reason go to `selection.json`.

    Args:
        most: use at most so many, from the first.
        apart: sets of problems whose prompts no pair may repeat, by name.
        rules: what counts as repeating.

    Raises:
        DataFileError: see `data.prepare.preferences.read_pairs`.
        NothingKeptError: all repeat such prompts.
    """
    settings = {"drop": reading.drop, "reasoning": reading.reasoning, "placeholders": reading.placeholders}
    settings |= {"format": reading.format, "columns": reading.columns, "most": most}
    there = expected_rows(reading.source, "validation")
    expected = min(there, most or there)
    stage = Stage(
        at.stage("pairs"),
        VERSION,
        settings | ({"overlap": asdict(rules)} if apart else {}),
        {"file": dataset_artifact(reading.source, at.run.planning), **apart},
        estimate=Estimate(disk_bytes=3 * dataset_bytes(reading.source) + 1_000_000),
        expected={RANKED_FILE: expected, PROMPTS: expected},
    )

    def work(attempt: Path) -> Outcome:
        tally, counts, left_out = Tally(), Counter[str](), Counter[str]()
        (scratch := attempt / ".scratch").mkdir()

        def first(overlaps: Overlaps) -> Iterator[Pair]:
            for pair in read_pairs(reading, tally, "validation"):
                if overlaps.leave_out(pair.problem_id, pair.messages, left_out):
                    continue
                if most is not None and counts["kept"] == most:
                    counts["beyond the limit"] += 1
                else:
                    counts["kept"] += 1
                    yield pair

        with closing(Overlaps(rules, scratch, {name: artifact.path for name, artifact in apart.items()})) as overlaps:
            kept = write_rows(Pair, attempt / RANKED_FILE, first(overlaps))
            write_notes(attempt / DATA, tally, overlaps.contaminated, overlaps.shown())
        shutil.rmtree(scratch)
        if not kept and left_out:
            raise all_repeat(left_out, "pairs")
        write_rows(Problem, attempt / PROMPTS, (as_samples(pair)[0] for pair in read_rows(Pair, attempt / RANKED_FILE)))
        dropped = dict(tally.dropped + left_out) | {name: n for name, n in counts.items() if name != "kept"}
        write_json(attempt / SELECTION, {"samples": tally.rows, "kept": kept} | dropped)
        return Outcome(tally.rows, kept, dropped, said=counted(kept, "pair") + and_left_out(dropped))

    return at.run.execute(stage, work)
