"""The stage `pairs` of people's pairs that a judge is measured on. Nothing is trained on them."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from data.files import write_json
from data.prepare.preferences import read_pairs
from data.prepare.reading import Reading, Tally
from data.rows import Pair
from data.storage import write_rows
from data.wording import and_left_out, counted
from tasks.datasets.inputs import dataset_artifact, dataset_bytes, expected_rows
from tasks.datasets.pairs import PAIRS_FILE
from tasks.datasets.select import SELECTION
from tasks.stage.contract import Estimate, Outcome, Stage
from tasks.stage.run import Place, Result

VERSION = 1
RANKED = "ranked"  # the folder of the stage


def ranked_pairs(at: Place, reading: Reading, most: int | None) -> Result:
    """Write the pairs of a data set to `pairs.parquet`; counts by reason go to `selection.json`.

    Args:
        most: use at most so many, from the first.

    Raises:
        DataFileError: see `data.prepare.preferences.read_pairs`.
    """
    settings = {"drop": reading.drop, "reasoning": reading.reasoning, "placeholders": reading.placeholders}
    settings |= {"format": reading.format, "columns": reading.columns, "most": most}
    there = expected_rows(reading.source, "validation")
    stage = Stage(
        at.stage("pairs"),
        VERSION,
        settings,
        {"file": dataset_artifact(reading.source, at.run.planning)},
        estimate=Estimate(disk_bytes=2 * dataset_bytes(reading.source) + 1_000_000),
        expected={PAIRS_FILE: min(there, most or there)},
    )

    def work(attempt: Path) -> Outcome:
        tally, counts = Tally(), Counter[str]()

        def first() -> Iterator[Pair]:
            for pair in read_pairs(reading, tally, "validation"):
                if most is not None and counts["kept"] == most:
                    counts["beyond the limit"] += 1
                else:
                    counts["kept"] += 1
                    yield pair

        kept = write_rows(Pair, attempt / PAIRS_FILE, first())
        dropped = dict(tally.dropped) | {name: n for name, n in counts.items() if name != "kept"}
        write_json(attempt / SELECTION, {"samples": tally.rows, "kept": kept} | dropped)
        return Outcome(tally.rows, kept, dropped, said=counted(kept, "pair") + and_left_out(dropped))

    return at.run.execute(stage, work)
