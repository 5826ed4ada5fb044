"""The stage `examples` of a data set beside a loop's problems: demonstrations or texts become training rows."""

import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from data.files import write_json
from data.prepare.overlap import Overlaps, Rules
from data.prepare.passages import read_passages
from data.prepare.problems import read_problems
from data.prepare.reading import Reading, Tally, first_use
from data.render import completion_token_ids, first_of_each_shape, prompt_token_ids, text_token_ids
from data.rows import Example
from data.storage import write_rows
from data.wording import and_left_out, counted
from tasks.datasets.inputs import dataset_artifact, dataset_bytes, expected_rows
from tasks.datasets.pairs import all_repeat
from tasks.datasets.problems import DATA, write_notes
from tasks.datasets.prompt_length import policy_tokenizer
from tasks.datasets.row_length import nothing_fits, report_too_long, tokenizer_and_limit
from tasks.datasets.select import EXAMPLES, SELECTION, NothingKeptError
from tasks.stage.contract import Artifact, Estimate, Outcome, Stage
from tasks.stage.run import Place, Result

VERSION = 1
SFT, MIX = "sft", "mix"  # the folders of the stages that learn demonstrations first, and that mix rows in
ANY_LENGTH = (1, 1 << 40)  # of a text, in characters


def check_demonstrations(config: Any, reading: Reading) -> None:
    """Read a data set of demonstrations, and render one of each kind with the tokenizer of the run's policy.

    Raises:
        DataFileError: it cannot be read, or its rows are no demonstrations.
        TemplateError, VocabularyError: naming the row that cannot be rendered.
    """
    reads = policy_tokenizer(config)
    for shown in first_of_each_shape(read_problems(reading, "train", None, Tally())):
        reads.token_ids(shown.messages, f"Problem {shown.id} of {shown.source}")
        completion_token_ids(reads.tokenizer, shown.response or "")


def check_mixed(config: Any, reading: Reading) -> None:
    """The same for a data set of demonstrations or texts."""
    if first_use(reading) != "passages":
        check_demonstrations(config, reading)
        return
    for _ in read_passages(reading, *ANY_LENGTH, Tally()):
        pass


def demonstration_examples(
    at: Place, reading: Reading, policy: Artifact, held_out: Mapping[str, Artifact], rules: Rules
) -> Result:
    """Write demonstrations to `examples.parquet`; counts by reason go to `selection.json`.

    One whose prompt repeats a held-out prompt is left out and counted, as is one that exceeds the policy's context.

    Args:
        held_out: sets of problems whose prompts no demonstration may repeat, by name.

    Raises:
        DataFileError: see `data.prepare.problems.read_problems`.
        NothingKeptError: none is left.
    """
    inputs = {"file": dataset_artifact(reading.source, at.run.planning), "policy": policy, **held_out}
    stage = _stage(at, reading, inputs, {"overlap": asdict(rules)})

    def work(attempt: Path) -> Outcome:
        files = {name: artifact.path for name, artifact in held_out.items()}
        return _write_demonstrations(at, reading, policy, (files, rules), attempt)

    return at.run.execute(stage, work)


def mixed_examples(
    at: Place, reading: Reading, policy: Artifact, held_out: Mapping[str, Artifact], rules: Rules
) -> Result:
    """The same for demonstrations or texts. A text has no prompt, and is cut into rows of equal length.

    A row is as long as a prompt and an answer of the run may be, or as the policy's context.
    """
    inputs = {"file": dataset_artifact(reading.source, at.run.planning), "policy": policy, **held_out}
    stage = _stage(at, reading, inputs, {"overlap": asdict(rules), "row_tokens": at.run.row_tokens})

    def work(attempt: Path) -> Outcome:
        if first_use(reading) == "passages":
            return _write_texts(at, reading, policy, attempt)
        files = {name: artifact.path for name, artifact in held_out.items()}
        return _write_demonstrations(at, reading, policy, (files, rules), attempt)

    return at.run.execute(stage, work)


def _stage(at: Place, reading: Reading, inputs: Mapping[str, Artifact], settings: dict[str, Any]) -> Stage:
    return Stage(
        at.stage("examples"),
        VERSION,
        {"drop": reading.drop, "placeholders": reading.placeholders, "reasoning": reading.reasoning} | settings,
        inputs,
        estimate=Estimate(disk_bytes=3 * dataset_bytes(reading.source) + 1_000_000),
        expected={EXAMPLES: expected_rows(reading.source, "train")},
    )


def _write_demonstrations(
    at: Place, reading: Reading, policy: Artifact, apart: tuple[Mapping[str, Path], Rules], attempt: Path
) -> Outcome:
    """Write what `demonstration_examples` keeps.

    Args:
        apart: files of held-out problems, and what counts as repeating them.
    """
    tokenizer, limit = tokenizer_and_limit(policy.path, at.run.model_code)
    tally, counts, left_out = Tally(), Counter[str](), Counter[str]()
    (scratch := attempt / ".scratch").mkdir(exist_ok=True)

    def fitting(overlaps: Overlaps) -> Iterator[Example]:
        for shown in read_problems(reading, "train", None, tally):
            if overlaps.leave_out(shown.id, shown.messages, left_out):
                continue
            answer = completion_token_ids(tokenizer, shown.response or "")
            fits = len(prompt_token_ids(tokenizer, shown.messages)) + len(answer) <= limit.tokens
            counts["kept" if fits else "too_long"] += 1
            if fits:
                yield Example(shown.id, 0, shown.messages, shown.response or "", None, "", source=shown.source)

    with closing(Overlaps(apart[1], scratch, apart[0])) as overlaps:
        kept = write_rows(Example, attempt / EXAMPLES, fitting(overlaps))
        write_notes(attempt / DATA, tally, overlaps.contaminated, overlaps.shown())
    shutil.rmtree(scratch)
    if left_out and not counts:
        raise all_repeat(left_out, "demonstrations")
    if not kept:
        raise nothing_fits(counts.total(), limit)
    return _outcome(attempt, tally, kept, dict(tally.dropped + left_out) | report_too_long(counts, limit))


def _write_texts(at: Place, reading: Reading, policy: Artifact, attempt: Path) -> Outcome:
    tokenizer, limit = tokenizer_and_limit(policy.path, at.run.model_code)
    tally, longest = Tally(), min(limit.tokens, at.run.row_tokens)

    def rows() -> Iterator[Example]:
        for text in read_passages(reading, *ANY_LENGTH, tally):
            ids = text_token_ids(tokenizer, text.text)
            pieces = [ids[first : first + longest] for first in range(0, len(ids), longest)]
            for number, piece in enumerate(pieces):
                if len(piece) == 1:  # which nothing precedes
                    tally.drop("a single token", text.place)
                else:
                    yield Example(text.id, number, [], "", piece, "", source=text.source)

    kept = write_rows(Example, attempt / EXAMPLES, rows())
    if not kept:
        raise NothingKeptError(f"No text of {reading.source} has two tokens.", what_next="Give longer texts.")
    return _outcome(attempt, tally, kept, dict(tally.dropped))


def _outcome(attempt: Path, tally: Tally, kept: int, dropped: dict[str, int]) -> Outcome:
    write_json(attempt / SELECTION, {"samples": tally.rows, "kept": kept} | dropped)
    return Outcome(tally.rows, kept, dropped, said=counted(kept, "row") + and_left_out(dropped))
