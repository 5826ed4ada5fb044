"""Where the final answer stands in a text, and when there is none."""

import time

import pytest

from data.rewards.answer import extract_answer, has_answer, reference_answer
from data.rewards.candidates import lists_several

ANSWERS = {
    "9 * 2 = 18\n#### 18": "18",
    "####18": "18",
    "#### **$18**.": "$18",
    "#### 18!": "18!",
    "#### **18**!": "18",
    "#### Tuesday!": "Tuesday",
    "#### 1\nno, wait\n#### 18\nThat is all: 20": "18",
    "#### 3 or 4": "3 or 4",
    "#### 3, 4, 5": "3, 4, 5",
    "#### 18\n\nSo the answer is 20, \\boxed{21}": "21",
    "#### 18\n\nThe answer is correct.": "18",
    "#### Answer: 18": "18",
    "#### The answer is 18.": "18",
    "#### $\\boxed{18}$": "18",
    "#### Final Answer:\n\\boxed{18}": "18",
    "\\boxed{17} no, \\boxed{18}": "18",
    "\\boxed{\\frac{1}{2}}": "\\frac{1}{2}",
    "\\boxed{\\{1, 2\\}}": "\\{1, 2\\}",
    "\\boxed{\\boxed{18}}": "18",
    "\\boxed {5!}": "5!",
    "\\boxed{18} and cut off \\boxed{1": "1",
    "\\boxed{18\n": None,
    "\\\\boxed{18}": "18",
    "\\boxed 18": "18",
    "\\boxed{3}\\text{ or }\\boxed{4}": "3 or 4",
    "\\boxed{3} so that \\boxed{4}": "4",
    "$\\boxed{3}$ or $\\boxed{4}$": "3 or 4",
    "\\boxed{3}, \\boxed{3}": "3",
    "The answer is 17. No: the final answer is $18.50. She had 3.": "$18.50",
    "the answer is: **18**": "18",
    "The answer is\n18": "18",
    "**Final Answer:** 18": "18",
    "**Answer**: St. Louis": "St. Louis",
    "Answer: 18\nQuestion 2": "18",
    "": None,
    "18": None,
    "She has 18 left.": None,
    "####": None,
    "####\n18": "18",
    "#### Conclusion": None,
    "#### 2. Check": None,
    "<think>\\boxed{18}</think>": None,
    "<think>\\boxed{18}": None,
    "\\boxed{18}</think>": None,
    "<think>17?</think>#### 18<think>19</think>": "18",
    "\\boxed{}": None,
    "\\boxed{18": None,
    "the answer is not 18": None,
    "we will answer this": None,
}


@pytest.mark.parametrize(("text", "answer"), ANSWERS.items())
def test_the_final_answer_is_what_the_last_marker_announces(text: str, answer: str | None) -> None:
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    ("reference", "answer"),
    [
        ("18", "18"),
        (" $18$ ", "18"),
        ("\\frac{1}{2}", "\\frac{1}{2}"),
        ("12 eggs\n#### 1,234", "1,234"),
        ("so \\boxed{x+1}.", "x+1"),
        (None, None),
        ("", None),
        (" \n", None),
        ("$$", None),
        ("12 eggs\n#### ", None),
        ("12 eggs are left.\nThat is all.", None),
        ("9" * 2000, "9" * 2000),
    ],
)
def test_a_reference_is_an_answer_or_ends_in_one(reference: str | None, answer: str | None) -> None:
    assert reference_answer(reference) == answer
    assert has_answer(reference) == (answer is not None and len(answer) < 2000)


@pytest.mark.parametrize(
    "text",
    [
        "\\boxed{" * 10**5,
        "\\boxed{" * 10**5 + "}" * 10**5,
        "\\boxed{3}," * 10**5,
        "\\boxed{" + "{" * 10**6,
        "#### " + "*" * 10**6,
        "the" + " " * 10**6,
        "answer " * 10**5,
        "the answer is" + " " * 10**6,
    ],
    ids=["open", "nested", "many", "braces", "stars", "spaces", "phrases", "blank"],
)
def test_a_huge_text_costs_linear_time(text: str) -> None:
    start = time.thread_time()
    extract_answer(text)
    assert time.thread_time() - start < 5


@pytest.mark.parametrize(
    "text",
    ["3 or 4", "3, 4", "3; 4", "3 and 4", r"3 \text{ or } 4", r"3 \quad 4", "3 4", r"3\ 4", "(1,2)", "3|4", "1,2"],
)
def test_a_list_of_candidates_is_noticed(text: str) -> None:
    assert lists_several(text)


@pytest.mark.parametrize("text", ["3", "1,234", "1{,}234", "x+1", r"\sqrt{2}", "orange", r"\int_0^3 1 dx", "3-4"])
def test_one_answer_is_no_list(text: str) -> None:
    assert not lists_several(text)
