"""Has a language model make up new prompts after examples, in rounds: each sees some that the rounds before made up.

    python -m models.asking.new_prompts CONFIG.json

A round's replies are a shard, written atomically and unchanged. An existing shard is not requested again, except for
failed requests to an endpoint.
"""

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from data.prepare.new_prompts import TASK, Bounds, MadeUp, as_seed, messages, shown, usable
from data.prepare.written_prompts import reply_schema
from data.rows import Problem
from data.storage import holds, read_rows, write_rows
from models.asking.ask import asker
from models.asking.request import Ask, Form, Request
from models.config import NewPromptsProgram
from models.engine.vllm import leave
from models.process import fail_plainly
from models.shards import request_seed, shard_path

ROLE = "prompt writer"
ROUND = 256  # requests at once

Example = tuple[str, str]  # its id, and the prompt


def make_up(program: NewPromptsProgram) -> None:
    """Ask for every missing prompt. An engine starts only if needed.

    Raises:
        EndpointError: the endpoint cannot be reached, or refuses the key or the model.
    """
    program.output.mkdir(parents=True, exist_ok=True)
    seeds = [seed for problem in read_rows(Problem, program.seeds) if (seed := as_seed(problem))]
    told, ask, made = program.writer, None, list[Example]()
    bounds = Bounds(told.shortest, told.longest, told.keywords)
    for number, numbers in enumerate(_rounds(told.count)):
        path = shard_path(program.output, number)
        there = _replies(path, numbers, again=bool(told.endpoint))
        if missing := [n for n in numbers if n not in there]:
            examples = {n: shown(n, seeds, made, (told.examples, told.own_examples), program.seed) for n in missing}
            ask = ask or _asker(program, seeds)
            said = ask([_request(program, n, examples[n]) for n in missing])
            for n, reply in zip(missing, said, strict=True):
                there[n] = MadeUp(n, [name for name, _ in examples[n]], reply.text, reply.failure)
            write_rows(MadeUp, path, (there[n] for n in numbers))
        read = usable((there[n] for n in numbers), bounds, Counter())
        made += [(f"#{reply.number}", prompt) for reply, prompt in read]


def _rounds(count: int) -> Iterator[range]:
    return (range(first, min(first + ROUND, count)) for first in range(0, count, ROUND))


def _replies(path: Path, numbers: range, again: bool) -> dict[int, MadeUp]:
    """The replies of a round that are there.

    Args:
        again: whether those without a text are asked for again.
    """
    if not holds(path, "number", list(numbers)):
        return {}
    return {reply.number: reply for reply in read_rows(MadeUp, path) if reply.text or not again}


def _request(program: NewPromptsProgram, number: int, examples: Sequence[Example]) -> Request:
    said = messages(examples, program.writer.instruction or TASK)
    return Request(said, request_seed(program.seed, f"new/{number}"))


def _asker(program: NewPromptsProgram, seeds: Sequence[Example]) -> Ask:
    """The model. The first round is known; what a later one shows, only as long as it may be."""
    told = program.writer
    form = Form(ROLE, "prompt", reply_schema(), told.max_tokens, told.top_p)
    text = max((prompt for _, prompt in seeds), key=len)
    own = [("", (text * (told.longest // len(text) + 1))[: told.longest])] * told.own_examples
    expected = (
        _request(
            program, n, shown(n, seeds, own if n >= ROUND else [], (told.examples, told.own_examples), program.seed)
        )
        for n in range(told.count)
    )
    return asker(told, form, program.policy, program.engine, program.seed, expected)


def main() -> None:
    fail_plainly()
    make_up(NewPromptsProgram.model_validate_json(Path(sys.argv[1]).read_text()))
    leave()


if __name__ == "__main__":
    main()
