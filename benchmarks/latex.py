"""LaTeX answers shaped like MATH's, a third of them wrong: verdicts per second, with and without the exact comparison.

Without it, every answer that is not a plain number goes to Math-Verify. The shares of kinds are about those of MATH's
final answers; the mistakes are another factor, sign, root, bound or order.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from unittest.mock import patch

from benchmarks.measure import show
from data.rewards import final_answer as grader
from data.rewards.exact import exact
from data.rows import Problem

COUNT = 3000

# Of a number: the gold answer, the same in other words, a mistake.
SHAPES: tuple[tuple[str, int, Callable[[int], tuple[str, str, str]]], ...] = (
    ("integers", 10, lambda n: (f"{n}", f"{n}", f"{n + 2}")),
    ("fractions", 3, lambda n: (rf"\frac{{{n}}}{{{n + 7}}}", f"{2 * n}/{2 * n + 14}", rf"\dfrac{{{n + 7}}}{{{n}}}")),
    ("decimals", 1, lambda n: (f"{n}.5", rf"\frac{{{2 * n + 1}}}{{2}}", f"{n}.05")),
    ("roots", 1, lambda n: (rf"{n}\sqrt{{2}}", rf"\sqrt{{{2 * n * n}}}", rf"{n}\sqrt{{3}}")),
    ("roots", 1, lambda n: (rf"\frac{{{n}\sqrt{{3}}}}{{2}}", rf"\frac{{{3 * n}}}{{2\sqrt{{3}}}}", rf"{n}\sqrt{{3}}")),
    ("multiples of π", 1, lambda n: (rf"{n}\pi", rf"{n} \cdot \pi", rf"\frac{{{n}\pi}}{{2}}")),
    ("tuples", 1, lambda n: (f"({n},-{n})", rf"\left({n}, -{n}\right)", f"(-{n},{n})")),
    ("intervals", 1, lambda n: (f"[{n},{n + 3})", rf"\left[{n}, {n + 3}\right)", f"[{n},{n + 4})")),
    ("algebra", 1, lambda n: (f"x^2+{n}x", f"x(x+{n})", f"x^2-{n}x")),
)


def main() -> None:
    made = list(_answers())
    without, verdicts, reached = _graded(made, exactly=False)
    with_it, verdicts_again, still = _graded(made, exactly=True)
    assert verdicts == verdicts_again, "a verdict changed"
    rows = [
        ["Math-Verify", f"{len(made) / without:,.0f}", _share(reached, len(made)), ""],
        ["exact comparison first", f"{len(made) / with_it:,.0f}", _share(still, len(made)), f"{without / with_it:.1f}"],
    ]
    counts = ", ".join(f"{count:,} {verdict}" for verdict, count in sorted(Counter(verdicts).items()))
    columns = ["LaTeX answers", "verdicts per s and process", "reached Math-Verify", "faster by"]
    show(f"MATH-shaped answers: {counts}", columns, rows)


def _share(some: int, total: int) -> str:
    return f"{some / total:.1%}"


def _answers() -> Iterator[tuple[Problem, str]]:
    shapes = [make for _, share, make in SHAPES for _ in range(share)]
    for number in range(COUNT):
        gold, same, mistake = shapes[number % len(shapes)](number // len(shapes) + 2)
        answer = mistake if number % 3 == 2 else same
        yield Problem(f"{number}", [], gold, None, "", ""), rf"so it is \boxed{{{answer}}}"


def _graded(made: list[tuple[Problem, str]], exactly: bool) -> tuple[float, list[str], int]:
    """Seconds, verdicts, and how many answers reached Math-Verify."""
    asked, through = set[str](), grader._checker.compare

    def compare(reference: str, answer: str, *approximately: bool) -> str:
        asked.add(problem.id)
        return through(reference, answer, *approximately)

    for cache in (grader._reference, grader._math_verify, exact):
        cache.cache_clear()
    decide = grader.exactly_equal if exactly else lambda *_: None
    grader._checker.compare("1", "1")  # it has started
    with patch.object(grader, "exactly_equal", decide), patch.object(grader._checker, "compare", compare):
        start, verdicts = time.perf_counter(), []
        for problem, text in made:
            verdicts.append(grader.final_answer(problem, text).verdict)
        return time.perf_counter() - start, verdicts, len(asked)


if __name__ == "__main__":
    main()
