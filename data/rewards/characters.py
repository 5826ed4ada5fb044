r"""Normalize what people and models type to one spelling: '3×10⁸' becomes '3\times 10^{8}', '４２。' becomes '42.'.

Invisible or decorative characters (direction marks, emoji, check marks), special tokens and HTML tags are removed.
ASCII text without '<' or '&' is returned unchanged.
"""

import html
import re
import unicodedata

_TOKENS = re.compile(
    r"<[|｜][^<>|｜\n]{1,40}[|｜]>|</?(?:s|eos|bos|pad|unk|eot|end|end_of_turn|start_of_turn|answer|final_answer)>|"
    r"\[/?(?:INST|EOS|PAD|SEP|END|UNK)\]",
    re.IGNORECASE,
)
_MARKS = ("[/", "[E", "[PAD", "[SEP", "[UNK")
_SUPERSCRIPT_TAG = re.compile(r"<sup>([^<>]{1,20})</sup>", re.IGNORECASE)
_SUBSCRIPT_TAG = re.compile(r"<sub>([^<>]{1,20})</sub>", re.IGNORECASE)
_TAGS = re.compile(
    r"</?(?:br|b|i|u|p|em|strong|span|div|code|center|font|mark|h[1-6]|li|ul|ol|pre|tt|small|big)\b[^<>\n]{0,80}>",
    re.IGNORECASE,
)
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n")
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉₊₋ₙ", "0123456789+-n")
_STRUCK = re.compile(r"~~[^~\n]{1,100}~~")
_RAISED = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+")
_LOWERED = re.compile("[₀₁₂₃₄₅₆₇₈₉₊₋ₙ]+")
_ROOT = re.compile(r"(?P<root>[√∛∜])\s*(?:\((?P<inner>[^()]*)\)|(?P<bare>[0-9]+|[A-Za-z]))")
_ROOTS = {"√": "", "∛": "[3]", "∜": "[4]"}
_CALCULATED = re.compile(r"<<[^<>\n]{1,100}>>")
_GREEK = {
    **dict(zip("αβγδεζηθικλμνξπρστφχψω", (
        "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau phi chi psi omega"
    ).split(), strict=True)),
    **dict(zip("ΓΔΘΛΞΠΣΦΨΩ", "Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega".split(), strict=True)),
}  # fmt: skip
_SIGNS = {
    "∞": "infty",
    "∪": "cup",
    "∩": "cap",
    "≤": "le",
    "≥": "ge",
    "⩽": "le",
    "⩾": "ge",
    "≠": "ne",
    "×": "times",
    "·": "cdot",
    "⋅": "cdot",
    "∙": "cdot",
    "÷": "div",
    "±": "pm",
    "∈": "in",
    "∅": "emptyset",
    "≈": "approx",
    "∠": "angle",
    "△": "triangle",
    "ℝ": "mathbb{R}",
    "ℤ": "mathbb{Z}",
    "ℕ": "mathbb{N}",
    "∨": "vee",
    "∓": "mp",
    "→": "to",
    "⇒": "to",
}
_PLAIN = {
    **dict.fromkeys("−–‐‑‒﹣", "-"), "—": " — ", "⁄": "/", "∕": "/", "。": ".", "、": ",", "｡": ".", "「": "", "」": "",
    "【": "", "】": "", "《": "", "》": "", "℃": "°C", "℉": "°F", "‘": "'", "’": "'", "…": r"\ldots ", "‰": "‰",
    "½": " 1/2", "¼": " 1/4", "¾": " 3/4", "⅓": " 1/3", "⅔": " 2/3", "⅕": " 1/5", "⅖": " 2/5", "⅗": " 3/5",
    "⅘": " 4/5", "⅙": " 1/6", "⅚": " 5/6", "⅛": " 1/8", "⅜": " 3/8", "⅝": " 5/8", "⅞": " 7/8", "°": "°", "√": "√",
    "⅐": " 1/7", "⅑": " 1/9", "⅒": " 1/10", "∛": "∛", "∜": "∜", "∴": "", "￥": "¥", "￡": "£", "￦": "₩", "\u20e3": "",
    "º": "°", "˚": "°",    "❌": "❌", "✗": "✗", "✘": "✘", "∎": "", "�": "",
}  # fmt: skip
# Non-breaking spaces separate groups of three digits; '~' is LaTeX's non-breaking space.
_BLANKS = dict.fromkeys("\u00a0\u2009\u202f\u2007\u2008", "~")


class _Table(dict[int, str]):
    """The replacement of each character, computed when it is first met."""

    def __missing__(self, code: int) -> str:
        self[code] = becomes = _becomes(chr(code))
        return becomes


def _becomes(sign: str) -> str:
    if 0xFF01 <= ord(sign) <= 0xFF5E:  # full width
        return chr(ord(sign) - 0xFEE0)
    if (command := _SIGNS.get(sign) or _GREEK.get(sign)) is not None:
        return rf"\{command} "
    if (plain := _PLAIN.get(sign) or _BLANKS.get(sign)) is not None or sign in _PLAIN:
        return plain or ""
    if 0x1D400 <= ord(sign) <= 0x1D7FF:  # letters and digits in mathematical fonts
        return unicodedata.normalize("NFKC", sign)
    if sign.isspace():
        return "\n" if sign in "\u2028\u2029" else " "
    category = unicodedata.category(sign)
    # Not combining marks in general: they belong to letters. Variation selectors after an emoji are removed.
    shows_nothing = (
        category in ("Cf", "So", "Co", "Cs") or 0xFE00 <= ord(sign) <= 0xFE0F or 0x1F3FB <= ord(sign) <= 0x1F3FF
    )
    return "" if shows_nothing else sign


_TABLE = _Table({code: chr(code) for code in range(128)})


def plain_characters(text: str) -> str:
    """`text` in the spelling of characters that the readers of numbers and mathematics know."""
    if "<" in text or "&" in text or ("[" in text and any(mark in text for mark in _MARKS)):
        text = _without_tags(text)
    if "~~" in text:
        text = _STRUCK.sub(" ", text)
    if text.isascii():
        return text
    text = unicodedata.normalize("NFC", text)
    text = _RAISED.sub(lambda found: f"^{{{found[0].translate(_SUPERSCRIPTS)}}}", text)
    text = _LOWERED.sub(lambda found: f"_{{{found[0].translate(_SUBSCRIPTS)}}}", text)
    text = text.translate(_TABLE)
    return _ROOT.sub(lambda found: rf"\sqrt{_ROOTS[found['root']]}{{{found['inner'] or found['bare']}}}", text)


def _without_tags(text: str) -> str:
    text = _TOKENS.sub(" ", _CALCULATED.sub("", text))
    text = _SUPERSCRIPT_TAG.sub(r"^{\1}", text)
    text = _SUBSCRIPT_TAG.sub(r"_{\1}", text)
    text = _TAGS.sub(" ", text)
    return html.unescape(text) if "&" in text else text
