"""The stage `examples` of a data set beside a loop's problems: demonstrations or texts become training rows."""

import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from data.files import write_json
from data.prepare.overlap import Overlaps, Rules
from data.prepare.passages import Passage, read_passages
from data.prepare.problems import read_problems, with_system
from data.prepare.reading import Reading, Tally, first_use
from data.prepare.sources import named_splits
from data.prepare.sources.names import serving
from data.render import completion_token_ids, first_of_each_shape, prompt_token_ids, text_token_ids
from data.rows import Example, Problem
from data.storage import write_rows
from data.wording import and_left_out, counted
from tasks.datasets.inputs import dataset_artifact, dataset_bytes, expected_rows
from tasks.datasets.pairs import all_repeat
from tasks.datasets.problems import DATA, write_notes
from tasks.datasets.prompt_length import policy_tokenizer
from tasks.datasets.row_length import Limit, nothing_fits, report_too_long, tokenizer_and_limit
from tasks.datasets.select import EXAMPLES, SELECTION, NothingKeptError
from tasks.stage.contract import Artifact, Estimate, Outcome, Stage
from tasks.stage.run import Place, Result

VERSION = 1
SFT, MIX = "sft", "mix"  # the folders of the stages that learn demonstrations first, and that mix rows in
ANY_LENGTH = (1, 1 << 40)  # of a text, in characters


@dataclass(frozen=True)
class Demonstrations:
    """A data set of demonstrations or texts, and which of its rows are learned.

    Attributes:
        setting: the one that names the data set.
        system: system message of demonstrations without one.
        apart: sets of problems whose prompts no demonstration may repeat, by name.
        rules: what counts as repeating.
        longest: most tokens of a row, if that is less than the policy's context.
        texts: whether rows may be texts, which have no prompt.
    """

    reading: Reading
    setting: str
    system: str | None
    apart: Mapping[str, Artifact]
    rules: Rules
    longest: int | None = None
    texts: bool = False

    def are_texts(self) -> bool:
        return self.texts and first_use(_training(self.reading)) == "passages"

    def read(self, tally: Tally) -> Iterator[Problem]:
        """The demonstrations that serve for training, whatever their prompts repeat."""
        for shown in read_problems(self.reading, "train", None, tally):
            yield with_system(shown, self.system) if self.system else shown

    def read_texts(self, tally: Tally) -> Iterator[Passage]:
        return read_passages(_training(self.reading), *ANY_LENGTH, tally)


def check_demonstrations(config: Any, given: Demonstrations) -> None:
    """Read a data set, and render one demonstration of each kind with the tokenizer of the run's policy.

    Raises:
        DataFileError: it cannot be read, or its rows are no demonstrations.
        TemplateError, VocabularyError: naming the row that cannot be rendered.
    """
    if given.are_texts():
        for _ in given.read_texts(Tally()):
            pass
        return
    reads = policy_tokenizer(config)
    for shown in first_of_each_shape(given.read(Tally())):
        reads.token_ids(shown.messages, f"Problem {shown.id} of {shown.source}")
        completion_token_ids(reads.tokenizer, shown.response or "")


def demonstration_examples(at: Place, given: Demonstrations, policy: Artifact) -> Result:
    """Write the rows of a data set to `examples.parquet`; counts by reason go to `selection.json`.

    A demonstration whose prompt repeats a held-out one is left out and counted, as is one that is too long. A text is
    cut into rows of the greatest length.

    Raises:
        DataFileError: see `data.prepare.problems.read_problems`.
        NothingKeptError: none is left.
    """
    reading = given.reading
    told: dict[str, Any] = {"drop": reading.drop, "placeholders": reading.placeholders, "reasoning": reading.reasoning}
    told |= {"every_answer": reading.every_answer, "system": given.system, "longest": given.longest}
    stage = Stage(
        at.stage("examples"),
        VERSION,
        told | at.run.in_front | {"overlap": asdict(given.rules), "texts": given.texts},
        {given.setting: dataset_artifact(reading.source, at.run.planning), "policy": policy, **given.apart},
        estimate=Estimate(disk_bytes=3 * dataset_bytes(reading.source) + 1_000_000),
        expected={EXAMPLES: expected_rows(reading.source, "train")},
    )

    def work(attempt: Path) -> Outcome:
        tokenizer, limit = tokenizer_and_limit(policy.path, at.run, given.longest)
        limit = replace(limit, name="a row") if limit.tokens == given.longest else limit
        return (_write_texts if given.are_texts() else _write_demonstrations)(given, tokenizer, limit, attempt)

    return at.run.execute(stage, work)


def _training(reading: Reading) -> Reading:
    """The same data set without files for validation and test."""
    return replace(reading, only=serving("train", named_splits(reading.source)))


def _write_demonstrations(given: Demonstrations, tokenizer: Any, limit: Limit, attempt: Path) -> Outcome:
    tally, counts, left_out = Tally(), Counter[str](), Counter[str]()
    (scratch := attempt / ".scratch").mkdir(exist_ok=True)

    def fitting(overlaps: Overlaps) -> Iterator[Example]:
        for shown in given.read(tally):
            if overlaps.leave_out(shown.id, shown.messages, left_out):
                continue
            answer = completion_token_ids(tokenizer, shown.response or "")
            fits = len(prompt_token_ids(tokenizer, shown.messages)) + len(answer) <= limit.tokens
            counts["kept" if fits else "too_long"] += 1
            if fits:
                yield Example(shown.id, 0, shown.messages, shown.response or "", None, "", source=shown.source)

    files = {name: artifact.path for name, artifact in given.apart.items()}
    with closing(Overlaps(given.rules, scratch, files)) as overlaps:
        kept = write_rows(Example, attempt / EXAMPLES, fitting(overlaps))
        write_notes(attempt / DATA, tally, overlaps.contaminated, overlaps.shown())
    shutil.rmtree(scratch)
    if not counts:
        raise all_repeat(left_out, "demonstrations") if left_out else _none_usable(given.reading, tally)
    if not kept:
        raise nothing_fits(counts.total(), limit)
    return _outcome(attempt, tally, kept, dict(tally.dropped + left_out) | report_too_long(counts, limit))


def _write_texts(given: Demonstrations, tokenizer: Any, limit: Limit, attempt: Path) -> Outcome:
    tally = Tally()

    def rows() -> Iterator[Example]:
        for text in given.read_texts(tally):
            ids = text_token_ids(tokenizer, text.text)
            pieces = [ids[first : first + limit.tokens] for first in range(0, len(ids), limit.tokens)]
            for number, piece in enumerate(pieces):
                if len(piece) == 1:  # which nothing precedes
                    tally.drop("a single token", text.place)
                else:
                    yield Example(text.id, number, [], "", piece, "", source=text.source)

    kept = write_rows(Example, attempt / EXAMPLES, rows())
    if not kept:
        raise _none_usable(given.reading, tally)
    return _outcome(attempt, tally, kept, dict(tally.dropped))


def _none_usable(reading: Reading, tally: Tally) -> NothingKeptError:
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in tally.dropped.items())
    return NothingKeptError(
        f"No row of {reading.source} can be learned ({reasons}).", what_next="Correct the rows, or give other ones."
    )


def _outcome(attempt: Path, tally: Tally, kept: int, dropped: dict[str, int]) -> Outcome:
    write_json(attempt / SELECTION, {"samples": tally.rows, "kept": kept} | dropped)
    return Outcome(tally.rows, kept, dropped, said=counted(kept, "row") + and_left_out(dropped))
