r"""Names in mathematics: ABC, CO, Bob. Math-Verify multiplies their letters, so ACB would equal ABC.

A name is a run of letters with two capitals side by side ('ABC', 'CO'), a capitalized word ('Bob'), a run of five or
more, or one of three or four with a letter rarely used for a variable ('god'). Other runs are products: 'ab'.
"""

import re

_COMMANDS = re.compile(r"\\(?:begin|end)\s*\{[^{}]*\}|\\[A-Za-z]+")
_RUN = re.compile(r"(?P<letters>[A-Za-z]{2,})(?: [0-9.]+(?![0-9./^*+-]))?")
_FUNCTIONS = frozenset("sin cos tan cot sec csc log ln exp sqrt arcsin arccos arctan sinh cosh tanh "
                       "max min gcd lcm mod pi "
                       "or and "
                       "inf sup det deg dim lim arg infinity".split())  # fmt: skip
_SELDOM = frozenset("aeiou")


def names(text: str) -> list[str]:
    """The names in an expression, sorted, with a number behind them: 'Python 3.10'."""
    return sorted(run[0] for run in _RUN.finditer(_COMMANDS.sub(" ", text)) if _is_name(run["letters"]))


def _is_name(run: str) -> bool:
    if run in _FUNCTIONS:
        return False
    if re.search("[A-Z]{2}", run) or (len(run) >= 3 and run[0].isupper()):
        return True
    return len(run) >= 5 or (len(run) >= 3 and any(letter in _SELDOM for letter in run[1:]))
