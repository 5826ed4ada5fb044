"""Cut prompts that leave no room for an answer, from the left."""

from collections.abc import Callable

from data.formats import Message

LengthOf = Callable[[list[Message]], int]


def cut_from_left(messages: list[Message], room: int, length_of: LengthOf) -> list[Message] | None:
    """Cut a prompt from the beginning so that the rest fits.

    The system message stays. Earlier turns go first, oldest first, each user turn together with its answers; then the
    beginning of the last turn.

    Args:
        room: maximum of `length_of` for the result, in tokens.
        length_of: tokens of a rendered prompt.

    Returns:
        None if not one character of the last turn would remain.
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

    low, high = 0, len(text)  # binary search: still too long after cutting `low` characters
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if length_of(without(middle)) <= room else (middle, high)
    cut = without(high)
    return cut if cut[-1]["content"] and length_of(cut) <= room else None
