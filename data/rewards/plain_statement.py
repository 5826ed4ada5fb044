r"""A fast path for the most common answers: a number after the last '####', 'the answer is' or \boxed.

It answers only if `answer` would give the same result, in a fraction of the time. How alternative, retracted
and supposed answers are found is here as well.
"""

import re

NUMBER = re.compile(r"\s{0,9}-?[0-9][0-9,]{0,30}\s{0,9}")
_BOXED_NUMBER = re.compile(r"\\boxed\{\s{0,9}(-?[0-9][0-9,]{0,30})\s{0,9}\}")
_LAST_SENTENCE = re.compile(r" answer is (-?[0-9][0-9,]{0,30}(?: [a-z]{2,20})?)\.?\s{0,9}")
TRIGGER = re.compile(r"[Aa][Nn][Ss]")
_OR = ("or ", "or\n")
RETRACTED = re.compile(r"[\s$)*.\\]{0,6}(?:is|was|seems|looks)\s+(?:wrong|incorrect|not\s+(?:right|correct|the))\b")
_SUPPOSED = re.compile(
    r"\b(?:if|whether)\s+(?:(?:the|this|that|my|your|our|an)\s+)?(?:(?:final|correct)\s+)?\Z", re.IGNORECASE
)
_OFFERS = re.compile(r"\bor,?\s+(?:maybe\s+|perhaps\s+|possibly\s+)?(?:the\s|my\s|final\s|[#*$\s])*\Z", re.IGNORECASE)
MAX_BEHIND = 1000  # characters after a box


def plain_statement(text: str) -> str | None:
    """The number that a text gives as its answer in one of the plain ways; None is inconclusive."""
    if (end := text.rfind("####")) >= 0 and NUMBER.fullmatch(text, end + 4) and not text.endswith(_OR, 0, end):
        return text[end + 4 :].strip()
    return _number_in_a_box(text) or _number_in_the_last_sentence(text)


def is_offered(text: str, at: int) -> bool:
    """Whether a statement is an alternative to the one before it: 'or the answer is 5'."""
    begin = max(0, at - 40)
    return "or" in text[begin:at].lower() and _OFFERS.search(text, begin, at) is not None


def is_supposed(text: str, at: int) -> bool:
    """Whether a statement is only supposed: 'if the answer is 5', 'whether this answer is helpful'."""
    before = text[max(0, at - 40) : at]
    return ("f " in before or "her " in before) and _SUPPOSED.search(text, max(0, at - 40), at) is not None


def _number_in_a_box(text: str) -> str | None:
    """The content of the only box of a text, if it is a number and nothing after it can state another answer."""
    at = text.find(r"\boxed{")
    if at < 0 or (match := _BOXED_NUMBER.match(text, at)) is None:
        return None
    tail = text[match.end() :]
    if len(tail) > MAX_BEHIND or not tail.isascii() or "box" in tail or "##" in tail or "fbox" in text:
        return None
    if TRIGGER.search(tail) or RETRACTED.match(tail) or is_offered(text, at):
        return None
    return match[1]


def _number_in_the_last_sentence(text: str) -> str | None:
    """The number, optionally with one word, that 'the answer is' announces at the end of a text without boxes."""
    at = text.rfind(" answer is ")
    if at < 0 or "box" in text or (match := _LAST_SENTENCE.fullmatch(text, at)) is None:
        return None
    return None if is_offered(text, at + 1) or is_supposed(text, at + 1) else match[1]
