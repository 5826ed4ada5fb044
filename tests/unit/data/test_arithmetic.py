"""The embedded problems: right answers, disjoint splits, bounds, and the same seed for the same problems."""

import re

import pytest

from data.arithmetic import LARGEST_OPERAND, LARGEST_RESULT, SIZES, bare, embedded_problems, has_false_step
from data.rewards.final_answer import final_answer
from data.rows import Problem, normalize_prompt

# What a reader takes from a sentence, written down apart from the generator.
READINGS = [
    (r"\w+ has (\d+) \w+\.", lambda value, n: n),
    (r"\w+ (?:buys|finds|wins|is given) (\d+) more\.|A friend brings (\d+) more\.", lambda value, n: value + n),
    (r"\w+ wins (\d+) in a game\.|(\d+) more are added\.", lambda value, n: value + n),
    (r"\w+ (?:gives away|loses|sells|breaks) (\d+)\.", lambda value, n: value - n),
    (r"(\d+) of them break\.|A friend takes (\d+)\.", lambda value, n: value - n),
    (r"The number (doubles)\.|\w+ then has (twice) as many\.", lambda value, n: 2 * value),
    (r"The number (triples)\.", lambda value, n: 3 * value),
]


@pytest.fixture(scope="module")
def problems() -> list[Problem]:
    return list(embedded_problems(0))


def question(problem: Problem) -> str:
    (message,) = problem.messages
    assert message["role"] == "user"
    return message["content"]


def steps_of(text: str) -> list[str]:
    return [sentence.strip() for sentence in re.findall(r"[^.?]+\.", text)[1:]]


def values_along(text: str) -> list[int]:
    """The number of things after each sentence of a question, read from the words alone."""
    first, last = text[: text.index(".") + 1], text[text.rindex(".") + 2 :]
    assert last.startswith("How many ")
    values = [0]
    for sentence in [first, *steps_of(text)]:
        (after,) = [
            step(values[-1], int(number) if number.isdigit() else 0)
            for pattern, step in READINGS
            if (found := re.fullmatch(pattern, sentence))
            for number in found.groups()
            if number
        ]
        values.append(after)
    return values[1:]


def test_every_split_has_its_size(problems: list[Problem]) -> None:
    assert {split: sum(p.split == split for p in problems) for split in SIZES} == {
        "demonstration": 3000,
        "train": 3000,
        "validation": 500,
        "test": 500,
        "transfer": 300,
    }
    assert len(problems) == 7300


def test_no_prompt_is_in_two_splits_or_twice_in_one_neither_by_id_nor_by_text(problems: list[Problem]) -> None:
    assert len({p.id for p in problems}) == len(problems)
    assert len({normalize_prompt(question(p)) for p in problems}) == len(problems)


def test_the_reference_is_what_the_question_says(problems: list[Problem]) -> None:
    for problem in problems:
        assert str(values_along(question(problem))[-1]) == problem.reference, question(problem)


def test_only_demonstrations_have_a_worked_answer(problems: list[Problem]) -> None:
    assert {p.split for p in problems if p.response is not None} == {"demonstration"}
    assert all(p.response for p in problems if p.split == "demonstration")


def test_every_worked_step_is_right_follows_from_the_one_before_and_leads_to_the_reference(
    problems: list[Problem],
) -> None:
    for problem in problems:
        if problem.response is None:
            continue
        worked, answer = problem.response.split(" #### ")
        first, *after = values_along(question(problem))
        value = first
        for step, expected in zip(worked.split(), after, strict=True):
            left, symbol, right, result = re.fullmatch(r"(\d+)([-+*])(\d+)=(\d+)", step).groups()  # type: ignore[union-attr]
            assert int(left) == value, problem.response
            value = {"+": value + int(right), "-": value - int(right), "*": value * int(right)}[symbol]
            assert int(result) == value == expected, problem.response
        assert answer == str(value) == problem.reference


def test_the_reward_takes_the_worked_answer_as_right(problems: list[Problem]) -> None:
    for problem in problems[:20]:
        assert final_answer(problem, str(problem.response)).verdict == "correct"


def test_every_number_is_within_bounds(problems: list[Problem]) -> None:
    for problem in problems:
        assert all(0 <= value <= LARGEST_RESULT for value in values_along(question(problem)))
        assert all(1 <= int(number) <= LARGEST_OPERAND for number in re.findall(r"\d+", question(problem)))


def test_transfer_problems_are_longer_than_any_other(problems: list[Problem]) -> None:
    steps = {split: {len(values_along(question(p))) - 1 for p in problems if p.split == split} for split in SIZES}
    assert steps.pop("transfer") == {5, 6}
    assert set.union(*steps.values()) == {2, 3, 4}


def test_every_split_speaks_of_things_in_the_same_words(problems: list[Problem]) -> None:
    words = {
        split: {re.sub(r"\d+|[A-Z]\w+", "…", s) for p in problems if p.split == split for s in steps_of(question(p))}
        for split in SIZES
    }
    assert all(found == words["train"] for found in words.values())
    assert len(words["train"]) > 5


def test_the_same_seed_gives_the_same_problems_and_another_seed_others(problems: list[Problem]) -> None:
    embedded_problems.cache_clear()
    assert list(embedded_problems(0)) == problems
    other = list(embedded_problems(1))
    shared = {p.id for p in problems} & {p.id for p in other}
    assert len(shared) < len(problems) / 10


def test_a_bare_demonstration_keeps_the_result_and_loses_the_steps():
    problem = embedded_problems(0)[0]
    shown = bare(problem)
    assert "=" in (problem.response or "") and shown.response == f"#### {problem.reference}"
    assert (shown.messages, shown.reference) == (problem.messages, problem.reference)


@pytest.mark.parametrize(
    ("answer", "false"),
    [
        ("4+17=21 21-16=5 #### 5", False),
        ("4+17=22 22-17=5 #### 5", True),
        ("4 - 6 = -2 #### -2", False),
        ("#### 5", False),
    ],
)
def test_a_false_step_is_seen_whatever_the_answer_is(answer: str, false: bool) -> None:
    assert has_false_step(answer) is false
