r"""Find the value among words: '18, which is even', 'So she has $42 left.', '42 (forty-two)', 'x = 5'.

The words must not affect the value. Digits, a second value, and words that change or doubt a number ('or', 'not',
'half', 'minus') keep an answer as it is. Only answers are read this way; references are not, except for a gloss in
parentheses: 'Tuesday, 3' as a reference is both.
"""

import re
from collections.abc import Iterator

from data.rewards.number_words import number_in_words
from data.rewards.numeric import number_of
from data.rewards.units import CHANGING, SCALES, part_named

_FILLER = (
    r"(?:is|are|was|simply|indeed|thus|therefore|hence|so|just|exactly|only|precisely|clearly|then|now|still|actually|obviously|"
    r"approximately|about|roughly|around|equal\sto|equals|given\sby|a\stotal\sof|option|choice|answer|number|value|"
    r"the\snumber|the\svalue)"
)
_LEADING = re.compile(
    rf"(?:{_FILLER}\b[\s,:]*|(?:[,:=]|[-=]>|\\(?:to|approx|sim|simeq)(?![A-Za-z]))\s*(?![,:=]))+", re.IGNORECASE
)
_VERBS = (
    "is|are|was|were|be|been|has|have|had|equals|equal|equaled|makes|made|earns|earned|gets|got|gives|gave|costs|cost|"
    "needs|needed|spends|spent|pays|paid|takes|took|contains|totals|becomes|became|remains|sold|sells|bought|buys|ate|"
    "eats|saves|saved|leaves|left|drives|drove|walks|walked|runs|ran|uses|used|receives|received|reads|owes|owed|"
    "weighs|requires|required|scored|scores|keeps|kept|owns|owned|wins|won|holds|held|lasts|produces|travels|traveled|"
    "obtain|find|found|yields|comes\\sto"
)
_SENTENCE = re.compile(
    rf"(?:\\text\{{)?(?P<said>[A-Za-z][A-Za-z,'\s-]{{0,150}}?\b(?:{_VERBS})\b)\}}?[\s:]*(?P<rest>.+)",
    re.IGNORECASE | re.DOTALL,
)
_LABEL = re.compile(r"(?:\\text\s*\{\s*)?(?P<said>[A-Za-z][A-Za-z '-]{0,60}?)\s*(?::|=)\s*\}?\s*(?P<rest>[^:=][^=]*)")
_TEXT_BEFORE = re.compile(r"\\text\s*\{(?P<said>[A-Za-z ,']{1,80})\}\s*(?P<rest>[-+]?[\\0-9$].*)", re.DOTALL)
_OPTION = re.compile(r"(?:\\text\s*\{\s*\([A-J]\)\s*\}|\([A-J]\)|[A-J]\))(?P<said>)\s*(?P<rest>[^(].*)", re.DOTALL)
_HAN_SENTENCE = re.compile(
    r"(?P<said>[㐀-鿿，]{0,20}?(?:有|是|为|需要|需|剩下|剩|等于|得|用了|花了|共|约))\s*(?P<rest>[0-9$\\].*)", re.DOTALL
)
_HAN_DOUBT = re.compile("[不没或至超少多负半无未非]")
_TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")
_GLOSS = re.compile(r"(?P<value>[^()]*[^()\s])\s*(?:\\text\s*\{\s*)?\((?P<said>[^()]*)\)\s*\}?(?P<behind>[^()]*)")
_DIGITS = re.compile("[0-9]")
_REMARK = re.compile(r"[\s.,;:!?)|#/'\"*`\-–—\\$]*(?:[A-Za-z][A-Za-z'’ \s,.;:!?\-]*)?[\s.,;:!?|#*\"`$]*")
_BREAK = re.compile(
    r"\s*(?:\.\s+(?=[A-Z])|[;|]|,\s+(?=[a-z]|I\b)|\s[-–—]+\s|\s#|\s//|\n|(?<!\btimes)\s(?:as|since|because|which)\s)"
)
# The reason why a value is right may contain other numbers: 'because 9*2 = 18'.
_REASON = re.compile(r",?\s+(?:as|since|because)\s")
_REASONING = re.compile(r"(?:[A-Za-z0-9\s.,+*/=$()'-]|\\(?:times|cdot|div)\b)*")
_COMMAND = re.compile(r"\\[a-z]+")
_YES_NO = re.compile("yes|no|true|false", re.IGNORECASE)
_MATH_THEN_WORDS = re.compile(r"(?P<value>\$[^$]+\$|\\\(.+?\\\))\s*(?P<rest>[^$\\]*)")
_WORD = re.compile(r"[A-Za-z]+(?:n't)?")
_SINGLE = re.compile(r"\b[b-hj-zB-HJ-Z]\b")
# Words that change a number right after it, but not in a remark.
_HARMLESS = frozenset("is was has and this its as thus us above product sum difference point to through".split())
_DOUBT = (
    (CHANGING - _HARMLESS)
    | frozenset(
        """
    alternatively possibly between least most almost nearly cannot other another more cube square incorrect actually
    min sec zero two three four five six seven eight nine ten eleven twelve twenty thirty forty fifty
    """.split()
    )
    | {f"{scale}s" for scale in SCALES}
)
_SAID_DOUBT = _DOUBT | {"sum", "product", "difference", "to"}
# What may follow a word and a comma: 'red, blue' is two answers.
_STARTERS = frozenset(
    "which as because since so the i it that this where who whose when given by in for they he she we".split()
)


def without_gloss(text: str) -> str:
    """'9' for '9 (apples)' and '42 (forty-two)'. A gloss in parentheses repeats in words what precedes it."""
    if "(" not in text or ")" not in text:
        return text
    match = _GLOSS.fullmatch(_TEXT.sub(r"\1", text) if "\\text" in text else text)
    if match is None:
        return text
    value, said, behind = match["value"].strip(), match["said"].strip(), match["behind"].strip(" .}")
    if behind:
        # '5 (five) dollars', 'five (5) dollars'
        same = number_of(value), number_of(said)
        return f"{value} {behind}" if None not in same and same[0] == same[1] and said != value else text
    if value.endswith("times"):  # '5 times (as many)'
        return text
    if not _DIGITS.search(value):
        return _without_digits(value, said, text)
    again = number_of(said.lstrip("= "))
    agree = (len(said) > 1 and _says_nothing(said)) if again is None else again == number_of(value.strip())
    return value if agree else text


def _without_digits(value: str, said: str, text: str) -> str:
    """'fifteen (15)': the words and the number must agree."""
    words = number_in_words(value.strip())
    return value if words is not None and said == str(words) else text


def values_within(text: str) -> Iterator[str]:
    """The candidate values among words, likeliest first; nothing if the words may change the value."""
    for rest in dict.fromkeys((text, *_after_words(text))):
        head = _before_remark(rest)
        for found in dict.fromkeys((without_gloss(rest), head, without_gloss(head))):
            if found and found != text:
                yield found


def _after_words(text: str) -> Iterator[str]:
    if leading := _LEADING.match(text):
        yield text[leading.end() :].strip()
    if not text.isascii() and (match := _HAN_SENTENCE.fullmatch(text)) and not _HAN_DOUBT.search(match["said"]):
        yield match["rest"]
    for pattern in (_OPTION, _TEXT_BEFORE, _LABEL, _SENTENCE):
        match = pattern.fullmatch(text)
        if match and not _doubts(match["said"], _SAID_DOUBT):
            rest = match["rest"].strip()
            leading = _LEADING.match(rest)
            yield rest[leading.end() if leading else 0 :].strip()


def _before_remark(text: str) -> str:
    if (match := _MATH_THEN_WORDS.fullmatch(text)) and _says_nothing(match["rest"]):
        return match["value"]
    at = next((found for found in _BREAK.finditer(text) if found.start()), None)
    if at is None:
        return ""
    head, remark = text[: at.start()].strip(), text[at.end() :].strip()
    told = number_of(head) is not None or _YES_NO.fullmatch(head) is not None
    if told and _REASON.match(text, at.start()) and _gives_reason(remark):
        return head
    if not any(sign.isdigit() or sign in "\\$" for sign in head) and not _is_sentence(remark):
        return ""
    return head if _says_nothing(remark) else ""


def _gives_reason(remark: str) -> bool:
    return _REASONING.fullmatch(remark) is not None and not _doubts(_COMMAND.sub(" ", remark), _DOUBT)


def _is_sentence(remark: str) -> bool:
    words = _WORD.findall(remark)
    return not words or words[0].lower() in _STARTERS or (len(words) > 2 and remark[:1].isupper())


def _says_nothing(words: str) -> bool:
    return _REMARK.fullmatch(words) is not None and not _doubts(words, _DOUBT) and not _SINGLE.search(words)


def _doubts(words: str, doubt: frozenset[str]) -> bool:
    found = [word.lower() for word in _WORD.findall(words)]
    return any(word in doubt or word.endswith("n't") or part_named(word) for word in found)
