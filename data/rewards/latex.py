r"""Remove from LaTeX what changes no value: fonts, colors, spacing, tags, sizes. '\textcolor{red}{18}' becomes '18'.

Words keep one markup, `\text{…}`, whatever command they were in. Do not pass text longer than an answer may be: nested
commands are unwrapped one after another.
"""

import re

_REPLACED = (
    (re.compile(r"\\(?:tag|label|hspace|vspace|phantom|hphantom|vphantom|color|cite|ref)\*?\s?\{[^{}]*\}"), ""),
    (re.compile(r"\\(?:textcolor|colorbox)\s?\{[^{}]*\}"), r"\\unwrap"),
    (re.compile(r"\\(?:underline|boldsymbol|bm|mathsf|mathbf|mathit|mathtt|mathnormal|ensuremath|mathop|uline|pmb)"
                r"(?=\s*\{)"), r"\\unwrap"),
    (re.compile(r"\\(?:textnormal|textbf|textit|textrm|textsf|textsc|texttt|textup|emph|mbox|hbox|mathrm|"
                r"si|unit|operatorname\*?|rm(?=\{))(?=\s*\{)"), r"\\text"),
    (re.compile(r"\{\\(?:bf|rm|it|sf|tt|sc|cal|bfseries|itshape)(?![A-Za-z])\s*([^{}]*)\}"), r"\\unwrap{\1}"),
    (re.compile(r"\\(?:bf|rm|it|sf|tt|bfseries|itshape|displaystyle|textstyle|scriptstyle|large|Large|LARGE|huge|Huge|"
                r"tiny|footnotesize|strut|mathstrut|small|normalsize|limits|nolimits|centering|noindent|notag|nonumber|"
                r"hfill)(?![A-Za-z])"), " "),
    (re.compile(r"\\(?:left|right)\s?\."), ""),
    (re.compile(r"\\(?:left|right|middle|[bB]igg?[lrm]?)(?![A-Za-z])"), ""),
    (re.compile(r"\\(?:[dtc]|nice|s)frac(?![A-Za-z])"), r"\\frac"),
    (re.compile(r"\\(?:SI|qty)\s?\{([^{}]*)\}\s?\{([^{}]*)\}"), r"\1 \\text{ \2}"),
    (re.compile(r"\\pmod\s+([0-9A-Za-z])"), r"\\pmod{\1}"),
    (re.compile(r"\\num\s?\{([^{}]*)\}"), r"\1"), (re.compile(r"\\rule\s?\{[^{}]*\}\s?\{[^{}]*\}"), ""),
    (re.compile(r"\\text\s*\{\s*(ln|log|sin|cos|tan|cot|csc|exp|arcsin|arccos|arctan|gcd|lcm)\s*\}"), r"\\\1 "),
    (re.compile(r"\\(?:lvert|rvert|vert)(?![A-Za-z])"), "|"),
    (re.compile(r"\\lbrace(?![A-Za-z])"), r"\\{"), (re.compile(r"\\rbrace(?![A-Za-z])"), r"\\}"),
    (re.compile(r"\\leq(?:slant|q)(?![A-Za-z])"), r"\\le"), (re.compile(r"\\geq(?:slant|q)(?![A-Za-z])"), r"\\ge"),
    (re.compile(r"\\varnothing(?![A-Za-z])"), r"\\emptyset"),
    (re.compile(r"\^?\s*\\(?:text)?degree(?![A-Za-z])|\^\s*\\circ(?![A-Za-z])|\^\s*\{\s*\\circ\s*\}"), "°"),
    (re.compile(r"\\(?:pounds|textsterling)(?![A-Za-z])"), "£"), (re.compile(r"\\(?:text)?euro(?![A-Za-z])"), "€"),
    (re.compile(r"\\(?:text)?yen(?![A-Za-z])"), "¥"), (re.compile(r"\\textdollar(?![A-Za-z])|\\\$"), "$"),
    (re.compile(r"\\(?:imath)(?![A-Za-z])"), "i"), (re.compile(r"\\mathbb\s+([A-Z])"), r"\\mathbb{\1}"),
    (re.compile(r"\\sqrt\s*\(([^()]*)\)"), r"\\sqrt{\1}"),
    (re.compile(r"\\(?:blacksquare|square|Box|qed|qedsymbol|checkmark|therefore|because)(?![A-Za-z])"), " "),
    (re.compile(r"(?<=[0-9])\s*(?:,\s*\\!|(?<!\\)\\,|\\thinspace(?![A-Za-z]))\s*(?=[0-9]{3}(?![0-9]))"), ","),
    (re.compile(r"(?<!\\)\\[,;:> ]|\\(?:enspace|enskip|thinspace|medspace|thickspace|space|nobreak)(?![A-Za-z])"), " "),
    (re.compile(r"(?<!\\)\\!|\\negthinspace(?![A-Za-z])"), ""),
    (re.compile(r"\\%"), "%"), (re.compile(r"\\#"), "#"), (re.compile(r"\\&"), "&"),
)  # fmt: skip
_GROUPED = re.compile(r"(?<=[0-9])\s*\{,\}\s*(?=[0-9]{3}(?![0-9]))")
_COMMAND = re.compile(r"\\(?:[A-Za-z]+|.)", re.DOTALL)
# Commands that nothing above replaces: most answers have no others.
_PLAIN_COMMANDS = frozenset(
    rf"\{name}"
    for name in (
        "frac sqrt pi cdot times infty cup cap pm ln log sin cos tan alpha beta theta le leq ge geq in text { }"
    ).split()
)
_EDGES = re.compile(r"^(?:\s|\\q?quad(?![A-Za-z])|\\\\)+|(?:\s|\\q?quad|\\\\|\\newline)+$")
_QUAD_BEFORE_TEXT = re.compile(r"\\q?quad\s*(?=\\text)")
_ONE_LETTER = re.compile(r"\\text\s*\{\s*([ie])\s*\}")
_SHOWN_BRACKETS = re.compile(r"[()\[\]]|\\[{}]")
_BETWEEN_BRACKETS = re.compile(r"(?<=\()\s+(?=\()|(?<=\))\s+(?=\))")
_BRACKETS = re.compile(r"\\.|[(){}\[\]]", re.DOTALL)
_CLOSES = {")": "(", "}": "{", "]": "["}


def plain_latex(text: str) -> str:
    """`text` in one spelling; its value as LaTeX is unchanged."""
    if "{,}" in text:
        text = _GROUPED.sub(",", text)
    if "\\" in text:
        if "sqrt(" in text or not _PLAIN_COMMANDS.issuperset(_COMMAND.findall(text)):
            for pattern, replacement in _REPLACED:
                text = pattern.sub(replacement, text)
        while "\\unwrap" in text and (unwrapped := _unwrapped(text)) != text:
            text = unwrapped
        text = _QUAD_BEFORE_TEXT.sub(" ", _ONE_LETTER.sub(r"\1", text))
        text = _EDGES.sub("", text)
    if "( (" in text:
        text = _BETWEEN_BRACKETS.sub("", text)
    return collapse_brackets(text) if "((" in text or "{{" in text else text


def collapse_brackets(text: str) -> str:
    """'((2))' becomes '(2)', and '{{2}}' '{2}'. Math-Verify's time grows fast with the depth of brackets."""
    partner = _partners(text)
    dropped = {
        at for at, closing in partner.items() if text[at] != "[" and text[at + 1 : at + 2] == text[at]
        and partner.get(at + 1) == closing - 1
    }  # fmt: skip
    dropped |= {partner[at] for at in dropped}
    return "".join(sign for at, sign in enumerate(text) if at not in dropped)


def balanced(text: str) -> bool:
    """Whether every brace has its counterpart."""
    depth = 0
    for token in _BRACKETS.findall(text):
        depth += (token == "{") - (token == "}")
        if depth < 0:
            return False
    return depth == 0


def depth(text: str) -> int:
    """How deep brackets are nested, not counting the braces of commands."""
    deepest = level = 0
    for token in _SHOWN_BRACKETS.findall(text):
        level += 1 if token in ("(", "[", r"\{") else -1
        deepest = max(deepest, level)
    return deepest


def _partners(text: str) -> dict[int, int]:
    """The position of each opening bracket mapped to that of the one that closes it."""
    found: dict[int, int] = {}
    waiting: list[int] = []
    for match in _BRACKETS.finditer(text):
        sign = match[0]
        if sign in ("(", "{", "["):
            waiting.append(match.start())
        elif sign in _CLOSES and waiting and text[waiting[-1]] == _CLOSES[sign]:
            found[waiting.pop()] = match.start()
    return found


def _unwrapped(text: str) -> str:
    before, _, rest = text.rpartition("\\unwrap")
    rest = rest.lstrip()
    closing = _partners(rest).get(0) if rest.startswith("{") else None
    return before + (rest if closing is None else rest[1:closing] + rest[closing + 1 :])
