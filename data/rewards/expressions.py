r"""Recognize quickly that a text is mathematics: sums, products, powers, fractions and roots of numbers and letters.

Other texts may also be mathematics. This saves parsing each reference of a large data set.
"""

import re

MAX_DEPTH = 12

_ATOM = r"(?>[0-9]++(?:\.[0-9]++)?|\\(?:pi|infty|alpha|beta|theta)(?![A-Za-z])|[A-DF-Za-z])"
_SUM = rf"[-+]?{_ATOM}(?:(?:[-+/^]|\\cdot(?![A-Za-z])|\\times(?![A-Za-z]))?{_ATOM})*+"
# The placeholder letter for a part already read.
_PART = "x"
_INNERMOST = re.compile(
    rf"\\frac\{{{_SUM}\}}\{{{_SUM}\}}|\\sqrt(?:\[[0-9]\])?\{{{_SUM}\}}|\({_SUM}\)|(?<=\^)\{{{_SUM}\}}"
)
_WHOLE = re.compile(_SUM)


def surely_mathematics(text: str) -> bool:
    """Whether `text` is such an expression, nested up to `MAX_DEPTH` deep. False is inconclusive."""
    text = "".join(text.split())
    for _ in range(MAX_DEPTH):
        if _WHOLE.fullmatch(text):
            return True
        simpler = _INNERMOST.sub(_PART, text)
        if simpler == text:
            return False
        text = simpler
    return False
