r"""Plain numbers in text, read exactly. No algebra: '3x', '\sqrt{2}' and '2^{10}' are not plain numbers.

What counts as plain, and its value:

    18   -3   −3   +4   .5   5.   5.00   1,234   １８        decimals; commas only between groups of three digits
    1 234 567   1\,234   1~234   1{,}234   11,\! 111         other separators; one plain space is not enough
    3/4   1 1/2   ½   \frac{3}{4}   0.\overline{3}           fractions, mixed numbers, repeating decimals
    1e3   2.5e-4   3×10⁸   3 x 10^8   3 \times 10^{8}        at most three digits of exponent
    $18   -$18   18 dollars   18 USD   €5   Rs. 10           currency is ignored
    50%   50 percent                                         50, never 0.5: percent is ignored like any other unit
    12 apples   5 km/h   60 square meters   42个             units are ignored; `units` defines what is one
    3 million   2 dozen   5 sixths   5 below zero            words that change the value are applied
    5 and a half                                             also a part behind 'and'
    five   twenty-one   negative 5   two thirds              numbers in words
    **18**   $18$   18.   (3)                                markup is removed; (3) is 3, not -3

'1,2' and '1 234' are not plain: each could be one number or two. Nor is '3 or 4', nor '5!'. Nothing is rounded:
0.333 is not 1/3. Text is matched, never evaluated, and text longer than `MAX_LENGTH` characters is rejected.
"""

import re
from fractions import Fraction

from data.rewards.markup import normalized, strip_markup
from data.rewards.number_words import number_in_words
from data.rewards.units import worth

MAX_LENGTH = 200

_SIMPLE = re.compile(r"-?[0-9]{1,18}")
_COUNT = re.compile(r"(-?[0-9]{1,18}) ([A-Za-z]{2,})")
_FRACTION = re.compile(r"\\[dt]?frac\{(-?[0-9]{1,18})\}\{([0-9]{1,18})\}")
_INTEGER = r"(?:[1-9][0-9]{0,2}(?:,[0-9]{3})+|[0-9]+)"
_CODES = "USD|EUR|GBP|INR|JPY|CNY|RMB|KRW|CHF|CAD|AUD|NZD|SGD|HKD|Rs"
_CURRENCY = rf"(?:(?:US|CA|AU|HK|NT|NZ|[ACRS])?\$|[€£¥₹₩₽₺₫₱฿]|(?:{_CODES})\b\.?)"
_WORD = r"[A-Za-z]+(?:\^(?:[23]|\{[23]\}))?"
_PLAIN = re.compile(
    rf"""
    (?P<sign>[-+]|(?:[Nn]egative|[Mm]inus)\s)? \s* (?:{_CURRENCY}\s*(?P<inner_sign>[-+]?)\s*)?
    (?:
        (?:(?P<whole>{_INTEGER})\s+)? (?P<numerator>{_INTEGER}) \s*/\s* (?P<denominator>{_INTEGER})
      | (?P<decimal>{_INTEGER}(?:\.[0-9]*)? | \.[0-9]+)
        (?:[eE](?P<exponent>[-+]?[0-9]{{1,3}})(?![0-9])
          |\s*(?:[xX*]|\\times|\\cdot)\s*10\s*(?:\^|\*\*)\s*(?:(?P<power>[-+]?[0-9]{{1,3}})|
           [{{(]\s*(?P<braced>[-+]?[0-9]{{1,3}})\s*[}})])(?![0-9])
        )?
    )
    (?P<gap>\s*) (?:(?:[%¢€£¥₹₩₽$]|°\s?[CF]?)\s*)?
    (?P<unit>{_WORD}(?:(?:\s*[/·-]\s*|\.?\s+){_WORD})*|[㐀-鿿가-힣ぁ-ヿ]+)?
    (?P<rate>\s?/\s?[a-z]{{3,}})?
    """,
    re.VERBOSE,
)
_GROUPS = re.compile(r"(?<![0-9.,])[1-9][0-9]{0,2}(?:(?:[ ][0-9]{3}){2,}|(?:~[0-9]{3})+)(?![0-9])")
_REPEATING = re.compile(r"(-?)([0-9]*)\.([0-9]*)\\(?:overline|bar|dot)\s*\{?\s*([0-9]{1,30})\s*\}?")
_AND_A_PART = re.compile(r"(?P<whole>[0-9]{1,9}) and (?P<part>(?:a|an|one|two|three) [a-z ]+)")
_IN_WORDS = re.compile(r"[A-Za-z]+[A-Za-z\s,-]*")

# A space on both sides of the unwrapped part, so '\frac{1}{2}3' does not become '1/23'.
_REWRITES = (
    (re.compile(r"\$([^$]+)\$"), r" \1 "),
    (re.compile(r"\\text\s*\{([^{}]*)\}"), r" \1 "),
    (re.compile(r"\\frac\s*\{\s*(-?[0-9]+)\s*\}\s*\{\s*([0-9]+)\s*\}"), r" \1/\2 "),
    (re.compile(r"\\frac\s*([0-9])([0-9])"), r" \1/\2 "),
)


def parse_number(text: str) -> Fraction | None:
    """The exact value of `text` if it is one plain number, else None. Takes microseconds, whatever the text."""
    if len(text) > MAX_LENGTH:
        return None
    if _SIMPLE.fullmatch(text):
        return Fraction(int(text))
    if match := _FRACTION.fullmatch(text):
        return Fraction(int(match[1]), int(match[2])) if int(match[2]) else None
    if match := _COUNT.fullmatch(text):
        scale = worth(match[2])
        return None if scale is None else Fraction(int(match[1])) * scale if scale != 1 else Fraction(int(match[1]))
    return number_of(normalized(text))


def number_of(text: str) -> Fraction | None:
    """The same for text that is already `normalized`."""
    if len(text) > MAX_LENGTH:
        return None
    text = _rewritten(text)
    match = _PLAIN.fullmatch(text)
    if match is None:
        return number_in_words(text) if _IN_WORDS.fullmatch(text) else _repeating(text)
    if match["sign"] and match["inner_sign"]:
        return None
    unit = match["unit"] or match["rate"]
    scale = worth(unit, attached=not match["gap"] and match.start("gap") == match.start("unit")) if unit else 1
    magnitude = _magnitude(match)
    if magnitude is None or scale is None:
        return _and_a_part(text)
    signs = (match["sign"] or "")[:1].lower(), match["inner_sign"]
    return -magnitude * scale if signs[0] in ("-", "n", "m") or signs[1] == "-" else magnitude * scale


def canonical_number(number: Fraction) -> str:
    """The canonical spelling shared by equal numbers: '1234' for 1,234 and 1234.0, '1/2' for 0.5 and 2/4."""
    return str(number)


def _rewritten(text: str) -> str:
    if "\\" in text or "{" in text or text.count("$") > 1:
        for pattern, replacement in _REWRITES:
            text = pattern.sub(replacement, text)
        text = strip_markup(text)
    if " " in text or "~" in text:
        text = _GROUPS.sub(lambda found: found[0].replace(" ", "").replace("~", ""), text).replace("~", " ")
    return text


def _magnitude(match: re.Match[str]) -> Fraction | None:
    if match["decimal"]:
        # Fraction reads '1e3' but not '5.e3'.
        whole, _, digits = match["decimal"].replace(",", "").partition(".")
        exponent = match["exponent"] or match["power"] or match["braced"]
        return Fraction(f"{whole or 0}.{digits or 0}{f'e{exponent}' if exponent else ''}")
    whole, numerator, denominator = (
        int((match[part] or "0").replace(",", "")) for part in ("whole", "numerator", "denominator")
    )
    return whole + Fraction(numerator, denominator) if denominator else None


def _and_a_part(text: str) -> Fraction | None:
    """'5 and a half hours'."""
    match = _AND_A_PART.fullmatch(text)
    part = number_in_words(f"zero and {match['part']}") if match else None
    return int(match["whole"]) + part if match and part else None


def _repeating(text: str) -> Fraction | None:
    if "\\" not in text or (match := _REPEATING.fullmatch(text)) is None:
        return None
    sign, whole, digits, period = match.groups()
    once = int(f"{whole}{digits}" or "0")
    value = Fraction(int(f"{whole}{digits}{period}") - once, 10 ** len(digits) * (10 ** len(period) - 1))
    return -value if sign else value
