r"""Find the final answer in a text. Whether it is right is decided elsewhere.

The answer is the last statement outside <think>…</think>, whatever announces it:

    #### 18                          hashes, with a value after or below them
    \boxed{18}                       boxes; those joined by 'or', 'and', a comma or spacing are one answer
    The answer is 18, My answer is   'answer', with 'is', 'would be', ':' or '='; also 答案：42 and 答案是42
    **Final Answer**, ## Answer      a line of its own, the value below
    <answer>18</answer>

A heading is not a statement: '#### Conclusion', '#### 2. Check', '#### Step 1: Add', or any words after hashes with
text below them ('#### Check with n = 4'), if there is another statement. Nor are words about an answer ('the answer is
correct'), nor 'if the answer is 5'.
There is no fallback to the last number in the text: a policy must say which number is its answer.
"""

import re
from bisect import bisect
from collections.abc import Iterator
from itertools import islice

from data.rewards.boxes import Box, boxes
from data.rewards.markup import strip_markup
from data.rewards.numeric import parse_number
from data.rewards.plain_statement import NUMBER, RETRACTED, TRIGGER, is_offered, is_supposed, plain_statement
from data.rewards.prose import is_sentence
from data.rewards.remarks import values_within

MAX_ANSWER_LENGTH = 1000
MAX_STATEMENTS = 200

_THOUGHT = re.compile(r"(</?think(?:ing)?>)", re.IGNORECASE)
_FOREIGN_TRIGGER = re.compile("[Aa][Nn][Ss]|答|정답|답|(?<![案不没未])选")
_PHRASE = re.compile(
    r"""
    (?<![A-Za-z])(?:answers?|ans)(?![A-Za-z])
    (?:[ ](?:to|of|for)[ ](?:[^.\n:=?"]{1,80}?|[^.\n:=?"]{0,40}"[^"\n]{1,200}"))?
    (?:[ ]?\([^()\n]{1,40}\))?
    (?:[ ](?:we|I|you)[ ](?:get|got|obtain|want|need|found|find)|,[ ](?:then|therefore|thus),)?
    (?: [ ]?["*_]{0,3}[ ]?(?P<label>[:：=→⇒]|(?<=[Aa][Nn][Ss])\.(?=[ ]))(?![:=])
      | [ ]?[*_]{0,3}\s{1,3}(?:is|are|would[ ]be|should[ ]be|must[ ]be|will[ ]be|equals|was
        |comes[ ](?:out[ ])?to(?:[ ]be)?|turns[ ]out[ ]to[ ]be)\b
        (?!:?\*{0,2}[ ]?not\b) (?:\s{1,3}(?:therefore|thus|hence|then|simply)(?=\s{0,3}[:：]))? \s{0,3}[:：]?
    )
    | (?:答案|答え|정답|답)\s{0,3}(?:应该是|应为|就是|等于|是|为|為|は|은|는)\s{0,3}[:：]?
    | (?:答案|答え?|정답|답)\*{0,2}\s{0,3}(?P<foreign>[:：】])
    | (?:答案|故|应|正确)?选(?:项是|项为|择)?\s{0,3}[:：]?(?=\s{0,3}[$(（]?[A-H](?![A-Za-z]))
    """,
    re.IGNORECASE | re.VERBOSE,
)
_ANSWER_HEADING = re.compile(
    r"[ \t]*(?:\#{1,6}[ \t]*[*_]{0,3}(?:(?:step[ ])?[0-9]{1,2}[.:)][ ]*)?"
    r"(?:the[ ]|my[ ]|our[ ])?(?:final[ ]|correct[ ])?answer"
    r"|[*_]{0,3}(?:the[ ])?final[ ]answer|[*_]{2,3}(?:the[ ])?answer"
    r"|(?:\#{1,6}[ \t]*|\*\*)(?:最终|正确)?答案)[*_]{0,3}[ \t]*[:：]?[*_]{0,3}[ \t\r]*",
    re.IGNORECASE,
)
_TAG_END = re.compile(
    r"</(?:final_)?answer>|\[/answer\]|<\|(?:im_end|endoftext|eot_id|im_start|start_header_id)\|>|<start_of_turn>",
    re.IGNORECASE,
)
_BLANKS = re.compile(r"\s{3,}")
_LEAD = re.compile(r"(?:[\s*:：_]|(?:\\\[|\$\$|\\\()[ \t]*\n)+")
_SENTENCE_END = re.compile(r"(?<!\bRs)(?<!\bSt)(?<!\bMr)(?<!\bDr)(?<!\bsq)(?<!\bft)(?<!\b[ap]\.m)[.?](?=\s|$)|。")
_TAKES_BACK = re.compile(r"\s*(?:or|no|maybe|perhaps|alternatively|not)\b", re.IGNORECASE)
_JSON_VALUE = re.compile(r'(?:"(?P<text>[^"\n]{1,200})"|(?P<number>-?[0-9][0-9.]*)),\s?"[a-z_]+":')
_COPULA = re.compile("(?<=[0-9])\\s?(?:です|だ|입니다|이다|이에요)$")
_EXCLAMATION = re.compile(r"(?:(?<=[A-Za-z][A-Za-z])|(?<=[*$`”]))[! ]+$")  # not the factorial of '18!' and 'n!'
_NUMBERED_HEADING = re.compile(r"[0-9]{1,2}(?:\.[0-9]{1,2})*[.)]\s+[*_(\"']*[A-Za-z][^.!?\n]*")
_SECTION_HEADING = re.compile(r"[0-9]{1,2}(?:\.[0-9]{1,2})+\s+[A-Z][a-z][^.!?\n]*")
_COUNTED_HEADING = re.compile(
    r"(?:step|part|case|method|question|problem|example|exercise|solution|approach)\s*\(?[0-9IVXA-Z]{1,4}\b",
    re.IGNORECASE,
)
_RESULT = re.compile(r"(?:the )?(?:final )?(?:result|total|结果)", re.IGNORECASE)
_ITEM = re.compile(r"[0-9]{1,2}[.)]\s+\S")
_FIRST_WORD = re.compile(
    r"(?:check|verify|case|let|when|if|for|with|using|consider|suppose|assume|find|solve|compute|calculate|substitute|"
    r"simplify|try|testing|option|day|part|line|equation|step|why|how)\s",
    re.IGNORECASE,
)
_HEADING_WORDS = frozenset(
    """
    conclusion verification verify check checking solution explanation summary note notes method proof result results
    final answer calculation calculations analysis approach understanding given problem question reasoning example
    discussion interpretation setup define find let's calculate determine why how key sanity double-check remark
    background introduction overview task working derivation simplify substitute solve breakdown steps step part case
    therefore thus hence so finally next first second third now add subtract multiply divide compute computing adding
    """.split()
)
_VALUE = re.compile(
    r"[*_(\[{\"'|±+\-−–$€£¥₹\s~≈=:→>⇒]*(?:[0-9.０-９√∞½¼¾⅓⅔]|\\[^\s]|\$)|[*_(\"']*[A-Za-z](?:[)*_.:\"'\s]*$|[.):*]+\s*[0-9\\$-])"
)
_SAYS_NOTHING = frozenset(
    """
    correct right wrong incorrect reasonable valid verified confirmed clear obvious consistent below above as given
    found obtained calculated computed in not simple straightforward based also because since when if to what unique
    determined derived shown expected sensible plausible good well accurate therefore helpful useful satisfactory
    """.split()
)
_VAGUE = frozenset("a an the all that this it we you they there how what which".split())


def extract_answer(completion: str) -> str | None:
    r"""The final answer in `completion`, without markup, or None.

    Boxes joined by 'or', 'and' or a comma are one answer that lists them: '\boxed{3} or \boxed{4}' gives '3 or 4'.
    An answer longer than `MAX_ANSWER_LENGTH` is returned unchanged.
    """
    text = outside_thoughts(completion) if "think" in completion else completion
    if number := plain_statement(text):
        return number
    fallback = None
    for value, certain in _statements(text):
        if certain:
            return value
        fallback = fallback or value
    return fallback


def reference_answer(reference: str | None) -> str | None:
    """The gold answer in a problem's reference, or None.

    A reference with a marker is read like a completion. Without one, a single line is itself the answer; several lines
    are a worked solution whose answer cannot be determined.
    """
    if reference and NUMBER.fullmatch(reference):
        return reference.strip()
    if not reference or (extracted := extract_answer(reference)):
        return extracted if reference else None
    bare = reference.strip()
    return None if "####" in bare or "\n" in bare else _tidy(bare)


def has_answer(reference: str | None) -> bool:
    """Whether a problem with this reference can be graded; others are refused when problems are loaded."""
    answer = reference_answer(reference)
    if answer is None or len(answer) > MAX_ANSWER_LENGTH:
        return False
    return not is_sentence(reference or "") or extract_answer(reference or "") is not None


def outside_thoughts(text: str) -> str:
    """`text` without <think>…</think>. An unclosed thought extends to the end, an unopened one begins the text."""
    kept: list[str] = []
    thinking = False
    for piece in _THOUGHT.split(text):
        if piece.lower() in ("<think>", "<thinking>"):
            thinking = True
        elif piece.lower() in ("</think>", "</thinking>"):
            kept = kept if thinking else []
            thinking = False
        elif not thinking:
            kept.append(piece)
    return "\n".join(kept)


def _tidy(answer: str) -> str | None:
    # The bound avoids quadratic time: markup is removed layer by layer.
    if len(answer) > MAX_ANSWER_LENGTH:
        return answer
    return strip_markup(_EXCLAMATION.sub("", _BLANKS.sub(" ", answer))) or None


def _statements(text: str) -> Iterator[tuple[str, bool]]:
    """The text's statements, last first, and whether each is certain to be meant as an answer."""
    found = [(at, "hashes", "") for at in _hashes(text)]
    found_boxes = boxes(text)
    found_boxes = [box for box in found_boxes if not RETRACTED.match(text, box.end)]
    if found_boxes:
        # A truncated box retracts what was said before, but is not an answer itself.
        found += [(box.start, "box", box.content) for box in found_boxes if box.closed or len(found_boxes) > 1]
    found += _worded(text, found_boxes)
    if len(found) > 1:
        found.sort(reverse=True)
    offered: list[str] = []  # alternatives to the statement before them: 'the answer is 3 or the answer is 5'
    for at, kind, content in islice(found, MAX_STATEMENTS):
        value, certain = _READERS[kind](text, at, content)
        value = _tidy(value) if value else None
        if value and is_offered(text, at) and len(found) > 1:
            offered.append(value)
        elif value:
            yield " or ".join(dict.fromkeys((value, *offered))), certain
            offered.clear()
    if offered:
        yield " or ".join(dict.fromkeys(offered)), True


def _worded(text: str, found_boxes: list[Box]) -> Iterator[tuple[int, str, str]]:
    """Statements in words. 'The answer is' inside a box only announces the content of the box."""
    starts = [box.start for box in found_boxes]
    for trigger in (TRIGGER if text.isascii() else _FOREIGN_TRIGGER).finditer(text):
        at = trigger.start()
        before = bisect(starts, at) - 1
        if before >= 0 and at < found_boxes[before].end:
            continue
        if found := _announced(text, at):
            kind, end = found
            yield at, kind, text[end : end + MAX_ANSWER_LENGTH + 10]


def _announced(text: str, at: int) -> tuple[str, int] | None:
    """The kind of the statement with the word 'answer' at a place, and where its value begins; None if it is none."""
    if text[at - 1 : at + 7].lower() in ("<answer>", "[answer]") or text[at - 7 : at + 7].lower() == "<final_answer>":
        return "tag", at + 7
    if is_supposed(text, at):
        return None
    if match := _PHRASE.match(text, at):
        return ("label" if match["label"] or match["foreign"] else "phrase"), match.end()
    begin, end = text.rfind("\n", 0, at) + 1, text.find("\n", at)
    if at - begin < 40 and 0 <= end - at < 40 and _ANSWER_HEADING.fullmatch(text, begin, end):
        return "heading", end
    return None


def _hashes(text: str) -> Iterator[int]:
    end = len(text)
    for _ in range(MAX_STATEMENTS):
        at = text.rfind("####", 0, end)
        if at < 0:
            return
        yield at
        end = at
        while end and text[end - 1] == "#":
            end -= 1


def _read_box(text: str, at: int, content: str) -> tuple[str | None, bool]:
    return content, True


def _read_tag(text: str, at: int, content: str) -> tuple[str | None, bool]:
    return _TAG_END.split(content, maxsplit=1)[0], True


def _read_hashes(text: str, at: int, content: str) -> tuple[str | None, bool]:
    end = text.find("\n", at)
    end = len(text) if end < 0 else end
    line = _one_line(text[at + 4 : end].strip("# \t\r"))
    if not line:
        return _read_heading(text, at, text[end : end + MAX_ANSWER_LENGTH + 10])
    if len(line) > MAX_ANSWER_LENGTH:
        return line, True
    words = line.strip("*_ ")
    if _RESULT.fullmatch(words):
        value, _ = _read_heading(text, at, text[end : end + MAX_ANSWER_LENGTH + 10])
        return value if value and _holds_number(value) else None, False
    if _is_heading(words):
        return None, False
    last = not text[end:].strip()
    if _VALUE.match(words) or _holds_number(words):
        return _shortened(line), last or not _may_be_heading(words)
    return line, last


def _is_heading(words: str) -> bool:
    """'2. Check the result', '2.1 Setup', 'Step 1: Add', 'Total:', 'Conclusion', but not 'Total: 18', '2.5 million'."""
    if words.endswith((":", "：")) or _NUMBERED_HEADING.fullmatch(words) or _COUNTED_HEADING.match(words):
        return True
    if _SECTION_HEADING.fullmatch(words):
        return parse_number(words) is None
    if words in ("答案", "解答", "最终答案"):
        return True
    first = re.split(r"[\s:,.]", words, maxsplit=1)[0].lower()
    return first in _HEADING_WORDS and not _holds_number(words)


def _may_be_heading(words: str) -> bool:
    """'Check with n = 4', '1. $x > 3$', but not '18 apples', 'Total: 18' or 'She has 18 apples.'"""
    if words.endswith((".", "!")) or parse_number(words) is not None or ":" in words:
        return False
    return _ITEM.match(words) is not None or _FIRST_WORD.match(words) is not None


def _holds_number(words: str) -> bool:
    return any(parse_number(value) is not None for value in (words, *values_within(words)))


def _read_heading(text: str, at: int, content: str) -> tuple[str | None, bool]:
    """The line below a heading: it may be anything, but not another heading."""
    line = _line(content)
    return (None, False) if line.startswith("#") else (_shortened(line), True)


def _read_label(text: str, at: int, content: str) -> tuple[str | None, bool]:
    line = _line(content)
    if value := _JSON_VALUE.match(line):
        line = value["text"] or value["number"]
    if line.count("}") > line.count("{"):  # from JSON: {"answer": 42}
        line = line.rstrip("}` ")
    return _shortened(line), _is_certain(line)


def _read_phrase(text: str, at: int, content: str) -> tuple[str | None, bool]:
    line = _first_sentence(_line(content))
    words = line.split(maxsplit=1)
    line = line if line.isascii() else _COPULA.sub("", line)
    if words and words[0].lower().strip(",.*") in _SAYS_NOTHING and not any(c.isdigit() or c in "\\$" for c in line):
        return None, False
    return line, _is_certain(line)


def _line(content: str) -> str:
    lead = _LEAD.match(content)
    return _one_line(content[lead.end() if lead else 0 :].partition("\n")[0])


def _one_line(line: str) -> str:
    """A line up to the end of a tag or turn. Long runs of spaces would cost the readers quadratic time."""
    line = _TAG_END.split(line, maxsplit=1)[0] if "<" in line else line
    return _BLANKS.sub(" ", line.strip())


def _is_certain(line: str) -> bool:
    """Whether words after 'the answer is' are a value rather than talk: a number, mathematics, or up to four words."""
    if _VALUE.match(line) or _holds_number(line):
        return True
    words = line.split()
    return 0 < len(words) <= 4 and words[0].lower() not in _VAGUE


def _first_sentence(line: str) -> str:
    """A line up to the end of its first sentence, or all of it if the second retracts that: '5. Or maybe 6.'"""
    end = _SENTENCE_END.search(line)
    return line if end is None or _TAKES_BACK.match(line, end.end()) else line[: end.start()]


def _shortened(line: str) -> str:
    """The number that a line begins with, if sentences follow: '42. I hope it is correct.'"""
    head = _first_sentence(line)
    return head if head != line and parse_number(head) is not None else line


_READERS = {
    "box": _read_box,
    "tag": _read_tag,
    "hashes": _read_hashes,
    "heading": _read_heading,
    "label": _read_label,
    "phrase": _read_phrase,
}
