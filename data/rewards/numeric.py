r"""Plain numbers in text, read exactly. No algebra: '3x', '\sqrt{2}' and '2^{10}' are not plain numbers.

What counts as plain, and what it is worth:

    18   -3   −3   +4   .5   5.   5.00   1,234   １８        decimals; commas only between groups of three digits
    3/4   1 1/2   ½   \frac{3}{4}                            fractions and mixed numbers
    1e3   2.5e-4                                             at most three digits of exponent
    $18   -$18   18 dollars   18 USD   €5                    currency is ignored
    50%   50 percent                                         50, never 0.5: percent is ignored like any other unit
    12 apples   5 km/h   60 square meters                    units are ignored
    3 million                                                3000000; hundred to trillion multiply
    **18**   $18$   18.   (3)                                markup is taken off; (3) is 3, not -3

'1,2' and '1 234' are not plain: each could be one number or two. Nor is '3 or 4', nor '5!'. Nothing is rounded:
0.333 is not 1/3. Text is matched, never evaluated, and one longer than `MAX_LENGTH` characters is not looked at.
"""

import re
from fractions import Fraction

from data.rewards.markup import strip_markup

MAX_LENGTH = 200

_SIMPLE = re.compile(r"-?[0-9]{1,18}")
_INTEGER = r"(?:[1-9][0-9]{0,2}(?:,[0-9]{3})+|[0-9]+)"
_CURRENCY = r"(?:(?:US)?\$|€|£|¥|₹|(?:USD|EUR|GBP)\b)"
_PLAIN = re.compile(
    rf"""
    (?P<sign>[-+]?) \s* (?:{_CURRENCY}\s*(?P<inner_sign>[-+]?)\s*)?
    (?:
        (?:(?P<whole>{_INTEGER})\s+)? (?P<numerator>{_INTEGER}) \s*/\s* (?P<denominator>{_INTEGER})
      | (?P<decimal>{_INTEGER}(?:\.[0-9]*)? | \.[0-9]+) (?P<exponent>[eE][-+]?[0-9]{{1,3}}(?![0-9]))?
    )
    (?P<gap>\s*) (?:(?:[%¢€£¥₹$]|°[CF]?)\s*)?
    (?P<unit>[A-Za-z]+[²³]?(?:(?:\s*[/·-]\s*|\.?\s+)[A-Za-z]+[²³]?)*)?
    """,
    re.VERBOSE,
)
_SCALES = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
# Other short words could be algebra: '3 x', '2 ab'.
_SHORT_UNITS = {
    *("km", "cm", "mm", "in", "ft", "yd", "mi", "kg", "mg", "lb", "oz", "ml", "mL", "hr", "kW", "kB", "MB", "GB"),
}
# Without a space even fewer words are units: '3m' is as likely algebra as it is three metres.
_ATTACHED_UNITS = _SHORT_UNITS | {"lbs", "hrs", "min", "mins", "sec", "secs", "mph", "kph", "kmh", "cents", "kWh"}
_LETTER_UNITS = {"m", "g", "L", "s", "h"}
# Words after a number that change its value, or that announce a second one.
_NOT_UNITS = {
    *_SCALES,
    *("or", "and", "to", "vs", "not", "but", "through", "half", "halves", "thirds", "fourths", "fifths", "tenths"),
    *("plus", "minus", "times", "multiplied", "divided", "over", "mod", "modulo", "squared", "cubed", "factorial"),
    *("hundredths", "thousandths", "sin", "cos", "tan", "log", "exp", "sqrt"),
}

_FULL_WIDTH = {chr(code): chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)}
_SPACES = dict.fromkeys("\u00a0\u2009\u202f\u3000", " ")
_VULGAR = {"½": " 1/2", "¼": " 1/4", "¾": " 3/4", "⅓": " 1/3", "⅔": " 2/3", "⅕": " 1/5", "⅛": " 1/8"}
_CHARACTERS = str.maketrans({**_FULL_WIDTH, **_SPACES, **_VULGAR, "−": "-", "–": "-", "⁄": "/"})

# A space on both sides of what is unwrapped, lest '\frac{1}{2}3' become '1/23'.
_REWRITES = (
    (re.compile(r"(?<!\\)\$([^$]+)(?<!\\)\$"), r" \1 "),
    (re.compile(r"\\!"), ""),
    (re.compile(r"(?<=[0-9])(?:\\,|\{,\})(?=[0-9]{3})"), ","),
    (re.compile(r"\\([$%])"), r"\1"),
    (re.compile(r"\\[,;: ]|~"), " "),
    (re.compile(r"\^\s*(?:\\circ|\{\s*\\circ\s*\})"), "°"),
    (re.compile(r"\\(?:text|textbf|mathrm|mathbf|mbox)\s*\{([^{}]*)\}"), r" \1 "),
    (re.compile(r"\\[dtc]?frac\s*\{\s*(-?[0-9]+)\s*\}\s*\{\s*([0-9]+)\s*\}"), r" \1/\2 "),
    (re.compile(r"\\[dtc]?frac\s*([0-9])([0-9])"), r" \1/\2 "),
)


def parse_number(text: str) -> Fraction | None:
    """The exact value of `text` if it is one plain number, else None. Takes microseconds, whatever the text."""
    if len(text) > MAX_LENGTH:
        return None
    if _SIMPLE.fullmatch(text):
        return Fraction(int(text))
    match = _PLAIN.fullmatch(_plain_characters(text))
    if match is None or (match["sign"] and match["inner_sign"]):
        return None
    scale = _scale(match["unit"], attached=not match["gap"]) if match["unit"] else 1
    magnitude = _magnitude(match)
    if magnitude is None or scale is None:
        return None
    return -magnitude * scale if "-" in (match["sign"], match["inner_sign"]) else magnitude * scale


def canonical_number(number: Fraction) -> str:
    """The one spelling that equal numbers share: '1234' for 1,234 and 1234.0, '1/2' for 0.5 and 2/4."""
    return str(number)


def _plain_characters(text: str) -> str:
    if not text.isascii():
        text = text.translate(_CHARACTERS)
    text = strip_markup(text)
    if "\\" in text or "{" in text or text.count("$") > 1:
        for pattern, replacement in _REWRITES:
            text = pattern.sub(replacement, text)
        text = strip_markup(text)
    return text


def _magnitude(match: re.Match[str]) -> Fraction | None:
    if match["decimal"]:
        # Fraction reads '1e3' but not '5.e3'.
        whole, _, digits = match["decimal"].replace(",", "").partition(".")
        return Fraction(f"{whole or 0}.{digits or 0}{match['exponent'] or ''}")
    whole, numerator, denominator = (
        int((match[part] or "0").replace(",", "")) for part in ("whole", "numerator", "denominator")
    )
    return whole + Fraction(numerator, denominator) if denominator else None


def _scale(unit: str, attached: bool) -> int | None:
    """What the words after a number multiply it by; None if they are not a unit."""
    first, *others = re.findall(r"[A-Za-z]+", unit)
    if any(word.lower() in _NOT_UNITS for word in others):
        return None
    if first.lower() in _SCALES and not attached:
        return _SCALES[first.lower()]
    known = first in _ATTACHED_UNITS if attached else len(first) >= 3 or first in _SHORT_UNITS | _LETTER_UNITS
    return 1 if known and first.lower() not in _NOT_UNITS else None
