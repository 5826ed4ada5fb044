"""The exact comparison: what it decides, what it leaves alone, and that Math-Verify decides the same."""

from collections.abc import Iterator

import pytest

from data.rewards.exact import exact, exactly_equal
from data.rewards.final_answer import _mathematics
from data.rewards.math_checker import MathChecker
from data.rewards.reading import read
from tests.unit.data.rewards.math_style import OTHER, SAME


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (r"\frac{2}{\sqrt{3}}", r"\frac{2\sqrt{3}}{3}"),
        (r"\sqrt{\frac{1}{2}}", r"\frac{\sqrt{2}}{2}"),
        (r"(1+\sqrt{2})^2", r"3+2\sqrt{2}"),
        (r"\sqrt{2}\sqrt{8}", "4"),
        (r"\sqrt{50}-\sqrt{2}", r"4\sqrt 2"),
        (r"\frac12\pi", r"\frac{\pi}{2}"),
        (r"\pi/3", r"\frac{1}{3} \cdot \pi"),
        (r"\frac{\pi^2}{\pi}", "π"),
        ("2^{10}", "1024"),
        (r"-\frac{\sqrt{3}}{2}", r"-\sqrt{3}/2"),
        (r"\sqrt{2}-\sqrt{2}", "0"),
        (r"(\frac{1}{2}, \sqrt{4})", r"(\frac{2}{4},2)"),
        (r"[0,2\pi)", r"[0, \pi\cdot 2)"),
    ],
)
def test_equal_numbers_have_one_form(first: str, second: str) -> None:
    assert exactly_equal(first, second) is exactly_equal(second, first) is True


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (r"\sqrt{2}", r"\sqrt{3}"),
        (r"2\pi", r"\pi^2"),
        (r"\frac{3}{4}", r"\frac{4}{3}"),
        (r"1+\sqrt{2}", r"\sqrt{3}"),
        (r"\frac{355}{113}", r"\pi"),
        ("(1,2)", "(2,1)"),
        ("[1,2)", "[1,3)"),
        ("-3", "3"),
        (r"\sqrt{999999937}", r"\sqrt{999999929}"),
    ],
)
def test_others_do_not(first: str, second: str) -> None:
    assert exactly_equal(first, second) is exactly_equal(second, first) is False


@pytest.mark.parametrize(
    "text",
    [
        *("", "x", "0.5", "1,2", "2 3", r"3\frac{1}{2}", r"1/2\pi", "1/2(3)", r"\sqrt12", r"\sqrt[3]{8}", r"\sqrt{-1}"),
        *(r"\frac{1}{0}", r"\frac{1}{1+\sqrt{2}}", "2^{-1}", "2^31", "2^{13}", "9" * 40, "(1,2", "1)", "(1,2]3", "6!"),
        *(r"5\cdot-3", "+", "()", r"\{1,2\}", r"1\pm\sqrt{2}", "90°", "5%", "(" * 300 + "1" + ")" * 300, r"\infty"),
        *(r"\sqrt{9999999999}", r"(1+\sqrt{2}+\sqrt{3}+\sqrt{5}+\sqrt{7}+\sqrt{11})^{12}", "1--2", r"2\sqrt{\pi}"),
    ],
)
def test_what_is_not_simple_is_left_to_others(text: str) -> None:
    assert exact(text) is None and exactly_equal(text, text) is None


@pytest.mark.parametrize(("first", "second"), [("(1,2)", "[1,2]"), ("(1,2)", "(1,2,3)"), ("1", "(1,2)")])
def test_numbers_tuples_and_intervals_are_not_compared_with_each_other(first: str, second: str) -> None:
    assert exactly_equal(first, second) is None


def _simple() -> Iterator[str]:
    texts = {_mathematics(read(text), False) for pair in SAME + OTHER for text in pair if not read(text).is_list}
    return (text for text in sorted(texts) if exact(text))


def test_math_verify_decides_the_same() -> None:
    """Every simple text of the MATH-style pairs, with a few of its neighbors. (All pairs agree.)"""
    simple, checker = list(_simple()), MathChecker(30.0)
    assert len(simple) > 60
    for at, first in enumerate(simple):
        for second in simple[at : at + 4]:
            decided = exactly_equal(first, second)
            assert decided is None or (checker.compare(first, second) == "equal") == decided, (first, second)
    checker.close()
