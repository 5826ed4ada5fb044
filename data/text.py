"""Text that somebody else wrote, made safe for where it goes: a file, a terminal, a Markdown or HTML page.

One function per surface. A page in HTML takes `visible` text and escapes it as all templates do (tasks/report/page.py).
"""

import re

# What moves the cursor, ends a line, turns the direction of reading or smuggles words: the control characters but tab
# and line feed, separators of lines and paragraphs, embeddings, overrides and isolates of direction, tags, and halves
# of surrogate pairs. Joiners and marks of direction stay: Persian, Indic and right-to-left texts need them.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\U000e0000-\U000e007f]"
)
_PUNCTUATION = re.compile(r"[!-/:-@\[-`{-~]")
_CUT = " … ({:,} characters in all)"


def encodable(text: str) -> str:
    """A text that every file takes: half a surrogate pair, which UTF-8 does not have, is spelled out."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def storable(text: str, longest: int | None = None) -> str:
    """A text that every database takes as well: NUL is spelled out too, and what is too long is cut.

    Args:
        longest: characters that are kept; None: all.
    """
    if longest is not None and len(text) > longest:
        text = text[:longest] + _CUT.format(len(text))
    return encodable(text.replace("\0", "\\x00"))


def visible(text: str) -> str:
    r"""A text for a terminal or a page: what would act on it or hide in it is spelled out, as `\x1b` or `\u202e`."""
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def markdown(text: str) -> str:
    """A text as one line of Markdown, or a cell of a table, in which it means only itself."""
    return _PUNCTUATION.sub(r"\\\g<0>", visible(" ".join(text.split())))
