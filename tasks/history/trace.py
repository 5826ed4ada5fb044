"""Where a training row came from: its sample, score and problem, and all ancestors of the policy that wrote it.

A stage's inputs are found by their digests, and the records are checked against each other.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import pyarrow.compute as pc
import pyarrow.dataset as ds

from data.judge_questions import Opinion
from data.labels import Label
from data.rows import Example, Pair, Problem, Rollout, Sample, Score
from data.storage import count_rows, parquet_files, read_rows
from models.asking.judge import OPINIONS
from models.asking.label import ROLE as LABELER
from models.on_policy import ROLLOUTS
from tasks.datasets.select import SELECTION
from tasks.history.runs import History, Origin, QueryError
from tasks.stage.contract import Finished, Manifest

Row = Example | Pair | Rollout
TRAINING_FILES: Mapping[str, type[Row]] = {"examples.parquet": Example, "pairs.parquet": Pair, ROLLOUTS: Rollout}
KEY = re.compile(r"(?P<place>[a-z]+(?:-[a-z\d]+)*)/(?P<problem>[0-9a-f]{1,16})/(?P<index>\d+)")
KEY_FORM = "ITERATION/PROBLEM/INDEX"
KEYS_SHOWN = 5

R = TypeVar("R")
Drawn = TypeVar("Drawn", Sample, Score)


@dataclass(frozen=True)
class Check:
    """A statement that must hold if the records are correct, and whether it does."""

    statement: str
    holds: bool


@dataclass(frozen=True)
class TrainingData:
    """A file of training rows, and the policy that wrote its answers; None if people wrote them all."""

    file: Origin
    writer: Origin | None


@dataclass(frozen=True)
class Policy:
    """A checkpoint, with the policy it started from and its training data, or the answers that it drew in training."""

    origin: Origin
    start: Origin | None
    data: list[TrainingData]
    rollouts: Origin | None = None


@dataclass(frozen=True)
class Answer:
    """A policy's answer in a training row, its score, and the unedited replies of the model that judged it, if any."""

    sample: Sample
    score: Score | None
    opinions: list[Opinion]


@dataclass(frozen=True)
class Trace:
    """A training row and its origins. `policies` starts with the one that wrote it and ends with the base.

    A rollout's start with the one that the iteration started from: those between its steps are not kept.

    Attributes:
        answers: the policy's in the row; of a pair of two, the chosen one first.
        label: of a pair, if a model compared its two answers.
        judge: the policy that judged or labeled them, if one of this run did.
    """

    key: str
    row: Row
    file: Origin
    trained: list[str]
    problem: Problem | None
    answers: list[Answer]
    label: Label | None
    samples: Origin | None
    judge: Origin | None
    policies: list[Policy]
    checks: list[Check]


@dataclass(frozen=True)
class TrainingFile:
    """A file of training rows: its number of rows, and the first of them by key."""

    file: Origin
    rows: int
    first: dict[str, Row]


def training_files(history: History) -> list[TrainingFile]:
    """Return every file of training rows of a run, with a few keys to choose from.

    Raises:
        QueryError: there is none.
    """
    found = _training_origins(history)
    if not found:
        raise QueryError(
            f"{history.directory} has no training rows yet, so nothing can be traced: no stage that selects them is "
            "finished.",
            what_next="`autodidact runs` shows its progress; run the flow to continue.",
        )
    return [_training_file(history, file) for file in found]


def trace(history: History, key: str) -> Trace:
    """Trace a training row back to its origins.

    Args:
        key: `iter-1/<problem id>/<index>`; a unique prefix of the problem id is enough. Rows that are learned outside
            the iterations have the name of the stage's folder instead, such as `sft`.

    Raises:
        QueryError: the key is invalid or names no training row; the message lists some that do.
        CorruptStageError: a file of rows does not match its manifest.
    """
    file, row = _find(history, key)
    checks: list[Check] = []
    problems, samples, scores, labels = (
        _follow(history, file.stage, name, file.iteration, checks)
        for name in ("problems", "samples", "scores", "labels")
    )
    sources = [origin for origin in (problems, samples, scores, labels) if origin is not None]
    begins = row.problem_id
    asked = _rows(Problem, history, problems, begins, column="id") if problems else []
    answers = _answers(history, row, samples, scores, of_both=bool(scores or labels))
    label = _label(history, row, answers, labels) if labels else None
    judge = _judge(history, scores, checks) if scores else _judge(history, labels, checks, LABELER) if labels else None
    read = ", ".join([file.stage, *(origin.stage for origin in sources)])
    checks.append(Check(f"the files of {read} have the SHA-256 that their manifests record", True))
    policies: list[Policy] = []
    if isinstance(row, Rollout):
        start = _follow(history, file.stage, "start", max(0, file.iteration - 1), checks)
        policies = _ancestry(history, start, checks) if start else []
    elif samples is not None:
        checks += _agreements(row, answers, history.stages[samples.stage].manifest)
        checks += [_labeled(row, label)] if labels and isinstance(row, Pair) else []
        writer = _follow(history, samples.stage, "policy", max(0, samples.iteration - 1), checks)
        policies = _ancestry(history, writer, checks) if writer else []
    elif isinstance(row, Example) and row.policy and (writer := history.origin(row.policy, file.iteration)):
        policies = _ancestry(history, writer, checks)
    return Trace(
        key=_key(file, row),
        row=row,
        file=file,
        trained=_trained_on(history, file, row),
        problem=next(iter(asked), None),
        answers=answers,
        label=label,
        samples=samples,
        judge=judge,
        policies=policies,
        checks=checks,
    )


def _trained_on(history: History, file: Origin, row: Row) -> list[str]:
    """The stages that trained on the row."""
    if isinstance(row, Rollout):
        return [] if row.advantage is None else [file.stage]
    digest = history.digest(file)
    return [n for n, s in history.stages.items() if _trains(s) and digest in s.manifest.inputs.values()]


def _training_origins(history: History) -> list[Origin]:
    found = [Origin(stage, name) for name in TRAINING_FILES for stage in history.stages]
    found = [origin for origin in found if origin.name in _names(history.stages[origin.stage])]
    return sorted(found, key=lambda origin: (origin.iteration, origin.stage))


def _names(stage: Finished) -> set[str]:
    """The files in a stage's folder, and the folders."""
    return {name.partition("/")[0] for name in stage.manifest.outputs}


def _training_file(history: History, file: Origin) -> TrainingFile:
    history.stages[file.stage].verify(under=file.name)
    path = history.path(file)
    rows: Iterable[Row] = islice(read_rows(TRAINING_FILES[file.name], path), KEYS_SHOWN)
    return TrainingFile(file, count_rows(path), {_key(file, row): row for row in rows})


def _key(file: Origin, row: Row) -> str:
    return f"{file.stage.partition('/')[0]}/{row.problem_id}/{row.index}"


def _find(history: History, key: str) -> tuple[Origin, Row]:
    files = training_files(history)
    parts = KEY.fullmatch(key)
    if parts is None:
        raise QueryError(f"{key!r} is not a sample key.", what_next=_hint(files))
    here = [f for f in files if f.file.stage.startswith(f"{parts['place']}/")]
    if not here:
        there = sorted({f.file.stage.partition("/")[0] for f in files})
        raise QueryError(
            f"{history.directory} has no training rows of {parts['place']}, only of {', '.join(there)}.",
            what_next=_hint(files),
        )
    return _find_among(history, here, parts)


def _find_among(history: History, files: Sequence[TrainingFile], parts: re.Match[str]) -> tuple[Origin, Row]:
    """Return the row of that problem and index from the files of its iteration."""
    rows: list[tuple[Origin, Row]] = [
        (f.file, row) for f in files for row in _rows(TRAINING_FILES[f.file.name], history, f.file, parts["problem"])
    ]
    problems = sorted({row.problem_id for _, row in rows})
    if len(problems) > 1:
        raise QueryError(
            f"{parts['problem']} is the beginning of {len(problems)} problem ids with training rows in "
            f"{parts['place']}: {', '.join(problems[:KEYS_SHOWN])}{', …' * (len(problems) > KEYS_SHOWN)}.",
            what_next="Give more of the id.",
        )
    for file, row in rows:
        if row.index == int(parts["index"]):
            return file, row
    keys = [_key(file, row) for file, row in rows[:KEYS_SHOWN]]
    nearest = f"That problem has {', '.join(keys)}." if keys else _hint(files)
    raise QueryError(
        f"{parts[0]} is not a training row of {history.directory}{_left_out(history, files, parts)}.",
        what_next=nearest,
    )


def _hint(files: Sequence[TrainingFile]) -> str:
    keys = [key for file in files for key in file.first][:KEYS_SHOWN]
    return f"A key is {KEY_FORM}, columns problem_id and index of the Parquet file; the first are {', '.join(keys)}."


def _left_out(history: History, files: Sequence[TrainingFile], parts: re.Match[str]) -> str:
    """Why a sample is not among the training rows, if it was sampled at all."""
    problem, index = parts["problem"], int(parts["index"])
    for file in (f.file for f in files):
        samples = _follow(history, file.stage, "samples", file.iteration, [])
        scores = _follow(history, file.stage, "scores", file.iteration, [])
        drawn = [s for s in _rows(Sample, history, samples, problem) if s.index == index] if samples else []
        if len(drawn) != 1:
            continue
        score = _at(index, _rows(Score, history, scores, drawn[0].problem_id)) if scores else None
        verdict = f" Its verdict is {score.verdict}: {score.explanation or 'no explanation'}." if score else ""
        counts = history.stages[file.stage].path / SELECTION
        return f": it was sampled, but {file.stage} left it out.{verdict} The counts by reason are in {counts}"
    return ""


def _rows(row_type: type[R], history: History, file: Origin, begins: str, column: str = "problem_id") -> list[R]:
    """Return the rows whose problem id begins like that, without loading others into memory.

    Raises:
        CorruptStageError: the file does not match its manifest.
    """
    history.stages[file.stage].verify(under=file.name)
    rows = ds.dataset([str(path) for path in parquet_files(history.path(file))], format="parquet")
    table = rows.to_table(filter=pc.starts_with(pc.field(column), begins))
    return [row_type(**values) for values in table.to_pylist()]


def _at(index: int, rows: Iterable[Drawn]) -> Drawn | None:
    return next((row for row in rows if row.index == index), None)


def _follow(history: History, stage: str, name: str, latest: int, checks: list[Check]) -> Origin | None:
    """Return a stage's input of that name, found by its digest; None if it has no such input, or it is gone."""
    digest = history.stages[stage].manifest.inputs.get(name)
    if digest is None:
        return None
    found = history.origin(digest, latest)
    if found:
        checks.append(Check(f"{found} has the digest that {stage} recorded", True))
    else:
        checks.append(Check(f"no stage of the run has the {name} that {stage} recorded, digest {digest}", False))
    return found


def _answers(history: History, row: Row, samples: Origin | None, scores: Origin | None, of_both: bool) -> list[Answer]:
    """The policy's answers in a row: an example's, the rejected one (SPIN), or both sides of a pair of its own."""
    if samples is None:
        return []
    drawn = _rows(Sample, history, samples, row.problem_id)
    graded = _rows(Score, history, scores, row.problem_id) if scores else []
    said = _opinions(history, row.problem_id, scores) if scores else []
    found = [_at(row.index, drawn)]
    if isinstance(row, Pair) and of_both:
        rejected = row.rejected, row.rejected_token_ids
        found.append(next((one for one in drawn if (one.text, one.token_ids) == rejected), None))
    return [
        Answer(one, _at(one.index, graded), [o for o in said if one.index in (o.index, o.other)])
        for one in found
        if one
    ]


def _opinions(history: History, problem: str, scores: Origin) -> list[Opinion]:
    """The judge's replies about a problem's answers. Those of several rewards are in a folder for each."""
    files = [name.split("/") for name in history.manifest(scores).outputs if name.endswith(".parquet")]
    folders = sorted({"/".join(parts[:-1]) for parts in files if OPINIONS in parts})
    return [one for name in folders for one in _rows(Opinion, history, Origin(scores.stage, name), problem)]


def _judge(history: History, told: Origin, checks: list[Check], role: str = "judge") -> Origin | None:
    """The policy that judged or labeled; None if nothing of this run did."""
    digest = history.manifest(told).inputs.get(role)
    if digest is None or history.origin(digest, max(0, told.iteration - 1)) is None:
        return None
    return _follow(history, told.stage, role, max(0, told.iteration - 1), checks)


def _label(history: History, row: Row, answers: Sequence[Answer], labels: Origin) -> Label | None:
    """The label of the comparison of a pair's two answers."""
    both = {answer.sample.index for answer in answers}
    found = _rows(Label, history, labels, row.problem_id)
    return next((one for one in found if {one.index, one.other} == both), None)


def _labeled(row: Pair, label: Label | None) -> Check:
    value = None if label is None else label.value
    if label is not None and value is not None and label.index != row.index:
        value = 1 - value
    return Check("the training row has the label of its comparison", value is not None and value == row.label)


def _agreements(row: Example | Pair, answers: Sequence[Answer], generate: Manifest) -> list[Check]:
    if isinstance(row, Example):
        sides = [(row.policy, row.completion, row.token_ids)]
    else:
        sides = [(row.rejected_source, row.rejected, row.rejected_token_ids)]
        if len(answers) == 2:
            sides.insert(0, (row.chosen_source, row.chosen, row.chosen_token_ids))
    if len(sides) != len(answers):
        return [Check(f"{generate.stage} has the sample of the training row", False)]
    drawn = [(answer.sample.policy, answer.sample.text, answer.sample.token_ids) for answer in answers]
    given = all(policy == generate.inputs["policy"] for policy, _, _ in drawn)
    both = list(zip(sides, drawn, strict=True))
    samples, name = ("its sample", "names") if len(both) == 1 else ("its samples", "name")
    return [
        Check(f"the training row has the text and token ids of {samples}", all(a[1:] == b[1:] for a, b in both)),
        Check(f"the training row names the policy that {samples} {name}", all(a[0] == b[0] for a, b in both)),
        Check(f"the sample names the policy that {generate.stage} recorded", given),
    ]


def _trains(finished: Finished) -> bool:
    return any(name.startswith("policy/") for name in finished.manifest.outputs)


def _ancestry(history: History, policy: Origin, checks: list[Check]) -> list[Policy]:
    """A policy and its ancestors: those it started from, and those whose answers it was trained on."""
    found: dict[str, Policy] = {}
    pending = [policy]
    while pending:
        origin = pending.pop()
        if origin.stage not in found:
            found[origin.stage] = _policy(history, origin, checks)
            behind = [found[origin.stage].start, *(data.writer for data in found[origin.stage].data)]
            pending += [earlier for earlier in behind if earlier is not None]
    return sorted(found.values(), key=lambda policy: -policy.origin.iteration)


def _policy(history: History, origin: Origin, checks: list[Check]) -> Policy:
    data = []
    for name in history.stages[origin.stage].manifest.inputs:
        if name.startswith(("examples", "pairs")) and (
            file := _follow(history, origin.stage, name, origin.iteration, checks)
        ):
            samples = _follow(history, file.stage, "samples", file.iteration, checks)
            writer = (
                _follow(history, samples.stage, "policy", max(0, samples.iteration - 1), checks) if samples else None
            )
            data.append(TrainingData(file, writer))
    rollouts = Origin(origin.stage, ROLLOUTS) if ROLLOUTS in _names(history.stages[origin.stage]) else None
    return Policy(origin, _follow(history, origin.stage, "start", max(0, origin.iteration - 1), checks), data, rollouts)
