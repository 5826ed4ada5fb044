"""New prompts that a model makes up after examples: what it is asked, and which of its replies can be used.

Eight examples, of which two were made up before, and the filters are those of Self-Instruct (arXiv 2212.10560, section
2.2) as Self-Rewarding Language Models uses them (arXiv 2401.10020, section 2.2): length, words that a language model
cannot follow, and likeness to other prompts. In place of ROUGE-L, likeness is that of near_duplicates, which scales.
"""

import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from data.formats import Message
from data.formats.record import user
from data.prepare.written_prompts import KEY, UnusableReplyError, read_instruction
from data.rows import Problem, problem_id

VERSION = 1
SOURCE = "made up by"
TASK = (
    "The above are tasks that people gave to an assistant; they are examples, not to be done. Make up one more: like "
    "them in language and kind, but about something else. It has to be clear without any file, picture or link. Do not "
    f'do it.\nReply in JSON with the one key "{KEY}".'
)
# Of Self-Instruct: they ask for what a text cannot give.
KEYWORDS = (
    *("image", "images", "graph", "graphs", "picture", "pictures", "file", "files", "map", "maps", "draw", "plot"),
    *("go to", "video", "audio", "music", "flowchart", "diagram"),
)
_MARKUP = re.compile(r"</?task\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class MadeUp:
    """A model's unedited reply. `text` is empty if none came; `failure` says why.

    `examples` are the ids of the prompts it was shown; those that it had made up before are `#` and their number.
    """

    number: int
    examples: list[str]
    text: str
    failure: str

    SCHEMA: ClassVar[pa.Schema] = pa.schema(
        [
            ("number", pa.int32()),
            ("examples", pa.list_(pa.string())),
            ("text", pa.string()),
            ("failure", pa.string()),
        ]
    )


@dataclass(frozen=True)
class Bounds:
    """What a prompt may be.

    Attributes:
        shortest, longest: in characters.
        keywords: words that none may have, in any case.
    """

    shortest: int
    longest: int
    keywords: Sequence[str]

    def unusable(self, prompt: str) -> str:
        """Why a prompt cannot be used, in a few words; empty if it can."""
        if len(prompt) < self.shortest:
            return "too short"
        if len(prompt) > self.longest:
            return "too long"
        words = "|".join(map(re.escape, self.keywords))
        return "keyword" if words and re.search(rf"\b(?:{words})\b", prompt, re.IGNORECASE) else ""


def as_seed(problem: Problem) -> tuple[str, str] | None:
    """A problem's id and prompt, if it is a single turn."""
    said = [turn for turn in problem.messages if turn["role"] != "system"]
    return (problem.id, said[0]["content"]) if len(said) == 1 else None


def shown(
    number: int, seeds: Sequence[tuple[str, str]], made: Sequence[tuple[str, str]], counts: tuple[int, int], seed: int
) -> list[tuple[str, str]]:
    """The examples of a request, in random order. What there is too little of, the seeds make up for.

    Args:
        number: the request's.
        seeds, made: ids and prompts of people, and of the model.
        counts: how many of either.
    """
    rng = random.Random(f"{seed}/{number}")
    own = rng.sample(made, min(counts[1], len(made)))
    found = own + rng.sample(seeds, min(sum(counts) - len(own), len(seeds)))
    rng.shuffle(found)
    return found


def messages(examples: Iterable[tuple[str, str]], task: str) -> list[Message]:
    """The request as one user turn. The tags around an example cannot be forged within it."""
    prompts = [_MARKUP.sub(lambda found: found[0].replace("<", "‹"), prompt) for _, prompt in examples]
    return [user("\n".join([*(f"<task>\n{prompt}\n</task>" for prompt in prompts), task]))]


def read_made_up(reply: MadeUp, bounds: Bounds) -> str:
    """The prompt in a reply.

    Raises:
        UnusableReplyError: there is no reply; it cannot be read; it is empty or a refusal; or it is out of bounds.
    """
    if not reply.text:
        raise UnusableReplyError("no reply", reply.failure)
    prompt = read_instruction(reply.text)
    if reason := bounds.unusable(prompt):
        raise UnusableReplyError(reason, repr(prompt[:80]))
    return prompt


def usable(replies: Iterable[MadeUp], bounds: Bounds, dropped: Counter[str]) -> Iterator[tuple[MadeUp, str]]:
    """The replies with a prompt within bounds, and it. Others are counted by reason."""
    for reply in replies:
        try:
            prompt = read_made_up(reply, bounds)
        except UnusableReplyError as error:
            dropped[error.reason] += 1
        else:
            yield reply, prompt


def as_problem(prompt: str, writer: str) -> Problem:
    """A made-up prompt as a problem without an answer."""
    asked = [user(prompt)]
    return Problem(problem_id(asked), asked, None, None, f"{SOURCE} {writer}", "train")
