"""Prompts that leave no room for an answer, cut from the left."""

from collections.abc import Callable

from data.formats import Message

LengthOf = Callable[[list[Message]], int]


def cut_from_left(messages: list[Message], room: int, length_of: LengthOf) -> list[Message] | None:
    """A prompt without what comes first in it, so that the rest fits.

    The system message stays. Earlier turns go first, oldest first, each of the user's together with the answers to it;
    then the beginning of the last turn.

    Args:
        room: the most that `length_of` may say of the result, in tokens.
        length_of: tokens of a rendered prompt.

    Returns:
        None if not one character of the last turn would be left.
    """
    start = 1 if messages[0]["role"] == "system" else 0
    system, turns = messages[:start], messages[start:]
    while length_of([*system, *turns]) > room and len(turns) > 1:
        turns = turns[1:]
        while len(turns) > 1 and turns[0]["role"] != "user":
            turns = turns[1:]
    if length_of([*system, *turns]) <= room:
        return [*system, *turns]
    last = turns[-1]
    text = last["content"]

    def without(characters: int) -> list[Message]:
        return [*system, {**last, "content": text[characters:].lstrip()}]

    low, high = 0, len(text)  # too long without `low` characters; how short it can be is looked for between the two
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if length_of(without(middle)) <= room else (middle, high)
    cut = without(high)
    return cut if cut[-1]["content"] and length_of(cut) <= room else None
