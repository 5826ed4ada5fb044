"""Graders on answers with known verdicts; with your own data: `python -m benchmarks.graders FILE…`.

First, the tests' MATH-style pairs, next to the verdicts of Math-Verify alone, and answers and programs by kind. FILE is
a data set whose answers are numbers, such as GSM8K, or it is HumanEval's or MBPP's. Its gold answers are graded
unchanged, then with a mistake: another number, sign or scale, or a changed program, which plain Python also judges,
without the sandbox. So give no file of programs that you would not run yourself.
"""

import ast
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

from benchmarks.answer_kinds import show_kinds, show_written
from benchmarks.measure import show
from benchmarks.program_kinds import show_program_kinds
from data.formats import Record
from data.prepare.reading import Reading, Tally, first_use, read_records
from data.rewards.final_answer import close, final_answer
from data.rewards.program import program
from data.rows import Problem, Score
from tests.unit.data.rewards.math_style import OTHER, SAME

BARE_SECONDS = 10
FAULTS = {False: "with a fault", True: "with a change that its tests miss"}
_SWAPS: dict[type, type] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.GtE, ast.GtE: ast.Lt, ast.Gt: ast.LtE, ast.LtE: ast.Gt,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip


def main(files: list[str] | None = None) -> None:
    _math_style()
    show_kinds()
    show_program_kinds()
    for file in files or []:
        _labelled(Path(file))
        _written(Path(file))
    close()


def _math_style() -> None:
    labelled = [(*pair, True) for pair in SAME] + [(*pair, False) for pair in OTHER]
    right: Counter[str] = Counter()
    disagreements = []
    for gold, answer, same in labelled:
        ours = _grade(final_answer, rf"\boxed{{{gold}}}", rf"\boxed{{{answer}}}").verdict == "correct"
        theirs = _math_verify_alone(gold, answer)
        right["ours"] += ours == same
        right["theirs"] += theirs == same
        if ours != theirs or ours != same:
            said = ["equal" if equal else "different" for equal in (same, ours, theirs)]
            disagreements.append([gold, answer, *said])
    show(
        "Where the two differ, or both are wrong",
        ["gold", "answer", "right", "final_answer", "Math-Verify alone"],
        disagreements,
    )
    row = [f"{len(labelled):,}", f"{right['ours']:,}", f"{right['theirs']:,}"]
    show("Pairs in MATH style", ["pairs", "final_answer right", "Math-Verify alone right"], [row])


def _math_verify_alone(gold: str, answer: str) -> bool:
    from math_verify import parse, verify

    return bool(verify(parse(rf"\boxed{{{gold}}}"), parse(rf"\boxed{{{answer}}}")))


def _labelled(file: Path) -> None:
    reading = Reading(file)
    use = first_use(reading)
    reward, changes = (program, changed_program) if use == "programs" else (final_answer, changed_numbers)
    verdicts: dict[str, Counter[str]] = {}
    for _, record in read_records(reading, use, Tally()):
        gold = record.response or record.reference or ""
        for kind, answer in [("as it is", gold), *changes(record)]:
            score = _grade(reward, record.reference, answer)
            verdicts.setdefault(kind, Counter())[score.verdict] += 1
            if (score.verdict == "correct") != (kind in ("as it is", FAULTS[True])):
                print(f"{kind}: {score.verdict}: {score.explanation}\n{answer}\n")
    names = sorted({verdict for counts in verdicts.values() for verdict in counts})
    rows = [
        [kind, f"{counts.total():,}", *(f"{counts[name]:,}" for name in names)] for kind, counts in verdicts.items()
    ]
    show(f"{file.name}, by {reward.__name__}", ["gold answer", "number", *names], rows)


def _written(file: Path) -> None:
    reading = Reading(file)
    if first_use(reading) == "problems":
        records = [record for _, record in read_records(reading, "problems", Tally())]
        show_written(file.name, [_value(record) for record in records])


def _grade(reward: Callable[[Problem, str], Score], reference: str | None, answer: str) -> Score:
    return reward(Problem("0" * 16, [], reference, None, "", ""), answer)


def changed_numbers(record: Record) -> Iterator[tuple[str, str]]:
    """The gold answer with another number, another sign and another scale.

    Raises:
        ValueError: it does not end in a number.
    """
    worked, value = (record.reference or "").rpartition("####")[0], _value(record)
    for kind, other in (
        ("another number", value + 1),
        ("another sign", -value if value else Fraction(-1)),
        ("another scale", value * 10 if value else Fraction(10)),
    ):
        yield kind, f"{worked}#### {other}"


def _value(record: Record) -> Fraction:
    number = (record.reference or "").rpartition("####")[2]
    try:
        return Fraction(number.replace(",", "").strip())
    except ValueError:
        raise ValueError(f"Mistakes are only put into numbers, not into the answer {number.strip()!r}.") from None


def changed_program(record: Record) -> Iterator[tuple[str, str]]:
    """The first change of a program that fails its tests without the sandbox, and an earlier one that passes, if any.

    Raises:
        ValueError: it is neither HumanEval's nor MBPP's, or no change makes it fail.
    """
    task = json.loads(record.reference or "")
    if task["kind"] not in ("humaneval", "mbpp"):
        raise ValueError(f"Mistakes are only put into programs of HumanEval and MBPP, not of {task['kind']}.")
    prompt = task.get("prompt", "")
    whole = f"{prompt}{record.response}"
    seen = set()
    for changed in mutants(whole, prompt.count("\n")):
        passes = _passes_bare(changed, task)
        if passes is not None and passes not in seen:
            seen.add(passes)
            yield FAULTS[passes], changed
        if passes is False:
            return
    raise ValueError(f"No change makes this program fail its tests:\n{whole}")


def mutants(code: str, after: int) -> Iterator[str]:
    """Variants of a program with one change each, after line `after`: earlier lines are the problem's."""
    for number in range(len(list(ast.walk(ast.parse(code))))):
        tree = ast.parse(code)
        node = list(ast.walk(tree))[number]
        if getattr(node, "lineno", 0) > after and _change(node):
            yield ast.unparse(tree)


def _change(node: ast.AST) -> bool:
    """Change a program at this node. Return False if the node cannot be changed."""
    if isinstance(node, ast.BinOp | ast.BoolOp) and type(node.op) in _SWAPS:
        node.op = _SWAPS[type(node.op)]()
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in _SWAPS:
        node.ops[0] = _SWAPS[type(node.ops[0])]()
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        node.value = not node.value
    elif isinstance(node, ast.Constant) and isinstance(node.value, int):
        node.value += 1
    elif isinstance(node, ast.Return) and node.value is not None:
        node.value = ast.Constant(None)
    else:
        return False
    return True


def _passes_bare(code: str, task: dict[str, Any]) -> bool | None:
    """Plain Python's verdict; None if it takes too long, which is inconclusive."""
    tests = [task["test"], f"check({task['entry_point']})"] if "test" in task else [task["setup"], *task["asserts"]]
    command = [sys.executable, "-I", "-c", "\n".join([code, *tests])]
    try:
        return subprocess.run(command, check=False, capture_output=True, timeout=BARE_SECONDS).returncode == 0
    except subprocess.TimeoutExpired:
        return None


if __name__ == "__main__":
    main(sys.argv[1:])
