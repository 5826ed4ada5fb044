r"""The reward `final_answer`: 1 if a completion's final answer equals the reference's, else 0. It ignores reasoning.

Plain numbers, fractions, roots, multiples of π, and tuples and intervals of them are compared exactly and words as
words, right here. Anything else goes to Math-Verify in a worker process that is killed after `LIMIT_SECONDS`; an
expression need not be simplified (5+1 equals 6). A list of candidates is wrong unless the reference is also a list. A
comparison that could not be carried out is `timeout` or `error`, never `wrong`.

Source: the answer format '#### n' is from GSM8K (Cobbe et al. 2021, arXiv:2110.14168), \boxed{…} from MATH
(Hendrycks et al. 2021, arXiv:2103.03874).
"""

import atexit
import os
import re
from functools import lru_cache
from itertools import islice

from data.rewards.answer import MAX_ANSWER_LENGTH, extract_answer, reference_answer
from data.rewards.codes import same_code
from data.rewards.exact import exactly_equal
from data.rewards.expressions import surely_mathematics
from data.rewards.latex import balanced, depth
from data.rewards.markup import canonical_text
from data.rewards.math_checker import MathChecker, MathCheckError, MathCheckTimeoutError
from data.rewards.names import names
from data.rewards.numeric import canonical_number, parse_number
from data.rewards.reading import Answer, best_reading, choice, option_text, read, readings
from data.rewards.relations import (
    Sides,
    as_interval,
    assignments,
    both_bounds,
    calculation,
    is_numeric,
    plain_intervals,
    sides,
)
from data.rewards.units import worth
from data.rows import Problem, Score

LIMIT_SECONDS = 5.0

_NO_ANSWER = "no final answer: expected '#### <answer>', '\\boxed{…}' or 'the answer is …'"
_TRAILING_UNIT = re.compile(r"\s*\\text\s?\{(?P<unit>[^{}]*)\}(?:\^(?:[23]|\{[23]\}))?$")
# Between numbers only where it separates thousands: '3 4' is not 34.
_SPACE = re.compile(r"\$|(?<![0-9])\s+|\s+(?![0-9])|\s+(?=[0-9]{3}(?![0-9]))")
_COMMA = re.compile(r"(?<=[0-9]),(?=[0-9])")
_PI = re.compile(r"(?<![A-Za-z\\])pi(?![A-Za-z])")
_NAMED_E = re.compile(r"(?<![A-Za-z\\\\])E(?=_)")
MAX_READINGS = 4
MAX_DEPTH = 16  # of nested brackets: Math-Verify takes a second for ten
_PRODUCT = re.compile("[a-z]{2}")  # 'xy' may be written 'x\\cdot y'
_LETTER = re.compile(r"[A-Ja-j]")
_GROUPED = re.compile(r"-?[0-9]{1,3}(?: [0-9]{3})+")


def final_answer(problem: Problem, completion: str) -> Score:
    """Grade the final answer in `completion` against `problem.reference`.

    The reference is a bare answer ('18', '\\\\frac{1}{2}') or a text that ends in one ('… #### 18'). `Score.answer` is
    the parsed answer in canonical form, which equal numbers share. A reference without an answer gives `error`.
    """
    gold = _reference(problem.reference)
    if gold is None:
        return Score(None, "error", f"problem {problem.id} has no readable reference answer")
    extracted = extract_answer(completion)
    if extracted is None:
        return Score(0.0, "unparsable", _NO_ANSWER)
    if len(extracted) > MAX_ANSWER_LENGTH:
        return Score(0.0, "unparsable", f"the answer has {len(extracted)} characters, limit {MAX_ANSWER_LENGTH}")
    answer = best_reading(extracted)
    verdict = _at_once(gold, answer, extracted)
    return _judged(gold, answer, verdict) if verdict is not None else _compared(gold, answer, extracted)


final_answer.version = 4  # type: ignore[attr-defined]


def compared_as_text(reference: str | None) -> bool:
    """Whether a reference is neither a number nor words nor readable as mathematics.

    Only its exact text matches it. Mathematics goes to the worker, once for each text; plain references do not.
    """
    gold = _reference(reference)
    if gold is None or gold.is_plain:
        return False
    text = _mathematics(gold, gold.is_list)
    parts = [value for _, value in assignments(text) or [("", text)]]
    unsure = [part for part in parts if parse_number(part) is None and not surely_mathematics(part)]
    try:
        return any(_math_verify(part, "") == "bad reference" for part in unsure)
    except MathCheckError:
        return False  # that says nothing about the reference


def close() -> None:
    """End the worker process, if one runs. The next comparison that needs it starts it again."""
    _checker.close()


def _at_once(gold: Answer, answer: Answer, extracted: str) -> bool | None:
    """Whether the answer is right, if that can be decided without Math-Verify; else None."""
    if gold.canonical == answer.canonical:
        return True
    if gold.number is not None:
        if _GROUPED.fullmatch(answer.text):  # '1 234' is not plain, but a numeric reference leaves no other reading
            return answer.text.replace(" ", "") == gold.canonical
        return False if answer.is_plain else None
    literal = read(extracted)
    if gold.canonical == literal.canonical or _squeezed(gold.text) == _squeezed(literal.text):
        return True
    if gold.is_code:
        return literal.is_code and same_code(gold.canonical, literal.canonical)
    if not gold.is_plain and (option := option_text(gold.text)) is not None:
        return _chooses(choice(gold.text), option, extracted) or None
    if _LETTER.fullmatch(gold.canonical) and (letter := choice(extracted)) is not None:
        return letter == gold.canonical.upper()
    if gold.is_words and (answer.is_plain or len(gold.canonical) > 1):
        if any(other.canonical == gold.canonical for other in readings(extracted)):
            return True
        return None if _PRODUCT.fullmatch(gold.canonical) and "\\" in answer.text and not answer.is_plain else False
    return None


def _chooses(letter: str | None, option: str, extracted: str) -> bool:
    """Whether an answer names the option '(C) 42' by its letter, its text or both."""
    chosen, said = choice(extracted), option_text(extracted)
    if chosen is None:
        return best_reading(extracted).canonical == read(option).canonical
    return chosen == letter and (said is None or read(said).canonical == read(option).canonical)


def _compared(gold: Answer, answer: Answer, extracted: str) -> Score:
    if answer.is_list and not gold.may_be_list and len(list(islice(readings(extracted), 2))) == 1:
        return Score(0.0, "wrong", f"several answers, {_short(answer)}, expected {_short(gold)}", answer.canonical)
    try:
        outcome = _best_outcome(gold, extracted)
    except MathCheckError as error:
        return Score(None, "error", f"Math-Verify could not compare {_short(answer)} with {_short(gold)}: {error}")
    if outcome == "timeout":
        explanation = f"comparing {_short(answer)} with {_short(gold)} took longer than {_checker.limit_seconds:g} s"
        return Score(None, "timeout", explanation, answer.canonical)
    if outcome == "bad answer":
        return Score(0.0, "unparsable", f"the answer {_short(answer)} cannot be read as mathematics")
    return _judged(gold, answer, outcome == "equal")


def _judged(gold: Answer, answer: Answer, equal: bool) -> Score:
    if equal:
        return Score(1.0, "correct", f"{_short(answer)} equals {_short(gold)}", answer.canonical)
    return Score(0.0, "wrong", f"answer {_short(answer)}, expected {_short(gold)}", answer.canonical)


def _short(answer: Answer) -> str:
    shown = canonical_text(answer.text) if answer.number is None else answer.canonical
    return shown if len(shown) <= 60 else f"{shown[:59]}…"


@lru_cache(maxsize=2**10)
def _reference(reference: str | None) -> Answer | None:
    answer = reference_answer(reference)
    return read(answer) if answer is not None and len(answer) <= MAX_ANSWER_LENGTH else None


def _best_outcome(gold: Answer, extracted: str) -> str:
    """Compare the answer with the reference, in the first reading of a few that makes them equal."""
    found = []
    for reading in islice(readings(extracted), MAX_READINGS):
        if "=" in gold.text and "=" in extracted and "=" not in reading.text:
            continue  # 'y=1' does not answer 'x=1'
        outcome = _outcome(gold, reading)
        if outcome in ("equal", "timeout"):
            return outcome
        found.append(outcome)
    return "different" if "different" in found else found[0]


def _outcome(gold: Answer, answer: Answer) -> str:
    if not balanced(answer.text) or depth(answer.text) > MAX_DEPTH:
        return "bad answer"
    if answer.is_list and not gold.may_be_list:
        return "different"
    reference, given = _mathematics(gold, gold.is_list), _mathematics(answer, gold.is_list)
    ours, theirs = assignments(reference), assignments(given)
    if ours and theirs:
        if [name for name, _ in ours] != [name for name, _ in theirs]:
            return "different"
        if _all_apart(ours):
            return _all_equal([(mine[1], yours[1]) for mine, yours in zip(ours, theirs, strict=True)])
        reference = ", ".join(value for _, value in ours)
    elif ours and _all_apart(ours):  # 'x=1, y=2' is the point (1,2), not (2,1)
        reference = f"({', '.join(value for _, value in ours)})"
        given = given if given.startswith("(") else f"({given})"
    if theirs and "=" not in reference:
        given = ", ".join(value for _, value in theirs)
    if "\\cup" in reference and (interval := as_interval(given)):
        given = interval
    elif "\\cup" in given and (interval := as_interval(reference)):
        reference = interval
    elif interval := both_bounds(given):
        reference, given = as_interval(reference) or reference, interval
    elif interval := both_bounds(reference):
        reference, given = interval, as_interval(given) or given
    equation = sides(given) if sides(reference) is None else None
    if equation is None:
        return _equal(reference, given)
    return _outcome_of_equation(reference, equation)


def _all_apart(named: list[tuple[str, str]]) -> bool:
    return len({name for name, _ in named}) == len(named)


def _outcome_of_equation(reference: str, equation: Sides) -> str:
    """The value of an equation is its answer, if the equation is true as far as can be determined."""
    if equation.approximate:
        if not _nearly(equation.value, equation.others[0]):
            return "different"
        return _any_equal([(reference, side) for side in (equation.value, *equation.others)])
    number = parse_number(equation.value)
    value = equation.value if number is None else canonical_number(number)  # '12 apples' as 12
    told = [(value, side) for side in map(calculation, equation.others) if is_numeric(side)]
    return _all_equal([(reference, equation.value), *told])


def _all_equal(pairs: list[tuple[str, str]]) -> str:
    outcomes = [_equal(*pair) for pair in pairs]
    return next((outcome for outcome in outcomes if outcome != "equal"), "equal")


def _any_equal(pairs: list[tuple[str, str]]) -> str:
    outcomes = [_equal(*pair) for pair in pairs]
    return "equal" if "equal" in outcomes else outcomes[0]


def _equal(reference: str, given: str) -> str:
    numbers = parse_number(reference), parse_number(given)
    if None not in numbers:
        return "equal" if numbers[0] == numbers[1] else "different"
    if (equal := exactly_equal(reference, given)) is not None:
        return "equal" if equal else "different"
    if names(reference) != names(given):
        return "different"
    outcome = _math_verify(reference, given)
    # A reference that is not mathematics is text; that the texts differ was checked before.
    return "different" if outcome == "bad reference" else outcome


def _nearly(side: str, other: str) -> bool:
    return _math_verify(side, other, approximately=True) == "equal"


@lru_cache(maxsize=2**14)
def _math_verify(reference: str, answer: str, approximately: bool = False) -> str:
    # A timeout is cached: a policy that has found a slow expression tends to repeat it, and each one costs the full
    # limit. Other failures are raised and thus not cached, so a retry is a new attempt.
    try:
        return (
            _checker.compare(reference, answer, approximately) if approximately else _checker.compare(reference, answer)
        )
    except MathCheckTimeoutError:
        return "timeout"


def _mathematics(answer: Answer, in_list: bool) -> str:
    # A number is passed as a fraction: Math-Verify compares decimals after rounding, and reads '5 km' as 5·k·m. If a
    # list is expected, '40,150' is one.
    if answer.number is not None and not (in_list and "," in answer.text):
        return answer.canonical
    # Remaining dollar signs would make Math-Verify look for separate formulas.
    text = plain_intervals(canonical_text(answer.text).replace(r"\boxed", ""))
    if in_list:
        text = _COMMA.sub(", ", text)
    unit = _TRAILING_UNIT.search(text)
    if unit and worth(unit["unit"]) == 1:
        text = text[: unit.start()] or text
    return _PI.sub(r"\\pi ", _NAMED_E.sub(r"\\mathrm{E}", text))


def _squeezed(text: str) -> str:
    return _SPACE.sub("", text)


_checker = MathChecker(LIMIT_SECONDS)


def _forget_worker() -> None:
    # A forked process must not talk to its parent's worker: the two would read each other's replies.
    global _checker
    _checker = MathChecker(LIMIT_SECONDS)


atexit.register(close)
os.register_at_fork(after_in_child=_forget_worker)
