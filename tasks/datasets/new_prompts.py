"""The stage `prompts`: a model makes up new prompts for an iteration, after examples from the given ones."""

import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data.files import write_json
from data.prepare.new_prompts import TASK, VERSION, Bounds, MadeUp, as_problem, as_seed, usable
from data.prepare.overlap import NEAR_DUPLICATE, Overlaps, Rules
from data.prepare.problems import with_system
from data.prepare.reading import Tally
from data.prepare.similar import NearDuplicates, prompt_of
from data.rows import Problem
from data.storage import count_rows, read_rows, write_rows
from data.wording import and_left_out, counted
from models.asking.new_prompts import ROLE
from models.config import EngineConfig, NewPromptsConfig, NewPromptsProgram
from models.estimate import generation_bytes_per_device, parameters_of
from tasks.datasets.passages import MOST_FAILED, NoRepliesError
from tasks.datasets.problems import DATA, write_notes
from tasks.datasets.select import SELECTION, NothingKeptError
from tasks.policies.asked_model import asked_artifact, asked_identity, engine_room
from tasks.stage.contract import PROGRAM, Artifact, Estimate, Outcome, Stage
from tasks.stage.progress import progress_logger
from tasks.stage.run import Place, Result

REPLIES, PROBLEMS = "replies", "problems.parquet"


@dataclass(frozen=True)
class NewPrompts:
    """How new prompts are made up.

    Attributes:
        config: the model's settings; without a model, the policy makes them up.
        apart: sets of held-out problems whose prompts none may repeat, by name.
        rules: what counts as repeating those.
        system: system message of each.
    """

    config: NewPromptsConfig
    engine: EngineConfig
    apart: Mapping[str, Artifact]
    rules: Rules
    system: str | None

    @property
    def by_policy(self) -> bool:
        return self.config.model is None and self.config.endpoint is None


def make_up_prompts(
    at: Place, seeds: Artifact, policy: Artifact, how: NewPrompts, earlier: Sequence[Artifact]
) -> Result:
    """Let a model make up prompts, and filter them into `problems.parquet`.

    What the model said is kept in `replies`. Counts by reason go to `selection.json`.

    Args:
        seeds: problems whose prompts are the examples.
        policy: what makes them up, unless the settings name a model.
        earlier: results of earlier iterations. No prompt of these or of the seeds is repeated.

    Raises:
        NothingKeptError: no prompt is left.
        NoRepliesError, ChildError: the model failed, or too many of the requests.
    """
    told, before = how.config, {f"earlier_{number}": made for number, made in enumerate(earlier, 1)}
    model = policy if how.by_policy else asked_artifact(told, ROLE, at.run.planning)
    settings = asked_identity(told, told_apart=("instruction",)) | {"instruction": told.instruction or TASK}
    stage = Stage(
        at.stage("prompts"),
        VERSION,
        settings | {"overlap": asdict(how.rules), "system": how.system},
        {"seeds": seeds, **how.apart, **before} | ({"writer": model} if model else {}),
        at.seed,
        resumable=True,
        estimate=_estimate(model, how),
        expected={PROBLEMS: told.count},
    )

    def work(attempt: Path) -> Outcome:
        if not any(as_seed(problem) for problem in read_rows(Problem, seeds.path)):
            raise _no_examples()
        command = _ask(
            at,
            attempt,
            NewPromptsProgram(
                writer=told,
                policy=model.path if model else None,
                seeds=seeds.path,
                output=attempt / REPLIES,
                engine=how.engine,
                seed=at.seed,
            ),
        )
        writer = f"{told.model or 'the policy'}{f'@{model.require()[:12]}' if model else ''}"
        return _filter(attempt, [seeds, *earlier], how, writer, command)

    return at.run.execute(stage, work)


def _estimate(model: Artifact | None, how: NewPrompts) -> Estimate:
    disk = 4_000 * how.config.count + 1_000_000
    if model is None:
        return Estimate(disk_bytes=disk)
    weights = generation_bytes_per_device(parameters_of(model.path), how.config.dtype, how.engine)
    return Estimate(disk_bytes=disk, gpu_bytes=weights, devices=how.engine.tensor_parallel_size, cached=True)


def _ask(at: Place, attempt: Path, program: NewPromptsProgram) -> tuple[str, ...]:
    (attempt / PROGRAM).write_text(program.model_dump_json(indent=2))
    command = new_prompts_command(attempt / PROGRAM)
    with engine_room(program.writer) as environment:
        logger = progress_logger(at.run.directory, attempt)
        at.run.start(command, attempt / "log.txt", at.run.child_lock, logger, environment)
    failed = [reply.failure for reply in read_rows(MadeUp, program.output) if not reply.text]
    if program.writer.endpoint and len(failed) > MOST_FAILED * program.writer.count:
        raise NoRepliesError(
            f"{program.writer.endpoint} gave no reply to {len(failed):,} of {program.writer.count:,} requests for a "
            "prompt.",
            f"First failure: {failed[0]}.",
            "Run the same command again: only requests without a reply are sent again.",
        )
    return tuple(command)


def new_prompts_command(config: Path) -> list[str]:
    return [sys.executable, "-m", "models.asking.new_prompts", str(config)]


def _filter(
    attempt: Path, there: Sequence[Artifact], how: NewPrompts, writer: str, command: tuple[str, ...]
) -> Outcome:
    """Write the prompts that can be used and repeat none of those that are there."""
    told, dropped = how.config, Counter[str]()
    scratch = attempt / ".scratch"
    shutil.rmtree(scratch, ignore_errors=True)  # of an attempt that was killed
    scratch.mkdir()
    known = NearDuplicates(scratch / "known.sqlite", told.near_duplicates)
    for problem in (p for file in there for p in read_rows(Problem, file.path)):
        known.add(problem.id, _bare(problem))

    def new(overlaps: Overlaps) -> Iterator[Problem]:
        replies = read_rows(MadeUp, attempt / REPLIES)
        for _, prompt in usable(replies, Bounds(told.shortest, told.longest, told.keywords), dropped):
            problem = as_problem(prompt, writer)
            if overlaps.leave_out(problem.id, problem.messages, dropped):
                continue
            if known.add(problem.id, _bare(problem)):
                dropped[NEAR_DUPLICATE] += 1
            else:
                yield with_system(problem, how.system) if how.system else problem

    files = {name: artifact.path for name, artifact in how.apart.items()}
    with closing(known), closing(Overlaps(how.rules, scratch, files)) as overlaps:
        kept = write_rows(Problem, attempt / PROBLEMS, new(overlaps))
        write_notes(attempt / DATA, Tally(), overlaps.contaminated, overlaps.shown())
    shutil.rmtree(scratch)
    asked = count_rows(attempt / REPLIES)
    if not kept:
        raise _none_left(asked, dropped)
    write_json(attempt / SELECTION, {"samples": asked, "kept": kept} | dropped)
    return Outcome(asked, kept, dict(dropped), command, said=counted(kept, "new prompt") + and_left_out(dropped))


def _bare(problem: Problem) -> Any:
    """The prompt without a system message: only what was made up counts."""
    return prompt_of([turn for turn in problem.messages if turn["role"] != "system"])


def _no_examples() -> NothingKeptError:
    return NothingKeptError(
        "New prompts are made up after prompts of a single turn, but all given ones have several.",
        what_next="Give some of a single turn, or leave out new_prompts.",
    )


def _none_left(asked: int, dropped: Counter[str]) -> NothingKeptError:
    reasons = ", ".join(f"{n:,} {reason}" for reason, n in dropped.items())
    return NothingKeptError(
        f"None of the {counted(asked, 'new prompt')} can be used ({reasons}).",
        what_next="See what the model said in the stage's replies. Name a better model in new_prompts.model, or change "
        "the filters in new_prompts.",
    )
