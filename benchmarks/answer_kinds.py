"""Final answers as people and models write them, kind by kind, for `benchmarks.graders`.

First, the tables of the tests. Then, for a data set whose answers are numbers, its gold answers and other numbers,
written in many ways: another number must stay wrong however it is written, and so must a gold answer next to another
number or followed by a word that changes it.
"""

from collections import Counter
from collections.abc import Iterator
from fractions import Fraction

from benchmarks.measure import show
from data.rewards.final_answer import final_answer
from data.rows import Problem
from tests.unit.data.rewards.answer_kinds import KINDS

WAYS = {
    "hashes": "#### {}",
    "below hashes": "####\n{}",
    "a box": r"So it is \boxed{{{}}}.",
    "a box, a heading below": "So it is \\boxed{{{}}}.\n\n#### 2. Check\nAll is well.",
    "a sentence": "The answer is {}.",
    "a sentence, a remark": "The answer is {}, which is what was asked.",
    "two sentences": "Final Answer: {}. I hope it is correct.",
    "a line of its own": "**Final Answer**\n\n{}",
    "a tag": "<think>Is it 987654321?</think><answer>{}</answer>",
    "Chinese": "所以答案是{}。",
    "a unit": "#### {} apples",
    "minutes": "#### {} min",
    "a purpose": "#### It takes {} minutes to fill the tank",
    "a gloss": "#### {} (apples)",
    "a verb": "#### So she has ${} left.",
    "a special token": "#### {}<|im_end|>",
    "a name": r"\boxed{{x={}}}",
    "a font": r"\boxed{{\boldsymbol{{{}}}}}",
    "JSON": '{{"reasoning": "fine", "answer": {}, "sure": true}}',
}
CHANGED = {
    "or another": "#### {gold} or {other}",
    "boxed next to another": r"\boxed{{{gold}}} or maybe \boxed{{{other}}}",
    "boxed behind another": r"$x_1=\boxed{{{other}}}$, $x_2=\boxed{{{gold}}}$",
    "then another": r"#### {gold} … wait, \boxed{{{other}}}",
    "in a thought only": "<think>#### {gold}</think> The answer is {other}.",
    "dozen": "#### {gold} dozen",
    "sixths": "#### {gold} sixths",
    "below zero": "#### {gold} below zero",
    "a letter after": "#### {gold} theta",
    "a false equation": r"\boxed{{{other}={gold}}}",
    "a false equation in words": "#### The total is {other} apples + 1 apple = {gold} apples",
    "thousands in brackets": "#### {gold} (thousands)",
    "only supposed": "Let me know if the answer is {gold}.",
    "a heading": "\\boxed{{{other}}}\n\n#### Check with n = {gold}\nAll is well.",
    "a factorial": "#### {gold}!",
    "as an hour": "#### {gold}:00",
}
# 1 and 2 are their own factorials, and 0 is 0 dozen. Factorials of larger numbers take too long.
CHANGED_FROM, CHANGED_TO = 3, 100


def show_kinds() -> None:
    """Print how many verdicts of each kind are right, and which are wrong."""
    rows, totals = [], Counter[str]()
    for kind, answers in KINDS.items():
        counts = Counter[str]()
        for gold, written, wanted in answers:
            score = _grade(gold, written)
            counts["right"] += score == wanted
            counts["false positives"] += score == "correct" != wanted
            if score != wanted:
                print(f"{kind}: {score}, not {wanted}: {written!r} for {gold!r}")
        totals += counts
        rows.append([kind, f"{len(answers):,}", f"{counts['right']:,}", f"{counts['false positives']:,}"])
    number = sum(len(answers) for answers in KINDS.values())
    rows.append(["all", f"{number:,}", f"{totals['right']:,}", f"{totals['false positives']:,}"])
    show("Answers by kind", ["kind", "answers", "verdicts right", "false positives"], rows)


def show_written(name: str, golds: list[Fraction]) -> None:
    """Print verdicts on gold answers and on other numbers, written in every way."""
    counts: dict[str, Counter[str]] = {}
    for gold in golds:
        for kind, written, right in written_ways(gold):
            verdict = _grade(str(gold), written)
            found = counts.setdefault(kind, Counter())
            found["right answers"] += right
            found["missed"] += right and verdict != "correct"
            found["wrong answers"] += not right
            found["false positives"] += not right and verdict == "correct"
    columns = ["right answers", "missed", "wrong answers", "false positives"]
    rows = [[kind, *(f"{found[column]:,}" for column in columns)] for kind, found in counts.items()]
    show(f"{name}, written in many ways", ["way", *columns], rows)


def written_ways(gold: Fraction) -> Iterator[tuple[str, str, bool]]:
    """A way of writing, the text, and whether it is right: the gold answer, others, the gold answer changed."""
    others = (gold + 1, -gold if gold else Fraction(-1), gold * 10 if gold else Fraction(10))
    for way, template in WAYS.items():
        yield way, template.format(gold), True
        yield from ((way, template.format(other), False) for other in others)
    if CHANGED_FROM <= gold < CHANGED_TO and gold.denominator == 1:
        for way, template in CHANGED.items():
            yield way, template.format(gold=gold, other=gold + 1), False


def _grade(gold: str, written: str) -> str:
    return final_answer(Problem("0" * 16, [], gold, None, "", ""), written).verdict
