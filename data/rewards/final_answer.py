r"""The reward `final_answer`: 1 if a completion's final answer equals the reference's, else 0. It reads no reasoning.

Plain numbers are compared exactly, and words as words, here and at once. Anything else goes to Math-Verify in a worker
process that is killed after `LIMIT_SECONDS`; an expression need not be simplified (5+1 equals 6). A list of candidates
is wrong unless the reference is a list too. A comparison that could not be carried out is `timeout` or `error`, never
`wrong`.

Source: the answer format '#### n' is GSM8K's (Cobbe et al. 2021, arXiv:2110.14168), \boxed{…} is that of MATH
(Hendrycks et al. 2021, arXiv:2103.03874).
"""

import atexit
import os
import re
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from data.rewards.answer import MAX_ANSWER_LENGTH, extract_answer, reference_answer
from data.rewards.candidates import lists_several
from data.rewards.markup import canonical_text, strip_markup
from data.rewards.math_checker import MathChecker, MathCheckError, MathCheckTimeoutError
from data.rewards.numeric import canonical_number, parse_number
from data.rows import Problem, Score

LIMIT_SECONDS = 5.0

_NO_ANSWER = "no final answer: expected '#### <answer>', '\\boxed{…}' or 'the answer is …'"
_TEXT_COMMAND = re.compile(r"\\(?:text|textbf|textit|mathrm|mbox)\s*\{([^{}]*)\}")
_TRAILING_UNIT = re.compile(r"(?:\\ )?\\(?:text|mathrm|mbox)\s?\{[^{}]*\}(?:\^(?:[23]|\{[23]\}))?$")
_WORDS = re.compile(r"[^\W\d_]+(?:[ '’-]+[^\W\d_]+)*")
_BASED = re.compile(r"(?P<digits>[0-9][0-9A-Za-z]*)_\{?(?:\\text\{)?(?P<base>[0-9]+)\}*")
_BRACES = re.compile(r"\\.|[{}]", re.DOTALL)


class _Answer(NamedTuple):
    text: str
    number: Fraction | None
    is_words: bool
    canonical: str

    @property
    def is_plain(self) -> bool:
        return self.is_words or self.number is not None


def final_answer(problem: Problem, completion: str) -> Score:
    """Grade the final answer in `completion` against `problem.reference`.

    The reference is a bare answer ('18', '\\frac{1}{2}') or a text that ends in one ('… #### 18'). `Score.answer` is
    the answer as read, in a form that equal numbers share. A reference without an answer gives `error`.
    """
    gold = _reference(problem.reference)
    if gold is None:
        return Score(None, "error", f"problem {problem.id} has no readable reference answer")
    extracted = extract_answer(completion)
    if extracted is None:
        return Score(0.0, "unparsable", _NO_ANSWER)
    if len(extracted) > MAX_ANSWER_LENGTH:
        return Score(0.0, "unparsable", f"the answer has {len(extracted)} characters, limit {MAX_ANSWER_LENGTH}")
    answer = _read(extracted)
    if gold.canonical == answer.canonical:
        return _judged(gold, answer, True)
    if gold.is_plain and answer.is_plain:
        return _judged(gold, answer, False)
    if _is_list(answer) and not _is_list(gold):
        return Score(0.0, "wrong", f"several answers, {_short(answer)}, expected {_short(gold)}", answer.canonical)
    return _compared(problem, gold, answer)


final_answer.version = 2  # type: ignore[attr-defined]


def close() -> None:
    """End the worker process, if one runs. The next comparison that needs one starts it again."""
    _checker.close()


def _compared(problem: Problem, gold: _Answer, answer: _Answer) -> Score:
    if not _braces_balance(answer.text):
        return _unreadable(answer)
    try:
        outcome = _math_verify(_mathematics(gold), _mathematics(answer))
    except MathCheckError as error:
        return Score(None, "error", f"Math-Verify could not compare {_short(answer)} with {_short(gold)}: {error}")
    if outcome == "timeout":
        explanation = f"comparing {_short(answer)} with {_short(gold)} took longer than {_checker.limit_seconds:g} s"
        return Score(None, "timeout", explanation, answer.canonical)
    if outcome == "bad reference":
        return Score(None, "error", f"problem {problem.id}: Math-Verify cannot read its reference {_short(gold)}")
    if outcome == "bad answer":
        return _unreadable(answer)
    return _judged(gold, answer, outcome == "equal")


def _judged(gold: _Answer, answer: _Answer, equal: bool) -> Score:
    if equal:
        return Score(1.0, "correct", f"{_short(answer)} equals {_short(gold)}", answer.canonical)
    return Score(0.0, "wrong", f"answer {_short(answer)}, expected {_short(gold)}", answer.canonical)


def _unreadable(answer: _Answer) -> Score:
    return Score(0.0, "unparsable", f"the answer {_short(answer)} cannot be read as mathematics")


@lru_cache(maxsize=2**10)
def _reference(reference: str | None) -> _Answer | None:
    answer = reference_answer(reference)
    return _read(answer) if answer is not None and len(answer) <= MAX_ANSWER_LENGTH else None


def _read(text: str) -> _Answer:
    if (number := parse_number(text)) is not None:
        return _Answer(text, number, False, canonical_number(number))
    words = _words(text) or _in_another_base(text)
    return _Answer(text, None, words is not None, words or canonical_text(text))


def _words(text: str) -> str | None:
    """`text` case-folded if it is words only. Math-Verify would read 'dog' as d·o·g and find it equal to 'god'."""
    text = strip_markup(_TEXT_COMMAND.sub(r"\1", text))
    return " ".join(text.casefold().split()) if _WORDS.fullmatch(text) else None


def _in_another_base(text: str) -> str | None:
    """A number with its base, as in 1011_2, compared sign by sign: Math-Verify would leave the base out."""
    match = _BASED.fullmatch(strip_markup(text).replace(" ", ""))
    return f"{match['digits'].upper()}_{match['base']}" if match else None


def _is_list(answer: _Answer) -> bool:
    return answer.number is None and (lists_several(answer.text) or r"\pm" in answer.text)


def _braces_balance(text: str) -> bool:
    depth = 0
    for token in _BRACES.findall(text):
        depth += (token == "{") - (token == "}")
        if depth < 0:
            return False
    return depth == 0


def _short(answer: _Answer) -> str:
    shown = canonical_text(answer.text) if answer.number is None else answer.canonical
    return shown if len(shown) <= 60 else f"{shown[:59]}…"


@lru_cache(maxsize=2**14)
def _math_verify(reference: str, answer: str) -> str:
    # A timeout is remembered: a policy that has found a slow expression tends to repeat it, and each costs the full
    # limit. Other failures are raised, which no cache keeps, so that a retry is a new attempt.
    try:
        return _checker.compare(reference, answer)
    except MathCheckTimeoutError:
        return "timeout"


def _mathematics(answer: _Answer) -> str:
    # A number goes as a fraction: Math-Verify compares decimals after rounding, and reads '5 km' as 5·k·m.
    if answer.number is not None:
        return answer.canonical
    # Dollar signs left inside would make Math-Verify look for separate formulas.
    text = canonical_text(answer.text).replace(r"\$", "").replace(r"\boxed", "")
    return _TRAILING_UNIT.sub("", text) or text


_checker = MathChecker(LIMIT_SECONDS)


def _forget_worker() -> None:
    # A forked process must not talk to its parent's worker: the two would read each other's replies.
    global _checker
    _checker = MathChecker(LIMIT_SECONDS)


atexit.register(close)
os.register_at_fork(after_in_child=_forget_worker)
