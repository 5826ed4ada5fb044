"""The one renderer: prompts and completions become token ids here, for generation, training and evaluation alike.

An answer is what follows the prompt in the template's own rendering, up to the token that ends its turn, so a gold
answer begins and ends exactly as a policy's own does.
"""

from collections.abc import Iterable, Iterator
from functools import cache, lru_cache
from typing import Any, NamedTuple, TypeVar

from data.chat_template import QUOTED, Messages, TemplateError, other_template, rendered, rendered_prompt
from data.errors import AutodidactError
from data.rows import Pair, Problem

Row = TypeVar("Row", Pair, Problem)

ASKED = {"role": "user", "content": "?"}


class PromptTooLongError(AutodidactError):
    """A prompt leaves no room for an answer."""


def prompt_token_ids(tokenizer: Any, messages: Messages) -> list[int]:
    """Token ids of a prompt, up to where the policy's answer begins.

    The chat template alone decides on special tokens: no second BOS is added. The ids equal `apply_chat_template`'s,
    except that no token crosses the beginning or end of an earlier answer.

    Args:
        tokenizer: a Hugging Face tokenizer with a chat template.
        messages: the turns, `{"role": …, "content": …}`.

    Raises:
        TemplateError: the chat template fails, or leaves out the user's message.
    """
    return prompt_and_answers(tokenizer, messages)[0]


def question_token_ids(tokenizer: Any, messages: Messages) -> list[int]:
    """Token ids of a prompt that shows what a model wrote: in that, a special token is text, so no turn is forged.

    Raises:
        TemplateError: see `prompt_token_ids`.
    """
    return prompt_token_ids(tokenizer, [{**turn, "content": as_text(tokenizer, turn["content"])} for turn in messages])


def as_text(tokenizer: Any, text: str) -> str:
    """A text in which a space breaks up whatever the tokenizer would read as a special token."""
    for token in _special_tokens(tokenizer):
        text = text.replace(token, f"{token[0]} {token[1:]}")
    return text


@cache
def _special_tokens(tokenizer: Any) -> list[str]:
    """The special tokens, long ones first; one of a single character cannot be broken up."""
    added = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    found = {token for token in added | set(tokenizer.all_special_tokens) if len(token) > 1}
    return sorted(found, key=lambda token: (-len(token), token))


def prompt_and_answers(tokenizer: Any, messages: Messages) -> tuple[list[int], list[bool]]:
    """Token ids of a prompt, and which of them belong to the assistant's earlier answers and their end-of-turn tokens.

    If a template changes earlier answers (some drop the reasoning), no token belongs to them.
    """
    text = rendered_prompt(tokenizer, messages)
    pieces = list(_pieces(tokenizer, messages, text))
    whole = tokenizer(text, add_special_tokens=False, return_offsets_mapping=len(pieces) > 1 and tokenizer.is_fast)
    ids = list(whole["input_ids"])
    if len(pieces) == 1:
        return ids, [False] * len(ids)
    if tokenizer.is_fast:
        ends, position = set(), 0
        for piece, _ in pieces:
            ends.add(position := position + len(piece))
        starts = [start for start, _ in whole["offset_mapping"]]
        if ends - {len(text)} <= set(starts):
            return ids, _answers(starts, pieces)
    apart = [(tokenizer(piece, add_special_tokens=False)["input_ids"], answer) for piece, answer in pieces]
    return [i for part, _ in apart for i in part], [answer for part, answer in apart for _ in part]


def completion_token_ids(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a finished answer given as text: the text, then the end-of-turn token.

    What the template puts between a prompt and an answer, such as a space or an empty block of reasoning, belongs to
    the answer, as it would if a policy had generated it.

    Raises:
        TemplateError: the template fails on an answer, or starts it differently from a policy's own; or the template
            ends a prompt with a block of reasoning, and the answer begins with one of its own.
    """
    if _turn(tokenizer, str(tokenizer.chat_template)).opening is None:
        raise _begins_otherwise(tokenizer)
    if begins_with_reasoning(text) and rendered_prompt(tokenizer, [ASKED]).rstrip().endswith("</think>"):
        raise _reasons_twice(tokenizer, text)
    return finished_token_ids(tokenizer, text)


def begins_with_reasoning(text: str) -> bool:
    """Whether an answer begins with a block of reasoning."""
    return text.lstrip().startswith("<think>")


def finished_token_ids(tokenizer: Any, text: str) -> list[int]:
    """The same for an answer that is not learned, so it may begin differently from a policy's own."""
    turn = _turn(tokenizer, str(tokenizer.chat_template))
    said = _opened(tokenizer, turn.opening or "", turn.tail, text) + turn.blank
    return [*tokenizer(said, add_special_tokens=False)["input_ids"], turn.end]


def stop_token_ids(tokenizer: Any) -> list[int]:
    """The ids that end an answer: the template's end-of-turn token, which closes gold answers, and EOS."""
    try:
        end = _turn(tokenizer, str(tokenizer.chat_template)).end
    except TemplateError:  # it renders no answers; answers to its prompts can still end in EOS
        end = None
    return sorted({found for found in (end, tokenizer.eos_token_id) if found is not None})


def answer_token_ids(tokenizer: Any, text: str, token_ids: list[int] | None) -> list[int]:
    """Token ids of an answer to train on: exactly those a policy generated, or a gold answer rendered from text."""
    return token_ids or completion_token_ids(tokenizer, text)


def text_token_ids(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a text that is no part of a conversation. No token is added."""
    found: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return found


def judged_token_ids(tokenizer: Any, messages: Messages, text: str) -> tuple[list[int], list[int]]:
    """Token ids of a prompt, and of a finished answer to it that is to be judged.

    The answer is rendered from its text, because its writer may have another tokenizer. Surrounding white space is
    stripped: a gold answer has none, but a policy's own often begins with some.
    """
    return prompt_token_ids(tokenizer, messages), finished_token_ids(tokenizer, text.strip())


def require_end(tokenizer: Any, source: str) -> None:
    """Check that an answer can be finished.

    Raises:
        TemplateError: the template ends no answer with a token of its own, and there is no EOS token.
    """
    if not stop_token_ids(tokenizer):
        raise TemplateError(
            f"The tokenizer of {source} has no EOS token, and its chat template has no end-of-turn token.",
            "Without either, nothing marks an answer as finished.",
            "Set eos_token in its tokenizer_config.json to the token that ends an answer.",
        )


class Turn(NamedTuple):
    """How a template frames an answer.

    Attributes:
        opening: what it puts between a prompt and the answer; None if finished answers do not follow the prompt.
        blank: the white space between the answer and the token that ends it.
        mark, end: that token and its id: EOS if the template has none of its own, None if there is no EOS either.
        tail: everything it puts after the answer.
    """

    opening: str | None
    blank: str
    mark: str
    end: int | None
    tail: str


@lru_cache(maxsize=16)
def _turn(tokenizer: Any, template: str) -> Turn:
    """How the tokenizer's template frames an answer. `template` is its text, the cache key."""
    prompt = rendered_prompt(tokenizer, [ASKED])
    whole = rendered(tokenizer, [ASKED, _said("!")])
    opening, answer, tail = whole.removeprefix(prompt).partition("!")
    behind, begins = tail.lstrip(), opening if whole.startswith(prompt) else None
    mark = _mark(tokenizer, behind)
    if not answer or mark is None or (not (begins or "").strip() and prompt.endswith(tail) and mark == behind.strip()):
        # No token, or only the one that this template always starts an answer with.
        return Turn(
            "" if begins and not answer else begins, "", tokenizer.eos_token or "", tokenizer.eos_token_id, tail
        )
    return Turn(begins, tail.removesuffix(behind), mark, int(tokenizer.convert_tokens_to_ids(mark)), tail)


def _mark(tokenizer: Any, text: str) -> str | None:
    """The tokenizer's own token, other than white space, that a text begins with."""
    marks = (str(token) for token in tokenizer.added_tokens_decoder.values())
    return max((mark for mark in marks if mark.strip() and text.startswith(mark)), key=len, default=None)


def _opened(tokenizer: Any, opening: str, tail: str, text: str) -> str:
    """An answer after what the template puts before it."""
    if opening.strip():  # a block of reasoning: the template decides whether the answer brings its own
        prompt, whole = rendered_prompt(tokenizer, [ASKED]), rendered(tokenizer, [ASKED, _said(text)])
        if whole.startswith(prompt) and "".join(text.split()) in "".join(whole.split()):
            return whole.removeprefix(prompt).removesuffix(tail)
    return opening + text


def _begins_otherwise(tokenizer: Any) -> TemplateError:
    prompt, whole = rendered_prompt(tokenizer, [ASKED]), rendered(tokenizer, [ASKED, _said("!")])
    return TemplateError(
        f"The chat template ends a prompt in {prompt[-QUOTED:]!r}, but writes a finished answer without that: "
        f"{whole[-QUOTED:]!r}.",
        "So gold answers would begin differently from the policy's own.",
        f"Set template_options so that both begin alike, such as {{enable_thinking: false}}. {other_template()}",
    )


def _reasons_twice(tokenizer: Any, text: str) -> TemplateError:
    return TemplateError(
        f"The chat template ends a prompt in {rendered_prompt(tokenizer, [ASKED])[-QUOTED:]!r}, and a gold answer "
        f"begins with reasoning of its own: {text[:QUOTED]!r}.",
        "So it would begin differently from the policy's own answers.",
        "Set template_options so that the policy reasons as well, such as {enable_thinking: true}, or remove the "
        "reasoning from the answers.",
    )


def _said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def _pieces(tokenizer: Any, messages: Messages, text: str) -> Iterator[tuple[str, bool]]:
    """The rendered text, cut at the beginning and end of each earlier answer, and whether a piece is an answer."""
    done = 0
    for number, turn in enumerate(messages):
        if turn["role"] != "assistant" or number == 0:
            continue
        before = rendered_prompt(tokenizer, messages[:number])
        if not text.startswith(before):  # a block of reasoning that only the last answer has
            before = _shared(before, text)
        start = text.find(turn["content"], len(before))
        if start < 0 or text[len(before) : start].strip():
            break
        end = _end(tokenizer, text, start + len(turn["content"]))
        yield text[done : len(before)], False
        yield text[len(before) : end], True
        done = end
    if text[done:]:
        yield text[done:], False


def _shared(one: str, other: str) -> str:
    """The common prefix of two texts."""
    unlike = (number for number, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return one[: next(unlike, min(len(one), len(other)))]


def _end(tokenizer: Any, text: str, end: int) -> int:
    """The end of an answer whose text ends at `end`: after the end-of-turn token, if it follows."""
    turn = _turn(tokenizer, str(tokenizer.chat_template))
    for mark in (turn.blank + turn.mark, tokenizer.eos_token):
        if mark and text.startswith(mark, end):
            return end + len(mark)
    return end


def _answers(starts: list[int], pieces: list[tuple[str, bool]]) -> list[bool]:
    """Which tokens belong to answers, given where each token starts in the text."""
    found, position, number = [], 0, 0
    for start in starts:
        while start >= position + len(pieces[number][0]):
            position += len(pieces[number][0])
            number += 1
        found.append(pieces[number][1])
    return found


def pad_token_id(tokenizer: Any) -> int:
    """The padding token: the tokenizer's own, else EOS, else the template's end-of-turn token."""
    known = (tokenizer.pad_token_id, tokenizer.eos_token_id, *stop_token_ids(tokenizer))
    return next(int(number) for number in known if number is not None)


def context_length(config: Any) -> int:
    """Context length in tokens of a model with this Hugging Face configuration; a very large number if not given."""
    return int(getattr(config, "max_position_embeddings", 0) or 1 << 30)


def check_room(prompt_tokens: int, max_tokens: int, context: int, problem: str) -> None:
    """Refuse a prompt that leaves no room in the context for an answer of `max_tokens`.

    Raises:
        PromptTooLongError: names the problem and the three lengths.
    """
    if prompt_tokens + max_tokens > context:
        raise PromptTooLongError(
            f"Problem {problem} has a prompt of {prompt_tokens} tokens; with {max_tokens} for the answer it does not "
            f"fit into the context of {context}.",
            what_next="Lower generate.max_tokens, shorten or remove the problem, or choose a model with a longer "
            "context.",
        )


def first_of_each_shape(rows: Iterable[Row]) -> Iterator[Row]:
    """The first row of every order of roles, since those are what chat templates fail on."""
    seen = set()
    for row in rows:
        shape = tuple(turn["role"] for turn in row.messages)
        if shape not in seen:
            seen.add(shape)
            yield row
