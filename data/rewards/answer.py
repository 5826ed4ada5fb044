r"""Where the final answer stands in a text. What it is worth, and whether it is right, is decided elsewhere.

The answer is, in this order: what follows the last '####' on its line; what the last \boxed{…} holds; what follows
the last 'the answer is' or 'Answer:'. There is no fall-back to the last number in the text: a policy is to say which
number is its answer.
"""

import re
from collections import deque

from data.rewards.markup import strip_markup
from data.rewards.prose import is_sentence

MAX_ANSWER_LENGTH = 1000

_BRACES = re.compile(r"\\(?:boxed|fbox)\s{0,3}\{|\\.|[{}]", re.DOTALL)
_BETWEEN_BOXES = re.compile(r"[\s$*]*(?:,|;|/|or|and|,\s?or|,\s?and|\\quad)?[\s$*]*")
_PHRASE = re.compile(
    r"\bthe[ ](?:final[ ]|correct[ ])?answer[ ]is\b(?!:?\*{0,2}[ ]?not\b)\s{0,3}:?"
    r"|\banswer[ ]?\*{0,2}[ ]?(?P<label>:)",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"[.?](?=\s|$)")


def extract_answer(completion: str) -> str | None:
    r"""The final answer that `completion` gives, without markup, or None if it gives none.

    Boxes joined by 'or', 'and' or a comma are one answer that lists them: '\boxed{3} or \boxed{4}' gives '3 or 4'.
    The answer may be longer than `MAX_ANSWER_LENGTH`; it is then returned as it stands.
    """
    answer = _after_hashes(completion) or _last_boxed(completion) or _after_phrase(completion)
    return _tidy(answer) if answer else None


def reference_answer(reference: str | None) -> str | None:
    """The gold answer in a problem's reference, or None.

    A reference with a marker is read like a completion. One without is itself the answer if it is a single line;
    several lines without a marker are a worked solution whose answer cannot be told.
    """
    if not reference or (extracted := extract_answer(reference)):
        return extracted if reference else None
    bare = reference.strip()
    return None if "####" in bare or "\n" in bare else _tidy(bare)


def has_answer(reference: str | None) -> bool:
    """Whether a problem with this reference can be graded; one that cannot is refused when problems are loaded."""
    answer = reference_answer(reference)
    if answer is None or len(answer) > MAX_ANSWER_LENGTH:
        return False
    return not is_sentence(reference or "") or extract_answer(reference or "") is not None


def _tidy(answer: str) -> str | None:
    # The bound keeps markup, which is taken off layer by layer, from costing quadratic time.
    return (strip_markup(answer) if len(answer) <= MAX_ANSWER_LENGTH else answer) or None


def _after_hashes(text: str) -> str | None:
    at = text.rfind("####")
    if at < 0:
        return None
    end = text.find("\n", at)
    line = text[at + 4 : end if end >= 0 else None].strip()
    if line.rstrip("* ").endswith(":"):  # a Markdown heading, such as '#### Final Answer:'
        return None
    return _last_boxed(line) or _after_phrase(line) or line.rstrip("! ")


def _last_boxed(text: str) -> str | None:
    if "boxed" not in text and "fbox" not in text:
        return None
    open_braces: list[tuple[int, int, bool]] = []
    boxes: list[tuple[int, int, str]] = []
    for match in _BRACES.finditer(text):
        token = match[0]
        if token.endswith("{") and token != r"\{":
            open_braces.append((match.start(), match.end(), len(token) > 1))
        elif token == "}" and open_braces:
            start, inside, is_box = open_braces.pop()
            if is_box and not (boxes and boxes[-1][0] > start):  # of a box around a box, the inner one counts
                boxes.append((start, match.end(), text[inside : match.start()]))
    if not boxes:
        return None
    start, _, answer = boxes.pop()
    while boxes and start - boxes[-1][1] < 20 and _BETWEEN_BOXES.fullmatch(text[boxes[-1][1] : start]):
        start, _, earlier = boxes.pop()
        if earlier.strip() != answer.strip():
            answer = f"{earlier} or {answer}"
        if len(answer) > MAX_ANSWER_LENGTH:
            break
    return answer


def _after_phrase(text: str) -> str | None:
    last = next(iter(deque(_PHRASE.finditer(text), maxlen=1)), None)
    if last is None:
        return None
    rest = text[last.end() : last.end() + MAX_ANSWER_LENGTH + 10].lstrip(" \t\r\n*:")
    line = rest.partition("\n")[0].strip()
    if not last["label"]:
        line = _SENTENCE_END.split(line, maxsplit=1)[0]
    return line.rstrip("! ")
