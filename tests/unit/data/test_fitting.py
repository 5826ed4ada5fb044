"""A prompt is cut from the left, and what is left of it fits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.prepare.fitting import cut_from_left

SYSTEM = {"role": "system", "content": "ss"}


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def characters(messages: list[dict[str, str]]) -> int:
    """One token a character, and one for each turn."""
    return sum(len(turn["content"]) + 1 for turn in messages)


@pytest.mark.parametrize(
    ("messages", "room", "expected"),
    [
        ([user("abcdef")], 7, [user("abcdef")]),
        ([user("abcdef")], 6, [user("bcdef")]),
        ([user("abcdef")], 2, [user("f")]),
        ([user("abcdef")], 1, None),
        ([user("abc def")], 5, [user("def")]),
        ([SYSTEM, user("abcdef")], 6, [SYSTEM, user("ef")]),
        ([user("ab"), assistant("c"), user("de")], 8, [user("ab"), assistant("c"), user("de")]),
        ([user("ab"), assistant("c"), user("de")], 7, [user("de")]),
        ([SYSTEM, user("ab"), assistant("c"), user("de")], 7, [SYSTEM, user("de")]),
        (
            [SYSTEM, user("a"), user("b"), assistant("c"), user("de")],
            10,
            [SYSTEM, user("b"), assistant("c"), user("de")],
        ),
        ([SYSTEM, user("ab")], 3, None),
    ],
)
def test_what_comes_first_goes_first(
    messages: list[dict[str, str]], room: int, expected: list[dict[str, str]] | None
) -> None:
    assert cut_from_left(messages, room, characters) == expected


@pytest.mark.slow
@given(st.lists(st.text(min_size=1, max_size=9), min_size=1, max_size=6), st.integers(0, 40))
def test_the_rest_fits_and_is_the_end_of_the_prompt(texts: list[str], room: int) -> None:
    messages = [(user, assistant)[n % 2](text) for n, text in enumerate(texts)]
    cut = cut_from_left(messages, room, characters)
    if cut is not None:
        assert characters(cut) <= room
        assert cut[:-1] == messages[len(messages) - len(cut) : -1]
        assert messages[-1]["content"].endswith(cut[-1]["content"])
        assert cut[0]["role"] == "user" or len(cut) == 1
