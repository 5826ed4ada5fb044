"""Has a language model write the prompts that passages answer, in shards written atomically.

    python -m models.asking.write_prompts CONFIG.json

Replies are kept unchanged, in the order of the passages. An existing shard is not requested again, except for failed
requests to an endpoint.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from data.prepare.passages import Passage
from data.prepare.written_prompts import INSTRUCTION, PromptReply, messages, reply_schema
from data.storage import holds, read_rows, write_rows
from models.asking.ask import asker
from models.asking.request import Ask, Form, Request
from models.config import WritePromptsProgram
from models.engine.vllm import leave
from models.process import fail_plainly
from models.shards import request_seed, shard_path

ROLE = "prompt writer"
AT_ENDPOINT = 256  # most requests per shard: an endpoint costs money


@dataclass(frozen=True)
class Shard:
    """The next few passages, the file for their replies, and the existing replies, by passage."""

    passages: list[Passage]
    path: Path
    replies: dict[str, PromptReply]

    @property
    def unasked(self) -> list[Passage]:
        return [passage for passage in self.passages if passage.id not in self.replies]


def missing_shards(program: WritePromptsProgram) -> Iterator[Shard]:
    """The shards with missing replies, one in memory at a time."""
    for shard in _shards(program):
        if shard.unasked:
            yield shard


def _shards(program: WritePromptsProgram) -> Iterator[Shard]:
    size = min(program.engine.shard_size, AT_ENDPOINT) if program.writer.endpoint else program.engine.shard_size
    rows = read_rows(Passage, program.passages)
    number = 0
    while passages := list(islice(rows, size)):
        path = shard_path(program.output, number)
        whole = holds(path, "passage_id", [passage.id for passage in passages])
        replies = list(read_rows(PromptReply, path)) if whole else []
        # An endpoint may reply next time; a passage that is too long for a model here stays too long.
        yield Shard(passages, path, {r.passage_id: r for r in replies if r.text or not program.writer.endpoint})
        number += 1


def write_prompts(program: WritePromptsProgram) -> None:
    """Ask for every missing prompt. An engine starts only if needed.

    Raises:
        EndpointError: the endpoint cannot be reached, or refuses the key or the model.
    """
    program.output.mkdir(parents=True, exist_ok=True)
    paths, ask = set(), None
    for shard in _shards(program):
        paths.add(shard.path)
        if not shard.unasked:
            continue
        ask = ask or _asker(program)
        said = ask([request(passage, program) for passage in shard.unasked])
        new = {p.id: PromptReply(p.id, r.text, r.failure) for p, r in zip(shard.unasked, said, strict=True)}
        replies = shard.replies | new
        write_rows(PromptReply, shard.path, (replies[passage.id] for passage in shard.passages))
    for file in (
        set(program.output.glob("*.parquet")) - paths
    ):  # from an earlier attempt that split the passages differently
        file.unlink()


def request(passage: Passage, program: WritePromptsProgram) -> Request:
    """The request about a passage. Its seed does not depend on its position."""
    said = messages(passage, program.writer.instruction or INSTRUCTION)
    return Request(said, request_seed(program.seed, passage.id))


def _asker(program: WritePromptsProgram) -> Ask:
    form = Form(ROLE, "prompt", reply_schema(), program.writer.max_tokens)
    expected = (request(passage, program) for shard in missing_shards(program) for passage in shard.unasked)
    return asker(program.writer, form, program.policy, program.engine, program.seed, expected)


def main() -> None:
    fail_plainly()
    write_prompts(WritePromptsProgram.model_validate_json(Path(sys.argv[1]).read_text()))
    leave()


if __name__ == "__main__":
    main()
