"""Prompts for passages that have none: a model writes them, in a folder beside the output until the rows exist.

That folder is a run of one stage, so a killed command continues with the replies it has. With other settings, all
prompts are written again.
"""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.errors import RunFailedError
from data.files import file_sha256
from data.prepare.passages import Passage, read_passages
from data.prepare.reading import Reading, Tally
from data.prepare.sources import named_splits
from data.prepare.written_prompts import INSTRUCTION, VERSION, PromptReply, demonstrations
from data.rows import Problem
from data.storage import count_rows, read_rows, write_rows
from models.asking.write_prompts import ROLE
from models.config import EngineConfig, WritePromptsConfig, WritePromptsProgram
from tasks.policies.asked_model import asked_artifact, asked_identity, check_asked, engine_room
from tasks.stage.contract import PROGRAM, Artifact, OnDrift, Outcome, Stage, attempt_directory
from tasks.stage.progress import progress_logger
from tasks.stage.run import Result, Run, RunInUseError, open_run

STAGE, REPLIES, PASSAGES = "prompts", "replies", "passages.parquet"
MOST_FAILED = 0.1  # share of the requests; an endpoint that fails more often is too unreliable for a data set
WAY_ON = "Run the same command again: only requests without a reply are sent again."


class NoRepliesError(RunFailedError):
    """The model left too many requests without a reply."""


@dataclass(frozen=True)
class WrittenPrompts:
    """Passages and the replies to them.

    Attributes:
        tally: the tally of reading the passages.
        writer: the model that writes the prompts: its name and the beginning of its digest, if known.
        told: the same in full, with the model's instruction and sampling settings; for the summary.
    """

    reading: Reading
    tally: Tally
    passages: Path
    replies: Path
    writer: str
    told: dict[str, Any]

    def demonstrations(self) -> Iterator[Problem]:
        """Yield the resulting rows. Unusable replies are counted in `tally`."""
        found = read_rows(Passage, self.passages), read_rows(PromptReply, self.replies)
        return demonstrations(*found, self.writer, named_splits(self.reading.source), self.tally)


@contextmanager
def prompts_written(
    reading: Reading, config: WritePromptsConfig, engine: EngineConfig, seed: int, output: Path
) -> Iterator[WrittenPrompts]:
    """Let a model write a prompt for every passage of a data set. The files kept for resuming are removed at the end.

    Args:
        output: where the rows will be; the replies are kept beside it until then.

    Raises:
        AskedModelError, ModelError, TemplateError: the model cannot be used.
        DataFileError: no passage is usable.
        RunInUseError: another process works on the same output.
        NoRepliesError, ChildError: the model failed, or too many of the requests.
    """
    check_asked(config, ROLE)
    folder = output.with_name(f".{output.name}.{STAGE}")
    try:
        with open_run(folder, config.model_dump(mode="json"), OnDrift.REBUILD, seed) as run:
            done = False
            try:
                yield _write(run, reading, config, engine)
                done = True
            finally:
                asked = (folder / STAGE).exists() or attempt_directory(folder, STAGE).exists()
                if done or not asked:
                    shutil.rmtree(folder, ignore_errors=True)
    except RunInUseError as error:
        raise RunInUseError(error.what, what_next="Wait for it, stop it, or choose another --output.") from None


def _write(run: Run, reading: Reading, config: WritePromptsConfig, engine: EngineConfig) -> WrittenPrompts:
    tally, file = Tally(), run.directory / PASSAGES
    write_rows(Passage, file, read_passages(reading, config.shortest, config.longest, tally))
    model = asked_artifact(config, ROLE)
    finished = ask_for_prompts(run, Artifact(file, file_sha256(file)), model, config, engine)
    name = model.path.name if model and Path(str(config.model)).exists() else str(config.model)
    digest = model.require() if model else None
    told: dict[str, Any] = {"model": name, "digest": digest, "instruction": config.instruction or INSTRUCTION}
    told |= {"temperature": config.temperature, "max_tokens": config.max_tokens, "seed": run.seed}
    writer = f"{name}@{digest[:12]}" if digest else name
    return WrittenPrompts(reading, tally, file, finished.path / REPLIES, writer, told)


def ask_for_prompts(
    run: Run, passages: Artifact, model: Artifact | None, config: WritePromptsConfig, engine: EngineConfig
) -> Result:
    """The stage: one file of replies per shard of passages, in the same order.

    Args:
        model: its folder; None if it is at an endpoint.
    """
    settings = asked_identity(config, told_apart=("instruction", "shortest", "longest"))
    settings["instruction"] = config.instruction or INSTRUCTION
    inputs = {"passages": passages} | ({"model": model} if model else {})
    stage = Stage(STAGE, VERSION, settings, inputs, run.seed, resumable=True)

    def work(attempt: Path) -> Outcome:
        program = WritePromptsProgram(
            writer=config,
            policy=model.path if model else None,
            passages=passages.path,
            output=attempt / REPLIES,
            engine=engine,
            seed=run.seed,
        )
        (attempt / PROGRAM).write_text(program.model_dump_json(indent=2))
        command = write_prompts_command(attempt / PROGRAM)
        with engine_room(config) as environment:
            logger = progress_logger(run.directory, attempt)
            run.start(command, attempt / "log.txt", run.child_lock, logger, environment)
        asked = count_rows(passages.path)
        failed = _failures(program.output, asked, config.endpoint)
        return Outcome(asked, asked - failed, {"no reply": failed} if failed else {}, tuple(command))

    return run.execute(stage, work)


def write_prompts_command(config: Path) -> list[str]:
    return [sys.executable, "-m", "models.asking.write_prompts", str(config)]


def _failures(replies: Path, asked: int, endpoint: str | None) -> int:
    """Count the passages without a reply.

    Raises:
        NoRepliesError: too many at an endpoint. A local model would not reply the next time either.
    """
    failed = [reply.failure for reply in read_rows(PromptReply, replies) if not reply.text]
    if endpoint and len(failed) > MOST_FAILED * asked:
        raise NoRepliesError(
            f"{endpoint} gave no reply for {len(failed):,} of {asked:,} passages.",
            f"First failure: {failed[0]}.",
            WAY_ON,
        )
    return len(failed)
