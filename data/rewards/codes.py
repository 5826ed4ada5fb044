r"""Times, dates, versions, telephone, IP and hexadecimal numbers: compared character by character, never calculated.

Math-Verify would read '12:30' as 12/30, '1-2-3' as -4, '0x1F' as 0·x·F, and would ignore the base of '1011_2'.
"""

import re

_TIME = re.compile(
    r"(?P<hour>[0-9]{1,2}):(?P<minute>[0-5][0-9])(?::(?P<second>[0-5][0-9]))?\s*(?P<half>[ap]\.?\s?m\.?)?(?:o'clock|h)?",
    re.IGNORECASE,
)
_HOUR = re.compile(r"(?P<hour>[0-9]{1,2})\s*(?:(?P<half>[ap]\.?\s?m\.?)|o'?\s?clock)", re.IGNORECASE)
_DATE = re.compile(r"[0-9]{1,4}([-/.])[0-9]{1,2}\1[0-9]{1,4}")
_BASED = re.compile(r"(?P<digits>[0-9][0-9A-Za-z]*)_\{?(?:\\text\{)?(?P<base>[0-9]+)\}*")
_WORDED_BASE = re.compile(r"(?P<digits>[0-9][0-9A-Za-z]*)\s*\(?(?:in\s)?base[ -](?P<base>[0-9]+)\)?")
_CODES = re.compile(
    r"""
    v?[0-9]+(?:\.[0-9]+){2,}(?:[:/-][0-9A-Za-z]+)?                      # version 1.2.3, IP address 10.0.0.1:80
    | v[0-9]+(?:\.[0-9]+)*
    | \+?[0-9]{1,5}(?:[-][0-9]{1,7}){2,}                                # 555-12-1234, 1-2-3
    | \+[0-9]{1,3}(?:[ .-]\(?[0-9]{2,5}\)?){2,5}                        # +1 (555) 123 4567
    | (?:[0-9][ .-])?\(?[0-9]{3}\)?[ .-]?[0-9]{3}[ .-][0-9]{4}          # (555) 123-4567
    | [0-9]{3}-[0-9]{4}                                                 # 555-1234
    | 0[xX][0-9A-Fa-f]+ | 0[bB][01]+ | 0[oO][0-7]+ | \#[0-9A-Fa-f]{3,8}
    | [0-9]*(?:[A-Za-z]+[0-9]+)+[A-Za-z]*                               # 1A3F, C6H12O6, but not the 2A of algebra
    | (?:[0-9A-Fa-f]{2}[:-]){3,}[0-9A-Fa-f]{2}                          # MAC address
    | (?:[0-9A-Fa-f]{0,4}:){3,7}[0-9A-Fa-f]{1,4}                        # IP address, version 6
    """,
    re.VERBOSE,
)
_FORMULA = re.compile(r"(?:[A-Z][a-z]?[0-9]*){2,}")  # of chemistry, where 'CO2' and 'Co2' differ
_TELEPHONE = re.compile(r"[+(]?[0-9](?:[ ()-]{0,2}[0-9]){6,14}")
MAX_LENGTH = 60


def code(text: str) -> str | None:
    """The canonical spelling of a `normalized` text that is a time, date, version or phone number; None otherwise."""
    if len(text) > MAX_LENGTH or not any(sign in text for sign in "0123456789"):
        return None
    return _time(text) or _date(text) or _based(text) or (_plain(text) if _CODES.fullmatch(text) else None)


def same_code(gold: str, answer: str) -> bool:
    """Whether two codes agree. A time may be more precise than the reference: '3:30 pm' answers '3:30'."""
    return gold == answer or (_is_time(gold) and answer in (f"{gold} am", f"{gold} pm"))


def _is_time(text: str) -> bool:
    return re.fullmatch(r"[0-9]{1,2}(?::[0-9]{2}){1,2}", text) is not None


def _time(text: str) -> str | None:
    match = _TIME.fullmatch(text) or _HOUR.fullmatch(text)
    if match is None:
        return None
    parts = match.groupdict()
    hour, half = int(parts["hour"]), (parts["half"] or "").lower()[:1]
    if hour > 24:
        return None
    if not half and (hour == 0 or hour > 12):
        hour, half = hour % 24 % 12 or 12, "p" if 12 < hour < 24 else "a"
    minutes = f"{hour}:{parts.get('minute') or '00'}" + (f":{parts['second']}" if parts.get("second") else "")
    return f"{minutes} {half}m" if half else minutes


def _date(text: str) -> str | None:
    # '1/2/3' could be a quotient of quotients, but nobody gives that as an answer.
    return re.sub(r"(?<![0-9])0+(?=[0-9])", "", text) if _DATE.fullmatch(text) else None


def _based(text: str) -> str | None:
    match = _BASED.fullmatch(text.replace(" ", "")) or _WORDED_BASE.fullmatch(text)
    return f"{match['digits'].upper()}_{match['base']}" if match else None


def _plain(text: str) -> str:
    if _FORMULA.fullmatch(text):
        return text
    plain = text.lower().removeprefix("v")
    # Telephone numbers are grouped in many ways.
    return re.sub(r"[^0-9+]", "", plain) if _TELEPHONE.fullmatch(plain) else plain
